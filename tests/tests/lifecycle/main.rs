//! The life of a build against the real processes, through the front door: the command line, and the API where
//! the command line has no word for it.
//!
//! * [`outcomes`]: how builds end, and what each end leaves.
//! * [`limits`]: what happens at each limit.
//! * [`outputs`]: what cannot be an output.
//! * [`patterns`]: outputs by pattern.
//! * [`steps`]: several steps, and where they run.
//! * [`manifest`]: what a `belljar.toml` must not say.
//! * [`lockfile`]: what a `belljar.lock` must not say.
//! * [`flags`]: what the command line must not say.
//! * [`sources`]: what belongs to a source tree.
//! * [`cancel`]: the end on request.
//! * [`refusals`]: what is refused before it is a build.
//! * [`requests`]: the API's promises about repetition and missing inputs.
//! * [`neighbours`]: two builds at once.
//! * [`restart`]: processes that die in mid-build.
//! * [`images`]: trees that are made of archives and images.
//! * [`imaged`]: images that become of outputs.
//! * [`access`]: who is let in, and by which door.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod cancel;
mod flags;
mod imaged;
mod images;
mod limits;
mod lockfile;
mod manifest;
mod neighbours;
mod outcomes;
mod outputs;
mod patterns;
mod refusals;
mod requests;
mod restart;
mod sources;
mod steps;
