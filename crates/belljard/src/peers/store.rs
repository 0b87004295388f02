use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use belljar_core::{AttemptId, ObjectId, bounds};
use belljar_engine::ports::{Store, Trouble};
use belljar_plan::frame;
use belljar_plan::store::{Answer, Failure, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Logs;
use super::channel::{Buffer, Channel, ChannelError};
use crate::tasks;

/// Gives content to the store. Cheap to clone; all clones share a bounded pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct StoreClient {
    socket: Arc<PathBuf>,
    logs: Logs,
    slots: Arc<Semaphore>,
    /// Connections between two conversations.
    idle: Arc<Mutex<Vec<Channel>>>,
}

/// One object on its way. Dropped before its end it leaves nothing in the store.
#[derive(Debug)]
pub(crate) struct Put {
    channel: Channel,
    left: u64,
    idle: Arc<Mutex<Vec<Channel>>>,
    _slot: OwnedSemaphorePermit,
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
            idle: Arc::default(),
        }
    }

    /// Begins to give `object` to the store.
    pub(crate) async fn begin(&self, object: ObjectId) -> Result<Put, PutError> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|_| PutError::Unreachable("shutting down".to_owned()))?;
        let request = Request::Put { object };
        // A connection that was idle may have been closed by a restart of the store.
        let reused = lock(&self.idle).pop();
        let channel = match reused {
            Some(channel) if channel.tell(&request).await.is_ok() => channel,
            _ => {
                let channel = Channel::connect(&self.socket).await?;
                channel.tell(&request).await?;
                channel
            }
        };
        Ok(Put {
            channel,
            left: object.size,
            idle: self.idle.clone(),
            _slot: slot,
        })
    }

    /// Gives content that is in memory to the store.
    pub(crate) async fn put_bytes(&self, object: ObjectId, content: &[u8]) -> Result<(), PutError> {
        let mut put = self.begin(object).await?;
        put.write(content).await?;
        put.finish().await
    }
}

impl Put {
    /// Sends the next piece, of any length.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), PutError> {
        let Some(left) = self.left.checked_sub(piece.len() as u64) else {
            return Err(PutError::Content(
                "more content came than was announced".to_owned(),
            ));
        };
        self.left = left;
        for chunk in piece.chunks(bounds::CHUNK_BYTES) {
            let message = frame::data(chunk).map_err(ChannelError::Malformed)?;
            if let Err(error) = self.channel.send(&message).await {
                // The store may have said why before it closed.
                return Err(
                    match self.channel.hear::<Answer>(&mut Buffer::new()).await {
                        Ok(answer) => refusal(answer),
                        Err(_) => ChannelError::from(error).into(),
                    },
                );
            }
        }
        Ok(())
    }

    /// Waits until the content is verified and durable.
    pub(crate) async fn finish(self) -> Result<(), PutError> {
        if self.left > 0 {
            return Err(PutError::Content(format!(
                "{} bytes less came than were announced",
                self.left
            )));
        }
        match self.channel.hear(&mut Buffer::new()).await? {
            Answer::Stored => {
                lock(&self.idle).push(self.channel);
                Ok(())
            }
            answer => Err(refusal(answer)),
        }
    }
}

fn refusal(answer: Answer) -> PutError {
    match answer {
        Answer::Failed { class, why } => match class {
            Failure::Content => PutError::Content(why),
            Failure::Full => PutError::Full(why),
            Failure::Missing | Failure::Refused | Failure::Internal => PutError::Store(why),
        },
        other => PutError::Store(format!("an answer that does not fit: {other:?}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing can panic while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for StoreClient {
    async fn put(&self, content: Vec<u8>) -> Result<ObjectId, Trouble> {
        let object = ObjectId::of(&content);
        let put = self.put_bytes(object, &content).await;
        put.map(|()| object).map_err(|e| Trouble(e.to_string()))
    }

    async fn keep_log(&self, attempt: &AttemptId, object: ObjectId) -> Result<(), Trouble> {
        let trouble = |why: String| Trouble(format!("the log of {attempt}: {why}"));
        let log = self
            .logs
            .open(attempt)
            .await
            .map_err(|e| trouble(e.to_string()))?;
        let log = log.ok_or_else(|| trouble("it is not there".to_owned()))?;
        let mut put = self
            .begin(object)
            .await
            .map_err(|e| trouble(e.to_string()))?;
        let mut offset = 0;
        while offset < object.size {
            let piece = log
                .read(offset, bounds::CHUNK_BYTES)
                .await
                .map_err(|e| trouble(e.to_string()))?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            put.write(&piece)
                .await
                .map_err(|e| trouble(e.to_string()))?;
        }
        put.finish().await.map_err(|e| trouble(e.to_string()))
    }
}
