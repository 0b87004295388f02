//! Blobs over the Remote Execution API against the real processes, as any client could send them.
//!
//! * [`blake3_names`]: clients that name blobs by BLAKE3.
//! * [`resume`]: uploads that break off, and who goes on with them.
//! * [`many`]: a project that has many of them.
//! * [`cut`]: the command line over a connection that is cut.
//! * [`pace`]: clients that are slow on purpose, and memory under large blobs.
//! * [`zstd`]: packed content, with the reference implementation at the other end.
//! * [`raw`]: the client.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blake3_names;
mod cut;
mod many;
mod pace;
mod raw;
mod resume;
mod zstd;
