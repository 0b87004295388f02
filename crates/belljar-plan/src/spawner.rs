//! Messages between belljard and the spawner. belljard sends [`Request`]s and the spawner answers each
//! with one [`Answer`] of the same number, not always in order; [`Message::Exited`] comes unasked.

use belljar_core::{AttemptId, Digest, Outcome};
use serde::{Deserialize, Serialize};

use crate::{HostReport, Plan, Usage};

/// What belljard asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by belljard; comes back in the answer.
    pub number: u64,
    /// What is asked.
    pub operation: Operation,
}

/// Everything that belljard may ask. There are no paths and no descriptors in it: digests, a plan and
/// the names of attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// What does the host offer?
    Probe,
    /// Which attempts are known? Asked after a restart of belljard.
    List,
    /// Have the store verify and lay out the inputs. Answered when they are there.
    Stage {
        /// The attempt; must be new.
        attempt: AttemptId,
        /// Digest of the canonical specification. The spawner cannot check it; it goes into the receipt,
        /// where the signer does.
        spec: Digest,
        /// What to run.
        plan: Box<Plan>,
    },
    /// Make the sandbox and start the build. Answered when the barrier was passed.
    Launch {
        /// A staged attempt.
        attempt: AttemptId,
    },
    /// End it, in whatever state it is. Answered at once; [`Message::Exited`] follows if it ran. What runs
    /// gets SIGTERM, and is killed when the plan's `grace_seconds` are over.
    Kill {
        /// A known attempt.
        attempt: AttemptId,
        /// Who asked: the receipt says so, in belljard's words. At most
        /// [`PRINCIPAL_BYTES`](belljar_core::bounds::PRINCIPAL_BYTES) without control characters.
        by: String,
    },
    /// What has it used so far?
    Usage {
        /// A running attempt.
        attempt: AttemptId,
    },
    /// Take the outputs (after a success), tear down, write the receipt. Answered when that is durable.
    Collect {
        /// An attempt that has ended, or that never ran.
        attempt: AttemptId,
    },
    /// Forget it: kill, tear down and release whatever is left. Fine in every state, also for an unknown
    /// attempt.
    Destroy {
        /// The attempt.
        attempt: AttemptId,
    },
}

impl Operation {
    /// The `kind` of its serialised form.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::List => "list",
            Self::Stage { .. } => "stage",
            Self::Launch { .. } => "launch",
            Self::Kill { .. } => "kill",
            Self::Usage { .. } => "usage",
            Self::Collect { .. } => "collect",
            Self::Destroy { .. } => "destroy",
        }
    }
}

/// What the spawner sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// The answer to one request.
    Answer {
        /// The request's number.
        number: u64,
        /// What is answered.
        answer: Answer,
    },
    /// A build has ended and its cgroup was seen empty.
    Exited {
        /// Which.
        attempt: AttemptId,
        /// How. An outcome of success is not final: the outputs may be refused.
        outcome: Outcome,
    },
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To `Probe`.
    Host(HostReport),
    /// To `List`.
    Attempts {
        /// Every attempt that was not destroyed.
        attempts: Vec<AttemptId>,
    },
    /// To `Stage`: the inputs are there.
    Staged,
    /// To `Launch`: the sandbox was read back, the build runs.
    Launched,
    /// To `Kill`.
    Killing,
    /// To `Usage`.
    Used(Usage),
    /// To `Collect`: the receipt is durable.
    Collected {
        /// Digest of the receipt file.
        receipt: Digest,
        /// The final outcome.
        outcome: Outcome,
    },
    /// To `Destroy`.
    Destroyed,
    /// The request was refused or failed. The attempt, if there is one, can only be collected (which
    /// gives a receipt of the failure) or destroyed.
    Failed {
        /// How the attempt ends by this.
        outcome: Outcome,
    },
}
