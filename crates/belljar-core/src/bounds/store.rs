//! Objects and trees in the store, how long they stay, and what is derived from them.

/// Largest encoded REAPI `Directory` message, in bytes.
pub const DIRECTORY_BYTES: usize = 4 * 1024 * 1024;
/// Most entries (files, links and directories together) in one input tree.
pub const TREE_ENTRIES: usize = 200_000;
/// Most content bytes in one input tree (16 GiB).
pub const TREE_BYTES: u64 = 16 << 30;
/// Most properties with a name (REAPI `NodeProperty`) that one file, link or directory of a tree may have.
pub const NODE_PROPERTIES: usize = 64;
/// Longest their names and values may be together, in bytes.
pub const NODE_PROPERTIES_BYTES: usize = 4096;
/// Longest all names, link targets and properties of one tree may be together, in bytes, each counted as often as
/// it stands in the tree: three hundred for each entry of the largest.
pub const TREE_NAMES_BYTES: u64 = 64 << 20;
/// Largest mountable image of one tree, in bytes: metadata only, some two hundred bytes for an entry.
pub const IMAGE_BYTES: usize = 256 << 20;
/// Most images that the store remembers to have verified; others are verified anew when they are asked for.
pub const KNOWN_IMAGES: usize = 1024;
/// Longest symbolic link target, in bytes.
pub const SYMLINK_BYTES: usize = 4095;
/// Largest blob accepted by the store (4 GiB).
pub const BLOB_BYTES: u64 = 4 << 30;
/// Most objects of which the store remembers what they looked like when they were verified; others are read again.
pub const STAMPS: usize = 4_000_000;
/// Most files of objects that the store keeps open to see whether they were changed: some 1.3 KiB of the kernel's memory
/// each. Fewer where three quarters of the files that it may open are less.
pub const HELD_OBJECTS: usize = 20_000;
/// Most files that the store has open, where the system lets it: what `LimitNOFILE` of its unit is. Of one build's outputs that
/// is each thread's batch of [`OBJECTS_AT_ONCE`], the directory that it was made in, and the file that comes.
pub const STORE_FILES: u64 = 65_536;
/// An object that is given again within this part of the time that it stays for is not noted to have been: it stays for as
/// much longer.
pub const GIVEN_PART: u64 = 60;
/// How long an object stays at least after it was given, in seconds, unless the store's configuration says
/// otherwise: whoever was told that it is there needs some time to name it.
pub const GRACE_SECONDS: u64 = 3600;
/// Longest such time in a configuration, in seconds.
pub const GRACE_SECONDS_MOST: u64 = 30 * 86_400;
/// Room on belljard's disk that is given back when garbage can be collected only with some.
pub const BALLAST_BYTES: u64 = 4 << 20;
/// Most bytes that are kept free for builds that run, unless the store's configuration says otherwise.
pub const RESERVE_BYTES: u64 = 1 << 30;
/// The same as a part of the file system, if that is less: one in so many.
pub const RESERVE_PART: u64 = 20;
/// How many bytes a second are read to find damaged objects, unless the store's configuration says otherwise.
pub const SCRUB_BYTES_PER_SECOND: u64 = 16 << 20;
/// Most bytes that are read for it at once, without a pause that keeps to that rate.
pub const SCRUB_BURST_BYTES: u64 = 1 << 20;
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
/// Most objects, and most images of trees, that are put aside within [`UNREAD_SECONDS`] because the disk does not give them;
/// further ones stay.
pub const UNREAD_FILES: usize = 16;
/// See [`UNREAD_FILES`].
pub const UNREAD_SECONDS: u64 = 86_400;
/// Most objects that the store makes durable together; each holds a descriptor until then.
pub const OBJECTS_AT_ONCE: usize = 64;
/// Content of an object that is gathered before it is written, in bytes: larger writes cost the kernel less.
pub const GATHERED_BYTES: usize = 512 * 1024;
/// Most pieces of [`GATHERED_BYTES`] of one large object that came and are not written yet, or not hashed yet.
pub const WRITTEN_BEHIND: usize = 3;
/// Most threads that hash and write outputs of one attempt.
pub const OUTPUT_HANDS: usize = 4;
/// Most pieces of [`CHUNK_BYTES`](super::CHUNK_BYTES) of outputs that wait for one of these threads.
pub const OUTPUT_PIECES_WAITING: usize = 16;
/// Most interrupted uploads that the store keeps; each holds a descriptor, and a large one two threads.
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
/// Most trees that the store derives at once: each has a process of its own, and may keep a CPU busy.
pub const DERIVATIONS: usize = 4;
/// Most of them for one principal.
pub const DERIVATIONS_PER_PRINCIPAL: usize = 3;
/// Most of them for what is fetched for one project; its further ones wait.
pub const DERIVATIONS_PER_PROJECT: usize = 2;
/// How many bytes callers have the store write, all together, before it is looked again how much room there is: by so much
/// the reserve may be used where builds write meanwhile, too.
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
/// Longest all that stands before the content of one entry of a tar archive, in bytes: its names, its attributes, where its holes
/// are. Whoever reads archives has it in memory.
pub const ARCHIVE_HEADER_BYTES: usize = 4 << 20;
/// Longest directory of a ZIP archive, in bytes: of one that is not ZIP64 it has at most 65,534 entries.
pub const ZIP_DIRECTORY_BYTES: usize = 16 << 20;
/// Memory that decompressing one stream may need, in bytes: what `xz -9` and `zstd -22` ask for.
pub const DECOMPRESSION_BYTES: u64 = 160 << 20;
