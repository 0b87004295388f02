//! What the engine needs of the world, as traits: the daemon connects them to the other processes, tests
//! to fakes. Methods may be called again after a restart with the same arguments; each says what then.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use belljar_core::{AttemptId, Digest, Fetches, ObjectId, Outcome, ProjectId, Timestamp};
use belljar_plan::Plan;
use belljar_plan::signer::Asserted;

use crate::life::{Bundle, Collected, Fetched};

/// The privileged process that makes sandboxes.
pub trait Spawner: Send + Sync + 'static {
    /// Has the inputs of a new attempt verified and mounted.
    fn stage(
        &self,
        attempt: &AttemptId,
        spec: Digest,
        plan: Plan,
    ) -> impl Future<Output = Result<(), SpawnerError>> + Send;

    /// Makes the sandbox of a staged attempt and starts its steps.
    fn launch(&self, attempt: &AttemptId) -> impl Future<Output = Result<(), SpawnerError>> + Send;

    /// Waits for the end of the steps of a launched attempt; also if they have ended already.
    fn exited(
        &self,
        attempt: &AttemptId,
    ) -> impl Future<Output = Result<Outcome, SpawnerError>> + Send;

    /// Has an attempt ended, whatever it is doing.
    fn kill(
        &self,
        attempt: &AttemptId,
        by: &str,
    ) -> impl Future<Output = Result<(), SpawnerError>> + Send;

    /// Has outputs and receipt taken.
    fn collect(
        &self,
        attempt: &AttemptId,
    ) -> impl Future<Output = Result<Taken, SpawnerError>> + Send;

    /// The receipt file of a collected attempt, as it is on disk.
    fn receipt(&self, attempt: &AttemptId)
    -> impl Future<Output = Result<Vec<u8>, Trouble>> + Send;

    /// Has everything of an attempt removed. Fine for an attempt that is not known.
    fn destroy(&self, attempt: &AttemptId)
    -> impl Future<Output = Result<(), SpawnerError>> + Send;

    /// Every attempt that was not destroyed.
    fn list(&self) -> impl Future<Output = Result<Vec<AttemptId>, SpawnerError>> + Send;
}

/// The process that owns the objects.
pub trait Store: Send + Sync + 'static {
    /// Keeps `content`; durable when this returns. Fine for content that is there already.
    fn put(&self, content: Vec<u8>) -> impl Future<Output = Result<ObjectId, Trouble>> + Send;

    /// Keeps the log of an ended attempt, which must turn out to be `object`, like [`Store::put`].
    fn keep_log(
        &self,
        attempt: &AttemptId,
        object: ObjectId,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Whether it can be asked for anything now.
    fn is_there(&self) -> impl Future<Output = bool> + Send;
}

/// Who fetches what builds declare by digest: the only one who reaches a network.
pub trait Fetcher: Send + Sync + 'static {
    /// Has the trees of these fetches made for a project. Asked again it fetches nothing that the project has by then.
    /// Dropped before its end it leaves nothing but what has come whole.
    fn fetch(
        &self,
        project: ProjectId,
        fetches: Fetches,
    ) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>>;
}

/// The process that holds the key.
pub trait Signer: Send + Sync + 'static {
    /// Asks for a statement about a collected success. The same question gives the same bundle.
    fn attest(
        &self,
        collected: Collected,
        spec: String,
        asserted: Asserted,
    ) -> impl Future<Output = Result<Bundle, Refusal>> + Send;

    /// Asks for a statement about the receipt of a collected attempt, however that ended. The same question gives
    /// the same bundle.
    fn sign_receipt(
        &self,
        attempt: &AttemptId,
    ) -> impl Future<Output = Result<ObjectId, Refusal>> + Send;

    /// The bundle file about a receipt, as it is on disk.
    fn receipt_bundle(
        &self,
        attempt: &AttemptId,
    ) -> impl Future<Output = Result<Vec<u8>, Trouble>> + Send;

    /// The bundle file of an attested attempt, as it is on disk.
    fn bundle(&self, attempt: &AttemptId) -> impl Future<Output = Result<Vec<u8>, Trouble>> + Send;
}

