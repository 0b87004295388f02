//! Calls of clients: connections, uploads and downloads, lists, errors.

/// Largest gRPC message, in bytes, in either direction (gRPC's own default).
pub const GRPC_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Largest frame of HTTP/2 that a client may send, in bytes.
pub const GRPC_FRAME_BYTES: u32 = 256 * 1024;
/// Most bytes of one gRPC call that belljard holds before it takes them (the flow control of HTTP/2).
pub const GRPC_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for all calls of one connection together.
pub const GRPC_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Longest text in an error's details, in bytes: they travel in HTTP headers.
pub const STATUS_TEXT_BYTES: usize = 400;
/// Most violations that one error lists.
pub const STATUS_DETAILS: usize = 8;
/// Largest total of one REAPI batch call, in bytes: what fits a gRPC message with its framing.
pub const BATCH_BYTES: usize = 3 * 1024 * 1024;
/// Most blobs in one REAPI batch or `FindMissingBlobs` call.
pub const BATCH_BLOBS: usize = 10_000;
/// Most connections of callers from elsewhere.
pub const REMOTE_CONNECTIONS: usize = 256;
/// Most connections of one principal, from elsewhere; and of one user id to belljard's socket.
pub const CONNECTIONS_PER_PRINCIPAL: usize = 96;
/// Most connections of callers that are members of no project: they are there to be told so.
pub const STRANGERS: usize = 32;
/// Most of them of one such caller.
pub const CONNECTIONS_PER_STRANGER: usize = 4;
/// Most of those from elsewhere that are in their handshake at once, and most that wait to be served.
pub const HANDSHAKES: usize = 64;
/// Most handshakes at once with one address (IPv6: with one network of 64 bits).
pub const HANDSHAKES_PER_ADDRESS: usize = 16;
/// Seconds that a handshake may take, and then the first byte after it.
pub const HANDSHAKE_SECONDS: u64 = 10;
/// Most certificates that one caller from elsewhere shows: its own, and those of authorities above it.
pub const CALLER_CERTIFICATES: usize = 10;
/// Most lines in ten seconds that a process's log tells of what it refused: to peers, and to callers of no certificate.
pub const REFUSALS_LOGGED: u32 = 20;
/// Most such lines of belljard about one caller whom it knows.
pub const REFUSALS_LOGGED_OF_PRINCIPAL: u32 = 200;
/// Most such callers about whom is counted at once; further ones count as those whom nobody knows.
pub const REFUSALS_OF: usize = 1024;
/// Longest headers of one call together, in bytes.
pub const HEADER_BYTES: u32 = 16 * 1024;
/// Most open `WatchBuild` streams in the daemon.
pub const WATCHERS: usize = 256;
/// Most of them that one principal has.
pub const WATCHERS_PER_PRINCIPAL: usize = 64;
/// Most events that one slow watcher may lag behind before it is told to reconnect.
pub const WATCH_LAG: usize = 1024;
/// Log bytes in one `WatchBuild` message.
pub const LOG_CHUNK_BYTES: usize = 32 * 1024;
/// Longest name of a principal, in bytes: an audit entry keeps it whole.
pub const PRINCIPAL_BYTES: usize = 512;
/// Most projects in one configuration.
pub const PROJECTS: usize = 1000;
/// Most members of one project: principals, or patterns of them.
pub const PROJECT_MEMBERS: usize = 1000;
/// Content bytes in one `ByteStream.Read` message.
pub const READ_CHUNK_BYTES: usize = 256 * 1024;
/// Most calls that one gRPC connection may have open at once.
pub const CALLS_PER_CONNECTION: usize = 64;
/// Most calls that belljard has open at once, until the last of their answers is sent.
pub const CALLS: usize = 4096;
/// Most of them of one principal, on all its connections together.
pub const CALLS_PER_PRINCIPAL: usize = 512;
/// Most bytes of requests that have not come to their end (1 GiB), of all calls together. An upload counts as one
/// message of the largest size.
pub const REQUEST_BYTES: usize = 1 << 30;
/// Most of them of one principal (256 MiB).
pub const REQUEST_BYTES_PER_PRINCIPAL: usize = 256 << 20;
/// Longest reason that may come with a request to cancel, in bytes.
pub const CANCEL_REASON_BYTES: usize = 1024;
/// Most uploads, streams and batches, that belljard takes from clients at once: each has a connection to the store.
pub const UPLOADS: usize = 32;
/// Most of them of one principal; its further ones wait.
pub const UPLOADS_PER_PRINCIPAL: usize = 16;
/// Most streams that belljard sends blobs to at once: each has a file open and a thread at work.
pub const DOWNLOADS: usize = 64;
/// Most of them to one principal; its further ones wait.
pub const DOWNLOADS_PER_PRINCIPAL: usize = 32;
/// How long a client may need for the next [`PACE_BYTES`] of an upload or a download, in seconds.
pub const PACE_SECONDS: u64 = 30;
/// What a client must send or take at least in [`PACE_SECONDS`], if there is so much.
pub const PACE_BYTES: u64 = 64 * 1024;
/// Largest window of a zstd frame, in bytes: what RFC 8878 recommends decoders to support at least.
pub const ZSTD_WINDOW_BYTES: u64 = 8 << 20;
/// Most zstd streams that belljard packs or unpacks at once; each has a window in memory.
pub const ZSTD_STREAMS: usize = 8;
/// Most of them for one principal; its further ones wait.
pub const ZSTD_STREAMS_PER_PRINCIPAL: usize = 4;
/// Most submissions whose trees belljard looks through at once: each keeps a thread and the disk busy.
pub const TREE_CHECKS: usize = 8;
/// Most of them of one principal; its further ones wait.
pub const TREE_CHECKS_PER_PRINCIPAL: usize = 4;
/// Most directories in one `GetTree` message.
pub const TREE_PAGE: usize = 1000;
/// Pieces of a stream that wait between two tasks of belljard.
pub const WAITING_PIECES: usize = 2;
/// Damaged objects that wait to be looked at by the store.
pub const DAMAGED_WAITING: usize = 64;
/// Longest filter of a list, in bytes.
pub const FILTER_BYTES: usize = 2048;
/// Most conditions in one filter.
pub const FILTER_CONDITIONS: usize = 16;
/// Most builds on one page of a list.
pub const LIST_PAGE: usize = 1000;
/// Most builds that are looked at for one page of a list.
pub const LIST_SCAN: usize = 10_000;
/// Most builds on one page of a list that carries bundles.
pub const EVIDENCE_PAGE: usize = 100;
/// Largest bundle, in bytes, that comes along in an answer rather than by its digest.
pub const INLINE_BUNDLE_BYTES: usize = 1024 * 1024;
/// Most bytes of a log or of an audit trail in one answer.
pub const READ_PIECE_BYTES: usize = 1024 * 1024;
