//! Trees in a sandbox: sources, root file systems and further inputs, all mounted over the store's objects.
//!
//! * [`builds`]: what a build on trees sees, and what is said of it.
//! * [`hostile`]: what it must not be able to do to them, and two builds on the same ones.
//! * [`life`]: what stays mounted, and what a restart finds.
//! * [`links`]: links out of a tree.
//! * [`marked`]: times, modes and other properties of their nodes.
//! * [`mounted`]: images, mounted without a sandbox.
//! * [`shapes`]: trees without an end, or without a bottom in sight.

// Test code may stop at the first surprise, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod builds;
mod hostile;
mod life;
mod links;
mod marked;
mod mounted;
mod shapes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use belljar_core::{BuildSpec, Image, Input, InputName, Inputs, ObjectId};
use belljar_tests::{Client, Instance};
use belljar_wire::{BuildRecord, BuildState};

fn input(tree: ObjectId) -> Input {
    Input {
        tree,
        derivation: None,
    }
}

/// `spec` on an image.
fn on(mut spec: BuildSpec, image: ObjectId) -> BuildSpec {
    spec.image = Image::Tree(input(image));
    spec
}

/// `spec` with further inputs.
fn with(mut spec: BuildSpec, inputs: &[(&str, ObjectId)]) -> BuildSpec {
    let named = inputs.iter().map(|(name, tree)| {
        let name = InputName::new(*name).unwrap();
        (name, input(*tree))
    });
    spec.inputs = Inputs::new(named.collect::<BTreeMap<_, _>>()).unwrap();
    spec
}

fn submit(client: &Client, request: &str, spec: &BuildSpec) -> BuildRecord {
    let build = client.submit(request, spec);
    build.unwrap_or_else(|problem| panic!("{problem:?}"))
}

fn ended(client: &Client, build: &BuildRecord) -> BuildRecord {
    client.until(&build.id, |build| build.state == BuildState::Ended)
}

/// Submits a build and waits for its end.
fn run(client: &Client, request: &str, spec: &BuildSpec) -> BuildRecord {
    ended(client, &submit(client, request, spec))
}

fn log(instance: &Instance, build: &BuildRecord) -> String {
    let attempt = format!("{}-{}", build.id, build.attempt);
    let path = instance.state().join(format!("store/logs/{attempt}.log"));
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The file that holds an object.
fn object_file(instance: &Instance, object: ObjectId) -> PathBuf {
    let hex = object.digest.to_hex();
    let objects = instance.state().join("store/objects/sha256");
    objects.join(&hex[..2]).join(&hex[2..])
}