/// The store's process again: what is to go.
pub trait Upkeep: Send + Sync + 'static {
    /// How much room there is.
    fn room(&self) -> impl Future<Output = Result<Room, Trouble>> + Send;

    /// Has images of trees removed, by their names; those in use stay.
    fn evict(&self, images: Vec<String>) -> impl Future<Output = Result<Gone, Trouble>> + Send;

    /// Has objects removed that were last given before `before`, in seconds since 1970; those in use stay.
    fn remove(
        &self,
        objects: Vec<Digest>,
        before: u64,
    ) -> impl Future<Output = Result<Gone, Trouble>> + Send;

    /// Has logs removed; those in use stay.
    fn remove_logs(
        &self,
        attempts: Vec<AttemptId>,
    ) -> impl Future<Output = Result<Gone, Trouble>> + Send;
}

/// How much room there is on the store's file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// What the store may still use.
    pub available: u64,
    /// What of this is kept for builds that run.
    pub reserve: u64,
    /// How long an object stays that was given, in seconds.
    pub grace: u64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// How many.
    pub removed: u64,
    /// Bytes that they took on disk.
    pub bytes: u64,
}

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// A port may be shared with others.
mod shared {
    use super::*;

    impl<S: Spawner> Spawner for Arc<S> {
        async fn stage(
            &self,
            attempt: &AttemptId,
            spec: Digest,
            plan: Plan,
        ) -> Result<(), SpawnerError> {
            (**self).stage(attempt, spec, plan).await
        }

        async fn launch(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
            (**self).launch(attempt).await
        }

        async fn exited(&self, attempt: &AttemptId) -> Result<Outcome, SpawnerError> {
            (**self).exited(attempt).await
        }

        async fn kill(&self, attempt: &AttemptId, by: &str) -> Result<(), SpawnerError> {
            (**self).kill(attempt, by).await
        }

        async fn collect(&self, attempt: &AttemptId) -> Result<Taken, SpawnerError> {
            (**self).collect(attempt).await
        }

        async fn receipt(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
            (**self).receipt(attempt).await
        }

        async fn destroy(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
            (**self).destroy(attempt).await
        }

        async fn list(&self) -> Result<Vec<AttemptId>, SpawnerError> {
            (**self).list().await
        }
    }

    impl<T: Store> Store for Arc<T> {
        async fn put(&self, content: Vec<u8>) -> Result<ObjectId, Trouble> {
            (**self).put(content).await
        }

        async fn keep_log(&self, attempt: &AttemptId, object: ObjectId) -> Result<(), Trouble> {
            (**self).keep_log(attempt, object).await
        }

        async fn is_there(&self) -> bool {
            (**self).is_there().await
        }
    }

    impl<G: Signer> Signer for Arc<G> {
        async fn attest(
            &self,
            collected: Collected,
            spec: String,
            asserted: Asserted,
        ) -> Result<Bundle, Refusal> {
            (**self).attest(collected, spec, asserted).await
        }

        async fn sign_receipt(&self, attempt: &AttemptId) -> Result<ObjectId, Refusal> {
            (**self).sign_receipt(attempt).await
        }

        async fn receipt_bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
            (**self).receipt_bundle(attempt).await
        }

        async fn bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
            (**self).bundle(attempt).await
        }
    }
}

/// Everything together.
pub struct Ports<S, T, G, C> {
    /// Makes sandboxes.
    pub spawner: S,
    /// Keeps objects.
    pub store: T,
    /// Fetches.
    pub fetcher: Arc<dyn Fetcher>,
    /// Signs.
    pub signer: G,
    /// Tells the time.
    pub clock: C,
}

/// What the spawner took of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Digest of the receipt file.
    pub receipt: Digest,
    /// The final outcome.
    pub outcome: Outcome,
}

/// Why the spawner has not done something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpawnerError {
    /// It answered so: this is how the attempt ends.
    Failed(Outcome),
    /// It did not answer; what was seen of it.
    Lost(String),
}

/// Why the signer has not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether asking again may help.
    pub retryable: bool,
    /// Why, one sentence each.
    pub reasons: Vec<String>,
}

/// Something that did not work, in a sentence; another try may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Trouble(pub String);

impl fmt::Display for SpawnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(outcome) => outcome.fmt(f),
            Self::Lost(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for SpawnerError {}
