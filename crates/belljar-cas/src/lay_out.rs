use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_tree::{FileNode, SymlinkNode};
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat,
    openat2, symlinkat, utimensat,
};

use crate::failure::is_full;
use crate::measure::{fetch, measure};
use crate::{BlobSource, LayOutError, ReadError, VerifyingRead};

const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;

/// What to lay out.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The `Directory` at the top.
    pub tree: ObjectId,
    /// Modification and access time of every file, directory and link, in seconds since 1970.
    pub mtime: u64,
}

/// What was laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaidOut {
    /// Files, directories and links, without the top; a directory that stands at two places counts twice
    /// with all that is in it.
    pub entries: u64,
    /// Bytes of content of all files.
    pub bytes: u64,
}

/// Makes the directory `name` in `parent` and in it a copy of a tree: every directory and file verified
/// against its digest while it is copied, files 0644 or 0755, directories 0755. Whether to go on is asked
/// of `stop` again and again. The whole tree is measured before anything is made. On failure what was made
/// so far stays, for the caller to remove.
///
/// # Errors
/// Names the path that was in the way. `AlreadyExists` in [`LayOutError::Io`] when `name` is there.
pub fn lay_out(
    source: &dyn BlobSource,
    order: Order,
    parent: BorrowedFd<'_>,
    name: &str,
    stop: &dyn Fn() -> bool,
) -> Result<LaidOut, LayOutError> {
    let mtime = i64::try_from(order.mtime).map_err(|_| LayOutError::Malformed {
        path: ".".to_owned(),
        why: Invalid::field("mtime", "is beyond what a file system can hold"),
    })?;
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    let measured = measure(source, order.tree, stop)?;
    mkdirat(parent, name, Mode::RWXU).map_err(|e| failed(None, e.into()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(parent, name, flags, Mode::empty()).map_err(|e| failed(None, e.into()))?;
    let mut work = Work {
        source,
        top,
        times: Timestamps {
            last_access: time,
            last_modification: time,
        },
        stop,
        pending: vec![(None, order.tree)],
        buffer: vec![0; bounds::CHUNK_BYTES],
    };
    while let Some((path, object)) = work.pending.pop() {
        work.directory(path.as_ref(), object)?;
    }
    Ok(measured)
}

/// The state of one [`lay_out`]. Directories are worked off from a list instead of by recursion, each
/// found again from the top, so that a deep tree needs neither stack nor descriptors.
struct Work<'a> {
    source: &'a dyn BlobSource,
    top: OwnedFd,
    times: Timestamps,
    stop: &'a dyn Fn() -> bool,
    /// Directories that exist and are empty yet; none is the top. Bounded by the bound on entries.
    pending: Vec<(Option<RelPath>, ObjectId)>,
    buffer: Vec<u8>,
}

impl Work<'_> {
    fn directory(&mut self, path: Option<&RelPath>, object: ObjectId) -> Result<(), LayOutError> {
        self.keep_going()?;
        let directory = fetch(self.source, path, object)?;
        let io = |e: rustix::io::Errno| failed(path, e.into());
        let here = self.enter(path).map_err(io)?;
        for file in directory.files() {
            self.file(path, here.as_fd(), file)?;
        }
        for link in directory.symlinks() {
            self.link(path, here.as_fd(), link)?;
        }
        for child in directory.directories() {
            let below = join(path, child.name.as_str())?;
            mkdirat(&here, child.name.as_str(), Mode::RWXU)
                .map_err(|e| failed(Some(&below), e.into()))?;
            self.pending.push((Some(below), child.object));
        }
        fchmod(&here, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(io)?;
        // Nothing more is made in it: what comes later lies deeper, and does not change this time.
        futimens(&here, &self.times).map_err(io)
    }

    fn enter(&self, path: Option<&RelPath>) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(
            &self.top,
            path.map_or(".", RelPath::as_str),
            flags,
            Mode::empty(),
            within,
        )
    }

    fn file(
        &mut self,
        path: Option<&RelPath>,
        here: BorrowedFd<'_>,
        node: &FileNode,
    ) -> Result<(), LayOutError> {
        let full = join(path, node.name.as_str())?;
        let path = Some(&full);
        self.keep_going()?;
        let reader = self.source.read(node.object).map_err(|e| unread(path, e))?;
        let mut reader = VerifyingRead::new(reader, node.object);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(here, node.name.as_str(), flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|e| failed(path, e.into()))?);
        loop {
            let count = match reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(spoilt(path, node.object, error)),
            };
            file.write_all(&self.buffer[..count])
                .map_err(|e| failed(path, e))?;
            self.keep_going()?;
        }
        let mode = if node.executable {
            EXECUTABLE_MODE
        } else {
            FILE_MODE
        };
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| failed(path, e.into()))?;
        futimens(&file, &self.times).map_err(|e| failed(path, e.into()))
    }

    fn link(
        &self,
        path: Option<&RelPath>,
        here: BorrowedFd<'_>,
        node: &SymlinkNode,
    ) -> Result<(), LayOutError> {
        let name = node.name.as_str();
        let made = symlinkat(node.target.as_str(), here, name)
            .and_then(|()| utimensat(here, name, &self.times, AtFlags::SYMLINK_NOFOLLOW));
        made.map_err(|e| match join(path, name) {
            Ok(full) => failed(Some(&full), e.into()),
            Err(error) => error,
        })
    }

    fn keep_going(&self) -> Result<(), LayOutError> {
        if (self.stop)() {
            Err(LayOutError::Stopped)
        } else {
            Ok(())
        }
    }
}

pub(crate) fn join(path: Option<&RelPath>, name: &str) -> Result<RelPath, LayOutError> {
    let joined = match path {
        Some(path) => path.join(name),
        None => RelPath::new(name),
    };
    joined.map_err(|why| LayOutError::Malformed {
        path: shown(path),
        why,
    })
}

pub(crate) fn shown(path: Option<&RelPath>) -> String {
    path.map_or(".", RelPath::as_str).to_owned()
}

pub(crate) fn unread(path: Option<&RelPath>, error: ReadError) -> LayOutError {
    let path = shown(path);
    match error {
        ReadError::Missing(object) | ReadError::Size { object, .. } => {
            LayOutError::Missing { path, object }
        }
        ReadError::Io { source, .. } => LayOutError::Io { path, source },
    }
}

pub(crate) fn spoilt(path: Option<&RelPath>, object: ObjectId, error: io::Error) -> LayOutError {
    let path_text = shown(path);
    match error.kind() {
        io::ErrorKind::InvalidData => LayOutError::Damaged {
            path: path_text,
            object,
        },
        _ => failed(path, error),
    }
}

fn failed(path: Option<&RelPath>, source: io::Error) -> LayOutError {
    if is_full(&source) {
        return LayOutError::Full(source);
    }
    LayOutError::Io {
        path: shown(path),
        source,
    }
}

#[cfg(test)]
mod tests;
