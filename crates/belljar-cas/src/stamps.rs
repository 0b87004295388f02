//! What objects looked like when their content was verified.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use belljar_core::{Digest, bounds};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fsync, openat, renameat, unlinkat};
use siphasher::sip::SipHasher13;

use crate::layout::{STAMPS, TMP};

/// One entry of the file: which object, and what it looked like.
const ENTRY: usize = 16;
const FILE_MODE: u32 = 0o600;
/// So many entries of the file may be outdated, beside as many as there are of use.
const OUTDATED: usize = 1 << 16;
/// What a rewritten file is called until it is whole, in `tmp/`.
const PASSING: &str = "stamps";

/// The stamp of every object whose content was verified: its inode, size, times of modification and of change.
/// Nobody but the kernel sets a time of change, so whoever writes to an object, puts another file in its
/// place or restores it from a backup leaves another stamp, and the object is read and hashed before it is
/// believed again.
///
/// Kept as 64 bits each, in memory and in a file that grows until half of it is outdated. That file is
/// never relied upon: what it has lost costs reading an object once more, and what it got wrong fits none.
#[derive(Debug)]
pub(crate) struct Stamps(Mutex<Known>);

#[derive(Debug)]
struct Known {
    of: HashMap<u64, u64>,
    root: OwnedFd,
    file: File,
    /// Entries of the file, also those that later ones have taken the place of.
    written: usize,
    /// Nothing is noted after a failure to write, but in memory.
    broken: bool,
}

impl Known {
    fn has(&self, look: Look) -> bool {
        self.of.get(&look.key) == Some(&look.stamp)
    }

    /// Adds an entry to the file. Most of one in which little is of use any more is left out.
    fn write(&mut self, key: u64, stamp: u64) -> io::Result<()> {
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&key.to_le_bytes());
        entry[8..].copy_from_slice(&stamp.to_le_bytes());
        self.file.write_all(&entry)?;
        self.written += 1;
        if self.written > 2 * self.of.len() + OUTDATED {
            self.file = rewritten(&self.root, &self.of)?;
            self.written = self.of.len();
        }
        Ok(())
    }
}

/// What an object looks like, as it is kept: the beginning of its digest, and a hash of its stamp. That one need not
/// withstand anybody: who can choose what an object looks like can write this file as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    key: u64,
    stamp: u64,
}

impl Look {
    pub(crate) fn of(digest: Digest, status: &Stat) -> Self {
        Self {
            key: key(digest),
            stamp: stamp(digest, status),
        }
    }
}

impl Stamps {
    /// Reads what earlier processes noted below the store's root.
    pub(crate) fn open(root: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOFOLLOW;
        let file = openat(root, STAMPS, flags, Mode::from_raw_mode(FILE_MODE))?;
        let mut file = File::from(file);
        let mut bytes = Vec::new();
        let most = (2 * bounds::STAMPS * ENTRY) as u64;
        (&file).take(most).read_to_end(&mut bytes)?;
        let mut of = HashMap::new();
        let entries = bytes.chunks_exact(ENTRY);
        for (key, stamp) in entries.clone().map(parsed) {
            if of.len() < bounds::STAMPS {
                of.insert(key, stamp);
            }
        }
        // More than half of it is of no use, or its end is half an entry.
        let mut written = entries.len();
        if !entries.remainder().is_empty() || written > 2 * of.len() + 1024 {
            file = rewritten(root, &of)?;
            written = of.len();
        }
        Ok(Self(Mutex::new(Known {
            of,
            root: root.try_clone()?,
            file,
            written,
            broken: false,
        })))
    }

    /// Whether an object looks as it did when it was verified.
    pub(crate) fn fits(&self, digest: Digest, status: &Stat) -> bool {
        let look = Look::of(digest, status);
        self.lock().has(look)
    }

    /// The same for each of several: threads that ask for thousands at once do not wait for each other at each.
    pub(crate) fn fit(&self, looks: &[Look]) -> Vec<bool> {
        let known = self.lock();
        looks.iter().map(|look| known.has(*look)).collect()
    }

    /// Notes what an object looks like that was verified.
    pub(crate) fn note(&self, digest: Digest, status: &Stat) {
        let Look { key, stamp } = Look::of(digest, status);
        let mut known = self.lock();
        if known.of.len() >= bounds::STAMPS && !known.of.contains_key(&key) {
            // Whatever is forgotten is only read once more.
            known.of.clear();
        }
        if known.of.insert(key, stamp) == Some(stamp) || known.broken {
            return;
        }
        // Appended whole or not at all, or cut at the next start: a full disk must not refuse an object for it.
        known.broken = known.write(key, stamp).is_err();
    }

