//! Runs builds: takes them from the queue in order, as many at once as there are slots, and finds after a
//! restart what was left behind.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use belljar_core::{AttemptId, BuildId, bounds};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;

use crate::engine::{CancelRequest, Command, Engine, Notices};
use crate::index;
use crate::life::{Event, Stage};
use crate::ownership::Ownership;
use crate::perform::{patience, within};
use crate::ports::{Clock, Ports, Signer, Spawner, SpawnerError, Store};
use crate::queue::{Queue, QueueError};
use crate::work::{Shared, Work};

/// How long to wait before trying again what must succeed in the end.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// What the driver is told by configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many builds run at once, at most [`bounds::CONCURRENT_SANDBOXES`]. With none, what waits goes on
    /// waiting; it can be seen and cancelled.
    pub slots: usize,
    /// Where the audit trails are: an existing directory of the daemon's own.
    pub audit: PathBuf,
}

/// Drives every build to its end.
pub struct Driver<S, T, G, C> {
    shared: Arc<Shared<S, T, G, C>>,
    commands: mpsc::Receiver<Command>,
    slots: Arc<Semaphore>,
    waiting: VecDeque<BuildId>,
    active: HashMap<BuildId, Active>,
    tasks: JoinSet<()>,
    /// Waits for spawner and store to answer; nothing is started meanwhile.
    away: JoinSet<()>,
}

/// A build that has a task.
struct Active {
    task: Id,
    cancel: mpsc::Sender<CancelRequest>,
}

/// An engine over `queue`, `ownership` and `ports`: the handle for services, and the driver that somebody must
/// [`Driver::run`].
pub fn engine<S: Spawner, T: Store, G: Signer, C: Clock>(
    queue: Queue,
    ownership: Ownership,
    ports: Ports<S, T, G, C>,
    settings: Settings,
) -> (Engine, Driver<S, T, G, C>) {
    let (sender, commands) = mpsc::channel(bounds::QUEUE_REQUESTS);
    let notices = Notices::default();
    let engine = Engine::new(queue.clone(), sender, notices.clone());
    let slots = settings.slots.min(bounds::CONCURRENT_SANDBOXES);
    let driver = Driver {
        shared: Arc::new(Shared {
            queue,
            ownership,
            ports,
            notices,
            audit: settings.audit,
        }),
        commands,
        slots: Arc::new(Semaphore::new(slots)),
        waiting: VecDeque::new(),
        active: HashMap::new(),
        tasks: JoinSet::new(),
        away: JoinSet::new(),
    };
    (engine, driver)
}

impl<S: Spawner, T: Store, G: Signer, C: Clock> Driver<S, T, G, C> {
    /// Runs until every [`Engine`] is gone. Dropped in the middle it leaves what the next one finds.
    ///
    /// # Errors
    /// When the queue cannot be read at the start.
    pub async fn run(mut self) -> Result<(), QueueError> {
        let mut accounted = BTreeSet::new();
        for record in self.shared.queue.in_flight().await? {
            tracing::info!(build.id = %record.build.id, build.stage = %record.build.stage, "found in flight");
            accounted.extend(record.build.attempt);
            // There may have been more slots in the daemon's last life; nothing of these is started anew.
            let slot = self.slots.clone().try_acquire_owned().ok();
            self.begin(record.build.id, Event::Recovered, slot);
        }
        self.waiting = self.shared.queue.waiting().await?.into();
        self.wait_for_peers();
        // Nothing new starts beside remains that nobody accounts for.
        let sweep = sweep(self.shared.clone(), accounted);
        tokio::pin!(sweep);
        let mut swept = false;
        let indexing = index::catch_up(self.shared.clone());
        tokio::pin!(indexing);
        let mut indexed = false;
        loop {
            if swept && self.away.is_empty() {
                self.fill_slots();
            }
            tokio::select! {
                () = &mut sweep, if !swept => swept = true,
                () = &mut indexing, if !indexed => indexed = true,
                Some(_) = self.away.join_next(), if !self.away.is_empty() => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.reap(ended).await,
            }
        }
    }

    /// Has no build begin before spawner and store answer: however long one of them is away, builds that wait do
    /// not use up their attempts on that.
    fn wait_for_peers(&mut self) {
        if self.away.is_empty() {
            self.away.spawn(present(self.shared.clone()));
        }
    }

