use std::fs::File;
use std::io::{self};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use belljar_core::{BlobName, Digest, ObjectId, bounds};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, Stat, flock, fsync, linkat, openat, renameat,
    statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use crate::failure::{is_full, is_unreadable};
use crate::layout::{self, object_path};
use crate::pending::PendingFile;
use crate::reader::is_marked;
use crate::stamps::Stamps;
use crate::{
    Batch, BlobSink, LayoutError, OBJECTS, PendingBlob, QUARANTINE, STAMPS, TMP, VerifyingRead,
    WriteError,
};

/// Writes objects to disk. Only the process that owns them has one.
#[derive(Debug, Clone)]
pub struct Writer(pub(crate) Arc<Directories>);

#[derive(Debug)]
pub(crate) struct Directories {
    pub(crate) objects: OwnedFd,
    pub(crate) tmp: OwnedFd,
    pub(crate) quarantine: OwnedFd,
    pub(crate) stamps: Arc<Stamps>,
    /// How many damaged objects had others put in their place, or were put aside.
    pub(crate) damages: AtomicU64,
    /// Held while a name is given or taken away: who was told that an object is there finds it there.
    pub(crate) names: Mutex<()>,
    /// For how many seconds an object that was given needs not be noted when it is given again.
    recent: AtomicU64,
    /// Locked (flock(2)) as long as this lives: a root has one owner.
    _root: OwnedFd,
    /// Makes the names in `tmp` differ.
    next: AtomicU64,
}

impl Writer {
    /// Makes the layout below `root`, which must exist, belong to this process's user and be writable by
    /// nobody else; and the empty object, which REAPI takes for granted: it is also the proof that objects
    /// can be written there. As long as this or a clone of it lives, `root` is locked.
    ///
    /// # Errors
    /// Says what is wrong with `root`.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let top = layout::create(root)?;
        flock(&top, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => LayoutError::InUse(root.to_owned()),
            other => LayoutError::Io {
                path: root.to_owned(),
                source: other.into(),
            },
        })?;
        let directory = |name: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&top, name, flags, Mode::empty()).map_err(|e| LayoutError::Io {
                path: root.join(name),
                source: e.into(),
            })
        };
        let stamps = Stamps::open(&top).map_err(|source| LayoutError::Io {
            path: root.join(STAMPS),
            source,
        })?;
        let writer = Self(Arc::new(Directories {
            objects: directory(OBJECTS)?,
            tmp: directory(TMP)?,
            quarantine: directory(QUARANTINE)?,
            stamps: Arc::new(stamps),
            damages: AtomicU64::new(0),
            names: Mutex::default(),
            recent: AtomicU64::new(0),
            _root: top,
            next: AtomicU64::new(0),
        }));
        let empty = writer
            .begin(Some(ObjectId::of(b"").into()))
            .and_then(PendingBlob::finish);
        empty.map_err(|source| LayoutError::FirstWrite {
            path: root.to_owned(),
            source,
        })?;
        Ok(writer)
    }

    /// An object that is given again within so many seconds is not noted to have been: whoever has those removed that were
    /// given before a time counts as many more. By default each time is noted.
    pub fn note_no_more_than_every(&self, seconds: u64) {
        self.0.recent.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn stamps(&self) -> Arc<Stamps> {
        Arc::clone(&self.0.stamps)
    }
}

impl BlobSink for Writer {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        if expected.is_some_and(|object| object.size > bounds::BLOB_BYTES) {
            return Err(WriteError::TooLarge);
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.0.tmp, ".", flags, Mode::RUSR)
            .map_err(|e| failed("opening a file", e.into()))?;
        let directories = Arc::clone(&self.0);
        Ok(Box::new(PendingFile::new(
            directories,
            File::from(file),
            expected,
        )))
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let since = openat(&self.0.tmp, ".", flags, Mode::empty());
        let since = since.map_err(|e| failed("opening a directory", e.into()))?;
        // Through it the system tells of every failure to write from here on (syncfs(2)).
        Ok(Batch::new(File::from(since)))
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (since, objects): (File, Vec<(ObjectId, File)>) = batch.into_parts()?;
        // As for one object: content first, names after, and then those. The whole file system is flushed
        // instead of each file, which costs about as much as one of them.
        syncfs(&since).map_err(|e| failed("making content durable", e.into()))?;
        for (object, file) in &objects {
            self.0.give_name(file, *object)?;
        }
        syncfs(&since).map_err(|e| failed("making names durable", e.into()))
    }

    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError> {
        let path = object_path(object.digest);
        let _names = self.0.lock();
        match statat(&self.0.objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => self.0.again(&path, object, &status),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("looking at the object that is there", error.into())),
        }
    }
}

