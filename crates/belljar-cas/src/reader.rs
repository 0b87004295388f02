use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use belljar_core::{Digest, ObjectId};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, statat,
};
use rustix::io::Errno;

use crate::blob::Identity;
use crate::failure::is_unreadable;
use crate::layout::{VERIFIED, mark_verified, object_path, object_place};
use crate::stamps::{Look, Stamps};
use crate::verify::is_whole;
use crate::{BlobSource, HeldObject, LayoutError, OBJECTS, ReadError, Writer};

/// What an object turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// What it is named by.
    Whole {
        /// Bytes of content.
        size: u64,
    },
    /// Something else.
    Damaged {
        /// Bytes of content.
        size: u64,
        /// Which file it was.
        inode: u64,
    },
    /// The disk does not give it.
    Unread {
        /// Bytes of content that it should have.
        size: u64,
        /// Which file it was.
        inode: u64,
    },
    /// There is none.
    Absent,
}

/// Reads objects from disk. Any member of the store's group may have one.
#[derive(Debug)]
pub struct Reader {
    objects: OwnedFd,
    /// For who owns the objects.
    stamps: Option<Arc<Stamps>>,
}

impl Reader {
    /// Reads below `root`, where a [`crate::Writer`] has made the layout.
    ///
    /// # Errors
    /// When the layout is not there or cannot be entered.
    pub fn new(root: &Path) -> Result<Self, LayoutError> {
        let path = root.join(OBJECTS);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(&path, flags, Mode::empty()) {
            Ok(objects) => Ok(Self {
                objects,
                stamps: None,
            }),
            Err(error) => Err(LayoutError::Io {
                path,
                source: error.into(),
            }),
        }
    }

    /// Reads what `writer` writes below `root`, and knows what was verified already.
    ///
    /// # Errors
    /// As [`Reader::new`].
    pub fn of(writer: &Writer, root: &Path) -> Result<Self, LayoutError> {
        Ok(Self {
            stamps: Some(writer.stamps()),
            ..Self::new(root)?
        })
    }

    /// The file that holds an object, `object.size` bytes long.
    ///
    /// # Errors
    /// As [`BlobSource::read`].
    pub fn open(&self, object: ObjectId) -> Result<File, ReadError> {
        let failed = |source: io::Error| ReadError::Io { object, source };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = match openat2(
            &self.objects,
            object_path(object.digest),
            flags,
            Mode::empty(),
            within,
        ) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(ReadError::Missing(object)),
            Err(error) => return Err(failed(error.into())),
        };
        let status = fstat(&file).map_err(|e| failed(e.into()))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let found = u64::try_from(status.st_size).unwrap_or(0);
        if found != object.size {
            return Err(ReadError::Size { object, found });
        }
        Ok(File::from(file))
    }
}

