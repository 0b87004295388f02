//! Commits of git repositories.

use super::TREE_ENTRIES;

/// Largest pack of one commit, in bytes: an unpacker has all of it in memory.
pub const GIT_PACK_BYTES: u64 = 320 << 20;
/// Most objects in one pack: twice as many as a tree may have entries.
pub const GIT_OBJECTS: usize = 2 * TREE_ENTRIES;
/// Largest object of git that is read, in bytes. An unpacker has two of them in memory, with what makes one of the other.
pub const GIT_OBJECT_BYTES: usize = 128 << 20;
/// Most objects that are made one of the other (deltas): as many as git itself writes at the most.
pub const GIT_DELTA_DEPTH: u32 = 4095;
/// Most bytes together of all objects of which one is made so.
pub const GIT_CHAIN_BYTES: u64 = 4 << 30;
/// Most bytes that are made so for one pack, with those that are made again: an object with all that it is made of, as far as
/// that is not kept. Four times as many as a tree may have.
pub const GIT_WORK_BYTES: u64 = 64 << 30;
/// Largest commit, in bytes, with its message and its signatures.
pub const GIT_COMMIT_BYTES: usize = 1 << 20;
/// What of objects that others are made of stays in memory, in bytes.
pub const GIT_CACHE_BYTES: usize = 64 << 20;
/// Largest `.gitmodules`, in bytes.
pub const GIT_MODULES_BYTES: usize = 256 << 10;
/// Most submodules that are fetched for one attempt, with those inside each other: the audit trail tells of each.
pub const GIT_SUBMODULES: usize = 64;
/// Most submodules inside each other.
pub const GIT_SUBMODULE_DEPTH: usize = 8;
/// Most that a server says of itself before it is asked for a commit, in bytes.
pub const GIT_ADVERTISEMENT_BYTES: u64 = 64 << 10;