impl Directories {
    /// Links the file under its object's name. That it is there already is fine if it is as it was when it was
    /// verified; else the file, which was verified just now, takes its place.
    pub(crate) fn give_name(&self, file: &File, object: ObjectId) -> Result<(), WriteError> {
        let path = object_path(object.digest);
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        let _names = self.lock();
        match linkat(CWD, &unnamed, &self.objects, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if self.again(&path, object, &self.look(&path)?)? {
                    return Ok(());
                }
                self.replace(&unnamed, object.digest, &path)?;
            }
            Err(error) => return Err(failed("naming", error.into())),
        }
        self.stamps.note(object.digest, &self.look(&path)?);
        Ok(())
    }

    /// Gives the object that is there again, if it is whole. The caller has the names, and has looked.
    fn again(&self, path: &str, object: ObjectId, status: &Stat) -> Result<bool, WriteError> {
        let known = u64::try_from(status.st_size) == Ok(object.size)
            && is_marked(status)
            && self.stamps.fits(object.digest, status);
        if known && self.is_recent(status) {
            return Ok(true);
        }
        let whole = known || self.is_whole(path, object)?;
        if whole {
            // Its time of change says so, and nobody removes it for a while.
            self.touch(path)?;
            self.stamps.note(object.digest, &self.look(path)?);
        }
        Ok(whole)
    }

    /// Whether an object was given so lately that it needs not be noted again.
    fn is_recent(&self, status: &Stat) -> bool {
        let changed = u64::try_from(status.st_ctime).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let recent = self.recent.load(Ordering::Relaxed);
        now.is_ok_and(|now| now.as_secs().saturating_sub(changed) < recent)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        // It guards no data.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, path: &str) -> Result<Stat, WriteError> {
        let status = statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW);
        status.map_err(|e| failed("looking at the object that is there", e.into()))
    }

    fn touch(&self, path: &str) -> Result<(), WriteError> {
        let touched = layout::mark_verified_at(&self.objects, path);
        touched.map_err(|e| failed("setting the time of the object that is there", e))
    }

    /// Whether what is there is the object, of which nothing is noted or which was changed since.
    fn is_whole(&self, path: &str, object: ObjectId) -> Result<bool, WriteError> {
        let reading = |source: io::Error| failed("reading the object that is there", source);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.objects, path, flags, Mode::empty());
        let file = File::from(file.map_err(|e| reading(e.into()))?);
        match io::copy(&mut VerifyingRead::new(file, object), &mut io::sink()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            // What was given now takes its place.
            Err(error) if is_unreadable(&error) => Ok(false),
            Err(error) => Err(reading(error)),
        }
    }

    /// Puts verified content in the place of an object that is damaged.
    fn replace(&self, unnamed: &str, digest: Digest, path: &str) -> Result<(), WriteError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{number}", digest.to_hex());
        let failed = |e: Errno| failed("replacing a damaged object", e.into());
        // Before it is done: whoever looks after this finds it counted.
        self.damages.fetch_add(1, Ordering::SeqCst);
        linkat(CWD, unnamed, &self.tmp, &name, AtFlags::SYMLINK_FOLLOW).map_err(failed)?;
        renameat(&self.tmp, &name, &self.objects, path).map_err(|error| {
            // The first error is the one to tell; a name that stays is removed at the next start.
            let _ = unlinkat(&self.tmp, &name, AtFlags::empty());
            failed(error)
        })
    }

    pub(crate) fn sync_parent(&self, object: ObjectId) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = &object_path(object.digest)[..2];
        Ok(fsync(openat(&self.objects, parent, flags, Mode::empty())?)?)
    }
}

pub(crate) fn failed(doing: &'static str, source: io::Error) -> WriteError {
    if is_full(&source) {
        WriteError::Full(source)
    } else {
        WriteError::Io { doing, source }
    }
}
