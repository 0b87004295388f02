//! The durable queue: one SQLite database, one thread that alone has it open. What a method here has
//! answered survives any crash (WAL, `synchronous=FULL`); changes that arrive together share a commit.

mod database;
mod layout;
mod list;
mod producers;
mod retention;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use belljar_core::{BuildId, BuildSpec, Digest, ObjectId, ProjectId, RequestId, Timestamp};
use belljar_policy::Admitted;

use crate::life::Build;
use crate::writer::{self, Undone};

pub use database::OpenError;
pub use list::{Condition, Listed, Page, Query};
pub use producers::Wanted;
pub use retention::{Pin, PinError, Target};

/// What a build left, by the digests under which it is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Of regular files: these objects are kept as long as the build is.
    pub files: Vec<Digest>,
    /// Of REAPI `Tree` messages of its directories: they are kept likewise, and lead nobody to the build.
    pub trees: Vec<Digest>,
    /// Of the trees of directories, by their roots.
    pub directories: Vec<Digest>,
}

#[cfg(test)]
impl Left {
    pub(crate) fn of_files(files: Vec<Digest>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }
}

/// A handle on the queue. When the last one is gone, the database is closed.
#[derive(Clone, Debug)]
pub struct Queue(writer::Handle<database::Database>);

/// What the queue holds of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub build: Build,
    /// What never changes about it.
    pub submission: Arc<Submission>,
}

/// A build that is kept with what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the order of acceptance.
    pub position: i64,
    /// Whether its artifacts are noted, see [`Queue::kept_objects`].
    pub indexed: bool,
    /// The build.
    pub record: Record,
}

/// What was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The client's own name for it, unique per project and submitter.
    pub request_id: RequestId,
    /// To which it belongs.
    pub project: ProjectId,
    /// The principal, such as `unix:uid=0`.
    pub submitter: String,
    /// How that was established.
    pub authenticated_by: String,
    /// What it shall do.
    pub spec: BuildSpec,
    /// The canonical specification.
    pub spec_object: ObjectId,
    /// When it was accepted.
    pub accepted: Timestamp,
}

/// What came of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It was queued; this is durable.
    New(Record),
    /// The same was submitted before under this request id.
    Known(Record),
}

