use belljar_core::{
    AttemptId, Digest, FetchDigest, InputName, ObjectId, Outcome, ProjectId, RelPath, RequestId,
    bounds,
};
use serde::{Deserialize, Serialize};

/// One security-relevant thing that happened to a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AuditEvent {
    /// Somebody submitted the build.
    Submitted {
        /// The principal, such as `unix:uid=0`.
        by: String,
        /// How that was established, such as `SO_PEERCRED`.
        authenticated_by: String,
        /// The client's own name for the submission, if it gave one.
        request_id: Option<RequestId>,
        /// For which project; none in trails of before there were any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project: Option<ProjectId>,
        /// Digest of the canonical specification.
        spec: Digest,
    },
    /// Policy admitted or refused it.
    Decided {
        /// Whether it may run.
        admitted: bool,
        /// Why (not), one sentence each.
        reasons: Vec<String>,
    },
    /// An attempt began.
    AttemptStarted {
        /// Which.
        attempt: AttemptId,
    },
    /// Something that the specification declares by digest was looked for: in the store, else at its URLs; or among what
    /// earlier builds have left.
    Fetched {
        /// For which attempt.
        attempt: AttemptId,
        /// The name that it has in the specification.
        name: InputName,
        /// Which of its submodules it is; none for the thing itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        submodule: Option<RelPath>,
        /// By what it is known.
        digest: FetchDigest,
        /// What was found of it.
        found: Found,
        /// Why the build has not got it; none if it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
        /// The URLs that were tried, in order.
        tries: Vec<FetchTry>,
    },
    /// Its inputs were verified and mounted.
    Staged {
        /// For which attempt.
        attempt: AttemptId,
        /// The input tree.
        tree: ObjectId,
    },
    /// The sandbox was read back and the build let go.
    Launched {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The build ended and its cgroup was seen empty. A success is not final: outputs may be refused.
    Ended {
        /// Which attempt.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
    },
    /// Outputs were taken (after a success), the sandbox was torn down, the receipt is durable.
    Collected {
        /// Which attempt.
        attempt: AttemptId,
        /// Digest of the receipt file.
        receipt: Digest,
        /// How many entries the receipt's output manifest has.
        outputs: u64,
        /// The attempt's final outcome.
        outcome: Outcome,
    },
    /// The signer was asked. The statement names the trail up to and including this entry.
    AttestationRequested {
        /// For which attempt.
        attempt: AttemptId,
    },
    /// The signer made a bundle.
    Signed {
        /// For which attempt.
        attempt: AttemptId,
        /// Digest of the bundle file.
        bundle: Digest,
        /// The key, as its OpenSSH fingerprint.
        key_id: String,
    },
    /// The signer did not sign.
    SigningRefused {
        /// Which attempt.
        attempt: AttemptId,
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
    /// Nothing of the attempt is left.
    Destroyed {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// belljard restarted and found the attempt in flight.
    Recovered {
        /// Which attempt.
        attempt: AttemptId,
        /// In which state of belljard's own it was found, such as `running`.
        state: String,
    },
    /// Somebody asked for the end.
    CancelRequested {
        /// The principal.
        by: String,
        /// Why, in that one's own words, if any were given.
        reason: Option<String>,
    },
    /// The build has its final outcome; no further attempt follows.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// What was found of something that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Found {
    /// The project had it already: nothing was fetched.
    Present {
        /// It.
        content: ObjectId,
        /// What was made of it.
        tree: Option<ObjectId>,
    },
    /// It came.
    Fetched {
        /// It.
        content: ObjectId,
        /// What was made of it.
        tree: Option<ObjectId>,
    },
    /// An earlier build had left it.
    Left {
        /// The attempt that did.
        by: AttemptId,
        /// To which project it belongs.
        project: ProjectId,
        /// `builder.id` by its provenance.
        builder: String,
        /// SHA-256 of the bundle file with that.
        provenance: Digest,
        /// What was made of it.
        tree: Option<ObjectId>,
    },
    /// Nothing.
    Nothing {},
}

/// One URL that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchTry {
    /// As the specification gives it.
    pub url: String,
    /// Where redirects have led, if they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_url: Option<String>,
    /// The address that was last connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The last status (RFC 9110, section 15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of content that came.
    pub bytes: u64,
    /// Digest of what came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Whether another build had begun with it: what is told here is told to both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Why it came to nothing, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl AuditEvent {
    /// Facts that nobody but belljard vouches for, by their names in the entry, sorted. `event` alone
    /// means that the event as a whole is such a fact. The time always is: it is belljard's clock.
    pub fn asserted(&self) -> &'static [&'static str] {
        match self {
            Self::Submitted { project: None, .. } => &[
                "event.authenticated_by",
                "event.by",
                "event.request_id",
                "time",
            ],
            Self::Submitted {
                project: Some(_), ..
            } => &[
                "event.authenticated_by",
                "event.by",
                "event.project",
                "event.request_id",
                "time",
            ],
            Self::Decided { .. }
            | Self::Fetched { .. }
            | Self::SigningRefused { .. }
            | Self::Destroyed { .. }
            | Self::Recovered { .. }
            | Self::CancelRequested { .. }
            | Self::Finished { .. } => &["event", "time"],
            // In the receipt, in the bundle, or named by the statement.
            Self::AttemptStarted { .. }
            | Self::Staged { .. }
            | Self::Launched { .. }
            | Self::Ended { .. }
            | Self::Collected { .. }
            | Self::AttestationRequested { .. }
            | Self::Signed { .. } => &["time"],
        }
    }

    /// The attempt that this is about; none for what concerns the build as a whole.
    pub fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Self::AttemptStarted { attempt }
            | Self::Fetched { attempt, .. }
            | Self::Staged { attempt, .. }
            | Self::Launched { attempt }
            | Self::Ended { attempt, .. }
            | Self::Collected { attempt, .. }
            | Self::AttestationRequested { attempt }
            | Self::Signed { attempt, .. }
            | Self::SigningRefused { attempt, .. }
            | Self::Destroyed { attempt }
            | Self::Recovered { attempt, .. } => Some(attempt),
            Self::Submitted { .. }
            | Self::Decided { .. }
            | Self::CancelRequested { .. }
            | Self::Finished { .. } => None,
        }
    }

    /// The same event with its free texts cut, visibly, to what certainly fits one entry. Reasons may
    /// quote what a hostile build wrote, and no such text may keep a fact out of the trail.
    pub(crate) fn shortened(mut self) -> Self {
        match &mut self {
            Self::Submitted {
                by,
                authenticated_by,
                ..
            } => {
                cut(by);
                cut(authenticated_by);
            }
            Self::Decided { reasons, .. } | Self::SigningRefused { reasons, .. } => {
                cut_all(reasons)
            }
            Self::Ended { outcome, .. }
            | Self::Collected { outcome, .. }
            | Self::Finished { outcome } => {
                cut_outcome(outcome);
            }
            Self::Fetched {
                found,
                refused,
                tries,
                ..
            } => {
                refused.iter_mut().for_each(cut);
                if let Found::Left { builder, .. } = found {
                    cut(builder);
                }
                // URLs have a bound of their own: with all of them in two forms the entry has its bound.
                tries.truncate(bounds::FETCH_MIRRORS);
                tries
                    .iter_mut()
                    .flat_map(|one| &mut one.refused)
                    .for_each(cut);
            }
            Self::Signed { key_id: text, .. } | Self::Recovered { state: text, .. } => {
                cut(text);
            }
            Self::CancelRequested { by, reason } => {
                cut(by);
                reason.iter_mut().for_each(cut);
            }
            Self::AttemptStarted { .. }
            | Self::Staged { .. }
            | Self::Launched { .. }
            | Self::AttestationRequested { .. }
            | Self::Destroyed { .. } => {}
        }
        self
    }
}

