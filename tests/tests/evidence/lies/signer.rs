use belljar_core::{BuildSpec, bounds};
use belljar_tests::{Part, STORE_UID};
use serde_json::{Value, json};

use super::scene::{Scene, Told, asserted, attest, plan, spec};
use super::spawner::{nothing, other};
use super::{By, Row, SIGNER, row};
use crate::bundle::Bundle;

const PART: Part = Part::Signer;

/// Runs a build, then has it attested with one thing changed in the request.
fn after(scene: &mut Scene, change: impl FnOnce(&mut Value)) -> Told {
    let spec = spec("echo x > out");
    let attempt = scene.build(&spec);
    let mut request = attest(&attempt, &spec);
    change(&mut request);
    let told = scene.tell(PART, &request);
    assert!(scene.bundle(&attempt).is_none(), "{told:?}");
    told
}

/// Has something told of the signer that only belljard could know.
fn asserting(scene: &mut Scene, field: &str, value: Value) -> Told {
    after(scene, |request| request["asserted"][field] = value)
}

/// Runs the plan of one specification under the digest of another.
fn mislabelled(scene: &mut Scene) -> (String, BuildSpec, BuildSpec) {
    let (told, ran) = (other(), spec("echo ran > out"));
    let attempt = scene.attempt();
    let staged = scene.stage(&attempt, told.digest().unwrap(), &plan(&ran));
    assert_eq!(staged["kind"], "staged", "{staged}");
    scene.ask(&json!({"kind": "launch", "attempt": attempt}));
    scene.wait(&attempt);
    let collected = scene.collect(&attempt);
    assert_eq!(collected["outcome"]["kind"], "succeeded", "{collected}");
    scene.destroy(&attempt);
    (attempt, told, ran)
}

pub(super) const STATEMENTS: &[Row] = &[
    row(
        "another specification than the one that ran",
        SIGNER,
        "about the specification",
        |scene| after(scene, |request| request["spec"] = text(&other()).into()),
    ),
    row(
        "the plan of another specification, told under the one to be signed",
        SIGNER,
        "another plan ran",
        |scene| {
            let (attempt, told, _) = mislabelled(scene);
            scene.tell(PART, &attest(&attempt, &told))
        },
    ),
    row(
        "the same, to be signed for what really ran",
        SIGNER,
        "about the specification",
        |scene| {
            let (attempt, _, ran) = mislabelled(scene);
            scene.tell(PART, &attest(&attempt, &ran))
        },
    ),
    row(
        "the receipt of another attempt",
        SIGNER,
        "about the specification",
        |scene| {
            let others = scene.build(&other());
            after(scene, |request| request["attempt"] = others.into())
        },
    ),
    row(
        "a build that failed",
        SIGNER,
        "only a success is attested",
        |scene| {
            let failing = spec("echo x > out; exit 3");
            let attempt = scene.build(&failing);
            scene.tell(PART, &attest(&attempt, &failing))
        },
    ),
    row(
        "a build that was cancelled",
        SIGNER,
        "only a success is attested",
        |scene| {
            let slow = spec("echo x > out; sleep 30");
            let attempt = scene.launch(&slow);
            scene.ask(&json!({"kind": "kill", "attempt": attempt, "by": "unix:uid=0"}));
            scene.wait(&attempt);
            scene.collect(&attempt);
            scene.destroy(&attempt);
            scene.tell(PART, &attest(&attempt, &slow))
        },
    ),
    row(
        "a build that was never launched",
        SIGNER,
        "only a success is attested",
        |scene| {
            let never = spec("echo x > out");
            let attempt = scene.attempt();
            scene.stage(&attempt, never.digest().unwrap(), &plan(&never));
            scene.collect(&attempt);
            scene.destroy(&attempt);
            scene.tell(PART, &attest(&attempt, &never))
        },
    ),
    row(
        "a build that never was",
        SIGNER,
        "there is no receipt",
        |scene| {
            let attempt = scene.attempt();
            scene.tell(PART, &attest(&attempt, &other()))
        },
    ),
    row(
        "a receipt that never was, to be signed as one",
        SIGNER,
        "there is no receipt",
        |scene| {
            let attempt = scene.attempt();
            scene.tell(PART, &json!({"kind": "sign_receipt", "attempt": attempt}))
        },
    ),
    row(
        "a build that runs yet",
        SIGNER,
        "there is no receipt",
        |scene| {
            let slow = spec("echo x > out; sleep 30");
            let attempt = scene.launch(&slow);
            let told = scene.tell(PART, &attest(&attempt, &slow));
            scene.destroy(&attempt);
            told
        },
    ),
    row(
        "a second statement with another submitter",
        SIGNER,
        "another statement was already signed",
        |scene| {
            let spec = spec("echo x > out");
            let attempt = scene.build(&spec);
            let mut request = attest(&attempt, &spec);
            let first = scene.tell(PART, &request);
            assert!(
                matches!(&first, Told::Answer(answer) if answer["kind"] == "attested"),
                "{first:?}"
            );
            let signed = scene.bundle(&attempt);
            request["asserted"]["submitter"] = "unix:uid=1000".into();
            let told = scene.tell(PART, &request);
            assert_eq!(scene.bundle(&attempt), signed);
            told
        },
    ),
    row(
        "outputs beside the receipt's",
        SIGNER,
        "unknown field `outputs`",
        |scene| {
            after(scene, |request| {
                request["outputs"] = json!([{"path": "out", "sha256": nothing()}])
            })
        },
    ),
    row(
        "a submitter of 1 000 bytes",
        SIGNER,
        "submitter: 1 to",
        |scene| asserting(scene, "submitter", "x".repeat(1000).into()),
    ),
    row(
        "a submitter with control characters",
        SIGNER,
        "submitter: 1 to",
        |scene| asserting(scene, "submitter", "root\u{1b}[2K".into()),
    ),
    row(
        "a project that can be none",
        SIGNER,
        "a project has 1 to 63",
        |scene| asserting(scene, "project", "../default".into()),
    ),
    row(
        "an audit trail without entries",
        SIGNER,
        "an audit trail has 1 to",
        |scene| asserting(scene, "audit_entries", 0.into()),
    ),
    row(
        "another submitter, project, time and audit trail, before anything is signed",
        By::Label,
        "attested",
        |scene| {
            let spec = spec("echo x > out");
            let attempt = scene.build(&spec);
            let mut request = attest(&attempt, &spec);
            let lies = [
                ("project", json!("forged-project")),
                ("submitter", json!("forged-submitter")),
                ("authenticated_by", json!("forged-authentication")),
                ("accepted", json!("1999-01-01T00:00:00.000Z")),
                ("audit_trail", json!(nothing())),
                ("audit_entries", json!(77)),
            ];
            for (field, lie) in &lies {
                assert_ne!(asserted()[field], *lie);
                request["asserted"][field] = lie.clone();
            }
            let told = scene.tell(PART, &request);
            let mut statement = Bundle::parse(&scene.bundle(&attempt).unwrap()).statement();
            // Taken away what is labelled, nothing of it is left.
            let definition = &mut statement["predicate"]["buildDefinition"]["internalParameters"];
            let labelled = definition
                .as_object_mut()
                .unwrap()
                .remove("asserted")
                .unwrap();
            assert_eq!(labelled["submitter"], "forged-submitter");
            let byproducts = statement["predicate"]["runDetails"]["byproducts"]
                .as_array_mut()
                .unwrap();
            byproducts.retain(|one| one["annotations"]["belljar_asserted"] != true);
            let left = statement.to_string();
            let trail = nothing().to_hex();
            for forged in ["forged", "1999-01-01", trail.as_str(), "77,", "77}"] {
                assert!(!left.contains(forged), "{forged}: {left}");
            }
            told
        },
    ),
];

