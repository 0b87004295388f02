use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use belljar_core::{Digest, ObjectId};
use rustix::fs::{fstat, stat};

use crate::few::Few;
use crate::verify::is_whole;
use crate::{
    BlobSource, Fault, Finding, Found, LayoutError, Memory, OBJECTS, Quarantined, ReadError,
    Reader, Removal, Writer, objects_of_prefix,
};

/// The care of objects that are there: who owns them removes them, and looks whether they are whole.
pub trait Custody: Send + Sync {
    /// See [`Writer::remove`].
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, digest: Digest, before: u64) -> io::Result<Removal>;

    /// Reads an object to its end, whatever was noted of it; one that is damaged is put aside, see
    /// [`Writer::quarantine`], and so is one that the disk does not give, as long as these are few. `told` hears how many
    /// bytes each piece has that was read, and may keep the next one waiting.
    ///
    /// # Errors
    /// When it cannot be told, or put aside.
    fn examine(&self, digest: Digest, told: &mut dyn FnMut(usize)) -> Result<Finding, ReadError>;

    /// How many damaged objects had others put in their place, or were put aside, since this process began.
    /// What was read of one before may not have been what it is named by.
    fn damages(&self) -> u64;

    /// Whether others find these objects where this does: somebody may have put another directory in the place of the one
    /// that they are in.
    ///
    /// # Errors
    /// What the system says.
    fn is_in_place(&self) -> io::Result<bool>;

    /// The objects whose digests begin so.
    ///
    /// # Errors
    /// What the system says.
    fn of_prefix(&self, prefix: u8) -> io::Result<Vec<Found>>;
}

/// Objects on disk.
#[derive(Debug)]
pub struct Disk {
    writer: Writer,
    reader: Reader,
    root: PathBuf,
    few: Few,
}

impl Disk {
    /// Those that `writer` writes below `root`.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn new(writer: Writer, root: &Path) -> Result<Self, LayoutError> {
        Ok(Self {
            reader: Reader::of(&writer, root)?,
            writer,
            root: root.to_owned(),
            few: Few::default(),
        })
    }
}

impl Custody for Disk {
    fn remove(&self, digest: Digest, before: u64) -> io::Result<Removal> {
        self.writer.remove(digest, before)
    }

    fn examine(&self, digest: Digest, told: &mut dyn FnMut(usize)) -> Result<Finding, ReadError> {
        let finding = self.reader.examine(digest, told)?;
        let (fault, size, inode) = match finding {
            Finding::Damaged { size, inode } => (Fault::Content, size, inode),
            Finding::Unread { size, inode } => (Fault::Unread, size, inode),
            Finding::Whole { .. } | Finding::Absent => return Ok(finding),
        };
        let failed = |source| {
            let object = ObjectId { digest, size };
            ReadError::Io { object, source }
        };
        if fault == Fault::Unread {
            // Whoever gives it again has it read, and it is replaced then, whatever becomes of it here.
            self.writer.0.stamps.forget(digest);
            self.few.take().map_err(failed)?;
        }
        match self.writer.quarantine(digest, inode, fault) {
            Ok(Quarantined::Aside | Quarantined::Removed) => Ok(finding),
            Ok(Quarantined::Replaced) => Ok(Finding::Absent),
            Ok(Quarantined::Stays) => Err(failed(io::Error::other(
                "the disk does not give it; it stays, since too much was put aside already",
            ))),
            Err(error) => Err(failed(error)),
        }
    }

    fn damages(&self) -> u64 {
        self.writer.0.damages.load(Ordering::SeqCst)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let own = fstat(&self.writer.0.objects)?;
        let found = stat(self.root.join(OBJECTS))?;
        Ok((own.st_dev, own.st_ino) == (found.st_dev, found.st_ino))
    }

    fn of_prefix(&self, prefix: u8) -> io::Result<Vec<Found>> {
        objects_of_prefix(&self.root, prefix)
    }
}

impl Custody for Memory {
    fn remove(&self, digest: Digest, _: u64) -> io::Result<Removal> {
        Ok(match self.take(digest) {
            Some(size) => Removal::Removed { bytes: size },
            None => Removal::Absent,
        })
    }

    fn examine(&self, digest: Digest, told: &mut dyn FnMut(usize)) -> Result<Finding, ReadError> {
        let found = self.ids().into_iter().find(|id| id.digest == digest);
        let Some(object) = found else {
            return Ok(Finding::Absent);
        };
        let size = object.size;
        let whole = is_whole(self.read(object)?, object, told);
        if whole.map_err(|source| ReadError::Io { object, source })? {
            return Ok(Finding::Whole { size });
        }
        self.take(digest);
        Ok(Finding::Damaged { size, inode: 0 })
    }

    /// Nothing is put into the place of what is kept.
    fn damages(&self) -> u64 {
        0
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn of_prefix(&self, prefix: u8) -> io::Result<Vec<Found>> {
        let ids = self.ids().into_iter();
        let ids = ids.filter(|id| id.digest.as_bytes()[0] == prefix);
        Ok(ids
            .map(|id| Found {
                digest: id.digest,
                size: id.size,
                bytes: id.size,
                given: 0,
            })
            .collect())
    }
}