/// Bytes that are kept of one free text. JSON writes a byte as six at the most (`\u0000`), so sixteen of
/// these and the mark fit [`belljar_core::bounds::AUDIT_ENTRY_BYTES`].
const TEXT_BYTES: usize = 512;
/// Texts that are kept of one list.
const TEXTS: usize = 15;

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES {
        let dropped = text.len() - text.floor_char_boundary(TEXT_BYTES);
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        text.push_str(&format!("… [{dropped} bytes cut]"));
    }
}

fn cut_all(texts: &mut Vec<String>) {
    if texts.len() > TEXTS {
        let dropped = texts.len() - TEXTS;
        texts.truncate(TEXTS);
        texts.push(format!("… [{dropped} more cut]"));
    }
    texts.iter_mut().for_each(cut);
}

fn cut_outcome(outcome: &mut Outcome) {
    match outcome {
        Outcome::OutputRejected { why } => cut(why),
        Outcome::Cancelled { by, reason } => {
            cut(by);
            reason.iter_mut().for_each(cut);
        }
        Outcome::Refused { reasons } => cut_all(reasons),
        Outcome::Infrastructure { stage, why, .. } => {
            cut(stage);
            cut(why);
        }
        // A path is bounded, and JSON writes no byte of it as more than two.
        Outcome::LimitExceeded { .. }
        | Outcome::Succeeded
        | Outcome::Failed { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut { .. } => {}
    }
}
