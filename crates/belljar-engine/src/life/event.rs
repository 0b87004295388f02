use std::time::Duration;

use belljar_audit::{FetchTry, Found};
use belljar_core::{AttemptId, Digest, FetchDigest, InputName, Inputs, Outcome, RelPath};

use super::{Bundle, Collected, Evidence, Publication};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a free slot for a queued build.
    SlotFree,
    /// Somebody asked for the end.
    CancelRequested {
        /// Who.
        by: String,
        /// Why, in their own words, if they gave any.
        reason: Option<String>,
    },
    /// The daemon was restarted: whatever was being done may have been done, or not.
    Recovered,
    /// The daemon cannot keep the build's record any more: it must end, without a statement.
    Condemned {
        /// Why.
        why: String,
    },
    /// The audit trail says that the build has ended, and the daemon died before it was its state: nothing is left
    /// to be done or to be written down.
    Finished {
        /// How.
        outcome: Outcome,
    },
    /// Something about one attempt.
    Attempt {
        /// Which.
        attempt: AttemptId,
        /// What.
        what: Progress,
    },
}

/// Something that happened to an attempt, mostly the answer to an [`Effect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What it declares by digest was looked for.
    Fetched(Fetched),
    /// Its inputs are there.
    Staged,
    /// Its steps run.
    Launched,
    /// They have ended.
    Exited {
        /// How.
        outcome: Outcome,
    },
    /// Its receipt is durable.
    Collected {
        /// Digest of the receipt file.
        receipt: Digest,
        /// The final outcome by the receipt.
        outcome: Outcome,
        /// Entries of its output manifest.
        outputs: u64,
    },
    /// The spawner could not stage, launch or collect it.
    Failed {
        /// How the attempt ends by this.
        outcome: Outcome,
    },
    /// The spawner went away, and with it every sandbox.
    SpawnerLost {
        /// What was seen of it.
        why: String,
    },
    /// The signer has signed; the bundle is durable.
    Attested {
        /// What was signed.
        bundle: Bundle,
    },
    /// The signer has not signed.
    AttestRefused {
        /// Whether asking again may help.
        retryable: bool,
        /// Why.
        reasons: Vec<String>,
        /// For how many tries it counts: one that was waited for in vain counts as many as there would have been.
        tries: u32,
    },
    /// The evidence is in the store.
    Published {
        /// What it is.
        evidence: Box<Evidence>,
    },
    /// It is not.
    PublishFailed {
        /// Why.
        why: String,
        /// For how many tries it counts: one that was waited for in vain counts as many as there would have been.
        tries: u32,
    },
    /// Nothing of it is left.
    Destroyed,
}

/// What came of the fetches of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What is to be told of each that was looked for.
    pub reports: Vec<FetchReport>,
    /// Their trees, all of them; or how the attempt ends.
    pub result: Result<Inputs, Outcome>,
}

/// What is told of one fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchReport {
    /// The name that it has in the specification.
    pub name: InputName,
    /// Which of its submodules it is; none for the thing itself.
    pub submodule: Option<RelPath>,
    /// By what it is known.
    pub digest: FetchDigest,
    /// What was found of it.
    pub found: Found,
    /// Why the build has not got it; none if it has.
    pub refused: Option<String>,
    /// The URLs that were tried, in order.
    pub tries: Vec<FetchTry>,
}

/// Something to be done, in the order given. Every effect but [`Effect::Record`] is about the attempt
/// that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this down durably, before what follows.
    Record(Fact),
    /// Have fetched what it declares by digest.
    Fetch(AttemptId),
    /// Have the inputs mounted.
    Stage(AttemptId),
    /// Have the sandbox made and the steps started.
    Launch(AttemptId),
    /// Wait for the end of the steps.
    AwaitExit(AttemptId),
    /// Have the attempt ended; its other effects still answer.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Who asked.
        by: String,
    },
    /// Have outputs and receipt taken.
    Collect(AttemptId),
    /// Ask for a statement.
    Attest {
        /// About what.
        collected: Collected,
        /// How long to wait before.
        delay: Duration,
    },
    /// Put the evidence into the store.
    Publish {
        /// The attempt that it is about.
        attempt: AttemptId,
        /// What it is.
        publication: Publication,
        /// How long to wait before.
        delay: Duration,
    },
    /// Have everything of the attempt removed.
    Destroy(AttemptId),
}

/// Something for the build's audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An attempt begins.
    AttemptStarted(AttemptId),
    /// Something was looked for that it declares by digest.
    Fetched(AttemptId, FetchReport),
    /// Its inputs were verified and mounted.
    Staged(AttemptId),
    /// Its containment was read back, its steps run.
    Launched(AttemptId),
    /// It has ended; the outcome is not final before the receipt.
    Exited(AttemptId, Outcome),
    /// Its receipt was written.
    Collected {
        /// Which attempt's.
        attempt: AttemptId,
        /// Digest of the receipt file.
        receipt: Digest,
        /// The outcome in it.
        outcome: Outcome,
        /// Entries of its output manifest.
        outputs: u64,
    },
    /// A statement was signed.
    Signed {
        /// About which attempt.
        attempt: AttemptId,
        /// What was signed.
        bundle: Bundle,
    },
    /// No statement was signed.
    SigningRefused {
        /// About which attempt.
        attempt: AttemptId,
        /// Why.
        reasons: Vec<String>,
    },
    /// Nothing of the attempt is left.
    Destroyed(AttemptId),
    /// The daemon was restarted in the middle.
    Recovered {
        /// In the middle of which attempt.
        attempt: AttemptId,
        /// In the middle of what.
        stage: &'static str,
    },
    /// Somebody asked for the end.
    CancelRequested {
        /// Who.
        by: String,
        /// Why, in their own words, if they gave any.
        reason: Option<String>,
    },
    /// The build has ended.
    Finished(Outcome),
}

impl Event {
    /// A short stable word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SlotFree => "slot_free",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::Recovered => "recovered",
            Self::Condemned { .. } => "condemned",
            Self::Finished { .. } => "finished",
            Self::Attempt { what, .. } => what.name(),
        }
    }
}

impl Progress {
    /// A short stable word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fetched(_) => "fetched",
            Self::Staged => "staged",
            Self::Launched => "launched",
            Self::Exited { .. } => "exited",
            Self::Collected { .. } => "collected",
            Self::Failed { .. } => "failed",
            Self::SpawnerLost { .. } => "spawner_lost",
            Self::Attested { .. } => "attested",
            Self::AttestRefused { .. } => "attest_refused",
            Self::Published { .. } => "published",
            Self::PublishFailed { .. } => "publish_failed",
            Self::Destroyed => "destroyed",
        }
    }
}
