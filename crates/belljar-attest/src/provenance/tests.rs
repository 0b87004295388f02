use belljar_core::{BuildSpec, Digest, Inputs, ObjectId, Outcome, Timestamp, bounds};
use belljar_plan::{CgroupFloor, ImageRule, Receipt, RootFsRecord};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixture::{
    asserted, derivation, directory, file, hermetic, path, receipt, spec, symlink,
};
use crate::{BuilderConfig, Producers, Statement};

fn builder() -> BuilderConfig {
    BuilderConfig::new("https://builds.acme.example").unwrap()
}

fn attest(receipt: &Receipt) -> Result<Statement, Vec<String>> {
    Statement::provenance(
        &spec(),
        receipt,
        &asserted(),
        &Producers::default(),
        &builder(),
    )
}

fn json(statement: &Statement) -> Value {
    serde_json::from_slice(statement.payload()).unwrap()
}

#[test]
fn the_statement() {
    let statement = json(&attest(&receipt()).unwrap());
    insta::assert_snapshot!(serde_json::to_string_pretty(&statement).unwrap());
}

#[test]
fn one_attempt_one_statement() {
    assert_eq!(attest(&receipt()), attest(&receipt()));
    let other = BuilderConfig::new("urn:belljar:embedded").unwrap();
    assert_ne!(
        attest(&receipt()),
        Statement::provenance(
            &spec(),
            &receipt(),
            &asserted(),
            &Producers::default(),
            &other
        )
    );
}

/// SLSA's "external parameters are complete": every field of the specification, with its value.
#[test]
fn external_parameters_are_the_whole_specification() {
    let statement = json(&attest(&receipt()).unwrap());
    let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
    let Value::Object(fields) = serde_json::to_value(spec()).unwrap() else {
        panic!("a specification is an object")
    };
    for (name, value) in &fields {
        assert_eq!(&parameters[name], value, "{name}");
    }
    let again: BuildSpec = serde_json::from_value(parameters.clone()).unwrap();
    assert_eq!(again.digest(), spec().digest());
}

#[test]
fn what_belljard_asserts_is_nowhere_but_under_that_label() {
    let mut other = asserted();
    other.submitter = "unix:uid=4711".into();
    other.authenticated_by = "a rumour".into();
    other.accepted = Timestamp::from_millis(0);
    other.audit_trail = Digest::of(b"another trail");
    other.audit_entries = 9;
    let (one, two) = (
        json(&attest(&receipt()).unwrap()),
        json(
            &Statement::provenance(
                &spec(),
                &receipt(),
                &other,
                &Producers::default(),
                &builder(),
            )
            .unwrap(),
        ),
    );
    let without = |mut statement: Value| {
        let internal = &mut statement["predicate"]["buildDefinition"]["internalParameters"];
        assert!(
            internal
                .as_object_mut()
                .unwrap()
                .remove("asserted")
                .is_some()
        );
        let byproducts = statement["predicate"]["runDetails"]["byproducts"]
            .as_array_mut()
            .unwrap();
        let before = byproducts.len();
        byproducts.retain(|item| item["annotations"]["belljar_asserted"] != true);
        assert_eq!(byproducts.len(), before - 1);
        statement
    };
    assert_ne!(one, two);
    assert_eq!(without(one), without(two));
}

#[test]
fn a_lowered_floor_is_another_builder() {
    let id = |receipt: &Receipt| {
        json(&attest(receipt).unwrap())["predicate"]["runDetails"]["builder"]["id"].clone()
    };
    let mut hybrid = receipt();
    hybrid.enforcement.as_mut().unwrap().cgroup.floor = CgroupFloor::Hybrid;
    assert_eq!(
        id(&receipt()),
        "https://builds.acme.example/builders/host-rootfs/v1"
    );
    assert_eq!(id(&hybrid), "https://builds.acme.example/builders/dev/v1");
}

