use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_core::{Digest, ObjectId, Recipe, bounds};
use belljar_plan::ConfinedStep;
use belljar_plan::frame;
use belljar_plan::store::{Answer, Consent, Failure, RefusedBlob, Request, Sender};
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

/// One object on its way. Dropped before its end it leaves nothing that can be read; what came of an
/// upload that can be gone on with stays in the store for a while.
#[derive(Debug)]
pub(crate) struct Put {
    talk: Talk,
    left: u64,
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

    /// Begins to give `object` to the store.
    pub(super) async fn begin(&self, object: ObjectId) -> Result<Put, PutError> {
        let talk = self.ask(&self.slots, &Request::Put { object }).await?;
        let left = object.size;
        Ok(Put { talk, left })
    }

    /// Goes on with an upload at `offset`, or begins it there. If it stands elsewhere, tells where.
    pub(crate) async fn resume(
        &self,
        key: Digest,
        sender: Sender,
        object: ObjectId,
        offset: u64,
    ) -> Result<Result<Put, u64>, PutError> {
        let request = Request::Upload {
            key,
            sender,
            object,
            offset,
        };
        let talk = self.ask(&self.uploads, &request).await?;
        match talk.hear().await? {
            Answer::Upload {
                committed,
                open: true,
            } => {
                let left = object.size.saturating_sub(committed);
                Ok(Ok(Put { talk, left }))
            }
            Answer::Upload { committed, .. } => {
                talk.end();
                Ok(Err(committed))
            }
            answer => Err(refusal(answer)),
        }
    }

    /// How much of an upload has come.
    pub(crate) async fn committed(&self, key: Digest, object: ObjectId) -> Result<u64, PutError> {
        let request = Request::Uploaded { key, object };
        let talk = self.ask(&self.uploads, &request).await?;
        match talk.hear().await? {
            Answer::Upload { committed, .. } => {
                talk.end();
                Ok(committed)
            }
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

    /// Gives content that is in memory to the store.
    pub(super) async fn put_bytes(&self, object: ObjectId, content: &[u8]) -> Result<(), PutError> {
        let mut put = self.begin(object).await?;
        put.write(content).await?;
        put.finish().await
    }

    /// Gives many small blobs to the store, which makes them durable together. Each is as long as its id
    /// says. Tells which were refused, and whose doing it was.
    pub(crate) async fn put_many(
        &self,
        blobs: &[(ObjectId, Vec<u8>)],
    ) -> Result<Vec<RefusedBlob>, PutError> {
        let mut refused = Vec::new();
        let mut at = 0;
        for portion in blobs.chunks(bounds::DIGESTS_PER_FRAME) {
            let objects = portion.iter().map(|(object, _)| *object).collect();
            let request = Request::PutMany { objects };
            let talk = self.ask(&self.uploads, &request).await?;
            let contents: Vec<&[u8]> = portion.iter().map(|(_, content)| &content[..]).collect();
            // Bounded: a batch fits one message of gRPC.
            for piece in contents.concat().chunks(bounds::CHUNK_BYTES) {
                talk.send(piece).await?;
            }
            let found = match talk.hear().await? {
                Answer::Kept { refused } => refused,
                answer => return Err(refusal(answer)),
            };
            talk.end();
            refused.extend(found.into_iter().map(|one| RefusedBlob {
                index: at + one.index,
                ..one
            }));
            at += portion.len();
        }
        Ok(refused)
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
        let Err(error) = self.channel.send(&message).await else {
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

impl Put {
    /// Bytes that have not been sent yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Sends the next piece, of any length.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), PutError> {
        let Some(left) = self.left.checked_sub(piece.len() as u64) else {
            return Err(PutError::Content(
                "more content came than was announced".to_owned(),
            ));
        };
        self.left = left;
        for chunk in piece.chunks(bounds::CHUNK_BYTES) {
            self.talk.send(chunk).await?;
        }
        Ok(())
    }

    /// Ends it so that nothing stays to be gone on with: a request in the middle of content says that
    /// there will be no more of it.
    pub(crate) async fn forget(self) {
        let object = ObjectId::of(b"");
        // When the store is gone, so is what came.
        let _ = self.talk.channel.tell(&Request::Put { object }).await;
    }

    /// Waits until the content is verified and durable.
    pub(crate) async fn finish(self) -> Result<(), PutError> {
        if self.left > 0 {
            return Err(PutError::Content(format!(
                "{} bytes less came than were announced",
                self.left
            )));
        }
        match self.talk.hear().await? {
            Answer::Stored => {
                self.talk.end();
                Ok(())
            }
            answer => Err(refusal(answer)),
        }
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
