//! Which project may use which object of the store: those that it has sent, those that its builds left,
//! and trees that were made for it. Without an entry an object is, for a project, not there. And what a project has named
//! by BLAKE3 as it sent it, is for this project, and for no other, also to be found by that.
//!
//! One SQLite database with one thread that writes; whoever asks reads by a connection of its own. Entries
//! are added as objects come, and go, for all projects at once, before the objects do. What is lost with the file is
//! found again: clients send again what is missing, and [`rebuild`] reads what builds left from their records.

mod database;
mod rebuild;
#[cfg(test)]
mod tests;
mod uses;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use belljar_core::{Blake3Digest, Digest, ProjectId};

use crate::writer::{Handle, Undone, start};
use database::{Reader, Writer};

pub(crate) use rebuild::published;
pub use rebuild::{RebuildError, rebuild};

/// A handle on the index. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ownership {
    writer: Handle<Writer>,
    reader: Arc<Mutex<Reader>>,
    new: bool,
}

/// Why the index did not answer, or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// It could not be opened or made.
    #[error(
        "{}: the index of objects by project cannot be opened; if it is damaged, move it away: it is made again from the \
         builds' records, and clients send again what else they need", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Not Belljar's, or of another version.
    #[error("{}: {what}; use the version that wrote it, or move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Its thread could not be started.
    #[error("the thread of the index of objects cannot be started")]
    Thread(#[source] std::io::Error),
    /// The database refused; nothing was changed.
    #[error("the index of objects by project failed")]
    Database(#[source] Arc<rusqlite::Error>),
    /// Its thread has ended.
    #[error("the index of objects by project is closed")]
    Closed,
}

impl Ownership {
    /// Opens the index at `path`, or makes it, and starts its thread.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn open(path: &Path) -> Result<Self, OwnershipError> {
        let (writer, new) = Writer::open(path)?;
        let reader = Reader::open(path)?;
        Ok(Self {
            writer: start("ownership", writer).map_err(OwnershipError::Thread)?,
            reader: Arc::new(Mutex::new(reader)),
            new,
        })
    }

    /// Whether the index has just been made, and knows nothing of earlier builds.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Gives objects to a project. Durable when this returns; fine for those that it has.
    ///
    /// # Errors
    /// See [`OwnershipError`]; then it may have some of them, the first ones.
    pub async fn grant(
        &self,
        project: &ProjectId,
        objects: Vec<Digest>,
    ) -> Result<(), OwnershipError> {
        if objects.is_empty() {
            return Ok(());
        }
        let (project, now) = (project.clone(), now());
        self.writer
            .call(move |database| database.grant(&project, &objects, now))
            .await
    }

    /// Gives objects to a project that has sent them by their BLAKE3, as [`Ownership::grant`] does: from then on it finds
    /// them by that, too. Both digests of each were verified on the same content.
    ///
    /// # Errors
    /// As [`Ownership::grant`].
    pub async fn grant_named(
        &self,
        project: &ProjectId,
        objects: Vec<(Blake3Digest, Digest)>,
    ) -> Result<(), OwnershipError> {
        if objects.is_empty() {
            return Ok(());
        }
        let (project, now) = (project.clone(), now());
        self.writer
            .call(move |database| database.grant_named(&project, &objects, now))
            .await
    }

    /// Notes that a project was told to have these objects, or trees with these roots, so that they stay for a
    /// lease; not those of which that was noted `within` seconds. Durable when this returns.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub async fn touch(
        &self,
        project: &ProjectId,
        digests: Vec<Digest>,
        within: u64,
    ) -> Result<(), OwnershipError> {
        let (handle, project, now) = (self.clone(), project.clone(), now());
        let looked = tokio::task::spawn_blocking({
            let project = project.clone();
            move || handle.stale(&project, &digests, now.saturating_sub(within))
        });
        let stale = looked.await.map_err(|_| OwnershipError::Closed)??;
        if stale.is_empty() {
            return Ok(());
        }
        self.writer
            .call(move |database| database.touch(&project, &stale, now))
            .await
    }

    /// Takes objects, and trees with these roots, from every project, but not those that one has used at
    /// `before` (in seconds since 1970) or later. Gives those that no project has any more. Durable when this
    /// returns.
    ///
    /// # Errors
    /// See [`OwnershipError`]; then nothing is taken.
    pub async fn forget(
        &self,
        digests: Vec<Digest>,
        before: u64,
    ) -> Result<Vec<Digest>, OwnershipError> {
        self.writer
            .call(move |database| database.forget(digests, before))
            .await
    }

    /// The trees that one project or another was told to have at `since` or later, and when last, in seconds since
    /// 1970. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn trees(&self, since: u64) -> Result<Vec<(Digest, u64)>, OwnershipError> {
        self.reader().trees(since)
    }

    /// Tells when each object was last used, in seconds since 1970, once for each project that has it. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn objects(&self, tell: impl FnMut(Digest, u64)) -> Result<(), OwnershipError> {
        self.reader().objects(tell)
    }

    fn stale(
        &self,
        project: &ProjectId,
        digests: &[Digest],
        before: u64,
    ) -> Result<Vec<Digest>, OwnershipError> {
        self.reader().stale(project, digests, before)
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a tree to a project, by its root: the project may build on all of it, and read none of it by
    /// this. For trees that were made for it.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub async fn grant_tree(
        &self,
        project: &ProjectId,
        root: Digest,
    ) -> Result<(), OwnershipError> {
        let (project, now) = (project.clone(), now());
        self.writer
            .call(move |database| database.grant_tree(&project, root, now))
            .await
    }

    /// For each of these objects, whether the project has it. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn owns(
        &self,
        project: &ProjectId,
        objects: &[Digest],
    ) -> Result<Vec<bool>, OwnershipError> {
        self.reader().owns(project, objects)
    }

    /// For each of these, the object that the project has sent by it and has. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn by_blake3(
        &self,
        project: &ProjectId,
        digests: &[Blake3Digest],
    ) -> Result<Vec<Option<Digest>>, OwnershipError> {
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        self.reader().by_blake3(project, digests)
    }

    /// Whether the project has the whole tree with this root. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn owns_tree(&self, project: &ProjectId, root: Digest) -> Result<bool, OwnershipError> {
        self.reader().owns_tree(project, root)
    }
}

impl From<Undone> for OwnershipError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Closed => Self::Closed,
            Undone::Database(error) => Self::Database(error),
        }
    }
}

impl From<rusqlite::Error> for OwnershipError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
