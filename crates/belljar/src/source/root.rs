use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use belljar_core::RelPath;
use belljar_tree::SymlinkTarget;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::fingerprint::Fingerprint;
use super::{Error, link_target};

/// The source directory. Everything below it is opened relative to it, never through a symbolic link, so
/// that no file from elsewhere can get into a tree.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

/// What stands at a path.
pub(super) enum Kind {
    File(Fingerprint),
    Symlink { target: SymlinkTarget },
    Directory,
}

/// Looks at one path after the other. The directory of the last one stays open: paths of one directory come together.
pub(super) struct Look<'a> {
    root: &'a Root,
    /// None if nothing stands there.
    parent: Option<(String, Option<OwnedFd>)>,
}

impl Root {
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty()).map_err(|e| Error::Read {
            path: path.to_owned(),
            source: e.into(),
        })?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    /// Opens the regular file at `path` for reading.
    pub(super) fn open(&self, path: &RelPath) -> Result<File, Error> {
        // Non-blocking, should a pipe have taken its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.resolve(path, flags) {
            Ok(opened) => Ok(opened.into()),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
                Err(Error::Changed(path.clone()))
            }
            Err(e) => Err(self.unreadable(path, e.into())),
        }
    }

    /// Opens the directory at `path`, or the source directory itself, for listing.
    pub(super) fn open_directory(&self, path: Option<&RelPath>) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let name = path.map_or(".", RelPath::as_str);
        self.resolve_name(name, flags).map_err(|e| Error::Read {
            path: self.path.join(name),
            source: e.into(),
        })
    }

    pub(super) fn unreadable(&self, path: &RelPath, source: io::Error) -> Error {
        Error::Read {
            path: self.path.join(path.as_str()),
            source,
        }
    }

    fn resolve(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve_name(path.as_str(), flags)
    }

    fn resolve_name(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // A rename elsewhere in the system makes the kernel unsure whether `..` was met (openat2(2), EAGAIN).
        loop {
            match openat2(
                &self.directory,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }
}

impl<'a> Look<'a> {
    pub(super) fn at(root: &'a Root) -> Self {
        Self { root, parent: None }
    }

    /// What stands at `path`; none if nothing does, or only by way of a symbolic link.
    pub(super) fn look(&mut self, path: &RelPath) -> Result<Option<Kind>, Error> {
        let unreadable = |e: Errno| self.root.unreadable(path, e.into());
        let (parent, name) = path
            .as_str()
            .rsplit_once('/')
            .unwrap_or((".", path.as_str()));
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let opened = match self.root.resolve_name(parent, flags) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                opened => Some(opened.map_err(unreadable)?),
            };
            self.parent = Some((parent.to_owned(), opened));
        }
        let Some((_, Some(parent))) = &self.parent else {
            return Ok(None);
        };
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            found => found.map_err(unreadable)?,
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File(Fingerprint::from(&stat)),
            FileType::Directory => Kind::Directory,
            FileType::Symlink => match readlinkat(parent, name, Vec::new()) {
                // It has just been replaced by something else.
                Err(Errno::NOENT | Errno::INVAL) => return Err(Error::Changed(path.clone())),
                target => Kind::Symlink {
                    target: link_target(path, target.map_err(unreadable)?.as_bytes())?,
                },
            },
            other => {
                let kind = match other {
                    FileType::Fifo => "a named pipe",
                    FileType::Socket => "a socket",
                    FileType::CharacterDevice | FileType::BlockDevice => "a device",
                    _ => "of an unknown kind",
                };
                return Err(Error::Special {
                    path: path.clone(),
                    kind,
                });
            }
        }))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
