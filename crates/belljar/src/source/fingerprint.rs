use std::fs::File;

use belljar_core::RelPath;
use rustix::fs::{FileType, Mode, Stat, fstat};

use super::Error;
use super::root::Root;

/// What tells one state of a file from another, without reading it: device, inode, mode, size, and the times
/// of the last change to its content and to its inode, in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) modified: (i64, u64),
    pub(super) changed: (i64, u64),
}

impl Fingerprint {
    /// Of a regular file that is open for reading.
    pub(super) fn of(path: &RelPath, root: &Root, file: &File) -> Result<Self, Error> {
        let stat = fstat(file).map_err(|e| root.unreadable(path, e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Changed(path.clone()));
        }
        Ok(Self::from(&stat))
    }

    /// Whether `file` is still as it was.
    pub(super) fn check(&self, path: &RelPath, file: &File) -> Result<(), Error> {
        match fstat(file) {
            Ok(stat) if Self::from(&stat) == *self => Ok(()),
            _ => Err(Error::Changed(path.clone())),
        }
    }

    /// Whether its owner may execute it.
    pub(super) fn executable(&self) -> bool {
        Mode::from_raw_mode(self.mode).contains(Mode::XUSR)
    }
}

impl From<&Stat> for Fingerprint {
    fn from(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: stat.st_mode,
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}
