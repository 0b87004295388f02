use belljar_core::{ObjectId, bounds};
use belljar_tests::{Part, SIGNER_UID, STORE_UID};
use serde_json::{Value, json};

use super::scene::{Scene, Told, answer_of};
use super::{Row, STORE, row};

const PART: Part = Part::Store;

/// A request that only the spawner may make.
fn reserved(scene: &mut Scene, request: Value) -> Told {
    scene.tell(PART, &request)
}

fn stranger(scene: &mut Scene, uid: u32) -> Told {
    let question = json!({"kind": "put", "object": ObjectId::of(b"")});
    match scene.instance.ask(PART, uid, &question).unwrap() {
        Value::Null => Told::Closed(None),
        answer => Told::Answer(answer),
    }
}

pub(super) const ROWS: &[Row] = &[
    row(
        "have the store stage, as if belljard were the spawner",
        STORE,
        "this peer may not ask that",
        |scene| {
            reserved(
                scene,
                json!({"kind": "stage", "attempt": "01jd8q6z8r4x7j2m5t9v0w3y6b-1", "trees": []}),
            )
        },
    ),
    row(
        "give outputs to the store, as if belljard were the collector",
        STORE,
        "this peer may not ask that",
        |scene| {
            reserved(
                scene,
                json!({"kind": "collect", "outputs": ["out"], "limit_bytes": 1, "limit_entries": 1}),
            )
        },
    ),
    row(
        "give a log to the store",
        STORE,
        "this peer may not ask that",
        |scene| reserved(scene, json!({"kind": "open_log", "limit_bytes": 1})),
    ),
    row(
        "ask for a record of the store's",
        STORE,
        "this peer may not ask that",
        |scene| {
            reserved(
                scene,
                json!({"kind": "derivation", "record": ObjectId::of(b"")}),
            )
        },
    ),
    row(
        "other content under a digest",
        STORE,
        "as announced",
        |scene| scene.put(ObjectId::of(b"announced"), b"something"),
    ),
    row(
        "more content than announced",
        STORE,
        "more content came",
        |scene| scene.put(ObjectId::of(b"short"), b"longer than that"),
    ),
    row(
        "an object of more than 4 GiB",
        STORE,
        "larger than",
        |scene| {
            let object = ObjectId {
                size: bounds::BLOB_BYTES + 1,
                ..ObjectId::of(b"")
            };
            scene.tell(PART, &json!({"kind": "put", "object": object}))
        },
    ),
    row(
        "a request in the midst of content",
        STORE,
        "before the content was complete",
        |scene| {
            let mut store = scene.connect(PART);
            let put = json!({"kind": "put", "object": ObjectId::of(b"content")});
            store.say(&put);
            store.say(&put);
            answer_of(&mut store)
        },
    ),
    row(
        "content that nobody announced",
        STORE,
        "nobody announced",
        |scene| scene.send(PART, b"Dabc"),
    ),
    row(
        "a tree out of what is not there",
        STORE,
        "is not in the store",
        |scene| {
            let archive = ObjectId::of(b"an archive that nobody has sent");
            match derive(scene, archive) {
                Told::Answer(answer) if answer["kind"] == "derivation_lacks" => Told::Closed(None),
                told => told,
            }
        },
    ),
    row(
        "a tree out of what is no archive",
        STORE,
        "the archive is cut",
        |scene| {
            let archive = scene.keep(b"what is no archive at all, whatever one takes it for");
            derive(scene, archive)
        },
    ),
    row(
        "a file descriptor to the store",
        STORE,
        "a descriptor came",
        |scene| {
            scene.send_with_descriptor(PART, &json!({"kind": "put", "object": ObjectId::of(b"")}))
        },
    ),
    row(
        "a frame of more than 160 KiB to the store",
        STORE,
        "larger than allowed",
        |scene| scene.send(PART, &vec![b'J'; bounds::FRAME_BYTES + 1]),
    ),
    row(
        "a request that is none, to the store",
        STORE,
        "unknown variant `link`",
        |scene| scene.tell(PART, &json!({"kind": "link", "object": ObjectId::of(b"")})),
    ),
    row(
        "the signer's user at the store",
        STORE,
        "may not ask the store anything",
        |scene| stranger(scene, SIGNER_UID),
    ),
    row(
        "the store's own user at the store",
        STORE,
        "may not ask the store anything",
        |scene| stranger(scene, STORE_UID),
    ),
];

/// Has a tree made of an archive, and gives whatever the store asks for: belljard lies about who has what.
fn derive(scene: &Scene, archive: ObjectId) -> Told {
    let recipe = json!({"kind": "tar", "archive": archive});
    let mut store = scene.connect(PART);
    store.say(&json!({"kind": "derive", "recipe": recipe}));
    match answer_of(&mut store) {
        Told::Answer(answer) if answer["kind"] == "derivation_wants" => {
            store.say(&json!({"kind": "given"}));
            answer_of(&mut store)
        }
        told => told,
    }
}