    fn fill_slots(&mut self) {
        while !self.waiting.is_empty()
            && let Ok(slot) = self.slots.clone().try_acquire_owned()
            && let Some(id) = self.waiting.pop_front()
        {
            self.begin(id, Event::SlotFree, Some(slot));
        }
    }

    /// Gives a build a task, which ends when the build is queued again or has ended.
    fn begin(&mut self, id: BuildId, event: Event, slot: Option<OwnedSemaphorePermit>) {
        let (cancel, requests) = mpsc::channel(8);
        let (shared, name) = (self.shared.clone(), id.clone());
        let span = tracing::info_span!("build", build.id = %id);
        let task = async move {
            match Work::load(shared, &name).await {
                Ok(Some(work)) => {
                    if let Err(error) = work.run(event, requests).await {
                        crate::report::log("the build cannot go on", &error);
                    }
                }
                Ok(None) => tracing::error!("the queue does not know this build"),
                Err(error) => crate::report::log("the build cannot be driven", &error),
            }
            drop(slot);
        };
        let task = self.tasks.spawn(task.instrument(span)).id();
        self.active.insert(id, Active { task, cancel });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Queued(id) => self.waiting.push_back(id),
            Command::Cancel { id, request } => self.cancel(id, request),
            // Who has asked may be gone.
            Command::Hear(reply) => drop(reply.send(())),
        }
    }

    fn cancel(&mut self, id: BuildId, request: CancelRequest) {
        if let Some(active) = self.active.get(&id) {
            // A task with so many requests before it is about to end; who asked looks again.
            let _ = active.cancel.try_send(request);
        } else if let Some(position) = self.waiting.iter().position(|waiting| *waiting == id) {
            self.waiting.remove(position);
            let event = Event::CancelRequested {
                by: request.by.clone(),
                reason: request.reason.clone(),
            };
            self.begin(id.clone(), event, None);
            if let Some(active) = self.active.get(&id) {
                let _ = active.cancel.try_send(request);
            }
        }
    }

    /// A task has ended: its build waits again, or has ended, or the task met a defect.
    async fn reap(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some(id) = self
            .active
            .iter()
            .find(|(_, active)| active.task == task)
            .map(|(id, _)| id.clone())
        else {
            return;
        };
        self.active.remove(&id);
        let record = loop {
            match self.shared.queue.get(&id).await {
                Ok(Some(record)) => break record,
                Ok(None) | Err(QueueError::Closed) => return,
                // Without it nobody would drive the build; and without the queue there is nothing else to do.
                Err(error) => crate::report::log("a build cannot be read", &error),
            }
            tokio::time::sleep(RETRY).await;
        };
        match record.build.stage {
            Stage::Ended { .. } => {}
            // It was its turn already: before all that came later.
            Stage::Queued => {
                self.waiting.push_front(id);
                self.wait_for_peers();
            }
            _ => {
                tracing::error!(build.id = %id, panicked = ended.is_err(), "a build lost its task");
                let why = "a defect of the daemon stopped the build; its log says more".to_owned();
                self.begin(id, Event::Condemned { why }, None);
            }
        }
    }
}

/// Has everything destroyed that the spawner still knows from an earlier life of this daemon, except what
/// builds in flight account for: each of those destroys its own.
async fn sweep<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    accounted: BTreeSet<AttemptId>,
) {
    loop {
        match remains(&shared.ports.spawner, &accounted).await {
            Ok(count) => {
                tracing::info!(count, "remains destroyed");
                return;
            }
            Err(error) => tracing::warn!(%error, "remains could not be destroyed yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Waits until spawner and store answer.
async fn present<S: Spawner, T: Store, G: Signer, C: Clock>(shared: Arc<Shared<S, T, G, C>>) {
    let mut told = false;
    loop {
        let spawner = within(patience::LIST, shared.ports.spawner.list()).await;
        let store = shared.ports.store.is_there().await;
        if spawner.is_ok() && store {
            return;
        }
        if !told {
            tracing::warn!(
                spawner = spawner.is_ok(),
                store,
                "builds wait: not everybody answers"
            );
            told = true;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn remains<S: Spawner>(
    spawner: &S,
    accounted: &BTreeSet<AttemptId>,
) -> Result<usize, SpawnerError> {
    let known = within(patience::LIST, spawner.list()).await?;
    let mut count = 0;
    for attempt in known.iter().filter(|attempt| !accounted.contains(attempt)) {
        within(patience::DESTROY, spawner.destroy(attempt)).await?;
        count += 1;
    }
    Ok(count)
}
