use std::fs;

use belljar_tests::{BELLJARD_UID, Instance, Part, Project, Run};
use serde_json::{Value, json};

/// The request by which belljard had a build attested.
fn request(instance: &Instance, run: &Run) -> Value {
    let spec = String::from_utf8(instance.object(&run.json["evidence"]["spec"])).unwrap();
    json!({
        "kind": "attest",
        "attempt": run.attempt(),
        "spec": spec,
        "asserted": run.json["verdict"]["asserted"],
    })
}

fn ask(instance: &Instance, request: &Value) -> Value {
    instance.ask(Part::Signer, BELLJARD_UID, request).unwrap()
}

/// Fails unless the answer is a refusal for good, for a reason with this word in it.
fn assert_refused(answer: &Value, word: &str) {
    assert_eq!(
        (&answer["kind"], &answer["retryable"]),
        (&json!("refused"), &json!(false)),
        "{answer}"
    );
    let reasons = answer["reasons"].to_string();
    assert!(reasons.contains(word), "{word:?} is not in {reasons}");
}

#[test]
fn the_same_request_gives_the_same_bundle_and_no_other_is_made() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script("echo x > out"));
    run.assert_succeeded();
    let bundle = instance
        .state()
        .join(format!("evidence/{}.sigstore.json", run.attempt()));
    let signed = fs::read(&bundle).unwrap();
    assert_eq!(signed, run.file("out.sigstore.json"));

    let request = request(&instance, &run);
    let object = &run.json["evidence"]["bundle"];
    let due = json!({"kind": "attested", "bundle": object["digest"], "size": object["size"]});
    assert_eq!(ask(&instance, &request), due);
    // Also after a restart.
    instance.kill_part(Part::Signer);
    instance.start_part(Part::Signer);
    assert_eq!(ask(&instance, &request), due);

    // A second statement for the attempt, different in what only belljard vouches for.
    for (field, value) in [
        ("submitter", json!("unix:uid=1000")),
        ("authenticated_by", json!("a good feeling")),
        ("accepted", json!("2020-01-01T00:00:00.000Z")),
        ("audit_trail", json!(format!("sha256:{}", "0".repeat(64)))),
        ("audit_entries", json!(3)),
    ] {
        let mut other = request.clone();
        assert_ne!(other["asserted"][field], value);
        other["asserted"][field] = value;
        assert_refused(&ask(&instance, &other), "statement");
    }
    assert_eq!(
        fs::read(&bundle).unwrap(),
        signed,
        "the bundle is as it was"
    );
}

#[test]
fn a_specification_that_the_receipt_does_not_name_is_refused() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script("echo x > out"));
    run.assert_succeeded();
    let bundle = instance
        .state()
        .join(format!("evidence/{}.sigstore.json", run.attempt()));
    // As if it had never been asked for: nothing but the receipt stands against it.
    fs::remove_file(&bundle).unwrap();
    let good = request(&instance, &run);
    let text = good["spec"].as_str().unwrap();
    let with = |spec: String| {
        let mut other = good.clone();
        other["spec"] = spec.into();
        other
    };
    let other_script = text.replace("echo x > out", "echo y > out");
    assert_ne!(other_script, text);
    assert_refused(&ask(&instance, &with(other_script)), "spec");
    let other_limit = text.replace("\"pids\":1024", "\"pids\":1023");
    assert_ne!(other_limit, text);
    assert_refused(&ask(&instance, &with(other_limit)), "spec");
    // The same in another encoding is not the same.
    assert_refused(&ask(&instance, &with(format!(" {text}"))), "canonical");
    assert_refused(&ask(&instance, &with("{}".to_owned())), "spec");
    // Another build's, which has a receipt of its own.
    let other = instance.run(&Project::script("echo other > out"));
    other.assert_succeeded();
    let foreign = request(&instance, &other)["spec"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_refused(&ask(&instance, &with(foreign)), "spec");
    assert!(!bundle.exists(), "nothing was signed for any of them");
    assert_eq!(ask(&instance, &good)["kind"], "attested");
}

#[test]
fn nothing_is_signed_for_failures_strangers_and_bytes() {
    let mut instance = Instance::started();
    let good = instance.run(&Project::script("echo x > out"));
    good.assert_succeeded();
    let failed = instance.run(&Project::script("exit 1"));
    let mut request_for_failed = request(&instance, &failed);
    request_for_failed["asserted"] = good.json["verdict"]["asserted"].clone();
    assert_refused(&ask(&instance, &request_for_failed), "failed");
    assert!(
        !instance
            .state()
            .join(format!("evidence/{}.sigstore.json", failed.attempt()))
            .exists()
    );
    // An attempt that never was.
    let mut unknown = request(&instance, &good);
    unknown["attempt"] = "01jd8q6z8r4x7j2m5t9v0w3y6b-1".into();
    let answer = ask(&instance, &unknown);
    assert_eq!(answer["kind"], "refused", "{answer}");
    // A path is no attempt, and there is no way to have bytes signed.
    for (field, value) in [("attempt", "../receipts/x-1"), ("kind", "sign")] {
        let mut bad = request(&instance, &good);
        bad[field] = value.into();
        assert_refused(&ask(&instance, &bad), "");
    }
    let mut extra = request(&instance, &good);
    extra["payload"] = "aGVsbG8=".into();
    assert_refused(&ask(&instance, &extra), "payload");
}

/// As if the signer had not gone that far in the chain.
fn forget_the_last_receipt(instance: &mut Instance) {
    instance.end_part(Part::Signer);
    let seen = instance.state().join("evidence/receipts.seen");
    let lines = fs::read_to_string(&seen).unwrap();
    let before = lines.trim_end().rfind('\n').map_or(0, |end| end + 1);
    fs::write(&seen, &lines[..before]).unwrap();
    instance.start_part(Part::Signer);
}

#[test]
fn a_receipt_that_was_changed_is_refused() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script("echo x > out"));
    run.assert_succeeded();
    let request = request(&instance, &run);
    let bundle = instance
        .state()
        .join(format!("evidence/{}.sigstore.json", run.attempt()));
    fs::remove_file(&bundle).unwrap();
    let path = instance
        .state()
        .join(format!("receipts/{}.json", run.attempt()));
    let receipt = fs::read_to_string(&path).unwrap();
    for (from, to, word) in [
        (
            "\"no_new_privs\":true",
            "\"no_new_privs\":false",
            "no_new_privs",
        ),
        ("\"unchanged\":true", "\"unchanged\":false", "input"),
        ("{", "{ ", "canonical"),
    ] {
        let changed = receipt.replacen(from, to, 1);
        assert_ne!(changed, receipt, "{from}");
        fs::write(&path, changed).unwrap();
        if word != "canonical" {
            assert_refused(&ask(&instance, &request), "another receipt was seen");
        }
        forget_the_last_receipt(&mut instance);
        assert_refused(&ask(&instance, &request), word);
        assert!(!bundle.exists());
    }
    fs::write(&path, receipt).unwrap();
    forget_the_last_receipt(&mut instance);
    assert_eq!(ask(&instance, &request)["kind"], "attested");
}
