//! What is left when processes die at any point of a build's life, or the machine loses its power there.
//!
//! * [`points`]: every call of a build's life that lasts or that others see, by name, and what comes of a death at it.
//! * [`site`]: a Belljar whose processes die there.
//! * [`judge`]: what must hold afterwards.
//! * [`sweep`]: one process dies, at every point, once before and once after it.
//! * [`fetching`]: one process dies while what a build declares by its digest is fetched.
//! * [`garbage`]: one process dies while garbage is collected.
//! * [`ingest`]: one process dies while a blob comes.
//! * [`full`]: the disk is full at every write of the store.
//! * [`campaign`]: several die, at points by chance, while several builds are under way.
//! * [`power`]: the machine loses its power, after every call.

// Helpers of tests may stop at the first surprise too, and say where they are; clippy's exemption is for the tests
// themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod campaign;
mod fetching;
mod full;
mod garbage;
mod ingest;
mod judge;
mod points;
mod power;
mod site;
mod sweep;
