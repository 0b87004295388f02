mod abandoned;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use belljar_core::RelPath;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, renameat};
use rustix::io::Errno;

use super::Error;

/// The directory of `--output`, with a place of its own in it where things are made before they are put in
/// their places. Everything is opened relative to it and never through a symbolic link: what somebody else
/// planted there cannot lead a write elsewhere.
pub(crate) struct Output {
    directory: OwnedFd,
    path: PathBuf,
    staging: OwnedFd,
    staging_name: String,
    next: AtomicU64,
}

/// Something that was made and not put in its place yet: a name in the place of its own.
#[derive(Debug)]
pub(crate) struct Staged(pub(super) String);

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Output {
    /// Opens `path`, making it if it is not there.
    ///
    /// # Errors
    /// When it cannot be made, opened or written to.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let unwritable = |source: io::Error| Error::Write {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(unwritable)?;
        let path = path.canonicalize().map_err(unwritable)?;
        let directory =
            openat(CWD, &path, DIRECTORY, Mode::empty()).map_err(|e| unwritable(e.into()))?;
        let staging_name = abandoned::new_name();
        mkdirat(&directory, &staging_name, Mode::RWXU).map_err(|e| unwritable(e.into()))?;
        let staging = openat(&directory, &staging_name, DIRECTORY, Mode::empty())
            .map_err(|e| unwritable(e.into()))?;
        abandoned::claim(&staging);
        abandoned::remove(&path, &directory);
        Ok(Self {
            directory,
            path,
            staging,
            staging_name,
            next: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new, empty file.
    ///
    /// # Errors
    /// What openat(2) says.
    pub(crate) fn file(&self) -> Result<(Staged, File), Error> {
        let name = self.name();
        let file = create(&self.staging, &name, false).map_err(|e| self.unwritable(e.into()))?;
        Ok((Staged(name), file))
    }

    /// A name that is free, and the directory in which.
    pub(super) fn reserve(&self) -> Result<(Staged, OwnedFd), Error> {
        let staging = self.staging.try_clone().map_err(|e| self.unwritable(e))?;
        Ok((Staged(self.name()), staging))
    }

    /// A new, empty directory.
    pub(super) fn directory(&self) -> Result<(Staged, OwnedFd), Error> {
        let name = self.name();
        let made = make_directory(&self.staging, &name).map_err(|e| self.unwritable(e.into()))?;
        Ok((Staged(name), made))
    }

    /// Writes a file with this content and puts it in its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, at: &RelPath, content: &[u8]) -> Result<(), Error> {
        let (staged, mut file) = self.file()?;
        file.write_all(content).map_err(|e| self.unwritable(e))?;
        self.place(staged, at)
    }

    /// Puts what stands at a place out of it, if there is something.
    ///
    /// # Errors
    /// As [`place`](Self::place).
    pub(crate) fn clear(&self, at: &RelPath) -> Result<(), Error> {
        let parent = self.parent(at)?;
        match renameat(&parent, at.file_name(), &self.staging, self.name()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.unwritable(e.into())),
        }
    }

    /// Puts something in its place, and what stood there before out of it.
    ///
    /// # Errors
    /// [`Error::InTheWay`] when what should be a directory above it is none.
    pub(crate) fn place(&self, staged: Staged, at: &RelPath) -> Result<(), Error> {
        let parent = self.parent(at)?;
        let name = at.file_name();
        // A rename replaces a file or link by itself, never a directory with something in it.
        self.clear(at)?;
        renameat(&self.staging, &staged.0, &parent, name).map_err(|e| self.unwritable(e.into()))
    }

    /// The directory above `at`, made where it is missing.
    fn parent(&self, at: &RelPath) -> Result<OwnedFd, Error> {
        let mut here = self.directory.try_clone().map_err(|e| self.unwritable(e))?;
        let mut path = self.path.clone();
        let mut components = at.components();
        components.next_back();
        for name in components {
            path.push(name);
            here = match mkdirat(&here, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => match openat(&here, name, DIRECTORY, Mode::empty()) {
                    Err(Errno::NOTDIR | Errno::LOOP) => return Err(Error::InTheWay(path)),
                    opened => opened.map_err(|e| self.unwritable(e.into()))?,
                },
                Err(e) => return Err(self.unwritable(e.into())),
            };
        }
        Ok(here)
    }

    pub(super) fn unwritable(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn name(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What was made and never put in its place, and what was put out of one. Should it not go, it is in
        // nobody's way, and its name says where it came from.
        let _ = std::fs::remove_dir_all(self.path.join(&self.staging_name));
    }
}

/// A new, empty file in a directory; its mode is further narrowed by the process's umask.
pub(super) fn create(directory: impl AsFd, name: &str, executable: bool) -> Result<File, Errno> {
    let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, mode).map(File::from)
}

/// A new, empty directory in a directory.
pub(super) fn make_directory(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(&directory, name, Mode::from_raw_mode(0o777))?;
    openat(&directory, name, DIRECTORY, Mode::empty())
}

/// A directory in a directory that is there already.
pub(super) fn open_directory(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(directory, name, DIRECTORY, Mode::empty())
}
