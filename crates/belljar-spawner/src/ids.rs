//! Host user and group ids of builds: two for each slot, never shared with another spawner on this host.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use belljar_core::bounds;

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
#[derive(Debug)]
pub struct Block {
    first: u32,
    _lock: File,
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

    fn lock(first: u32) -> io::Result<Option<Self>> {
        let path = Path::new(LOCKS).join(first.to_string());
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { first, _lock: lock })),
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

/// Whether a block begins with `first`.
fn is_block(first: u32) -> bool {
    let offset = first.checked_sub(FIRST);
    offset.is_some_and(|offset| offset.is_multiple_of(BLOCK) && offset <= BLOCKS * BLOCK)
}
