//! What a client reads and remembers.

/// Largest `Build` message, in bytes, that a client reads: the most outputs with the longest paths fit.
pub const BUILD_MESSAGE_BYTES: usize = 48 * 1024 * 1024;
/// Largest audit trail, in bytes, that a client reads.
pub const AUDIT_TRAIL_BYTES: usize = 16 * 1024 * 1024;
/// Largest file, in bytes, in which the command line remembers the digests of one source directory: the most entries
/// with two hundred bytes for each path fit.
pub const REMEMBERED_BYTES: usize = 64 << 20;
/// Most source directories whose digests the command line remembers for one user.
pub const REMEMBERED_TREES: usize = 64;
/// Longest that the command line waits for `git` to list a source directory, in seconds: of a million files, from a slow
/// disk, it takes less.
pub const GIT_SECONDS: u64 = 120;