/// A refusal may be lost with the connection when that is closed before the question was read.
fn stranger(scene: &Scene, uid: u32) -> Told {
    let question = json!({"kind": "public_key"});
    match scene.instance.ask(PART, uid, &question).unwrap() {
        Value::Null => Told::Closed(None),
        answer => Told::Answer(answer),
    }
}

fn text(spec: &BuildSpec) -> String {
    String::from_utf8(spec.canonical().unwrap()).unwrap()
}

pub(super) const FRAMES: &[Row] = &[
    row(
        "bytes to be signed",
        SIGNER,
        "unknown variant `sign`",
        |scene| scene.tell(PART, &json!({"kind": "sign", "payload": "aGVsbG8="})),
    ),
    row(
        "a receipt's content to be signed",
        SIGNER,
        "unknown field `receipt`",
        |scene| {
            let attempt = "01jd8q6z8r4x7j2m5t9v0w3y6b-1";
            scene.tell(
                PART,
                &json!({"kind": "sign_receipt", "attempt": attempt, "receipt": {}}),
            )
        },
    ),
    row(
        "a statement to be signed beside the request",
        SIGNER,
        "unknown field `payload`",
        |scene| {
            let mut request = attest("01jd8q6z8r4x7j2m5t9v0w3y6b-1", &other());
            request["payload"] = "aGVsbG8=".into();
            scene.tell(PART, &request)
        },
    ),
    row("a receipt by its path", SIGNER, "not a build id", |scene| {
        scene.tell(PART, &attest("../receipts/x-1", &other()))
    }),
    row(
        "the specification in another encoding",
        SIGNER,
        "canonical form",
        |scene| {
            let mut request = attest("01jd8q6z8r4x7j2m5t9v0w3y6b-1", &other());
            request["spec"] = format!(" {}", text(&other())).into();
            scene.tell(PART, &request)
        },
    ),
    row(
        "a frame of more than 160 KiB to the signer",
        SIGNER,
        "larger than allowed",
        |scene| scene.send(PART, &vec![b'J'; bounds::FRAME_BYTES + 1]),
    ),
    row(
        "content to the signer",
        SIGNER,
        "takes no content",
        |scene| scene.send(PART, b"Dabc"),
    ),
    row(
        "half a request to the signer",
        SIGNER,
        "EOF while parsing",
        |scene| scene.send(PART, b"J{\"kind\":"),
    ),
    row(
        "a file descriptor to the signer",
        SIGNER,
        "a descriptor came",
        |scene| scene.send_with_descriptor(PART, &json!({"kind": "public_key"})),
    ),
    row(
        "the store's user at the signer",
        SIGNER,
        "serves belljard only",
        |scene| stranger(scene, STORE_UID),
    ),
    row(
        "root at the signer",
        SIGNER,
        "serves belljard only",
        |scene| stranger(scene, 0),
    ),
];