#[test]
fn a_run_on_trees_is_hermetic_and_names_each_by_digest() {
    let (spec, mut receipt) = hermetic();
    let attest = |receipt: &Receipt| {
        let statement = Statement::provenance(
            &spec,
            receipt,
            &asserted(),
            &Producers::default(),
            &builder(),
        );
        json(&statement.unwrap())["predicate"].clone()
    };
    let definition = &attest(&receipt)["buildDefinition"];
    assert_eq!(definition["internalParameters"]["hermetic"], true);
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    let names: Vec<_> = dependencies.iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["source", "rootfs", "deps/cargo"]);
    for (index, text) in [(1, "image"), (2, "crates")] {
        let hex = |text: &str| Digest::of(text.as_bytes()).to_hex();
        let found = &dependencies[index];
        assert_eq!(found["digest"]["sha256"], hex(text));
        let record = &found["annotations"]["belljar_derivation"];
        let due = derivation(text).canonical().unwrap();
        assert_eq!(*record, Digest::of(&due).to_hex());
    }
    let id = |receipt: &Receipt| attest(receipt)["runDetails"]["builder"]["id"].clone();
    let base = "https://builds.acme.example/builders";
    assert_eq!(id(&receipt), format!("{base}/hermetic/v1"));
    receipt.enforcement.as_mut().unwrap().cgroup.floor = CgroupFloor::Hybrid;
    assert_eq!(id(&receipt), format!("{base}/dev/v1"));
}

/// What the signer looks at again: that the trees of the receipt are those of the specification, and that
/// nothing else was mounted.
#[test]
fn other_trees_than_the_specification_names_are_never_attested() {
    type Change = fn(&mut Receipt);
    let rows: [(Change, &str); 4] = [
        (
            |r| {
                r.rootfs = RootFsRecord::Host {
                    paths: vec!["/usr".into()],
                }
            },
            "another root file system",
        ),
        (
            |r| {
                r.rootfs = RootFsRecord::Tree {
                    tree: ObjectId::of(b"image"),
                    derivation: None,
                }
            },
            "another root file system",
        ),
        (|r| r.inputs = Inputs::default(), "other inputs"),
        (
            |r| {
                let mounts = &mut r.enforcement.as_mut().unwrap().mounts;
                mounts.last_mut().unwrap().target = "/usr".into();
            },
            "/usr is mounted",
        ),
    ];
    for (change, expected) in rows {
        let (spec, mut receipt) = hermetic();
        change(&mut receipt);
        let reasons = Statement::provenance(
            &spec,
            &receipt,
            &asserted(),
            &Producers::default(),
            &builder(),
        )
        .unwrap_err();
        assert!(
            reasons.iter().any(|reason| reason.contains(expected)),
            "{expected}: {reasons:?}"
        );
    }
}

