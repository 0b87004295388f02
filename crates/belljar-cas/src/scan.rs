use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use belljar_core::{Hasher, ObjectId, RelPath, bounds};
use belljar_tree::{Leaf, SymlinkTarget, build};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};

use crate::ScanError;

/// Computes from disk alone the tree digest that the directory `name` in `parent` has: the id of its
/// root `Directory`. Every file is read and hashed.
///
/// # Errors
/// [`ScanError::Foreign`] when something is there that no tree has: special files, modes other than 0644 and
/// 0755, names that are not UTF-8, too many entries.
pub fn scan(parent: BorrowedFd<'_>, name: &str) -> Result<ObjectId, ScanError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(parent, name, flags, Mode::empty()).map_err(|e| failed(None, e.into()))?;
    let mut work = Work {
        top,
        leaves: Vec::new(),
        entries: 0,
        pending: vec![None],
        buffer: vec![0; bounds::CHUNK_BYTES],
    };
    while let Some(path) = work.pending.pop() {
        work.directory(path.as_ref())?;
    }
    match build(work.leaves) {
        Ok(built) => Ok(built.root),
        Err(why) => Err(foreign(None, why.to_string())),
    }
}

struct Work {
    top: OwnedFd,
    leaves: Vec<(RelPath, Leaf)>,
    entries: usize,
    pending: Vec<Option<RelPath>>,
    buffer: Vec<u8>,
}

impl Work {
    fn directory(&mut self, path: Option<&RelPath>) -> Result<(), ScanError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let here = openat2(
            &self.top,
            path.map_or(".", RelPath::as_str),
            flags,
            Mode::empty(),
            within,
        );
        let here = here.map_err(|e| failed(path, e.into()))?;
        let before = self.entries;
        for entry in Dir::read_from(&here).map_err(|e| failed(path, e.into()))? {
            let entry = entry.map_err(|e| failed(path, e.into()))?;
            let name = entry
                .file_name()
                .to_str()
                .map_err(|_| foreign(path, "holds a name that is not UTF-8"))?;
            if matches!(name, "." | "..") {
                continue;
            }
            self.entries += 1;
            if self.entries > bounds::TREE_ENTRIES {
                return Err(foreign(path, "holds one entry more than a tree may have"));
            }
            let full = match path {
                Some(path) => path.join(name),
                None => RelPath::new(name),
            };
            let full = full.map_err(|why| foreign(path, why.to_string()))?;
            self.entry(full, here.as_fd(), name)?;
        }
        match path {
            Some(path) if self.entries == before => {
                self.leaves.push((path.clone(), Leaf::EmptyDirectory))
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(&mut self, path: RelPath, here: BorrowedFd<'_>, name: &str) -> Result<(), ScanError> {
        // O_PATH first: opening a pipe or a device for reading could block, or have effects.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let io = |e: rustix::io::Errno| failed(Some(&path), e.into());
        let status = openat(here, name, flags, Mode::empty())
            .and_then(fstat)
            .map_err(io)?;
        let mode = status.st_mode & 0o7777;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory if mode == 0o755 => self.pending.push(Some(path)),
            FileType::RegularFile if mode == 0o644 || mode == 0o755 => {
                let object = self.hash(here, name).map_err(|e| failed(Some(&path), e))?;
                let executable = mode == 0o755;
                self.leaves.push((path, Leaf::File { object, executable }));
            }
            FileType::Symlink => {
                let target = readlinkat(here, name, Vec::new()).map_err(io)?;
                let target = target
                    .into_string()
                    .map_err(|_| foreign(Some(&path), "has a target that is not UTF-8"))?;
                let target = SymlinkTarget::new(target)
                    .map_err(|why| foreign(Some(&path), why.to_string()))?;
                self.leaves.push((path, Leaf::Symlink { target }));
            }
            kind => {
                return Err(foreign(
                    Some(&path),
                    format!("is a {kind:?} of mode {mode:04o}"),
                ));
            }
        }
        Ok(())
    }

    fn hash(&mut self, here: BorrowedFd<'_>, name: &str) -> io::Result<ObjectId> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut file = File::from(openat(here, name, flags, Mode::empty())?);
        let mut hasher = Hasher::new();
        let mut size = 0;
        loop {
            match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&self.buffer[..count]);
                    size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let digest = hasher.finish();
        Ok(ObjectId { digest, size })
    }
}

fn foreign(path: Option<&RelPath>, why: impl Into<String>) -> ScanError {
    ScanError::Foreign {
        path: path.map_or(".", RelPath::as_str).to_owned(),
        why: why.into(),
    }
}

fn failed(path: Option<&RelPath>, source: io::Error) -> ScanError {
    ScanError::Io {
        path: path.map_or(".", RelPath::as_str).to_owned(),
        source,
    }
}
