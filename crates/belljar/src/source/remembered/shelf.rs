//! The directory `belljar` among a user's caches, with one file for each source directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use belljar_core::{Digest, bounds};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::process::geteuid;

use super::{Entry, record};

/// Its name.
const NAME: &str = "belljar";
/// How the names of its files end.
const ENDING: &str = ".digests";
/// How the name of a file begins that is being written.
const UNFINISHED: &str = ".new-";
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Where a user's caches are (XDG Base Directory Specification): absolute, or nowhere.
pub(crate) fn home() -> Option<PathBuf> {
    let absolute = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

/// The directory, which nobody else can write to.
#[derive(Debug)]
pub(super) struct Shelf(OwnedFd);

impl Shelf {
    /// Opens it, making it and the directory of the caches if they are not there. None if it is somebody else's, or
    /// would be made in somebody else's: root with a user's environment leaves no files of root's in that user's home.
    pub(super) fn open(home: &Path) -> Option<Self> {
        let caches = match openat(CWD, home, DIRECTORY, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                let parent = openat(CWD, home.parent()?, DIRECTORY, Mode::empty()).ok()?;
                own(&fstat(&parent).ok()?).then_some(())?;
                make(&parent, home.file_name()?.as_bytes(), OFlags::empty())?
            }
            opened => opened.ok()?,
        };
        let stat = fstat(&caches).ok()?;
        (own(&stat) || stat.st_uid == 0).then_some(())?;
        let shelf = make(&caches, NAME.as_bytes(), OFlags::NOFOLLOW)?;
        closed(&fstat(&shelf).ok()?).then_some(Self(shelf))
    }

    /// What is remembered of `directory`. What is there and cannot be used is removed.
    pub(super) fn read(&self, directory: &Path) -> Option<HashMap<String, Entry>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, name(directory), flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return None,
            opened => opened.ok().map(File::from),
        };
        let known = file.and_then(|file| record::decode(directory, &content(file)?));
        if known.is_none() {
            self.remove(directory);
        }
        known
    }

    /// Replaces what is remembered of `directory`.
    pub(super) fn write(&self, directory: &Path, entries: &[(&str, Entry)]) {
        let Some(bytes) = record::encode(directory, entries) else {
            return self.remove(directory);
        };
        let unfinished = format!("{UNFINISHED}{}", crate::random::uuid());
        let written = self.create(&unfinished, &bytes).and_then(|()| {
            renameat(&self.0, &unfinished, &self.0, name(directory)).map_err(io::Error::from)
        });
        if written.is_err() {
            let _ = unlinkat(&self.0, &unfinished, AtFlags::empty());
        }
        self.tidy();
    }

    /// Forgets `directory`.
    pub(super) fn remove(&self, directory: &Path) {
        let _ = unlinkat(&self.0, name(directory), AtFlags::empty());
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?);
        // Not made durable: what a power failure leaves of it has another checksum.
        file.write_all(bytes)
    }

    /// Removes the files that were left alone for the longest time, if there are too many: unfinished ones of
    /// commands that were killed are among them.
    fn tidy(&self) {
        let Ok(entries) = Dir::read_from(&self.0) else {
            return;
        };
        let mut files: Vec<(i64, Vec<u8>)> = entries
            .flatten()
            .map(|entry| entry.file_name().to_bytes().to_vec())
            .filter(|name| {
                name.ends_with(ENDING.as_bytes()) || name.starts_with(UNFINISHED.as_bytes())
            })
            .filter_map(|name| {
                let stat = statat(&self.0, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
                Some((stat.st_mtime, name))
            })
            .collect();
        files.sort_unstable();
        let over = files.len().saturating_sub(bounds::REMEMBERED_TREES);
        for (_, name) in files.into_iter().take(over) {
            let _ = unlinkat(&self.0, name.as_slice(), AtFlags::empty());
        }
    }
}

/// A directory in a directory, made if it is not there.
fn make(parent: &OwnedFd, name: &[u8], flags: OFlags) -> Option<OwnedFd> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {
            openat(parent, name, DIRECTORY | flags, Mode::empty()).ok()
        }
        Err(_) => None,
    }
}

/// The bytes of a file that nobody else can have written.
fn content(file: File) -> Option<Vec<u8>> {
    let stat = fstat(&file).ok()?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let size = usize::try_from(stat.st_size).ok()?;
    if !regular || !closed(&stat) || stat.st_nlink != 1 || size > bounds::REMEMBERED_BYTES {
        return None;
    }
    let mut bytes = Vec::with_capacity(size);
    file.take(bounds::REMEMBERED_BYTES as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// The name of the file about a directory.
fn name(directory: &Path) -> String {
    format!(
        "{}{ENDING}",
        Digest::of(directory.as_os_str().as_bytes()).to_hex()
    )
}

/// Whether it is ours.
fn own(stat: &Stat) -> bool {
    stat.st_uid == geteuid().as_raw()
}

/// Whether it is ours, and nobody else may write to it.
fn closed(stat: &Stat) -> bool {
    own(stat) && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}