/// Each row: what is wrong with the receipt, how, and a part of the reason.
#[test]
fn reasons_not_to_attest() {
    type Change = fn(&mut Receipt);
    let rows: &[(&str, Change, &str)] = &[
        (
            "another specification",
            |r| r.spec = Digest::of(b"x"),
            "about the specification",
        ),
        (
            "another plan",
            |r| r.plan = Digest::of(b"x"),
            "another plan ran",
        ),
        (
            "a failure",
            |r| {
                r.outcome = Outcome::Failed {
                    step: 1,
                    exit_code: 1,
                }
            },
            "only a success is attested",
        ),
        (
            "a timeout",
            |r| r.outcome = Outcome::TimedOut { wall_seconds: 9 },
            "only a success is attested",
        ),
        (
            "refused outputs",
            |r| r.outcome = Outcome::OutputRejected { why: "x".into() },
            "only a success is attested",
        ),
        (
            "nothing read back",
            |r| r.enforcement = None,
            "nothing was read back",
        ),
        (
            "a capability",
            |r| enforced(r).capabilities.bounding = "00000000a80425fb".into(),
            "CapBnd is",
        ),
        (
            "no no_new_privs",
            |r| enforced(r).no_new_privs = false,
            "no_new_privs",
        ),
        ("no seccomp", |r| enforced(r).seccomp.mode = 0, "seccomp"),
        (
            "an old landlock",
            |r| enforced(r).landlock.abi = 5,
            "landlock",
        ),
        (
            "a missing namespace",
            |r| enforced(r).namespaces.truncate(7),
            "namespaces",
        ),
        (
            "another memory limit",
            |r| enforced(r).cgroup.memory_bytes *= 2,
            "memory limit",
        ),
        (
            "a writable root",
            |r| enforced(r).mounts[0].options = "rw,nosuid,nodev".into(),
            "read-only",
        ),
        (
            "a probe that got through",
            |r| r.self_probes[2].refused = false,
            "self-probes",
        ),
        (
            "too few probes",
            |r| r.self_probes.truncate(4),
            "self-probes",
        ),
        (
            "another tree",
            |r| r.input.tree.size += 1,
            "another source tree",
        ),
        (
            "changed inputs",
            |r| r.input.unchanged = Some(false),
            "unchanged",
        ),
        (
            "inputs not looked at again",
            |r| r.input.unchanged = None,
            "unchanged",
        ),
        ("residue", |r| r.clean_room.no_mount = false, "clean room"),
        ("no log", |r| r.log = None, "log"),
        (
            "half a log",
            |r| r.log.as_mut().unwrap().truncated = true,
            "log is not complete",
        ),
        ("a step missing", |r| r.steps.truncate(1), "2 steps"),
        (
            "a failed step",
            |r| r.steps[0].exit_code = Some(2),
            "2 steps",
        ),
        (
            "a signalled step",
            |r| r.steps[0].signal = Some(9),
            "2 steps",
        ),
        (
            "no end",
            |r| r.finished = Timestamp::from_millis(0),
            "before it started",
        ),
        (
            "no place in the chain",
            |r| r.sequence = 0,
            "place in the spawner's chain",
        ),
        (
            "no receipt before",
            |r| r.previous = None,
            "the one before it",
        ),
        (
            "no run",
            |r| r.run_nonce = "xyz".into(),
            "no run of the spawner",
        ),
        ("no outputs", |r| r.outputs.clear(), "declared output `app`"),
        (
            "a declared file missing",
            |r| drop(r.outputs.remove(0)),
            "declared output `app`",
        ),
        (
            "a declared directory missing",
            |r| drop(r.outputs.remove(1)),
            "declared output `share`",
        ),
        (
            "a link in place of the file",
            |r| r.outputs[0] = symlink("app", "share/page"),
            "declared output `app`",
        ),
        (
            "an undeclared output",
            |r| r.outputs.push(file("secret", b"")),
            "`secret` is neither declared",
        ),
        (
            "a neighbour by name",
            |r| r.outputs.push(file("share-not", b"")),
            "`share-not` is neither",
        ),
        (
            "an orphan",
            |r| r.outputs.push(file("share/lost/x", b"")),
            "`share/lost/x` is neither",
        ),
        (
            "a child of a file",
            |r| r.outputs.push(file("share/page/x", b"")),
            "`share/page/x` is neither",
        ),
        (
            "a name twice",
            |r| r.outputs.push(file("app", b"other")),
            "`app` is listed twice",
        ),
        (
            "an absolute link",
            |r| r.outputs[2] = symlink("share/alias", "/etc/passwd"),
            "`share/alias` is a link",
        ),
        (
            "no file at all",
            |r| r.outputs = vec![directory("app"), directory("share")],
            "nothing to attest",
        ),
        (
            "more than the limit",
            |r| r.outputs[0] = huge(),
            "beyond the specification's limits",
        ),
        (
            "a terminal escape",
            |r| r.binaries.kernel = "6.12\u{1b}[2J".into(),
            "kernel",
        ),
        ("no host paths", |r| r.rootfs = host(&[]), "host paths"),
        (
            "a relative host path",
            |r| r.rootfs = host(&["usr"]),
            "host paths",
        ),
    ];
    assert!(attest(&receipt()).is_ok(), "the control");
    for (name, change, due) in rows {
        let mut receipt = receipt();
        change(&mut receipt);
        let reasons = attest(&receipt).expect_err(name);
        assert!(
            reasons.iter().any(|reason| reason.contains(due)),
            "{name}: {reasons:?}"
        );
    }
}

