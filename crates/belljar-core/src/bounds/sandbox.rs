//! Sandboxes and what a build may take of the machine.

/// Most trees that the spawner keeps mounted, beside those that builds use at the moment.
pub const MOUNTED_TREES: usize = 64;
/// Most sandboxes at once, whatever the configuration says: user ids are reserved per sandbox.
pub const CONCURRENT_SANDBOXES: usize = 64;
/// Most file locks that one build may hold (fcntl(2), flock(2)): no cgroup counts their memory, some 200 bytes for each.
pub const FILE_LOCKS: u64 = 100_000;
/// Most files that one build may have open at once: what belongs to one of `/proc` or timerfd_create(2) is up to some
/// 500 bytes of the host's memory, which no cgroup counts.
pub const OPEN_FILES: u64 = 100_000;
/// Fewest open files that one build's part of the machine's has to have, or no build begins.
pub const OPEN_FILES_LEAST: u64 = 4096;
/// Most descriptors and mappings of a build that are looked at for locks and files at once, before the spawner does something else.
pub const LOCK_DESCRIPTORS: usize = 5000;
/// Most bytes that a spawner notes about where its cgroups lie: a path of at most 4096 bytes in each of six hierarchies.
pub const CGROUP_NOTE_BYTES: u64 = 6 * 4097;