    /// Forgets an object that is gone, or shall be read again.
    pub(crate) fn forget(&self, digest: Digest) {
        self.lock().of.remove(&key(digest));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects whose digests begin alike share an entry, and are read again in turns.
fn key(digest: Digest) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

fn stamp(digest: Digest, status: &Stat) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(digest.as_bytes());
    hasher.write_u64(status.st_ino);
    hasher.write_i64(status.st_size);
    for (seconds, nanoseconds) in [
        (
            i128::from(status.st_mtime),
            i128::from(status.st_mtime_nsec),
        ),
        (
            i128::from(status.st_ctime),
            i128::from(status.st_ctime_nsec),
        ),
    ] {
        hasher.write_i128(seconds);
        hasher.write_i128(nanoseconds);
    }
    hasher.finish()
}

fn parsed(entry: &[u8]) -> (u64, u64) {
    let (mut key, mut stamp) = ([0; 8], [0; 8]);
    key.copy_from_slice(&entry[..8]);
    stamp.copy_from_slice(&entry[8..]);
    (u64::from_le_bytes(key), u64::from_le_bytes(stamp))
}

/// A file with these and no others, in the place of the one that is there.
fn rewritten(root: &OwnedFd, of: &HashMap<u64, u64>) -> io::Result<File> {
    let passing = format!("{TMP}/{PASSING}");
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::APPEND;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(openat(
        root,
        &passing,
        flags,
        Mode::from_raw_mode(FILE_MODE),
    )?);
    let mut bytes = Vec::with_capacity(of.len() * ENTRY);
    for (key, stamp) in of {
        bytes.extend(key.to_le_bytes());
        bytes.extend(stamp.to_le_bytes());
    }
    let done = file.write_all(&bytes).and_then(|()| {
        fsync(&file)?;
        Ok(renameat(root, &passing, root, STAMPS)?)
    });
    if done.is_err() {
        // The first error is the one to tell; half of one takes room where there may be none.
        let _ = unlinkat(root, &passing, AtFlags::empty());
    }
    done.map(|()| file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use rustix::fs::{fstat, open};

    fn root(path: &std::path::Path) -> OwnedFd {
        std::fs::create_dir_all(path.join(TMP)).unwrap();
        open(path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    }

    #[test]
    fn stamps_outlive_the_process_and_fit_one_state_of_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let top = root(directory.path());
        let path = directory.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let (digest, other) = (Digest::of(b"content"), Digest::of(b"other"));
        let status = || fstat(File::open(&path).unwrap()).unwrap();
        let stamps = Stamps::open(&top).unwrap();
        assert!(!stamps.fits(digest, &status()));
        stamps.note(digest, &status());
        for stamps in [stamps, Stamps::open(&top).unwrap()] {
            assert!(stamps.fits(digest, &status()));
            assert!(!stamps.fits(other, &status()));
        }
        // The same content with the same time of modification, in another file.
        let times = std::fs::FileTimes::new()
            .set_modified(std::fs::metadata(&path).unwrap().modified().unwrap());
        std::fs::write(directory.path().join("copy"), b"content").unwrap();
        std::fs::rename(directory.path().join("copy"), &path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
        assert!(!Stamps::open(&top).unwrap().fits(digest, &status()));
    }

    #[test]
    fn half_an_entry_is_cut_and_what_is_outdated_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let top = root(directory.path());
        let path = directory.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let status = fstat(File::open(&path).unwrap()).unwrap();
        let digest = |i: u32| Digest::of(&i.to_le_bytes());
        let stamps = Stamps::open(&top).unwrap();
        for i in 0..10 {
            stamps.note(digest(i), &status);
        }
        stamps.forget(digest(3));
        drop(stamps);
        let file = directory.path().join(STAMPS);
        let mut bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes.len(), 10 * ENTRY);
        bytes.truncate(9 * ENTRY + 5);
        std::fs::write(&file, &bytes).unwrap();
        let stamps = Stamps::open(&top).unwrap();
        assert!(stamps.fits(digest(8), &status) && !stamps.fits(digest(9), &status));
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 9 * ENTRY as u64);
        stamps.note(digest(9), &status);
        assert!(Stamps::open(&top).unwrap().fits(digest(9), &status));
        // The same object again and again.
        let mut status = status;
        for i in 0..3000 {
            status.st_ino = i;
            stamps.note(digest(0), &status);
        }
        let before = std::fs::metadata(&file).unwrap().size();
        assert!(Stamps::open(&top).unwrap().fits(digest(0), &status));
        let after = std::fs::metadata(&file).unwrap().size();
        assert!(
            after < before && after == 10 * ENTRY as u64,
            "{before} {after}"
        );
    }

    #[test]
    fn the_file_does_not_grow_without_end_while_it_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let top = root(directory.path());
        let path = directory.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        let mut status = fstat(File::open(&path).unwrap()).unwrap();
        let digest = |i: u32| Digest::of(&i.to_le_bytes());
        let stamps = Stamps::open(&top).unwrap();
        // Whoever gives the same objects again and again has each noted every time.
        for time in 0..20_000 {
            status.st_ctime = time;
            (0..10).for_each(|i| stamps.note(digest(i), &status));
        }
        let size = std::fs::metadata(directory.path().join(STAMPS)).unwrap();
        assert!(size.size() <= 2 << 20, "{}", size.size());
        let again = Stamps::open(&top).unwrap();
        assert!((0..10).all(|i| again.fits(digest(i), &status)));
    }
}
