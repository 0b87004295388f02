//! What was hashed before: a file that looks as it did then need not be read again.
//!
//! As git's index does it (git's `Documentation/technical/racy-git`): a digest is remembered under everything
//! that stat(2) tells of a file, and only if the file had come to rest [`REST`] before it was read, since a later
//! change could else bear the same time. Who can set the clock, or writes through a mapping that was made before,
//! can deceive it, as with git.
//!
//! It is for speed alone, and each user's own: the store verifies what is uploaded, and content that is not what
//! was remembered is noticed before it goes up. Whatever is wrong with what is kept, it is thrown away, and the
//! files are read.

mod record;
mod shelf;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use belljar_core::{Digest, ObjectId};
use rustix::fs::{fstat, fstatfs};

use super::SourceFile;
use super::fingerprint::Fingerprint;
use super::root::Root;

use shelf::Shelf;
pub(crate) use shelf::home;

/// How long a file must have been left alone before its digest is remembered: the coarsest time stamps of the file
/// systems below are of one second.
const REST: Duration = Duration::from_secs(2);

/// Local file systems whose time of the last change of an inode is the kernel's own clock (`f_type`, statfs(2)):
/// ext2 to ext4, XFS, btrfs, tmpfs, F2FS, overlayfs, bcachefs, ZFS. A server's clock may be another one.
const OF_THIS_CLOCK: [i64; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0x794c_7630,
    0xca45_1a4e,
    0x2fc1_2fc1,
];

/// Where digests are remembered, and what time it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory<'a> {
    /// The directory of the user's caches.
    pub(crate) home: &'a Path,
    /// Before any of the files is looked at.
    pub(crate) now: SystemTime,
}

/// What is remembered of one source directory.
#[derive(Debug)]
pub(super) struct Remembered {
    shelf: Shelf,
    directory: PathBuf,
    known: HashMap<String, Entry>,
    /// Files of other devices may be a server's.
    device: u64,
    /// Files that changed at this second or later have not come to rest.
    rested: i64,
}

/// One file as it was when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    fingerprint: Fingerprint,
    digest: Digest,
}

impl Remembered {
    /// What is remembered of `directory`, named by its one absolute path; nothing may be kept of some.
    pub(super) fn open(memory: Memory<'_>, directory: &Path, root: &Root) -> Option<Self> {
        let file_system = fstatfs(root).ok()?.f_type;
        if !OF_THIS_CLOCK.contains(&file_system) {
            return None;
        }
        let shelf = Shelf::open(memory.home)?;
        let rested = memory.now.checked_sub(REST)?;
        let rested = rested
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?
            .as_secs();
        let known = shelf.read(directory).unwrap_or_default();
        Some(Self {
            shelf,
            directory: directory.to_owned(),
            known,
            device: fstat(root).ok()?.st_dev,
            rested: i64::try_from(rested).ok()?,
        })
    }

    /// The content of the file at `path`, if it looks as it did when it was hashed.
    pub(super) fn content(&self, path: &str, now: &Fingerprint) -> Option<ObjectId> {
        let entry = self
            .known
            .get(path)
            .filter(|entry| entry.fingerprint == *now)?;
        Some(ObjectId {
            digest: entry.digest,
            size: now.size,
        })
    }

    /// Remembers these files in the place of what was remembered before. That this fails is no error: the next
    /// time everything is read.
    pub(super) fn keep(&self, files: &[SourceFile]) {
        let kept = files.iter().filter(|file| self.lasts(&file.fingerprint));
        let kept: Vec<(&str, Entry)> = kept
            .map(|file| {
                let entry = Entry {
                    fingerprint: file.fingerprint,
                    digest: file.object.digest,
                };
                (file.path.as_str(), entry)
            })
            .collect();
        let same = |(path, entry): &(&str, Entry)| self.known.get(*path) == Some(entry);
        if kept.len() != self.known.len() || !kept.iter().all(same) {
            self.shelf.write(&self.directory, &kept);
        }
    }

    /// Forgets everything.
    pub(super) fn forget(&self) {
        self.shelf.remove(&self.directory);
    }

    /// Whether a change from now on would show.
    fn lasts(&self, fingerprint: &Fingerprint) -> bool {
        let latest = fingerprint.modified.0.max(fingerprint.changed.0);
        fingerprint.device == self.device && latest < self.rested
    }
}

#[cfg(test)]
mod tests;
