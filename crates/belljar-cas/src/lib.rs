//! Content-addressed objects: how they lie on disk, how they are written and how they are read, and how
//! a tree of them becomes an image that a kernel can mount.
//!
//! Reading and writing are apart: [`Reader`] is for whoever belongs to the store's group, [`Writer`] only
//! for the process that owns the objects. Both stand behind small traits ([`BlobSource`], [`BlobSink`])
//! with one behavioural test suite over all implementations; [`Memory`] is the one without a disk. Objects are named by
//! their SHA-256; what was announced by BLAKE3 is verified by both, and lies under the first.
//!
//! | below the store's root | what | mode |
//! |---|---|---|
//! | `objects/sha256/ab/cdef…` | one object: 2 and 62 hexadecimal digits of its SHA-256; its time of change says when it was last given | 0440 |
//! | `stamps.v1` | what each object looked like when it was verified | 0600 |
//! | `quarantine/<name>` | objects, by their digests, and images that were found damaged | 0440 |
//! | `tmp/` | names that exist for a moment while a damaged object is replaced | 0750 |
//! | `logs/<attempt>.log` | logs | 0640 |
//! | `images/<tree>-<size>-<time>.v1` | a tree, mountable over the objects | 0440 |
//! | `derivations/<record>` | says, by being there, that the store made this record of a derivation itself | 0440 |

mod beside;
mod blob;
mod custody;
mod destination;
mod expected;
mod failure;
mod few;
mod hashing;
mod headroom;
mod images;
mod layout;
mod memory;
mod pending;
mod reach;
mod reader;
mod removal;
mod reporting;
mod scan;
mod stamps;
mod tree;
mod usage;
mod verify;
mod writer;

pub use blob::{Batch, BlobSink, BlobSource, HeldObject, PendingBlob};
pub use custody::{Custody, Disk};
pub use failure::{LayoutError, ReadError, ScanError, TreeError, WriteError};
pub use headroom::{Headroom, Room};
pub use images::{ImageOrder, Images, Provenance};
pub use layout::{DERIVATIONS, IMAGES, LOGS, OBJECTS, QUARANTINE, STAMPS, TMP, path_of};
pub use memory::Memory;
pub use reach::{ReachError, Reached};
pub use reader::{Finding, Reader};
pub use removal::{Fault, Quarantined, Removal};
pub use reporting::Reporting;
pub use scan::scan;
pub use tree::Measure;
pub use usage::{Aside, Found, Part, Space, Usage, objects_of_prefix, quarantined, unmended};
pub use verify::VerifyingRead;
pub use writer::Writer;

#[cfg(test)]
mod suite;
