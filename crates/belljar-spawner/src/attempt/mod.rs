//! One attempt, from `Stage` to its receipt. Everything that happens to it comes as a call of one of its
//! methods from the event loop; nothing here waits.
//!
//! ```text
//! Staging → Staged → Launching → Running → Dying → Ended
//!         → FinishingLog → Collecting → Verifying → Unmounting → Releasing → Done
//! ```
//! What fails on the way to `Ended` ends there at once; from `Ended` on every attempt goes the same way,
//! so that each one gets its log, its clean-room check and its receipt.

mod ending;
mod receipt;
mod running;
mod store;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use belljar_core::{AttemptId, Digest, LimitKind, Outcome, Timestamp};
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::{CleanRoom, LogRecord, OutputEntry, Plan, StepRecord, Usage};
use belljar_sys::process::Child;

use crate::containment::Launched;
use crate::ids::Pair;
use crate::staging::Places;

use store::Session;

pub use ending::Source;

/// How long the store may take to verify and lay out a source tree.
const STAGING_TIME: Duration = Duration::from_secs(900);
/// How long init may take to its barrier.
const LAUNCH_TIME: Duration = Duration::from_secs(20);
/// How long killed processes may take to be gone.
const DYING_TIME: Duration = Duration::from_secs(60);
/// How long one step after the end may take: log, outputs, verification, teardown.
const ENDING_TIME: Duration = Duration::from_secs(900);
/// How often a dying cgroup is looked at, beside its notifications, which the kernel may delay.
const DYING_LOOK: Duration = Duration::from_millis(5);

/// One attempt.
pub struct Attempt {
    id: AttemptId,
    spec: Digest,
    plan: Plan,
    plan_digest: Digest,
    /// The slot that it holds.
    pub slot: usize,
    ids: Pair,
    places: Places,
    phase: Phase,
    /// The request whose answer is due.
    pending: Option<u64>,
    /// Requests to forget it, to be answered when it is done.
    destroy: Vec<u64>,
    store: Session,
    started: Timestamp,
    deadline: Option<Instant>,
    launched: Option<Launched>,
    /// Whether the store has laid out the sources.
    staged: bool,
    /// Whether the conversation with the store has broken off.
    store_lost: bool,
    /// Whether the store was asked to read a log.
    log_asked: bool,
    /// Whether `Launched` was answered.
    announced: bool,
    /// Init has told that no step is left.
    steps_done: bool,
    steps: Vec<StepRecord>,
    /// Why it was ended, if it did not end by itself.
    cause: Option<Outcome>,
    outcome: Option<Outcome>,
    usage: Usage,
    log: Option<LogRecord>,
    outputs: Vec<OutputEntry>,
    collected: bool,
    unchanged: Option<bool>,
    clean_room: CleanRoom,
    receipt: Option<Digest>,
    forgotten: bool,
}

/// Where it is on its way.
enum Phase {
    Staging,
    Staged,
    Launching,
    Running,
    Dying,
    Ended,
    FinishingLog,
    Collecting(Option<Child>),
    Verifying,
    Unmounting(Child),
    Releasing,
    Done,
}

impl Attempt {
    /// Its name.
    pub fn id(&self) -> &AttemptId {
        &self.id
    }

    /// Whether `Destroyed` was answered, so that nobody will ask for it again.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Whether everything of it was seen to be gone, so that its slot may serve another.
    pub fn is_clean(&self) -> bool {
        self.clean_room.is_clean()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it is not running or its cgroup cannot be read.
    pub fn usage(&self) -> io::Result<Usage> {
        match (&self.phase, &self.launched) {
            (Phase::Running, Some(launched)) => launched.group.usage(),
            _ => Err(io::Error::other("the attempt is not running")),
        }
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Message>) {
        if let Some(number) = self.pending.take() {
            out.push(Message::Answer { number, answer });
        }
    }

    /// How it ended, from what was seen. Only to be asked when its cgroup is empty.
    fn judge(&self) -> Outcome {
        if let Some(cause) = &self.cause {
            return cause.clone();
        }
        let memory = Outcome::LimitExceeded {
            limit: LimitKind::Memory,
            figure: self.plan.limits.get().memory_bytes,
        };
        let step = u32::try_from(self.steps.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let killed_for_memory = self.usage.oom_kills > 0;
        match self.steps.last() {
            Some(StepRecord {
                exit_code: Some(0), ..
            }) if self.steps_done && self.steps.len() == self.plan.run.iter().len() => {
                Outcome::Succeeded
            }
            _ if killed_for_memory => memory,
            Some(StepRecord {
                exit_code: Some(exit_code),
                ..
            }) if *exit_code != 0 => Outcome::Failed {
                step,
                exit_code: *exit_code,
            },
            Some(StepRecord {
                signal: Some(signal),
                ..
            }) => Outcome::Signalled {
                step,
                signal: *signal,
            },
            _ => Outcome::retryable("run", "the sandbox's init ended before the steps did"),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn in_time(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}