fn enforced(receipt: &mut Receipt) -> &mut belljar_plan::EnforcementReport {
    receipt.enforcement.as_mut().unwrap()
}

fn huge() -> belljar_plan::OutputEntry {
    let mut entry = file("app", b"x");
    if let belljar_plan::OutputKind::File { object, .. } = &mut entry.kind {
        object.size = u64::MAX;
    }
    entry
}

fn host(paths: &[&str]) -> RootFsRecord {
    RootFsRecord::Host {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    }
}

#[test]
fn texts_of_belljard_are_looked_at() {
    for (submitter, entries) in [
        ("", 1),
        ("a\nb", 1),
        (&*"x".repeat(1025), 1),
        ("fine", 0),
        ("fine", u64::MAX),
    ] {
        let mut asserted = asserted();
        asserted.submitter = submitter.to_owned();
        asserted.audit_entries = entries;
        assert!(
            Statement::provenance(
                &spec(),
                &receipt(),
                &asserted,
                &Producers::default(),
                &builder()
            )
            .is_err(),
            "{submitter:?} {entries}"
        );
    }
}

#[test]
fn reasons_are_bounded() {
    let mut receipt = receipt();
    receipt.outputs = (0..5000)
        .map(|n| file(&format!("{n}/{}", "x/".repeat(120) + "x"), b""))
        .collect();
    receipt.outcome = Outcome::OutputRejected {
        why: "\u{1b}".repeat(100_000),
    };
    let reasons = attest(&receipt).unwrap_err();
    assert_eq!(reasons.len(), bounds::REASONS);
    assert!(
        reasons
            .iter()
            .all(|reason| reason.len() <= bounds::REASON_BYTES)
    );
    assert!(reasons[bounds::REASONS - 1].contains("reasons more"));
    let answer = belljar_plan::signer::Answer::Refused {
        retryable: false,
        reasons,
    };
    assert!(belljar_plan::frame::encode(&answer).is_ok());
}

/// What the signer reads is a file: the receipt has to survive its own encoding.
#[test]
fn a_receipt_is_read_back() {
    let receipt = receipt();
    let bytes = receipt.canonical().unwrap();
    assert_eq!(Receipt::from_canonical(&bytes), Ok(receipt));
}

proptest! {
    /// Whatever is changed in the specification after the fact: nothing is attested.
    #[test]
    fn another_specification_is_never_attested(epoch in any::<u32>(), extra in "[a-z]{1,8}", which in 0..3) {
        let mut other = spec();
        match which {
            0 => other.source_date_epoch = u64::from(epoch),
            1 => other.run = belljar_core::Steps::new(vec![belljar_core::Script::new(extra).unwrap()]).unwrap(),
            _ => other.outputs = belljar_core::Outputs::new([path("app"), path("share"), path(&extra)].into()).unwrap(),
        }
        prop_assume!(other != spec());
        prop_assert!(Statement::provenance(&other, &receipt(), &asserted(), &Producers::default(), &builder()).is_err());
    }
}

#[test]
fn the_rule_by_which_a_root_file_system_was_admitted_is_told_where_there_was_one() {
    for (rule, told) in [
        (Some(ImageRule::Listed), Value::from("listed")),
        (Some(ImageRule::Any), Value::from("any")),
        (None, Value::Null),
    ] {
        let mut receipt = receipt();
        receipt.image_rule = rule;
        let statement = json(&attest(&receipt).unwrap());
        let parameters = &statement["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(parameters["imageRule"], told);
        // What is not there is not written, so a receipt of before there was a rule is its own canonical form.
        let bytes = receipt.canonical().unwrap();
        let written = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(written.contains("image_rule"), rule.is_some(), "{written}");
        assert_eq!(Receipt::from_canonical(&bytes).unwrap(), receipt);
    }
}
