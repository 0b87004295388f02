//! Content-addressed objects: how they lie on disk, how they are written and how they are read, and how
//! a tree of them is laid out as plain files.
//!
//! Reading and writing are apart: [`Reader`] is for whoever belongs to the store's group, [`Writer`] only
//! for the process that owns the objects. Both stand behind small traits ([`BlobSource`], [`BlobSink`])
//! with one behavioural test suite over all implementations; [`Memory`] is the one without a disk.
//!
//! | below the store's root | what | mode |
//! |---|---|---|
//! | `objects/sha256/ab/cdef…` | one object: 2 and 62 hexadecimal digits of its SHA-256 | 0440 |
//! | `tmp/` | names that exist for a moment while a damaged object is replaced | 0750 |
//! | `logs/<attempt>.log` | logs | 0640 |
//! | `derivations/<record>` | says, by being there, that the store made this record of a derivation itself | 0440 |
//! | `stage/<attempt>/tree` | inputs laid out for one attempt | 0755 |

mod blob;
mod failure;
mod lay_out;
mod layout;
mod measure;
mod memory;
mod reader;
mod scan;
mod verify;
mod writer;

pub use blob::{Batch, BlobSink, BlobSource, PendingBlob};
pub use failure::{LayOutError, LayoutError, ReadError, ScanError, WriteError};
pub use lay_out::{LaidOut, Order, lay_out};
pub use layout::{DERIVATIONS, LOGS, OBJECTS, STAGE, TMP};
pub use memory::Memory;
pub use reader::Reader;
pub use scan::scan;
pub use verify::VerifyingRead;
pub use writer::Writer;

#[cfg(test)]
mod suite;
