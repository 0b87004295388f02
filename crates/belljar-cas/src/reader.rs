use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use belljar_core::ObjectId;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, statat};
use rustix::io::Errno;

use crate::layout::{VERIFIED, mark_verified, object_path};
use crate::{BlobSource, LayoutError, OBJECTS, ReadError, VerifyingRead};

/// Reads objects from disk. Any member of the store's group may have one.
#[derive(Debug)]
pub struct Reader {
    objects: OwnedFd,
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
            Ok(objects) => Ok(Self { objects }),
            Err(error) => Err(LayoutError::Io {
                path,
                source: error.into(),
            }),
        }
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

    /// Without reading it where its time says that nothing was written to it since it was verified. Who owns
    /// objects notes there that it has verified one.
    fn verify(&self, object: ObjectId) -> Result<bool, ReadError> {
        let path = object_path(object.digest);
        if let Ok(status) = statat(&self.objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            let whole = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
                && u64::try_from(status.st_size) == Ok(object.size);
            let modified = (
                i128::from(status.st_mtime),
                i128::from(status.st_mtime_nsec),
            );
            let verified = (i128::from(VERIFIED.tv_sec), i128::from(VERIFIED.tv_nsec));
            if whole && modified == verified {
                return Ok(true);
            }
        }
        let file = self.open(object)?;
        let mut content = VerifyingRead::new(&file, object);
        match io::copy(&mut content, &mut io::sink()) {
            Ok(_) => {
                // For whoever may not, it is read again the next time.
                let _ = mark_verified(&file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(source) => Err(ReadError::Io { object, source }),
        }
    }
}
