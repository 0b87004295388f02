//! One attempt, from `Stage` to its receipt. Everything that happens to it comes as a call of one of its
//! methods from the event loop; nothing here waits.
//!
//! ```text
//! Staging → Staged → Launching → Running → (Stopping) → Dying → Ended
//!         → FinishingLog → Collecting → Unmounting → (Verifying) → Done
//! ```
//! Whoever is stopped has its grace, after SIGTERM; whoever is killed has none.
//!
//! What fails on the way to `Ended` ends there at once; from `Ended` on every attempt goes the same way,
//! so that each one gets its log, its clean-room check and its receipt.

mod collecting;
mod ending;
mod mounting;
mod receipt;
mod records;
mod running;
mod steps;
mod store;
mod verdict;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use belljar_core::{AttemptId, Digest, LimitKind, Outcome, Timestamp};
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::{
    CleanRoom, ImageRecord, ImageRule, LogRecord, OutputEntry, Plan, StepRecord, Usage,
};
use belljar_sys::connections::Connections;
use belljar_sys::process::Child;

use crate::containment::Launched;
use crate::held::Watch;
use crate::ids::Pair;
use crate::rootfs::TreeRootFs;
use crate::staging::Places;
use crate::trees::Inputs;

use records::Records;
use store::Session;

pub use ending::Source;

/// How long the store may take to verify trees and to make images of them.
const STAGING_TIME: Duration = Duration::from_secs(900);
/// How long init may take to its barrier.
const LAUNCH_TIME: Duration = Duration::from_secs(20);
/// How long killed processes may take to be gone.
const DYING_TIME: Duration = Duration::from_secs(60);
/// How long one step after the end may take: log, outputs, verification, teardown.
const ENDING_TIME: Duration = Duration::from_secs(900);
/// How often it is looked at what a running attempt uses: the CPU time beyond its limit is at most this
/// long, on all its CPUs.
const LOOK: Duration = Duration::from_millis(500);
/// The same for file locks and open files, which one process takes by hundreds of thousands in a second.
const HELD_LOOK: Duration = Duration::from_millis(100);
/// How often a dying cgroup is looked at, beside its notifications, which the kernel may delay.
const DYING_LOOK: Duration = Duration::from_millis(5);

/// One attempt.
pub struct Attempt {
    id: AttemptId,
    spec: Digest,
    plan: Plan,
    plan_digest: Digest,
    image_rule: ImageRule,
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
    /// Its trees, from when they are mounted to when they are not.
    inputs: Option<Inputs>,
    /// The image as a root file system, if it is a tree.
    image: Option<TreeRootFs>,
    /// Whether the store has seen all trees.
    staged: bool,
    records: Records,
    /// Whether the conversation with the store has broken off.
    store_lost: bool,
    /// Whether the store was asked to read a log.
    log_asked: bool,
    /// Whether `Launched` was answered.
    announced: bool,
    /// Init has told that no step is left.
    steps_done: bool,
    steps: Vec<StepRecord>,
    step: Step,
    /// When to look at what it uses.
    look: Option<Instant>,
    /// When to look at its file locks and open files.
    held_look: Option<Instant>,
    held: Watch,
    /// Whether init's end was seen.
    reaped: bool,
    /// What it had written when its log was too long.
    log_written: Option<u64>,
    /// Why it was ended, if it did not end by itself.
    cause: Option<Outcome>,
    outcome: Option<Outcome>,
    usage: Usage,
    log: Option<LogRecord>,
    outputs: Vec<OutputEntry>,
    image_output: Option<ImageRecord>,
    collected: bool,
    unchanged: Option<bool>,
    /// Whether the store looks at the trees: its answer is due.
    verifying: bool,
    /// Those of its network; none before the launch.
    connections: Option<Connections>,
    clean_room: CleanRoom,
    receipt: Option<Digest>,
    forgotten: bool,
}

/// The step that runs, or has just ended.
#[derive(Default)]
struct Step {
    /// Where in the log steps begin, this one and those before, as the store has told.
    marks: Vec<u64>,
    /// When it began; none when it has ended.
    begun: Option<(Timestamp, Instant)>,
    /// What had been used when it began.
    before: Usage,
    /// Whether the scratch space was seen full since, and of what.
    scratch_full: Option<LimitKind>,
}

/// Where it is on its way.
enum Phase {
    Staging,
    Staged,
    Launching,
    Running,
    Stopping,
    Dying,
    Ended,
    FinishingLog,
    Collecting(Option<Child>),
    /// While the store looks whether the trees are unchanged.
    Unmounting(Child),
    /// All is taken off, and the store has not answered yet.
    Verifying,
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
            (Phase::Running | Phase::Stopping, Some(launched)) => launched.group.usage(),
            _ => Err(io::Error::other("the attempt is not running")),
        }
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Message>) {
        if let Some(number) = self.pending.take() {
            out.push(Message::Answer { number, answer });
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

fn in_time(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}