/// Why a submission was not queued.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The request id stands for another specification.
    #[error("the request id was used before for another specification")]
    OtherBody,
    /// As many builds as there may be wait or run.
    #[error("{limit} builds wait or run already", limit = belljar_core::bounds::QUEUED_BUILDS)]
    Full,
    /// The specification has no canonical form.
    #[error("the specification cannot be written down")]
    Spec(#[source] belljar_core::Invalid),
    /// The database.
    #[error("the build could not be written into the queue")]
    Queue(#[from] QueueError),
}

/// Why the queue did not answer.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The database refused; nothing was changed.
    #[error("the queue's database failed")]
    Database(#[source] Arc<rusqlite::Error>),
    /// A row does not hold what it should.
    #[error("the queue's row of build {id} is damaged: {what}")]
    Damaged {
        /// The build, as the row names it.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// The row is not in the state that the change was computed from.
    #[error("build {0} was changed by somebody else")]
    Conflict(BuildId),
    /// The queue's thread has ended.
    #[error("the queue is closed")]
    Closed,
}

impl Queue {
    /// Opens the database at `path`, or makes it, and starts its thread.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let database = database::Database::open(path)?;
        let handle =
            writer::start("queue", database).map_err(|source| OpenError::Thread { source })?;
        Ok(Self(handle))
    }

    /// Queues what was admitted, unless its submitter used `request_id` in its project before.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(
        &self,
        admitted: Admitted,
        request_id: RequestId,
        id: BuildId,
        now: Timestamp,
    ) -> Result<Submitted, SubmitError> {
        self.submit_then(admitted, request_id, id, now, |_| ())
            .await
    }

    /// The same, and `queued` is done with a new build once it is durable, also when whoever awaits this is gone by
    /// then.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub(crate) async fn submit_then(
        &self,
        admitted: Admitted,
        request_id: RequestId,
        id: BuildId,
        now: Timestamp,
        queued: impl FnOnce(&BuildId) + Send + 'static,
    ) -> Result<Submitted, SubmitError> {
        let canonical = admitted.spec().canonical().map_err(SubmitError::Spec)?;
        let (identity, project) = (admitted.identity(), admitted.project());
        let record = Record {
            build: Build {
                fetches: !admitted.spec().fetches.is_empty(),
                ..Build::new(id, now)
            },
            submission: Arc::new(Submission {
                request_id,
                project: project.clone(),
                submitter: identity.to_string(),
                authenticated_by: identity.authenticated_by().to_owned(),
                spec_object: ObjectId::of(&canonical),
                spec: admitted.into_spec(),
                accepted: now,
            }),
        };
        self.0
            .call_then(
                move |database| database.submit(record, &canonical),
                |submitted| {
                    if let Ok(Submitted::New(record)) = submitted {
                        queued(&record.build.id);
                    }
                },
            )
            .await
    }

    /// One build; none if there is no such.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn get(&self, id: &BuildId) -> Result<Option<Record>, QueueError> {
        let id = id.clone();
        self.0.call(move |database| database.get(&id)).await
    }

    /// Every build that waits, the oldest first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn waiting(&self) -> Result<Vec<BuildId>, QueueError> {
        self.0.call(|database| database.waiting()).await
    }

    /// Every build that was begun and has not ended, the oldest first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn in_flight(&self) -> Result<Vec<Record>, QueueError> {
        self.0.call(|database| database.in_flight()).await
    }

    /// A part of the list of all builds, the newest first.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn list(&self, query: Query) -> Result<Page, QueueError> {
        self.0.call(move |database| database.list(&query)).await
    }

    /// Notes by which digests a build's artifacts are found. May be done again.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn index(&self, id: &BuildId, left: Left) -> Result<(), QueueError> {
        let id = id.clone();
        self.0
            .call(move |database| database.index(&id, &left))
            .await
    }

    /// The first build after a place that succeeded and whose artifacts are not noted.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub(crate) async fn unindexed(&self, after: u64) -> Result<Option<Listed>, QueueError> {
        self.0.call(move |database| database.unindexed(after)).await
    }

    /// The first build after this position, or of all, of which something was published, with its position.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn next_published(
        &self,
        after: Option<i64>,
    ) -> Result<Option<(i64, Record)>, QueueError> {
        self.0
            .call(move |database| database.next_published(after.unwrap_or(0)))
            .await
    }

    /// Builds that are kept after this position, the oldest first, `most` at the most.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn kept(&self, after: i64, most: usize) -> Result<Vec<Kept>, QueueError> {
        let kept = self.0.call(move |database| database.kept(after, most));
        let of = |(position, indexed, record)| Kept {
            position,
            indexed,
            record,
        };
        Ok(kept.await?.into_iter().map(of).collect())
    }

    /// Artifacts of builds that are kept, as far as they are noted, and the evidence of those that were given up.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn kept_objects(&self) -> Result<Vec<Digest>, QueueError> {
        self.0.call(|database| database.kept_objects()).await
    }

    /// Gives up what these builds left but their evidence, except of those that are pinned or have not ended. Gives
    /// how many.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn release(&self, ids: Vec<BuildId>, now: Timestamp) -> Result<u64, QueueError> {
        self.0
            .call(move |database| database.release(&ids, now))
            .await
    }

    /// When what a build left was given up, if it was.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn released(&self, id: &BuildId) -> Result<Option<Timestamp>, QueueError> {
        let id = id.clone();
        self.0.call(move |database| database.released(&id)).await
    }

    /// Pins something; gives the pin, also if it was there before.
    ///
    /// # Errors
    /// See [`PinError`].
    pub async fn pin(&self, pin: Pin) -> Result<Pin, PinError> {
        self.0.call(move |database| database.pin(&pin)).await
    }

    /// Removes a pin; gives it if there was one.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn unpin(&self, number: u64) -> Result<Option<Pin>, QueueError> {
        self.0.call(move |database| database.unpin(number)).await
    }

    /// All pins, in the order of their making.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn pins(&self) -> Result<Vec<Pin>, QueueError> {
        self.0.call(|database| database.pins()).await
    }

    /// Makes one transition durable: from the state with sequence number `from` to `after`.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn advance(&self, from: u64, after: &Build) -> Result<(), QueueError> {
        let after = after.clone();
        self.0
            .call(move |database| database.advance(from, &after))
            .await
    }
}

impl From<Undone> for QueueError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Closed => Self::Closed,
            Undone::Database(error) => Self::Database(error),
        }
    }
}

impl From<Undone> for SubmitError {
    fn from(undone: Undone) -> Self {
        Self::Queue(undone.into())
    }
}

impl Submission {
    /// Digest of the canonical specification.
    pub fn spec_digest(&self) -> Digest {
        self.spec_object.digest
    }
}
