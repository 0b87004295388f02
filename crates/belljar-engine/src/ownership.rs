//! Which project may use which object of the store: those that it has sent, those that its builds left,
//! and trees that were made for it. Without an entry an object is, for a project, not there.
//!
//! One SQLite database with one thread that writes; whoever asks reads by a connection of its own. Entries
//! are only ever added, as objects are. What is lost with the file is found again: clients send again what
//! is missing, and [`rebuild`] reads what builds left from their records.

mod database;
mod rebuild;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use belljar_core::{Digest, ProjectId};

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
    /// See [`OwnershipError`]; then it has none of them that it had not before.
    pub async fn grant(
        &self,
        project: &ProjectId,
        objects: Vec<Digest>,
    ) -> Result<(), OwnershipError> {
        if objects.is_empty() {
            return Ok(());
        }
        let project = project.clone();
        self.writer
            .call(move |database| database.grant(&project, &objects))
            .await
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
        let project = project.clone();
        self.writer
            .call(move |database| database.grant_tree(&project, root))
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
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.owns(project, objects)
    }

    /// Whether the project has the whole tree with this root. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OwnershipError`].
    pub fn owns_tree(&self, project: &ProjectId, root: Digest) -> Result<bool, OwnershipError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.owns_tree(project, root)
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
