//! What services ask the engine for: a handle that knows no ports and can be cloned.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_core::{BuildId, Invalid, RequestId, Timestamp};
use belljar_policy::Admitted;
use tokio::sync::{mpsc, oneshot, watch};
use ulid::Ulid;

use crate::queue::{Page, Query, Queue, QueueError, Record, SubmitError, Submitted};

/// Takes builds, tells of them and ends them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    queue: Queue,
    commands: mpsc::Sender<Command>,
    notices: Notices,
}

/// Follows one build.
#[derive(Debug)]
pub struct Follow {
    first: Option<Record>,
    changes: watch::Receiver<Option<Record>>,
}

/// What the driver is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// A build was queued.
    Queued(BuildId),
    /// A build shall end; answered when that is written down.
    Cancel { id: BuildId, request: CancelRequest },
    /// Answered at once: who asks wants to know whether commands are heard.
    Hear(oneshot::Sender<()>),
}

/// A wish for the end of a build. Dropped without an answer if the build changed hands meanwhile.
#[derive(Debug)]
pub(crate) struct CancelRequest {
    pub(crate) by: String,
    pub(crate) reason: Option<String>,
    pub(crate) reply: oneshot::Sender<Record>,
}

/// How long a build may take to change hands before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Who wants to know when a build changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Arc<Mutex<HashMap<BuildId, watch::Sender<Option<Record>>>>>);

/// The driver is gone: the daemon is about to end.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The driver is gone: the daemon is about to end.
    #[error("the daemon is shutting down")]
    Closed,
    /// The database.
    #[error("the queue could not be read")]
    Queue(#[from] QueueError),
}

impl Engine {
    pub(crate) fn new(queue: Queue, commands: mpsc::Sender<Command>, notices: Notices) -> Self {
        Self {
            queue,
            commands,
            notices,
        }
    }

    /// Queues what was admitted, unless its submitter used `request_id` before. Durable when this returns. A build that
    /// stands in the queue is one that the driver knows, whether or not who asked for it still waits; until then
    /// `held` is kept.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(
        &self,
        admitted: Admitted,
        request_id: RequestId,
        now: Timestamp,
        held: impl Send + 'static,
    ) -> Result<Submitted, SubmitError> {
        let id = new_id().map_err(SubmitError::Spec)?;
        let place = self.commands.clone().reserve_owned().await;
        let queued = move |id: &BuildId| {
            drop(held);
            match place {
                Ok(place) => drop(place.send(Command::Queued(id.clone()))),
                // It is durable: the next driver finds it.
                Err(_) => tracing::warn!(build.id = %id, "accepted while shutting down"),
            }
        };
        let submitted = self
            .queue
            .submit_then(admitted, request_id, id, now, queued);
        submitted.await
    }

    /// One build as it stands; none if there is no such.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn get(&self, id: &BuildId) -> Result<Option<Record>, QueueError> {
        self.queue.get(id).await
    }

    /// When what a build left was given up, if it was.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn released(&self, id: &BuildId) -> Result<Option<Timestamp>, QueueError> {
        self.queue.released(id).await
    }

    /// A part of the list of all builds, the newest first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn list(&self, query: Query) -> Result<Page, QueueError> {
        self.queue.list(query).await
    }

    /// Whether the driver hears what it is told, and the queue answers. Returns when both have.
    ///
    /// # Errors
    /// When the driver is gone, or the queue cannot be read.
    pub async fn lives(&self) -> Result<(), CancelError> {
        let (reply, heard) = oneshot::channel();
        let told = self.commands.send(Command::Hear(reply)).await;
        told.map_err(|_| CancelError::Closed)?;
        heard.await.map_err(|_| CancelError::Closed)?;
        self.queue.waiting().await?;
        Ok(())
    }

    /// Asks for the end of a build, and gives it as it then stands; none if there is no such. That it was
    /// asked is durable; a build that has ended stays as it is.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(
        &self,
        id: &BuildId,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Option<Record>, CancelError> {
        loop {
            match self.queue.get(id).await? {
                Some(record) if record.build.outcome().is_none() => {}
                other => return Ok(other),
            }
            let (reply, answer) = oneshot::channel();
            let request = CancelRequest {
                by: by.to_owned(),
                reason: reason.map(str::to_owned),
                reply,
            };
            let command = Command::Cancel {
                id: id.clone(),
                request,
            };
            self.commands
                .send(command)
                .await
                .map_err(|_| CancelError::Closed)?;
            // Without an answer the build has just changed hands, or ended: look again.
            if let Ok(record) = answer.await {
                return Ok(Some(record));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Follows a build from where it stands now; none if there is no such.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn follow(&self, id: &BuildId) -> Result<Option<Follow>, QueueError> {
        // Listening comes before reading: what changes in between is seen twice rather than never.
        let changes = self.notices.listen(id);
        let first = self.queue.get(id).await;
        if !matches!(&first, Ok(Some(record)) if record.build.outcome().is_none()) {
            self.notices.forget(id);
        }
        Ok(first?.map(|first| Follow {
            first: Some(first),
            changes,
        }))
    }
}

impl Follow {
    /// The build: at first as it stands, then after each change. Changes that come faster than they are
    /// asked for are joined into one, so that a slow follower costs nothing. None after the end was told.
    pub async fn next(&mut self) -> Option<Record> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.changes.changed().await.ok()?;
        self.changes.borrow_and_update().clone()
    }
}

impl Notices {
    fn listen(&self, id: &BuildId) -> watch::Receiver<Option<Record>> {
        let mut open = self.lock();
        let sender = open
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(None));
        let mut receiver = sender.subscribe();
        receiver.mark_unchanged();
        receiver
    }

    /// Tells who listens. After the end nobody needs to listen any more.
    pub(crate) fn tell(&self, record: &Record) {
        let mut open = self.lock();
        let id = &record.build.id;
        if let Some(sender) = open.get(id) {
            sender.send_replace(Some(record.clone()));
        }
        if record.build.outcome().is_some()
            || open
                .get(id)
                .is_some_and(|sender| sender.receiver_count() == 0)
        {
            open.remove(id);
        }
    }

    fn forget(&self, id: &BuildId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, watch::Sender<Option<Record>>>> {
        // Nothing can panic while it is held, and the map is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new build's name: a ULID, in lower case.
fn new_id() -> Result<BuildId, Invalid> {
    BuildId::new(Ulid::generate().to_string().to_ascii_lowercase())
}
