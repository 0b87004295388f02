use belljar_core::{BuildSpec, Digest};
use belljar_tests::{Instance, Project};
use serde_json::{Value, json};

use crate::bundle::Bundle;

/// A digest in the form of in-toto's digest sets, from the form of Belljar's reports.
fn hex(digest: &Value) -> &str {
    digest.as_str().unwrap().strip_prefix("sha256:").unwrap()
}

#[test]
fn the_statement_says_what_was_submitted_and_recorded() {
    let mut instance = Instance::started();
    let project = Project::of(
        &["echo building", "echo $MODE > out"],
        &["out"],
        "source_date_epoch = 1700000000\n[env]\nMODE = \"fast \u{2713}\"\n[limits]\nwall_seconds = 77\npids = 99",
    );
    let run = instance.run(&project);
    run.assert_succeeded();
    let statement = Bundle::parse(&run.file("out.sigstore.json")).statement();
    let definition = &statement["predicate"]["buildDefinition"];
    let details = &statement["predicate"]["runDetails"];

    // The whole specification as it was submitted, and in the store under the digest that is named.
    assert_eq!(definition["externalParameters"], run.json["spec"]);
    assert_eq!(
        definition["externalParameters"]["env"]["MODE"],
        "fast \u{2713}"
    );
    assert_eq!(
        definition["externalParameters"]["limits"]["wall_seconds"],
        77
    );
    let spec = instance.object(&run.json["evidence"]["spec"]);
    let parsed = BuildSpec::from_canonical(&spec).unwrap();
    assert_eq!(serde_json::to_value(&parsed).unwrap(), run.json["spec"]);

    let subjects = statement["subject"].as_array().unwrap();
    assert_eq!(subjects.len(), 1);
    assert_eq!(subjects[0]["name"], "out");
    assert_eq!(
        subjects[0]["digest"]["sha256"],
        Digest::of("fast \u{2713}\n".as_bytes()).to_hex()
    );
    let parameters = &definition["internalParameters"];
    assert_eq!(parameters["attempt"], run.attempt());
    assert_eq!(parameters["asserted"]["submitter"], "unix:uid=0");
    assert_eq!(parameters["asserted"]["authenticatedBy"], "SO_PEERCRED");
    assert_eq!(parameters["sourceDateEpoch"], 1_700_000_000);
    assert_eq!(parameters["hermetic"], false, "the image is the host's");
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    assert_eq!(
        dependencies[0]["digest"]["sha256"],
        hex(&run.json["spec"]["source"]["digest"])
    );

    // Every byproduct is in the store under its digest.
    let evidence = &run.json["evidence"];
    let due = [
        ("build.log", &evidence["log"]),
        ("receipt.json", &evidence["receipt"]),
        ("plan.json", &evidence["plan"]),
        ("spec.json", &evidence["spec"]),
        ("audit.jsonl", &evidence["audit_trail"]),
    ];
    let byproducts = details["byproducts"].as_array().unwrap();
    assert_eq!(byproducts.len(), due.len());
    for (byproduct, (name, object)) in byproducts.iter().zip(due) {
        assert_eq!(byproduct["name"], name);
        assert_eq!(
            byproduct["digest"]["sha256"],
            hex(&object["digest"]),
            "{name}"
        );
        assert_eq!(
            Digest::of(&instance.object(object)).to_hex(),
            hex(&object["digest"]),
            "{name}"
        );
    }
    assert_eq!(instance.object(&evidence["log"]), b"building\n");
    let receipt: Value = serde_json::from_slice(&instance.object(&evidence["receipt"])).unwrap();
    assert_eq!(receipt, run.receipt());
    assert_eq!(details["metadata"]["startedOn"], receipt["started"]);
    assert_eq!(details["metadata"]["finishedOn"], receipt["finished"]);
    let spawner = std::fs::read(belljar_tests::program("belljar-spawner")).unwrap();
    let builders = details["builder"]["builderDependencies"]
        .as_array()
        .unwrap();
    assert_eq!(builders[0]["name"], "belljar-spawner");
    assert_eq!(
        builders[0]["digest"]["sha256"],
        Digest::of(&spawner).to_hex()
    );
}

#[test]
fn the_audit_trail_verifies_and_is_the_one_that_the_statement_names() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script("echo x > out"));
    run.assert_succeeded();
    let statement = Bundle::parse(&run.file("out.sigstore.json")).statement();
    let byproducts = statement["predicate"]["runDetails"]["byproducts"]
        .as_array()
        .unwrap();
    let named = byproducts
        .iter()
        .find(|one| one["name"] == "audit.jsonl")
        .unwrap();
    let known = Digest::from_hex(named["digest"]["sha256"].as_str().unwrap()).unwrap();
    let count = named["annotations"]["belljar_entries"].as_u64().unwrap();

    let published = instance.object(&run.json["evidence"]["audit_trail"]);
    assert_eq!(Digest::of(&published), known);
    let entries = belljar_audit::verify(&published).unwrap();
    assert_eq!(entries.len() as u64, count);
    // belljard's own copy goes on after what the statement names, up to the end.
    let whole = instance.trail(&run);
    let entries = belljar_audit::verify_prefix(whole.as_bytes(), count, known).unwrap();
    let kinds: Vec<String> = entries
        .iter()
        .map(|entry| {
            serde_json::to_value(&entry.event).unwrap()["kind"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "submitted",
            "decided",
            "attempt_started",
            "staged",
            "launched",
            "ended",
            "collected",
            "attestation_requested",
            "signed",
            "destroyed",
            "finished",
        ]
    );
    // Any change to it is seen.
    for at in (0..published.len()).step_by(97) {
        let mut other = published.clone();
        other[at] ^= 1;
        assert!(
            belljar_audit::verify_prefix(&other, count, known).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn receipts_are_a_chain_in_order() {
    let mut instance = Instance::started();
    let runs =
        [": > out", "exit 1", ": > out"].map(|script| instance.run(&Project::script(script)));
    let receipts = runs.each_ref().map(|run| run.receipt());
    for (pair, runs) in receipts.windows(2).zip(runs.windows(2)) {
        let before = runs[0].json["evidence"]["receipt"]["digest"].clone();
        assert_eq!(
            pair[1]["sequence"],
            pair[0]["sequence"].as_u64().unwrap() + 1
        );
        assert_eq!(pair[1]["previous"], before, "{:#}", pair[1]);
        assert_eq!(pair[1]["run_nonce"], pair[0]["run_nonce"]);
    }
    assert_eq!(
        receipts[1]["outcome"],
        json!({"kind": "failed", "step": 0, "exit_code": 1})
    );
}
