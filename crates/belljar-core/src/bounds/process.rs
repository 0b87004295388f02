//! Between the processes of Belljar: frames, configurations, the queue.

/// Largest frame between two Belljar processes, in bytes: a plan or a batch of digests, never content
/// in bulk. Below the default socket send buffer (`net.core.wmem_default`, 212,992), else a
/// `SOCK_SEQPACKET` send would fail with `EMSGSIZE`.
pub const FRAME_BYTES: usize = 160 * 1024;
/// Content bytes in one data frame between two Belljar processes.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Most digests in one question to the store.
pub const DIGESTS_PER_FRAME: usize = 1000;
/// Most objects that are noted for a project all or none: for each a page of 4 KiB may be in memory meanwhile.
pub const GRANTED_AT_ONCE: usize = 1024;
/// Most builds that wait or run at once; one more submission is refused with `RESOURCE_EXHAUSTED`.
pub const QUEUED_BUILDS: usize = 10_000;
/// Most questions and changes that wait for the queue's database; they share one commit.
pub const QUEUE_REQUESTS: usize = 256;
/// Most attempts at one build before it ends as an infrastructure failure.
pub const ATTEMPTS: u32 = 3;
/// Most connections that one Belljar process keeps open from its peers.
pub const PEER_CONNECTIONS: usize = 256;
/// Most directories that the daemon remembers to belong to a project with all below them.
pub const KNOWN_DIRECTORIES: usize = 50_000;
/// Largest configuration file, in bytes.
pub const CONFIG_BYTES: usize = 1024 * 1024;
/// Most reasons in one refusal between two Belljar processes.
pub const REASONS: usize = 16;
/// Longest such reason, in bytes: sixteen fit a frame also where JSON escapes every byte.
pub const REASON_BYTES: usize = 1024;
/// Most connections that belljard has open to the store for itself, beside [`UPLOADS`](super::UPLOADS).
pub const STORE_CONNECTIONS: usize = 8;
/// Most requests that wait for the spawner's answer at once.
pub const SPAWNER_REQUESTS: usize = 256;
