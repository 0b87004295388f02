//! Root file systems that belljard may ask for and the operator does not list: some that the store has, one that
//! was almost listed.

use belljar_core::{Digest, ObjectId};
use belljar_tests::Part;
use serde_json::{Value, json};

use super::scene::{Scene, Told, plan, spec};
use super::{Row, SPAWNER, STORE, row};

/// A `Directory` message of a link `x` to itself (remote_execution.proto): small, and a tree that can be mounted.
const TREE: &[u8] = b"\x1a\x06\x0a\x01x\x12\x01x";

/// Stages a build on a root file system, while the operator allows `listed`.
fn staged_on(scene: &mut Scene, listed: &Value, image: Value) -> Told {
    scene.instance.allow_images(listed);
    scene.spawner = scene.connect(Part::Spawner);
    let spec = spec("echo x > out");
    let mut plan = plan(&spec);
    plan["image"] = image;
    let attempt = scene.attempt();
    let told = scene.stage(&attempt, spec.digest().unwrap(), &plan);
    scene.destroy(&attempt);
    Told::Answer(told)
}

fn tree(root: ObjectId) -> Value {
    json!({"tree": {"tree": root, "derivation": null}})
}

/// The digest with one bit of one byte another.
fn one_byte_off(digest: Digest) -> Digest {
    let mut bytes = *digest.as_bytes();
    bytes[31] ^= 1;
    Digest::from_bytes(bytes)
}

pub(super) const ROWS: &[Row] = &[
    row(
        "a root file system that is in the store, but not on the operator's list",
        SPAWNER,
        "none of the root file systems that this host's operator allows",
        |scene| {
            let foreign = scene.keep(TREE);
            // It is as good as any where there is no list.
            let admitted = staged_on(scene, &json!("any"), tree(foreign));
            assert!(
                matches!(&admitted, Told::Answer(answer) if answer["kind"] == "staged"),
                "{admitted:?}"
            );
            staged_on(scene, &json!(["host"]), tree(foreign))
        },
    ),
    row(
        "a root file system that is on the list but for one byte of its digest",
        SPAWNER,
        "none of the root file systems that this host's operator allows",
        |scene| {
            let good = scene.keep(TREE);
            let listed = json!(["host", good.digest]);
            let admitted = staged_on(scene, &listed, tree(good));
            assert!(
                matches!(&admitted, Told::Answer(answer) if answer["kind"] == "staged"),
                "{admitted:?}"
            );
            let other = ObjectId {
                digest: one_byte_off(good.digest),
                ..good
            };
            staged_on(scene, &listed, tree(other))
        },
    ),
    row(
        "the host's own root file system, where only images are listed",
        SPAWNER,
        "host is none of the root file systems",
        |scene| {
            let listed = json!([Digest::of(b"an image")]);
            staged_on(scene, &listed, json!("host"))
        },
    ),
    row(
        "a listed root file system of another size",
        STORE,
        "not in the store",
        |scene| {
            let good = scene.keep(TREE);
            let size = good.size + 1;
            let listed = json!(["host", good.digest]);
            staged_on(scene, &listed, tree(ObjectId { size, ..good }))
        },
    ),
];
