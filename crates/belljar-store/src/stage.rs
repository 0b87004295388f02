use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use belljar_cas::{BlobSource, LaidOut, LayOutError, Order, STAGE, ScanError, TMP, lay_out, scan};
use belljar_core::{AttemptId, ObjectId};

use crate::failed::Failed;

/// The name of the copy in its attempt's directory.
const TREE: &str = "tree";

/// Who belongs to the store's group may look at the attempt's directory; the spawner may anyway.
const ATTEMPT_MODE: u32 = 0o750;

/// Where inputs are laid out: one directory for each attempt.
#[derive(Debug)]
pub(crate) struct Area {
    path: PathBuf,
    /// Attempts that a [`StagedCopy`] exists for. An attempt in here has one owner.
    claims: Mutex<BTreeSet<AttemptId>>,
    /// Counts calls of [`Area::release_all`]; whoever lays out under an old number stops.
    epoch: AtomicU64,
    /// Held for reading while a tree is laid out, for writing while all are removed.
    laying_out: RwLock<()>,
}

/// The inputs of one attempt, laid out. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct StagedCopy {
    area: Arc<Area>,
    attempt: AttemptId,
    tree: ObjectId,
}

impl Area {
    /// The area below the store's `root`, emptied of what an earlier run left there and in `tmp/`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        remove_content(&root.join(TMP))?;
        let path = root.join(STAGE);
        remove_content(&path)?;
        Ok(Self {
            path,
            claims: Mutex::default(),
            epoch: AtomicU64::new(0),
            laying_out: RwLock::default(),
        })
    }

    /// Verifies a tree and lays it out for `attempt`. Nothing is left when that fails.
    pub(crate) fn stage(
        self: &Arc<Self>,
        source: &dyn BlobSource,
        attempt: AttemptId,
        order: Order,
    ) -> Result<(StagedCopy, LaidOut), Failed> {
        let _laying_out = self
            .laying_out
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch.load(Ordering::SeqCst);
        if !self.claims().insert(attempt.clone()) {
            return Err(Failed::refused(format!(
                "the attempt {attempt} is staged already, or still being released"
            )));
        }
        // From here on a failure removes what was made, and gives the claim back.
        let copy = StagedCopy {
            area: Arc::clone(self),
            attempt,
            tree: order.tree,
        };
        let directory = copy
            .make_directory()
            .map_err(|e| Failed::internal("making the attempt's directory", &e))?;
        let stop = || self.epoch.load(Ordering::SeqCst) != epoch;
        match lay_out(source, order, directory.as_fd(), TREE, &stop) {
            Ok(done) => Ok((copy, done)),
            Err(LayOutError::Stopped) => Err(Failed::refused(
                "the spawner was started anew; its inputs are released",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes every staged copy; those that are being laid out stop first.
    pub(crate) fn release_all(&self) -> io::Result<()> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let _alone = self
            .laying_out
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        remove_content(&self.path)
    }

    fn claims(&self) -> MutexGuard<'_, BTreeSet<AttemptId>> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of one.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StagedCopy {
    /// Whether the copy on disk still has the digest of the tree that it was made from.
    pub(crate) fn is_unchanged(&self) -> Result<bool, Failed> {
        let directory = File::open(self.path())
            .map_err(|e| Failed::internal("opening the staged inputs", &e))?;
        match scan(directory.as_fd(), TREE) {
            Ok(found) => Ok(found == self.tree),
            Err(ScanError::Foreign { path, why }) => {
                tracing::warn!(attempt = %self.attempt, path, why, "the staged inputs were changed");
                Ok(false)
            }
            Err(error @ ScanError::Io { .. }) => {
                Err(Failed::internal("reading the staged inputs", &error))
            }
        }
    }

    /// Removes the copy; that it is gone already is fine.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path())
    }

    fn path(&self) -> PathBuf {
        self.area.path.join(self.attempt.to_string())
    }

    fn make_directory(&self) -> io::Result<File> {
        let path = self.path();
        // A copy whose removal failed once: nobody else can own it, since the claim is ours.
        remove_tree(&path)?;
        DirBuilder::new().mode(ATTEMPT_MODE).create(&path)?;
        let directory = File::open(&path)?;
        // Whatever the umask is.
        directory.set_permissions(Permissions::from_mode(ATTEMPT_MODE))?;
        Ok(directory)
    }
}

impl Drop for StagedCopy {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::error!(attempt = %self.attempt, %error, "staged inputs could not be removed");
        }
        self.area.claims().remove(&self.attempt);
    }
}

fn remove_content(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory with all that is in it, without following links (std keeps to descriptors).
fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
