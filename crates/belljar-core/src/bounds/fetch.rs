//! What belljard brings for builds: URLs, hosts, certificates, and what earlier builds have left.

use super::BLOB_BYTES;

/// Most URLs of one thing that is fetched.
pub const FETCH_MIRRORS: usize = 8;
/// Longest URL of something that is fetched, in bytes: of what servers accept the usual least, some.
pub const FETCH_URL_BYTES: usize = 2048;
/// Most that one fetch may bring, in bytes, unless the configuration says less.
pub const FETCH_BYTES: u64 = BLOB_BYTES;
/// Longest that one URL may take, with all that it redirects to, in seconds, unless the configuration says less.
pub const FETCH_SECONDS: u64 = 600;
/// Longest that a server may let wait for a connection, for its headers, or for the next [`PACE_BYTES`](super::PACE_BYTES) of content or
/// its end, in seconds.
pub const FETCH_IDLE_SECONDS: u64 = 30;
/// Most redirects from one URL, unless the configuration says less.
pub const FETCH_REDIRECTS: usize = 8;
/// Most addresses of one host that are tried.
pub const FETCH_ADDRESSES: usize = 4;
/// Longest that all fetches of one attempt may take together, with waiting for their turns and making trees of what
/// came, in seconds, unless the configuration says less: so long a build may keep its slot for them.
pub const FETCHING_SECONDS: u64 = 3600;
/// Most things that are fetched at once; more wait.
pub const FETCHES: usize = 8;
/// Most of them for one project; its further ones wait.
pub const FETCHES_PER_PROJECT: usize = 4;
/// Most names of hosts resolved at once. Each has a thread, until name servers have answered or getaddrinfo(3) gives up.
pub const FETCH_LOOKUPS: usize = 32;
/// Most of them for one project; its further ones wait.
pub const FETCH_LOOKUPS_PER_PROJECT: usize = 4;
/// Longest reason that is kept of one URL that gave nothing, in bytes: servers have a say in it.
pub const FETCH_REASON_BYTES: usize = 512;
/// Most of a URL that such reasons name, in bytes.
pub const FETCH_URL_SHOWN_BYTES: usize = 256;
/// Most trees of which belljard remembers that they were made of what a project had fetched.
pub const KNOWN_FETCHES: usize = 1024;
/// Longest headers of an answer to a fetch, in bytes.
pub const FETCH_HEADER_BYTES: usize = 64 * 1024;
/// Most hosts, ports and networks each that a configuration of fetches names.
pub const FETCH_RULES: usize = 1000;
/// Largest file of certificates of authorities, in bytes: what distributions ship has a few hundred thousand.
pub const CA_BYTES: usize = 4 * 1024 * 1024;
/// Longest `builder.id` that a specification names, in bytes: some more than the signer's own may have.
pub const BUILDER_ID_BYTES: usize = 640;
/// Most builds that left an artifact which are looked at for provenance that holds, of each project.
pub const PRODUCERS: usize = 16;
/// Most projects whose artifacts one project may use beside its own.
pub const LENDERS: usize = 32;
