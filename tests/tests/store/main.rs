//! What the store keeps, and how the rest goes: through the front door, over the real processes.
//!
//! * [`keeping`]: builds are given up by count, age and bytes, pinned ones stay; what goes first.
//! * [`busy`]: garbage is collected while builds run.
//! * [`given`]: what a build was given of another.
//! * [`full`]: a disk that is full, and one that is nearly.
//! * [`damage`]: an object that has rotted, and an image of a tree.
//! * [`images`]: what images of trees take.
//! * [`messages`]: directories that builds left as one message.
//! * [`named`]: objects that clients name by BLAKE3.
//! * [`open_files`]: how many files may be open.

// Helpers of tests may stop at the first surprise too, and say where they are; clippy's exemption is for the tests
// themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod busy;
mod damage;
mod disk;
mod full;
mod given;
mod images;
mod keeping;
mod messages;
mod named;
mod open_files;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use belljar_tests::{Instance, Part, Run, tool};
use serde_json::Value;

/// Until what was given before counts as given before the lease, which is of one second here.
const LEASE: Duration = Duration::from_millis(2200);

/// One with these lines more in `store.toml` and in `[store]` of `belljard.toml`.
fn started(store: &str, keeping: &str) -> Instance {
    let mut instance = Instance::configured();
    append(
        &instance,
        Part::Store,
        &format!("grace_seconds = 1\n{store}\n"),
    );
    let keeping = format!("[store]\nlease_seconds = 1\nevery_seconds = 86400\n{keeping}\n");
    append(&instance, Part::Belljard, &keeping);
    instance.start();
    instance
}

fn append(instance: &Instance, part: Part, text: &str) {
    let path = instance
        .state()
        .join(format!("config/{}.toml", part.short()));
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Has a process begin anew with another configuration.
fn reconfigure(instance: &mut Instance, part: Part, change: impl FnOnce(String) -> String) {
    let path = instance
        .state()
        .join(format!("config/{}.toml", part.short()));
    let text = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    instance.end_part(part);
    instance.start_part(part);
}

fn name(run: &Run) -> String {
    run.json["build"].as_str().unwrap().to_owned()
}

/// `belljar store gc`
fn sweep(instance: &mut Instance, arguments: &[&str]) -> Value {
    let all = [arguments, &["--json"]].concat();
    let swept = instance.tell("store gc", &all).assert_code(0);
    swept.json("belljar.gc/v1")
}

/// `belljar store status`
fn status(instance: &mut Instance) -> Value {
    let told = instance.tell("store status", &["--json"]).assert_code(0);
    told.json("belljar.store/v1")
}

/// Whether a build's artifacts can be fetched; if not, it is said that they are not there.
fn can_be_fetched(instance: &mut Instance, build: &str) -> bool {
    let home = tempfile::tempdir().unwrap();
    let at = home.path().to_str().unwrap();
    let fetched = instance.tell("fetch", &[build, "--output", at]);
    if fetched.code != 0 {
        assert!(fetched.said.contains("is not in the store"), "{fetched:?}");
    }
    fetched.code == 0
}

/// What `du` says that the store takes, in bytes.
fn du(state: &Path) -> u64 {
    let said = tool(&state.join("store"), "du", &["-s", "--block-size=1", "."]);
    said.split('\t').next().unwrap().parse().unwrap()
}

/// What the store says that it takes.
fn counted(status: &Value) -> u64 {
    let parts = ["objects", "images", "logs", "quarantine", "other"];
    let bytes = parts.map(|part| status[part]["bytes"].as_u64().unwrap());
    bytes.iter().sum()
}
