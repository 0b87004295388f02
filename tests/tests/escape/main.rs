//! Hostile builds. Each program succeeds outside a sandbox, where the test runs it too, and is refused inside.
//!
//! * [`doors`]: what the kernel, the host and init must refuse; one table, one program per group in `hostile/`.
//! * [`mutation`]: the same with one containment step left out at a time: which of them would notice.
//! * [`limits`]: builds that want more than they may have, or that do not want to end.
//! * [`locks`]: file locks, which nobody counts.
//! * [`memory`]: what the kernel keeps for a build, counted or not.
//! * [`neighbours`]: two builds that want to meet.
//! * [`outputs`]: what builds leave for the collector.
//! * [`steps`]: what a step does to the next one, and to init.
//! * [`log`]: what they write.
//! * [`services`]: what Belljar's own processes keep from themselves.

// Test code may stop at the first surprise, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod doors;
mod limits;
mod locks;
mod log;
mod memory;
mod mutation;
mod neighbours;
mod outputs;
mod outside;
mod services;
mod steps;

use std::path::PathBuf;

/// The sources of the hostile programs.
fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("hostile")
}

/// Content of one of them.
fn source(name: &str) -> String {
    let path = sources().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
