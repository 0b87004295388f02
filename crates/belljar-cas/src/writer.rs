use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belljar_core::{Digest, Hasher, ObjectId, bounds};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, fchmod, fsync, linkat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::failure::is_full;
use crate::layout::{self, object_path};
use crate::{BlobSink, LayoutError, OBJECTS, PendingBlob, TMP, WriteError};

/// Objects are never written to once they have a name, not even by their owner.
const OBJECT_MODE: u32 = 0o440;

/// Writes objects to disk. Only the process that owns them has one.
#[derive(Debug, Clone)]
pub struct Writer(Arc<Directories>);

#[derive(Debug)]
struct Directories {
    objects: OwnedFd,
    tmp: OwnedFd,
    /// Makes the names in `tmp` differ.
    next: AtomicU64,
}

/// A file without a name. Its descriptor is known to this process alone, so what was hashed on the way
/// in is what is there.
struct PendingFile {
    directories: Arc<Directories>,
    file: File,
    expected: Option<ObjectId>,
    hasher: Hasher,
    written: u64,
}

impl Writer {
    /// Makes the layout below `root`, which must exist, belong to this process's user and be writable by
    /// nobody else; and the empty object, which REAPI takes for granted: it is also the proof that objects
    /// can be written there.
    ///
    /// # Errors
    /// Says what is wrong with `root`.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let top = layout::create(root)?;
        let directory = |name: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&top, name, flags, Mode::empty()).map_err(|e| LayoutError::Io {
                path: root.join(name),
                source: e.into(),
            })
        };
        let writer = Self(Arc::new(Directories {
            objects: directory(OBJECTS)?,
            tmp: directory(TMP)?,
            next: AtomicU64::new(0),
        }));
        let empty = writer
            .begin(Some(ObjectId::of(b"")))
            .and_then(PendingBlob::finish);
        empty.map_err(|source| LayoutError::FirstWrite {
            path: root.to_owned(),
            source,
        })?;
        Ok(writer)
    }
}

impl BlobSink for Writer {
    fn begin(&self, expected: Option<ObjectId>) -> Result<Box<dyn PendingBlob>, WriteError> {
        if expected.is_some_and(|object| object.size > bounds::BLOB_BYTES) {
            return Err(WriteError::TooLarge);
        }
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.0.tmp, ".", flags, Mode::RUSR)
            .map_err(|e| failed("opening a file", e.into()))?;
        Ok(Box::new(PendingFile {
            directories: Arc::clone(&self.0),
            file: File::from(file),
            expected,
            hasher: Hasher::new(),
            written: 0,
        }))
    }
}

impl PendingBlob for PendingFile {
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        let written = self.written.saturating_add(piece.len() as u64);
        match self.expected {
            Some(expected) if written > expected.size => {
                return Err(WriteError::TooLong { expected });
            }
            _ if written > bounds::BLOB_BYTES => return Err(WriteError::TooLarge),
            _ => {}
        }
        self.file
            .write_all(piece)
            .map_err(|e| failed("writing", e))?;
        self.hasher.update(piece);
        self.written = written;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError> {
        let Self {
            directories,
            file,
            expected,
            hasher,
            written,
        } = *self;
        let found = ObjectId {
            digest: hasher.finish(),
            size: written,
        };
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(WriteError::Mismatch { expected, found });
        }
        fchmod(&file, Mode::from_raw_mode(OBJECT_MODE))
            .map_err(|e| failed("setting the mode", e.into()))?;
        // The content is durable before it has a name: after a crash, a name means a whole object.
        fsync(&file).map_err(|e| failed("making the content durable", e.into()))?;
        directories.give_name(&file, found)?;
        Ok(found)
    }
}

impl Directories {
    /// Links the file under its object's name; the name is durable when this returns.
    fn give_name(&self, file: &File, object: ObjectId) -> Result<(), WriteError> {
        let path = object_path(object.digest);
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        match linkat(CWD, &unnamed, &self.objects, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.has_size(&path, object.size)? => {}
            Err(Errno::EXIST) => self.replace(&unnamed, object.digest, &path)?,
            Err(error) => return Err(failed("naming", error.into())),
        }
        // Also where the name was there before: who made it may not have come to this point yet.
        self.sync_parent(&path)
            .map_err(|e| failed("making the name durable", e))
    }

    fn has_size(&self, path: &str, size: u64) -> Result<bool, WriteError> {
        let status = statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW);
        let status = status.map_err(|e| failed("looking at the object that is there", e.into()))?;
        Ok(u64::try_from(status.st_size) == Ok(size))
    }

    /// Puts verified content in the place of an object whose size shows that it is damaged.
    fn replace(&self, unnamed: &str, digest: Digest, path: &str) -> Result<(), WriteError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{number}", digest.to_hex());
        let failed = |e: Errno| failed("replacing a damaged object", e.into());
        linkat(CWD, unnamed, &self.tmp, &name, AtFlags::SYMLINK_FOLLOW).map_err(failed)?;
        renameat(&self.tmp, &name, &self.objects, path).map_err(|error| {
            // The first error is the one to tell; a name that stays is removed at the next start.
            let _ = unlinkat(&self.tmp, &name, AtFlags::empty());
            failed(error)
        })
    }

    fn sync_parent(&self, path: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fsync(openat(
            &self.objects,
            &path[..2],
            flags,
            Mode::empty(),
        )?)?)
    }
}

fn failed(doing: &'static str, source: io::Error) -> WriteError {
    if is_full(&source) {
        WriteError::Full(source)
    } else {
        WriteError::Io { doing, source }
    }
}
