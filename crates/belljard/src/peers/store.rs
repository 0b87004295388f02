use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_core::{ObjectId, Recipe, bounds};
use belljar_plan::ConfinedStep;
use belljar_plan::frame;
use belljar_plan::store::{Answer, Consent, Failure, Request};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Logs;
use super::channel::{Buffer, Channel, ChannelError};
use crate::tasks;

/// How long to wait for a place among the connections.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the store may take for a tree: its own bound, and what keeping the tree takes.
const DERIVATION: Duration = Duration::from_secs(bounds::DERIVATION_SECONDS + 300);

/// Gives content to the store. Cheap to clone; all clones share a bounded pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct StoreClient {
    socket: Arc<PathBuf>,
    pub(super) logs: Logs,
    /// For the engine: no number of clients keeps it from its evidence.
    slots: Arc<Semaphore>,
    /// For clients, whose streams last as long as they like.
    uploads: Arc<Semaphore>,
    /// For what is fetched: no number of uploads keeps it out.
    fetches: Arc<Semaphore>,
    /// For trees that are made, which take minutes.
    derivations: Arc<Semaphore>,
    /// Connections between two conversations.
    idle: Arc<Mutex<Vec<Channel>>>,
}

/// A connection to the store, for one conversation.
#[derive(Debug)]
pub(super) struct Talk {
    channel: Channel,
    idle: Arc<Mutex<Vec<Channel>>>,
    _slot: OwnedSemaphorePermit,
}

/// A tree that the store makes. Dropped before its end it stops at the next object that it wants.
#[derive(Debug)]
pub(crate) struct Deriving {
    talk: Talk,
    deadline: Instant,
}

/// How far the store is with a tree.
#[derive(Debug)]
pub(crate) enum Derivation {
    /// It wants to know whether whoever asked for the tree has this object.
    Wants(ObjectId, Deriving),
    /// It is at the end.
    Done(Answer),
}

/// Why content is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// It is not what was announced.
    #[error("{0}")]
    Content(String),
    /// The disk is full.
    #[error("{0}")]
    Full(String),
    /// Another connection is at it.
    #[error("{0}")]
    Busy(String),
    /// The store has refused or failed.
    #[error("the store: {0}")]
    Store(String),
    /// The store cannot be reached.
    #[error("the store does not answer: {0}")]
    Unreachable(String),
}

impl From<ChannelError> for PutError {
    fn from(error: ChannelError) -> Self {
        Self::Unreachable(tasks::chain(&error))
    }
}

impl StoreClient {
    pub(crate) fn new(socket: PathBuf, logs: Logs) -> Self {
        Self {
            socket: Arc::new(socket),
            logs,
            slots: Arc::new(Semaphore::new(bounds::STORE_CONNECTIONS)),
            uploads: Arc::new(Semaphore::new(bounds::UPLOADS)),
            fetches: Arc::new(Semaphore::new(bounds::FETCHES)),
            derivations: Arc::new(Semaphore::new(bounds::DERIVATIONS)),
            idle: Arc::default(),
        }
    }

    /// The places of belljard's own.
    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    /// The places of clients' uploads.
    pub(super) fn uploads(&self) -> &Arc<Semaphore> {
        &self.uploads
    }

    /// The places of what is fetched.
    pub(super) fn fetches(&self) -> &Arc<Semaphore> {
        &self.fetches
    }

    /// Whether the store takes connections now.
    pub(crate) async fn answers(&self) -> bool {
        Channel::connect(&self.socket).await.is_ok()
    }

    /// How the store has confined itself.
    pub(crate) async fn confinement(&self) -> Result<Vec<ConfinedStep>, PutError> {
        match self.ask_once(&Request::Confinement {}).await? {
            Answer::Confinement { steps } => Ok(steps),
            answer => Err(refusal(answer)),
        }
    }

    /// Has the store make a tree.
    pub(crate) async fn derive(&self, recipe: Recipe) -> Result<Deriving, PutError> {
        let request = Request::Derive { recipe };
        let talk = self.ask(&self.derivations, &request).await?;
        let deadline = Instant::now() + DERIVATION;
        Ok(Deriving { talk, deadline })
    }

    /// Asks one thing that is answered at once.
    pub(super) async fn ask_once(&self, request: &Request) -> Result<Answer, PutError> {
        let talk = self.ask(&self.slots, request).await?;
        let answer = talk.hear().await?;
        talk.end();
        Ok(answer)
    }

    /// Asks on a connection of its own, when there is a place for it.
    pub(super) async fn ask(
        &self,
        places: &Arc<Semaphore>,
        request: &Request,
    ) -> Result<Talk, PutError> {
        let slot = timeout(PATIENCE, places.clone().acquire_owned()).await;
        let slot = match slot {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(PutError::Unreachable("shutting down".to_owned())),
            Err(_) => {
                let why = "too many uploads are under way; try again later";
                return Err(PutError::Busy(why.to_owned()));
            }
        };
        // A connection that was idle may have been closed by a restart of the store.
        let reused = lock(&self.idle).pop();
        let channel = match reused {
            Some(channel) if channel.tell(request).await.is_ok() => channel,
            _ => {
                let channel = Channel::connect(&self.socket).await?;
                channel.tell(request).await?;
                channel
            }
        };
        Ok(Talk {
            channel,
            idle: self.idle.clone(),
            _slot: slot,
        })
    }
}

impl Talk {
    /// Says something that is no request.
    pub(super) async fn tell(&self, message: &impl Serialize) -> Result<(), PutError> {
        Ok(self.channel.tell(message).await?)
    }

    /// Sends content, at most [`bounds::CHUNK_BYTES`].
    pub(super) async fn send(&self, piece: &[u8]) -> Result<(), PutError> {
        let message = frame::data(piece).map_err(ChannelError::Malformed)?;
        let Err(error) = self.channel.send_parts(&message).await else {
            return Ok(());
        };
        // The store may have said why before it closed.
        Err(match self.hear().await {
            Ok(answer) => refusal(answer),
            Err(_) => ChannelError::from(error).into(),
        })
    }

    pub(super) async fn hear(&self) -> Result<Answer, ChannelError> {
        self.channel.hear(&mut Buffer::new()).await
    }

    /// Leaves the connection to the next conversation.
    pub(super) fn end(self) {
        lock(&self.idle).push(self.channel);
    }
}

impl Deriving {
    /// Waits for the next thing that the store says.
    pub(crate) async fn hear(self) -> Result<Derivation, PutError> {
        let answer = timeout_at(self.deadline, self.talk.hear()).await;
        let answer = answer.map_err(|_| {
            PutError::Unreachable("it did not answer in time about a tree".to_owned())
        })??;
        Ok(match answer {
            Answer::DerivationWants { object } => Derivation::Wants(object, self),
            answer => {
                self.talk.end();
                Derivation::Done(answer)
            }
        })
    }

    /// Says whether what it wants may be read.
    pub(crate) async fn tell(&self, consent: Consent) -> Result<(), PutError> {
        Ok(self.talk.channel.tell(&consent).await?)
    }
}

pub(super) fn refusal(answer: Answer) -> PutError {
    match answer {
        Answer::Failed { class, why } => match class {
            Failure::Content => PutError::Content(why),
            Failure::Full => PutError::Full(why),
            Failure::Busy => PutError::Busy(why),
            Failure::Missing | Failure::Refused | Failure::Internal => PutError::Store(why),
        },
        other => PutError::Store(format!("an answer that does not fit: {other:?}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing can panic while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
