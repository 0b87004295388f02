//! The life of one build, without any I/O: [`step`] takes what a build is and what happened, and gives
//! what it is then and what is to be done. Whoever drives it commits the former before doing the latter.
//!
//! ```text
//! Queued ─▶ Fetching ─▶ Staging ─▶ Launching ─▶ Running ─▶ Collecting ─▶ Attesting ─▶ Publishing ─▶ Destroying ─▶ Ended
//!   ▲           └──────────┴───────────┤           └── not a success ──────────▲             │
//!   │                                  └── an attempt is left, another may mend it ────────▶ │
//!   └─────────────────────────────────────────────────────────────────────────────────────── ┘
//! ```
//!
//! * What started is destroyed before another attempt starts and before the build ends.
//! * Only a [`Collected`] of a success leads to attestation, and nothing leads from there to another
//!   attempt: a build is attested at most once.
//! * After a restart a build whose attempt might still be running starts over; one that was being
//!   attested or later goes on, because all that is done from there may be done twice.

mod event;
mod evidence;
mod step;
#[cfg(test)]
mod tests;

use std::fmt;

use belljar_core::{AttemptId, BuildId, Digest, Inputs, ObjectId, Outcome, Timestamp};
use belljar_plan::LogRecord;
use serde::{Deserialize, Serialize};

pub use event::{Effect, Event, Fact, FetchReport, Fetched, Progress};
pub(crate) use evidence::LONGEST_PAUSE;
pub use step::step;

/// One build: where it stands and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// How many transitions it has made.
    pub sequence: u64,
    /// Where it stands.
    pub stage: Stage,
    /// Whether anything is fetched before an attempt is staged.
    #[serde(default)]
    pub fetches: bool,
    /// What came of that, when it has come.
    #[serde(default)]
    pub fetched: Inputs,
    /// The last attempt that was started; none before the first.
    pub attempt: Option<AttemptId>,
    /// Who first asked for its end, if somebody did.
    pub cancelled_by: Option<String>,
    /// Why, in that one's own words, if any were given.
    #[serde(default)]
    pub cancel_reason: Option<String>,
    /// What was published about it.
    pub evidence: Option<Evidence>,
    /// When its first attempt was started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When it last changed.
    pub updated: Timestamp,
}

/// Where a build stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Stage {
    /// It waits for a free slot.
    Queued,
    /// What it declares by digest is being fetched.
    Fetching,
    /// Its inputs are being verified and mounted.
    Staging,
    /// Its sandbox is being made.
    Launching,
    /// Its steps run.
    Running,
    /// Its outputs and its receipt are being taken.
    Collecting {
        /// How the attempt ended, as far as is known before that.
        cause: Outcome,
    },
    /// The signer is asked for a statement.
    Attesting {
        /// What is to be attested.
        collected: Collected,
        /// How often the signer was asked in vain.
        tries: u32,
    },
    /// Its evidence is being put into the store.
    Publishing {
        /// What is to be published.
        publication: Publication,
        /// How often that failed.
        tries: u32,
    },
    /// What is left of its attempt is being removed.
    Destroying {
        /// What comes then.
        next: Next,
    },
    /// It has ended.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// Proof that an attempt succeeded and was collected: only a step of a build's life makes one, out of
/// the spawner's answer for that very attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collected {
    attempt: AttemptId,
    receipt: Digest,
}

/// What is to be published about a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// How the build will end.
    pub outcome: Outcome,
    /// The receipt of its last attempt, if one was written.
    pub receipt: Option<Digest>,
    /// The signed bundle, if there is one.
    pub bundle: Option<Bundle>,
}

/// A signed bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The bundle file.
    pub object: ObjectId,
    /// The key that signed it: its OpenSSH fingerprint.
    pub key_id: String,
}

/// What comes when an attempt has been destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Next {
    /// Another attempt.
    Requeue {
        /// Why the last one did not count.
        why: Outcome,
    },
    /// The end.
    End {
        /// How.
        outcome: Outcome,
    },
}

/// What was published about a build: objects of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The attempt that it is about.
    pub attempt: AttemptId,
    /// The canonical specification.
    pub spec: ObjectId,
    /// The canonical plan.
    pub plan: ObjectId,
    /// The audit trail: of an attested build, the part that the statement names.
    pub audit_trail: ObjectId,
    /// The receipt, if one was written.
    pub receipt: Option<ObjectId>,
    /// The signed bundle about the receipt, if there is one.
    #[serde(default)]
    pub receipt_bundle: Option<ObjectId>,
    /// The log, if one was opened.
    pub log: Option<LogRecord>,
    /// The signed bundle, if there is one.
    pub bundle: Option<Bundle>,
    /// Whether each outermost directory that it left is in the store as a REAPI `Tree`: which these are, the receipt tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trees: bool,
}

/// An event that makes no sense where the build stands; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is unexpected while the build is {stage}")]
pub struct Unexpected {
    /// What happened.
    pub event: &'static str,
    /// Where the build stood.
    pub stage: &'static str,
}

impl Build {
    /// A build that was just accepted.
    pub fn new(id: BuildId, now: Timestamp) -> Self {
        Self {
            fetches: false,
            fetched: Inputs::default(),
            id,
            sequence: 1,
            stage: Stage::Queued,
            attempt: None,
            cancelled_by: None,
            cancel_reason: None,
            evidence: None,
            started: None,
            ended: None,
            updated: now,
        }
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.stage {
            Stage::Ended { outcome } => Some(outcome),
            _ => None,
        }
    }

    /// The digest of its receipt, as soon as there is one that counts.
    pub fn receipt(&self) -> Option<Digest> {
        match &self.stage {
            Stage::Attesting { collected, .. } => Some(collected.receipt),
            Stage::Publishing { publication, .. } => publication.receipt,
            _ => self.evidence.as_ref()?.receipt.map(|object| object.digest),
        }
    }
}

impl Stage {
    /// A short stable word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Fetching => "fetching",
            Self::Staging => "staging",
            Self::Launching => "launching",
            Self::Running => "running",
            Self::Collecting { .. } => "collecting",
            Self::Attesting { .. } => "attesting",
            Self::Publishing { .. } => "publishing",
            Self::Destroying { .. } => "destroying",
            Self::Ended { .. } => "ended",
        }
    }
}

impl Collected {
    /// The attempt.
    pub fn attempt(&self) -> &AttemptId {
        &self.attempt
    }

    /// Digest of its receipt file.
    pub fn receipt(&self) -> Digest {
        self.receipt
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