impl BlobSource for Reader {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        Ok(Box::new(self.open(object)?))
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        // The path has no link in it that is not the owner's own; opening would cost several times as much.
        let path = object_path(object.digest);
        let failed = |source: io::Error| ReadError::Io { object, source };
        let status = match statat(&self.objects, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(failed(error.into())),
        };
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        Ok(u64::try_from(status.st_size) == Ok(object.size))
    }

    /// Without reading it where it looks as it did when it was last verified. Who owns the objects notes that.
    fn verify(&self, object: ObjectId) -> Result<bool, ReadError> {
        let path = object_path(object.digest);
        if self.looks_verified(&self.objects, &path, object) {
            return Ok(true);
        }
        self.rehash(object, &mut |_| {})
    }

    fn are_whole(&self, objects: &[ObjectId]) -> bool {
        let looks = self.looks(objects);
        let looked: Vec<Look> = looks.iter().flatten().copied().collect();
        let mut known = match &self.stamps {
            Some(stamps) => stamps.fit(&looked).into_iter(),
            None => Vec::new().into_iter(),
        };
        objects.iter().zip(looks).all(|(object, look)| {
            let is_known = look.is_some() && known.next() == Some(true);
            is_known || matches!(self.rehash(*object, &mut |_| {}), Ok(true))
        })
    }

    fn hold(&self, objects: &[ObjectId]) -> Option<Vec<HeldObject>> {
        let stamps = self.stamps.as_ref()?;
        let mut directory = Neighbours::of(&self.objects);
        let mut parents = Parents::default();
        let mut hold = |object: &ObjectId| {
            let mut digits = [0; 64];
            let (directory, name) = directory.place_of(*object, &mut digits)?;
            let parent = parents.get(*object, || fstat(directory).ok())?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(directory, name, flags, Mode::empty()).ok()?;
            let status = fitting(fstat(&file).ok()?, *object)?;
            let look = Look::of(object.digest, &status);
            Some((HeldObject::new(*object, file, &status, parent), look))
        };
        let held: Option<Vec<_>> = objects.iter().map(&mut hold).collect();
        let (held, looks): (Vec<_>, Vec<_>) = held?.into_iter().unzip();
        let known = stamps.fit(&looks).into_iter().all(|known| known);
        known.then_some(held)
    }

    fn are_as_held(&self, held: &[HeldObject]) -> bool {
        let mut parents = Parents::default();
        let mut is_in_place = |one: &HeldObject| {
            let mut digits = [0; 64];
            let (name, _) = object_place(one.object().digest.hex_in(&mut digits));
            let look = || statat(&self.objects, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            parents.get(one.object(), look) == Some(one.parent())
        };
        held.iter().all(|one| match (one.new_look(), &self.stamps) {
            _ if !is_in_place(one) => false,
            (Ok(None), _) => true,
            // That it was given again is noted in its file as well.
            (Ok(Some(status)), Some(stamps)) => fitting(status, one.object())
                .is_some_and(|status| stamps.fits(one.object().digest, &status)),
            (Ok(Some(_)), None) | (Err(_), _) => false,
        })
    }
}

impl Reader {
    /// Reads an object to its end, of whatever size it is. `told` hears how many bytes each piece has.
    ///
    /// # Errors
    /// As [`BlobSource::read`].
    pub fn examine(
        &self,
        digest: Digest,
        told: &mut dyn FnMut(usize),
    ) -> Result<Finding, ReadError> {
        let path = object_path(digest);
        let status = match statat(&self.objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(Finding::Absent),
            Err(error) => {
                let object = ObjectId { digest, size: 0 };
                let source = error.into();
                return Err(ReadError::Io { object, source });
            }
        };
        let size = u64::try_from(status.st_size).unwrap_or(0);
        match self.rehash(ObjectId { digest, size }, told) {
            Ok(true) => Ok(Finding::Whole { size }),
            Ok(false) => Ok(Finding::Damaged {
                size,
                inode: status.st_ino,
            }),
            Err(ReadError::Missing(_)) => Ok(Finding::Absent),
            Err(ReadError::Io { source, .. }) if is_unreadable(&source) => Ok(Finding::Unread {
                size,
                inode: status.st_ino,
            }),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is there and looks as it did when it was last verified.
    fn looks_verified(&self, directory: &OwnedFd, path: &str, object: ObjectId) -> bool {
        let Some(stamps) = &self.stamps else {
            return false;
        };
        looked(directory, path, object).is_some_and(|status| stamps.fits(object.digest, &status))
    }

    /// What each of these looks like, of those that may be what they are named by.
    fn looks(&self, objects: &[ObjectId]) -> Vec<Option<Look>> {
        let mut directory = Neighbours::of(&self.objects);
        let look = |object: &ObjectId| {
            let mut digits = [0; 64];
            let (directory, name) = directory.place_of(*object, &mut digits)?;
            let status = looked(directory, name, *object)?;
            Some(Look::of(object.digest, &status))
        };
        objects.iter().map(look).collect()
    }

    #[cfg(test)]
    pub(crate) fn stamps(&self) -> &Stamps {
        self.stamps.as_deref().unwrap()
    }

    /// Whether the content of an object is what it is named by, which is read whatever was noted of it.
    fn rehash(&self, object: ObjectId, told: &mut dyn FnMut(usize)) -> Result<bool, ReadError> {
        let failed = |source: io::Error| ReadError::Io { object, source };
        let file = self.open(object)?;
        let status = || fstat(&file).map_err(|e| failed(e.into()));
        let mut before = status()?;
        if self.stamps.is_some() && !is_marked(&before) {
            // Before it is read, so that whoever writes to it meanwhile is seen.
            mark_verified(&file).map_err(failed)?;
            before = status()?;
        }
        if !is_whole(&file, object, told).map_err(failed)? {
            return Ok(false);
        }
        if let Some(stamps) = &self.stamps
            && is_marked(&before)
            && looks_alike(&before, &status()?)
        {
            stamps.note(object.digest, &before);
        }
        Ok(true)
    }
}

/// The directory of one object after the other: neighbours are in one. It is a thread's own: on a descriptor of the
/// whole process all threads would wait for each other's count of its users.
struct Neighbours<'a> {
    objects: &'a OwnedFd,
    /// The last one, and the first byte of the digests of those that are in it.
    directory: Option<(u8, OwnedFd)>,
}

impl<'a> Neighbours<'a> {
    fn of(objects: &'a OwnedFd) -> Self {
        Self {
            objects,
            directory: None,
        }
    }

