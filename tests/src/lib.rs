//! End-to-end suites of Belljar: the harness. The suites are in `tests/`, by subject.
//!
//! * A [`Project`] is a source directory with a `belljar.toml`.
//! * An [`Instance`] is a Belljar of its own: a state directory, and the real programs on it. [`Instance::run`]
//!   sends a project through `belljar run`; unless [`Instance::start`] was called before, that starts and ends
//!   all processes for this one build.
//! * A [`Liar`] is a connection to one of its processes from somebody who need not keep to the rules.
//! * [`trace`] looks at what the processes do, and kills them at a point of it.
//! * [`Installed`] is the daemon that systemd runs on this machine.
//! * [`Real`] has projects that others wrote, and [`Images`] what they are built on.
//! * A [`Run`] is what came of it: exit status, report, log, artifacts, receipt.
//!
//! When an instance goes, it ends its processes, and the test fails if anything is left of it: a process, a
//! mount, a cgroup, or a file where only work in progress lies.

// The harness is test code: it may stop at the first surprise. Clippy cannot tell, since it is a library.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod by_blake3;
mod client;
mod image;
mod installed;
mod instance;
mod liar;
mod process;
mod programs;
mod project;
mod real;
mod residue;
mod run;
mod told;
mod toolchain;
pub mod trace;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub use by_blake3::{blake3_digest, by_blake3};
pub use client::Client;
pub use image::{TreeOf, overwrite};
pub use installed::Installed;
pub use instance::{Instance, Running};
pub use liar::Liar;
pub use process::Part;
pub use programs::program;
pub use project::Project;
pub use real::{Extent, Real};
pub use run::Run;
pub use told::Told;
pub use toolchain::Images;

/// belljard's user id in embedded mode.
pub const BELLJARD_UID: u32 = 1_879_047_937;
/// The store's user id in embedded mode.
pub const STORE_UID: u32 = 1_879_047_938;
/// The signer's user id in embedded mode.
pub const SIGNER_UID: u32 = 1_879_047_939;
/// The group of belljard, store and signer in embedded mode.
pub const GROUP: u32 = 1_879_047_937;
/// Somebody who has nothing to do with Belljar (`nobody`).
pub const STRANGER: u32 = 65_534;

/// How many times longer than here something may take where the tests run, if that is said.
const SLOWNESS_VARIABLE: &str = "BELLJAR_TEST_SLOWNESS";

/// How long to wait, on this machine, for what takes `limit` at most on others.
pub fn patience(limit: Duration) -> Duration {
    let slowness = std::env::var(SLOWNESS_VARIABLE).ok();
    limit * slowness.map_or(1, |times| times.parse().expect("a whole number of times"))
}

/// Looks again and again until `look` gives something.
///
/// # Panics
/// When that takes longer than `limit`, as [`patience`] has it; `what` says what was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = patience(limit);
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that has to succeed, in a directory. Gives what it printed.
///
/// # Panics
/// When it does not.
pub fn tool(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|e| panic!("this test needs {program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("what it printed is text")
}
