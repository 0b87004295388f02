//! Host user and group ids of builds: two for each slot, never shared with another spawner on this host.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use belljar_core::bounds::{self, CGROUP_NOTE_BYTES};

use crate::config::Ids;

/// First id that builds may have: far above what any system hands out to people and services
/// (systemd's dynamic users end at 65,519, its container ranges at 1,879,048,191).
const FIRST: u32 = 1_879_048_192;
/// Ids in one block: two for each of the most slots that a spawner can have.
const BLOCK: u32 = 128;
const _: () = assert!(BLOCK as usize == 2 * bounds::CONCURRENT_SANDBOXES);
/// Blocks that are tried by `"auto"`.
const BLOCKS: u32 = 1024;
/// Where spawners of one host see each other's blocks.
const LOCKS: &str = "/run/belljar-ids";

/// A block of ids, held by a lock that ends with this process.
///
/// In the locked file stands where the cgroups of its last holder lie, until nothing is left there: whoever comes
/// next may have been started from another place of the cgroup tree.
#[derive(Debug)]
pub struct Block {
    first: u32,
    lock: File,
}

/// The two host ids of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Host id of inside 0, which owns the image and never runs.
    pub image: u32,
    /// Host id of the build.
    pub build: u32,
}

impl Block {
    /// Takes a block.
    ///
    /// # Errors
    /// When the configured block is too low, not at a block's beginning, or held by another spawner.
    pub fn take(ids: Ids) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(LOCKS)?;
        match ids {
            Ids::From(first) if !is_block(first) => Err(io::Error::other(format!(
                "ids: {first} is not {FIRST} plus a multiple of {BLOCK}"
            ))),
            Ids::From(first) => Self::lock(first)?.ok_or_else(|| {
                io::Error::other(format!(
                    "ids: {first} is in use by another spawner; choose another or \"auto\""
                ))
            }),
            Ids::Auto => {
                for block in 0..BLOCKS {
                    if let Some(block) = Self::lock(FIRST + block * BLOCK)? {
                        return Ok(block);
                    }
                }
                Err(io::Error::other(
                    "ids: every block is in use by another spawner",
                ))
            }
        }
    }

    /// The block that begins with `first`, if there is such a one and no spawner holds it.
    ///
    /// # Errors
    /// When its lock cannot be tried.
    pub fn abandoned(first: u32) -> io::Result<Option<Self>> {
        if is_block(first) {
            Self::lock(first)
        } else {
            Ok(None)
        }
    }

    /// First ids of all blocks whose holder, or last holder, has noted places.
    ///
    /// # Errors
    /// When the locks cannot be listed.
    pub fn noted() -> io::Result<Vec<u32>> {
        let mut noted = Vec::new();
        for entry in fs::read_dir(LOCKS)? {
            let entry = entry?;
            let first = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(first) = first
                && entry.metadata()?.len() > 0
            {
                noted.push(first);
            }
        }
        Ok(noted)
    }

    /// Where the cgroups of the last holder lie, or may lie, in the order of [`Block::note`].
    ///
    /// # Errors
    /// When that cannot be read, or is longer than any holder writes.
    pub fn places(&self) -> io::Result<Vec<PathBuf>> {
        let mut text = Vec::new();
        let mut file = File::open(path(self.first))?.take(CGROUP_NOTE_BYTES + 1);
        file.read_to_end(&mut text)?;
        if text.len() as u64 > CGROUP_NOTE_BYTES {
            return Err(io::Error::other(format!(
                "{} is longer than {CGROUP_NOTE_BYTES} bytes; remove it",
                path(self.first).display()
            )));
        }
        // The last line has an end, unless its writer was killed before it could make anything there.
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let whole = lines.filter_map(|line| line.strip_suffix(b"\n"));
        Ok(whole.map(|line| OsStr::from_bytes(line).into()).collect())
    }

    /// Notes where this holder's cgroups will lie, or that none is left. Paths of cgroups have no line break in them.
    ///
    /// # Errors
    /// What write(2) says; and when they are too long.
    pub fn note(&self, places: &[PathBuf]) -> io::Result<()> {
        let mut text = Vec::new();
        for place in places {
            text.extend(place.as_os_str().as_bytes());
            text.push(b'\n');
        }
        if text.len() as u64 > CGROUP_NOTE_BYTES {
            return Err(io::Error::other(
                "the paths of the own cgroups are too long",
            ));
        }
        self.lock.set_len(0)?;
        self.lock.write_all_at(&text, 0)
    }

    fn lock(first: u32) -> io::Result<Option<Self>> {
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path(first))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { first, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The ids of one slot.
    pub fn pair(&self, slot: u32) -> Pair {
        let image = self.first + 2 * slot;
        Pair {
            image,
            build: image + 1,
        }
    }

    /// The first id: tells apart what several spawners of one host name after it.
    pub fn first(&self) -> u32 {
        self.first
    }
}

/// The file that is locked for a block.
fn path(first: u32) -> PathBuf {
    Path::new(LOCKS).join(first.to_string())
}

/// Whether a block begins with `first`.
fn is_block(first: u32) -> bool {
    let offset = first.checked_sub(FIRST);
    offset.is_some_and(|offset| offset.is_multiple_of(BLOCK) && offset <= BLOCKS * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that `"auto"` never takes.
    const LAST: u32 = FIRST + BLOCKS * BLOCK;

    #[test]
    fn places_are_noted_until_nothing_is_left() {
        let places = ["/sys/fs/cgroup/a b/x", "/sys/fs/cgroup/memory/\u{fc}/x"].map(PathBuf::from);
        let block = Block::take(Ids::From(LAST)).unwrap();
        block.note(&places).unwrap();
        assert!(Block::abandoned(LAST).unwrap().is_none(), "it is held");
        drop(block);
        assert!(Block::noted().unwrap().contains(&LAST));
        let next = Block::abandoned(LAST).unwrap().unwrap();
        assert_eq!(next.places().unwrap(), places);
        // Of a holder that was killed while it wrote.
        next.note(&places[..1]).unwrap();
        let length = next.lock.metadata().unwrap().len();
        next.lock.write_all_at(b"/sys/fs/cg", length).unwrap();
        assert_eq!(next.places().unwrap(), places[..1]);
        next.lock.set_len(CGROUP_NOTE_BYTES + 1).unwrap();
        let error = next.places().unwrap_err().to_string();
        assert!(error.ends_with("; remove it"), "{error}");
        let long = PathBuf::from("x".repeat(8192));
        assert!(
            next.note(&[long.clone(), long.clone(), long.clone(), long])
                .is_err()
        );
        next.note(&[]).unwrap();
        assert_eq!(next.places().unwrap(), [] as [PathBuf; 0]);
        assert!(!Block::noted().unwrap().contains(&LAST));
    }
}
