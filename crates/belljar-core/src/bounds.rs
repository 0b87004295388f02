//! Every bound of Belljar in one place: queues, messages, buffers, logs, trees and names.
//!
//! A bound that is not here does not exist; a queue, buffer or message without one is a defect.

/// Longest relative path, in bytes, that may name an input or output (Linux `PATH_MAX` less the NUL).
pub const PATH_BYTES: usize = 4095;
/// Longest single path component, in bytes (Linux `NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Most components in a relative path: bounds recursion wherever a tree is walked.
pub const PATH_DEPTH: usize = 128;
/// Most environment variables that one specification may set.
pub const ENV_VARIABLES: usize = 256;
/// Longest environment variable name, in bytes.
pub const ENV_NAME_BYTES: usize = 256;
/// Longest environment variable value, in bytes.
pub const ENV_VALUE_BYTES: usize = 32 * 1024;
/// Most steps (`run` entries) in one build.
pub const STEPS: usize = 32;
/// Longest script of one step, in bytes (below Linux `MAX_ARG_STRLEN`, 128 KiB).
pub const SCRIPT_BYTES: usize = 64 * 1024;
/// Most trees that one build sees beside its sources and its root file system.
pub const INPUTS: usize = 16;
/// Most URLs of one thing that is fetched.
pub const FETCH_MIRRORS: usize = 8;
/// Longest URL of something that is fetched, in bytes: of what servers accept the usual least, some.
pub const FETCH_URL_BYTES: usize = 2048;
/// Most that one fetch may bring, in bytes, unless the configuration says less.
pub const FETCH_BYTES: u64 = BLOB_BYTES;
/// Longest that one URL may take, with all that it redirects to, in seconds, unless the configuration says less.
pub const FETCH_SECONDS: u64 = 600;
/// Longest that a server may let wait for a connection, for its headers, or for the next [`PACE_BYTES`] of content or
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
/// Most trees of one attempt: sources, root file system, further inputs.
pub const ATTEMPT_TREES: usize = 2 + INPUTS;
/// Largest lock file of a package manager, in bytes.
pub const LOCK_BYTES: usize = 16 * 1024 * 1024;
/// Most packages in one lock file.
pub const LOCK_PACKAGES: usize = 10_000;
/// Most declared outputs of one build.
pub const DECLARED_OUTPUTS: usize = 256;
/// Most declared outputs of one build that are patterns.
pub const OUTPUT_PATTERNS: usize = 16;
/// Most components of a pattern that have wildcards.
pub const PATTERN_WILDCARDS: usize = 4;
/// Most components of a pattern.
pub const PATTERN_COMPONENTS: usize = 32;
/// Longest component with wildcards, in bytes.
pub const PATTERN_NAME_BYTES: usize = 64;
/// Most entries that are looked at while the outputs of one build are matched with patterns.
pub const OUTPUT_WALK: usize = 1_000_000;
/// Most bytes of names that are compared with patterns meanwhile (1 GiB), each name counted once for each pattern.
pub const OUTPUT_WALK_BYTES: usize = 1 << 30;
/// Most bytes of names, each with 64 more, that a collector has in memory: of a directory, and of those above it.
pub const LISTED_BYTES: usize = 32 << 20;
/// Longest canonical specification, in bytes. Steps and environment share this budget.
pub const SPEC_BYTES: usize = 128 * 1024;
/// Largest frame between two Belljar processes, in bytes: a plan or a batch of digests, never content
/// in bulk. Below the default socket send buffer (`net.core.wmem_default`, 212,992), else a
/// `SOCK_SEQPACKET` send would fail with `EMSGSIZE`.
pub const FRAME_BYTES: usize = 160 * 1024;
/// Content bytes in one data frame between two Belljar processes.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Most digests in one question to the store.
pub const DIGESTS_PER_FRAME: usize = 1000;
/// Largest encoded REAPI `Directory` message, in bytes.
pub const DIRECTORY_BYTES: usize = 4 * 1024 * 1024;
/// Most entries (files, links and directories together) in one input tree.
pub const TREE_ENTRIES: usize = 200_000;
/// Most content bytes in one input tree (16 GiB).
pub const TREE_BYTES: u64 = 16 << 30;
/// Longest all names and link targets of one tree may be together, in bytes, each counted as often as it stands
/// in the tree: three hundred for each entry of the largest.
pub const TREE_NAMES_BYTES: u64 = 64 << 20;
/// Largest mountable image of one tree, in bytes: metadata only, some two hundred bytes for an entry.
pub const IMAGE_BYTES: usize = 256 << 20;
/// Most images that the store remembers to have verified; others are verified anew when they are asked for.
pub const KNOWN_IMAGES: usize = 1024;
/// Most trees that the spawner keeps mounted, beside those that builds use at the moment.
pub const MOUNTED_TREES: usize = 64;
/// Most entries at the top of a tree that is a root file system: each is a Landlock rule.
pub const IMAGE_TOP_ENTRIES: usize = 128;
/// Longest symbolic link target, in bytes.
pub const SYMLINK_BYTES: usize = 4095;
/// Largest blob accepted by the store (4 GiB).
pub const BLOB_BYTES: u64 = 4 << 30;
/// Most objects of which the store remembers what they looked like when they were verified; others are read again.
pub const STAMPS: usize = 4_000_000;
/// For how long an object that is given again needs not be noted to have been, in seconds.
pub const GIVEN_SECONDS: u64 = 1;
/// How long an object stays at least after it was given, in seconds, unless the store's configuration says
/// otherwise: whoever was told that it is there needs some time to name it.
pub const GRACE_SECONDS: u64 = 3600;
/// Longest such time in a configuration, in seconds.
pub const GRACE_SECONDS_MOST: u64 = 30 * 86_400;
/// Most bytes that are kept free for builds that run, unless the store's configuration says otherwise.
pub const RESERVE_BYTES: u64 = 1 << 30;
/// The same as a part of the file system, if that is less: one in so many.
pub const RESERVE_PART: u64 = 20;
/// How many bytes a second are read to find damaged objects, unless the store's configuration says otherwise.
pub const SCRUB_BYTES_PER_SECOND: u64 = 16 << 20;
/// How many days after the end of one such reading the next begins, unless the store's configuration says otherwise.
pub const SCRUB_DAYS: u64 = 30;
/// Most objects that builds that are kept may lead to: more are not looked for, and nothing is removed then.
pub const REACHED_OBJECTS: usize = 16_000_000;
/// Most objects of which belljard compares when they were last used; those beyond wait for the next time.
pub const UNREACHED_OBJECTS: usize = 16_000_000;
/// Most objects that are removed while nobody may submit or ask for blobs: how long that lasts.
pub const SWEPT_AT_ONCE: usize = 64;
/// Most builds that are read from the queue at once.
pub const KEPT_PAGE: usize = 256;
/// Most builds that are named as needing a damaged object.
pub const NEEDING_BUILDS: usize = 100;
/// Longest that a store status may tell what was counted before, in seconds; else for as long as counting took.
pub const COUNT_SECONDS: u64 = 60;
/// How long nobody needs an object that was told to be there, in seconds, before it may go, unless belljard's
/// configuration says otherwise.
pub const LEASE_SECONDS: u64 = 86_400;
/// How long builds are kept with what they left, in seconds, unless belljard's configuration says otherwise.
pub const RETENTION_SECONDS: u64 = 90 * 86_400;
/// Most pins.
pub const PINS: usize = 10_000;
/// Longest reason of a pin, in bytes.
pub const PIN_REASON_BYTES: usize = 1024;
/// Most damaged objects that are kept aside; further ones are removed.
pub const QUARANTINED: usize = 256;
/// Most objects that the store makes durable together; each holds a descriptor until then.
pub const OBJECTS_AT_ONCE: usize = 64;
/// Largest gRPC message, in bytes, in either direction (gRPC's own default).
pub const GRPC_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Largest `Build` message, in bytes, that a client reads: the most outputs with the longest paths fit.
pub const BUILD_MESSAGE_BYTES: usize = 48 * 1024 * 1024;
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
/// Most objects that are noted for a project all or none: for each a page of 4 KiB may be in memory meanwhile.
pub const GRANTED_AT_ONCE: usize = 1024;
/// Most blobs in one REAPI batch or `FindMissingBlobs` call.
pub const BATCH_BLOBS: usize = 10_000;
/// Most builds that wait or run at once; one more submission is refused with `RESOURCE_EXHAUSTED`.
pub const QUEUED_BUILDS: usize = 10_000;
/// Most questions and changes that wait for the queue's database; they share one commit.
pub const QUEUE_REQUESTS: usize = 256;
/// Most attempts at one build before it ends as an infrastructure failure.
pub const ATTEMPTS: u32 = 3;
/// How often the signer is asked for one statement, and the store to take one build's evidence, before
/// the build ends without: for a quarter of an hour, since what was built would be lost.
pub const EVIDENCE_TRIES: u32 = 200;
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
/// Most connections that one Belljar process keeps open from its peers.
pub const PEER_CONNECTIONS: usize = 256;
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
/// Most directories that the daemon remembers to belong to a project with all below them.
pub const KNOWN_DIRECTORIES: usize = 50_000;
/// Most open `WatchBuild` streams in the daemon.
pub const WATCHERS: usize = 256;
/// Most of them that one principal has.
pub const WATCHERS_PER_PRINCIPAL: usize = 64;
/// Most events that one slow watcher may lag behind before it is told to reconnect.
pub const WATCH_LAG: usize = 1024;
/// Log bytes in one `WatchBuild` message.
pub const LOG_CHUNK_BYTES: usize = 32 * 1024;
/// Largest receipt, in bytes: ten thousand outputs with all their names, and the records of derivations, fit.
pub const RECEIPT_BYTES: usize = 32 * 1024 * 1024;
/// Most receipts that the signer has not seen yet and goes through before it signs: their digests are in memory
/// meanwhile, 32 MiB of them.
pub const RECEIPTS_UNSEEN: usize = 1024 * 1024;
/// Most bytes of records of derivations in one receipt: with what a statement says of each package they fit a bundle.
pub const RECEIPT_DERIVATION_BYTES: usize = 10 * 1024 * 1024;
/// Longest all paths and link targets of one build's outputs may be together, in bytes: with the most
/// entries they fit the message about the build ([`GRPC_MESSAGE_BYTES`]), and with every byte escaped a receipt.
pub const OUTPUT_NAMES_BYTES: usize = 2 * 1024 * 1024;
/// Largest Sigstore bundle, in bytes, that is read back for verification: the largest receipt fits, in base 64.
pub const BUNDLE_BYTES: usize = 48 * 1024 * 1024;
/// Most bytes that the bundles and envelopes beside all outputs of one build may take in a client's output directory.
/// Where they would take more, each is there once for all of them: every one of them names all files, so that their
/// size together grows with the square of the number of outputs.
pub const EVIDENCE_BESIDE_BYTES: usize = 64 * 1024 * 1024;
/// Most root file systems in the list of those that the spawner admits.
pub const ALLOWED_IMAGES: usize = 1024;
/// Largest configuration file, in bytes.
pub const CONFIG_BYTES: usize = 1024 * 1024;
/// Most entries in one build's audit trail.
pub const AUDIT_ENTRIES: usize = 10_000;
/// Largest encoded audit entry, in bytes.
pub const AUDIT_ENTRY_BYTES: usize = 64 * 1024;
/// Most reasons in one refusal between two Belljar processes.
pub const REASONS: usize = 16;
/// Longest such reason, in bytes: sixteen fit a frame also where JSON escapes every byte.
pub const REASON_BYTES: usize = 1024;
/// Longest name of a principal, in bytes: an audit entry keeps it whole.
pub const PRINCIPAL_BYTES: usize = 512;
/// Most projects in one configuration.
pub const PROJECTS: usize = 1000;
/// Most members of one project: principals, or patterns of them.
pub const PROJECT_MEMBERS: usize = 1000;
/// Content bytes in one `ByteStream.Read` message.
pub const READ_CHUNK_BYTES: usize = 256 * 1024;
/// Most connections that belljard has open to the store for itself, beside [`UPLOADS`].
pub const STORE_CONNECTIONS: usize = 8;
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
/// Most requests that wait for the spawner's answer at once.
pub const SPAWNER_REQUESTS: usize = 256;
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
/// Most interrupted uploads that the store keeps; each holds a descriptor.
pub const PARTIAL_UPLOADS: usize = 64;
/// Most bytes of interrupted uploads that the store keeps (8 GiB).
pub const PARTIAL_BYTES: u64 = 8 << 30;
/// Most of the interrupted uploads that one project has, whoever of it sent them.
pub const PARTIAL_UPLOADS_PER_PROJECT: usize = 32;
/// Most of the interrupted uploads that one principal has in one project.
pub const PARTIAL_UPLOADS_PER_PRINCIPAL: usize = 16;
/// Most of their bytes (4 GiB) that one project has, and so one principal: the largest blob.
pub const PARTIAL_BYTES_PER_PROJECT: u64 = BLOB_BYTES;
/// How long the store keeps an interrupted upload, in seconds.
pub const PARTIAL_SECONDS: u64 = 15 * 60;
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
/// Most trees that the store derives at once: each has a process of its own, and may keep a CPU busy.
pub const DERIVATIONS: usize = 4;
/// Most of them for one principal.
pub const DERIVATIONS_PER_PRINCIPAL: usize = 3;
/// Most of them for what is fetched for one project; its further ones wait.
pub const DERIVATIONS_PER_PROJECT: usize = 2;
/// How many bytes are written to the store before it is looked again how much room there is, where nobody has said how
/// many will come: by so much each may use the reserve.
pub const ROOM_BYTES: u64 = 16 << 20;
/// Longest that one derivation may take, in seconds.
pub const DERIVATION_SECONDS: u64 = 600;
/// Largest record of a derivation, in bytes: one of the most packages that a lock file may name fits.
pub const DERIVATION_BYTES: usize = 8 * 1024 * 1024;
/// Most objects that one derivation reads.
pub const DERIVATION_OBJECTS: usize = 20_000;
/// Longest all facts of one derivation may be together, in bytes of JSON: with the objects read they fit its record.
pub const FACT_BYTES: usize = 5 * 1024 * 1024;
/// Longest all paths and link targets that come out of one derivation may be together, in bytes.
pub const UNPACKED_NAMES_BYTES: usize = 64 * 1024 * 1024;
/// Most entries that may come out of one derivation, with those that later ones replace.
pub const UNPACKED_ENTRIES: usize = 2 * TREE_ENTRIES;
/// How many bytes may come out of one that is read, beyond [`UNPACK_FREE_BYTES`].
pub const UNPACK_RATIO: u64 = 200;
/// How many bytes may come out whatever is read.
pub const UNPACK_FREE_BYTES: u64 = 256 << 20;
/// Longest directory of a ZIP archive, in bytes: of one that is not ZIP64 it has at most 65,534 entries.
pub const ZIP_DIRECTORY_BYTES: usize = 16 << 20;
/// Largest JSON document of an OCI image (index, manifest), in bytes: OCI's own advice to registries.
pub const OCI_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of one OCI image.
pub const OCI_LAYERS: usize = 128;
/// Most indexes of an OCI image inside each other that are followed.
pub const OCI_INDEX_DEPTH: usize = 4;
/// Most manifests that are looked at to find the one of an OCI image for a platform.
pub const OCI_CANDIDATES: usize = 64;
/// Longest text in a descriptor of an image that is kept, in bytes: a media type has at most 255 (RFC 6838, section 4.2).
pub const OCI_WORD_BYTES: usize = 255;
/// Longest name of a repository of a registry with its host, in bytes.
pub const REPOSITORY_BYTES: usize = 255;
/// Longest tag of an image, in bytes.
pub const TAG_BYTES: usize = 128;
/// Most images that are pulled at once.
pub const PULLS: usize = 4;
/// Most of them for one principal.
pub const PULLS_PER_PRINCIPAL: usize = 2;
/// Longest that pulling one image may take, with the tree that is made of it, in seconds.
pub const PULL_SECONDS: u64 = 3600;
/// Most bytes that all documents of one image may have at a registry together (16 MiB); each is pulled once.
pub const PULL_DOCUMENT_BYTES: u64 = 16 << 20;
/// Most bytes that one image may have at a registry, all its layers together (16 GiB).
pub const PULL_BYTES: u64 = 16 << 30;
/// Most registries that a configuration names.
pub const REGISTRIES: usize = 100;
/// Largest answer of who gives tokens for a registry, in bytes.
pub const TOKEN_ANSWER_BYTES: usize = 64 * 1024;
/// Longest token, and longest user and password, for a registry, in bytes.
pub const TOKEN_BYTES: usize = 16 * 1024;
/// Memory that decompressing one stream may need, in bytes: what `xz -9` and `zstd -22` ask for.
pub const DECOMPRESSION_BYTES: u64 = 160 << 20;
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
/// Largest audit trail, in bytes, that a client reads.
pub const AUDIT_TRAIL_BYTES: usize = 16 * 1024 * 1024;
/// Largest file, in bytes, in which the command line remembers the digests of one source directory: the most entries
/// with two hundred bytes for each path fit.
pub const REMEMBERED_BYTES: usize = 64 << 20;
/// Most source directories whose digests the command line remembers for one user.
pub const REMEMBERED_TREES: usize = 64;
