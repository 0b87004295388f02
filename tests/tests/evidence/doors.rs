use belljar_tests::{BELLJARD_UID, Instance, Part, Project, SIGNER_UID, STORE_UID, STRANGER};
use serde_json::{Value, json};

/// A request that each process would answer to its own client.
fn question(part: Part) -> Value {
    match part {
        // About a record that it has not made.
        Part::Store => {
            json!({"kind": "derivation", "record": {"digest": belljar_core::Digest::of(b"none"), "size": 4}})
        }
        Part::Signer => json!({"kind": "public_key"}),
        Part::Spawner => json!({"number": 1, "operation": {"kind": "list"}}),
        Part::Belljard => unreachable!("belljard speaks gRPC"),
    }
}

#[test]
fn each_process_answers_its_own_client_and_nobody_else() {
    let mut instance = Instance::started();
    // Its client, and everybody of Belljar who is not.
    let doors = [
        (Part::Store, 0, vec![STORE_UID, SIGNER_UID]),
        (Part::Signer, BELLJARD_UID, vec![0, STORE_UID, SIGNER_UID]),
        (Part::Spawner, BELLJARD_UID, vec![0, STORE_UID, SIGNER_UID]),
    ];
    for (part, client, others) in doors {
        let question = question(part);
        for uid in others {
            let answer = instance.ask(part, uid, &question).unwrap();
            let refused = answer.is_null()
                || answer["kind"] == "refused"
                || (answer["kind"] == "failed" && answer["class"] == "refused");
            assert!(refused, "{part:?} answered {uid}: {answer}");
        }
        // A stranger does not even reach it.
        let why = instance.ask(part, STRANGER, &question).unwrap_err();
        assert!(why.contains("Permission denied"), "{part:?}: {why}");
        if part == Part::Spawner {
            // belljard's own connection is the one that there may be; asked beside it, nothing is lost.
            continue;
        }
        let answer = instance.ask(part, client, &question).unwrap();
        let due = if part == Part::Store {
            json!(["failed", "missing"])
        } else {
            json!(["public_key", null])
        };
        let told = json!([answer["kind"], answer["class"]]);
        assert_eq!(told, due, "{part:?} to its client: {answer}");
    }
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn the_spawner_answers_belljard() {
    let mut instance = Instance::started();
    instance.end_part(Part::Belljard);
    let answer = instance
        .ask(Part::Spawner, BELLJARD_UID, &question(Part::Spawner))
        .unwrap();
    assert_eq!(
        answer,
        json!({"kind": "answer", "number": 1, "answer": {"kind": "attempts", "attempts": []}})
    );
    instance.start_part(Part::Belljard);
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn the_store_takes_blobs_from_belljard_and_nothing_else() {
    let instance = Instance::started();
    let empty = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 0});
    let stage = json!({"kind": "stage", "attempt": "01jd8q6z8r4x7j2m5t9v0w3y6b-1", "trees": [{"tree": empty, "mtime": 0, "derivation": null}]});
    let collect =
        json!({"kind": "collect", "outputs": ["out"], "limit_bytes": 1, "limit_entries": 1});
    for request in [stage, collect, json!({"kind": "verify_inputs"})] {
        let answer = instance.ask(Part::Store, BELLJARD_UID, &request).unwrap();
        assert_eq!(
            (&answer["kind"], &answer["class"]),
            (&json!("failed"), &json!("refused")),
            "{request}: {answer}"
        );
    }
    // A blob that is none: the digest is not that of no bytes.
    let answer = instance
        .ask(
            Part::Store,
            BELLJARD_UID,
            &json!({"kind": "put", "object": empty}),
        )
        .unwrap();
    assert_eq!(
        (&answer["kind"], &answer["class"]),
        (&json!("failed"), &json!("content")),
        "{answer}"
    );
    let good = json!({"digest": belljar_core::Digest::of(b""), "size": 0});
    let answer = instance
        .ask(
            Part::Store,
            BELLJARD_UID,
            &json!({"kind": "put", "object": good}),
        )
        .unwrap();
    assert_eq!(answer, json!({"kind": "stored"}));
}