    /// Where an object is, by its name in a directory; none where there is no such directory.
    fn place_of<'d>(
        &mut self,
        object: ObjectId,
        digits: &'d mut [u8; 64],
    ) -> Option<(&OwnedFd, &'d str)> {
        let prefix = object.digest.as_bytes()[0];
        let (parent, name) = object_place(object.digest.hex_in(digits));
        if self.directory.as_ref().is_none_or(|(of, _)| *of != prefix) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = openat(self.objects, parent, flags, Mode::empty());
            self.directory = opened.ok().map(|opened| (prefix, opened));
        }
        let (_, directory) = self.directory.as_ref()?;
        Some((directory, name))
    }
}

/// Which directory objects are in, asked once for neighbours.
#[derive(Default)]
struct Parents(Option<(u8, Option<Identity>)>);

impl Parents {
    fn get(&mut self, object: ObjectId, look: impl FnOnce() -> Option<Stat>) -> Option<Identity> {
        let prefix = object.digest.as_bytes()[0];
        if self.0.is_none_or(|(of, _)| of != prefix) {
            self.0 = Some((prefix, look().map(|status| (status.st_dev, status.st_ino))));
        }
        self.0.and_then(|(_, parent)| parent)
    }
}

/// The status of an object that is there and fits.
fn looked(directory: &OwnedFd, path: &str, object: ObjectId) -> Option<Stat> {
    let status = statat(directory, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    fitting(status, object)
}

/// A status, if it is one of a file that has the size of an object and bears the mark of those that were verified.
fn fitting(status: Stat, object: ObjectId) -> Option<Stat> {
    let fits = u64::try_from(status.st_size) == Ok(object.size) && is_marked(&status);
    fits.then_some(status)
}

/// Whether it is a file that nobody has written to since it was marked.
pub(crate) fn is_marked(status: &Stat) -> bool {
    let modified = (
        i128::from(status.st_mtime),
        i128::from(status.st_mtime_nsec),
    );
    let verified = (i128::from(VERIFIED.tv_sec), i128::from(VERIFIED.tv_nsec));
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && modified == verified
}

fn looks_alike(one: &Stat, other: &Stat) -> bool {
    let of = |status: &Stat| {
        (
            (status.st_size, status.st_mtime, status.st_mtime_nsec),
            (status.st_ctime, status.st_ctime_nsec),
        )
    };
    of(one) == of(other)
}
