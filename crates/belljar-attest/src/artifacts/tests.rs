use std::sync::LazyLock;

use belljar_core::{BuildSpec, BuilderId, RelPath, Unpack};

use super::*;
use crate::fixture::{self, ARTIFACT, asserted, given};
use crate::{Key, Statement};

/// The earlier build's bundle, and the key that signed it.
static SIGNED: LazyLock<(Vec<u8>, String)> = LazyLock::new(|| signed("urn:belljar:embedded"));

fn signed(base: &str) -> (Vec<u8>, String) {
    let key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let statement = Statement::provenance(
        &fixture::spec(),
        &fixture::receipt(),
        &asserted(),
        &Producers::default(),
        &BuilderConfig::new(base).unwrap(),
    );
    let bundle = key.attest(&statement.unwrap()).unwrap().to_json().unwrap();
    (bundle, key.public().to_pem())
}

fn builder() -> BuilderConfig {
    BuilderConfig::new("urn:belljar:embedded").unwrap()
}

fn proven() -> Proven {
    Proven::verify(&SIGNED.0, &SIGNED.1).unwrap()
}

fn producer() -> Producer {
    Producer {
        attempt: fixture::attempt(),
        provenance: Digest::of(&SIGNED.0),
    }
}

fn unpack() -> Unpack {
    Unpack::file("tool", true).unwrap()
}

fn fetch() -> ArtifactFetch {
    ArtifactFetch {
        artifact: Digest::of(ARTIFACT),
        form: ArtifactForm::File(unpack()),
        build: None,
        builder: None,
    }
}

fn recipe() -> Recipe {
    Recipe::Artifact {
        producer: producer(),
        content: ObjectId::of(ARTIFACT),
        unpack: unpack(),
    }
}

fn receipt_object() -> ObjectId {
    ObjectId::of(&fixture::receipt().canonical().unwrap())
}

fn directory() -> (ArtifactFetch, Recipe) {
    let fetch = ArtifactFetch {
        // What the fixture's record is about.
        artifact: Digest::of(b"left"),
        form: ArtifactForm::Directory,
        ..fetch()
    };
    let recipe = Recipe::OutputDirectory {
        producer: producer(),
        receipt: receipt_object(),
        output: RelPath::new("share").unwrap(),
    };
    (fetch, recipe)
}

fn known() -> Producers {
    let mut known = Producers::default();
    known.add(fixture::attempt(), proven());
    known
}

fn attest(
    (spec, receipt): &(BuildSpec, Receipt),
    producers: &Producers,
) -> Result<Value, Vec<String>> {
    let statement = Statement::provenance(spec, receipt, &asserted(), producers, &builder())?;
    Ok(serde_json::from_slice(statement.payload()).unwrap())
}

#[test]
fn what_an_earlier_build_has_left_is_a_resolved_dependency_with_its_producer() {
    for ((fetch, recipe), digest) in [
        ((fetch(), recipe()), Digest::of(ARTIFACT)),
        (directory(), Digest::of(b"left")),
    ] {
        let file = matches!(recipe, Recipe::Artifact { .. });
        let run = given(fetch, recipe);
        assert_eq!(Producers::due(&run.1), BTreeSet::from([fixture::attempt()]));
        let statement = attest(&run, &known()).unwrap();
        let all = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let found = all.as_array().unwrap().last().unwrap();
        let mut due = json!({
            "uri": "urn:belljar:embedded/builds/01jd8q6z8r4x7j2m5t9v0w3y6b/attempts/1",
            "digest": { "sha256": digest.to_hex() },
            "annotations": {
                "belljar_input": "deps/x",
                "belljar_attempt": fixture::attempt(),
                "belljar_builder": "urn:belljar:embedded/builders/host-rootfs/v1",
                "belljar_provenance": Digest::of(&SIGNED.0).to_hex(),
                "belljar_project": "web",
                "belljar_asserted": ["annotations.belljar_project"],
                "belljar_size": if file { ARTIFACT.len() } else { 4 },
            },
        });
        if !file {
            due["annotations"]["belljar_message"] =
                "build.bazel.remote.execution.v2.Directory".into();
            due["annotations"]["belljar_output"] = "share".into();
            due["annotations"]["belljar_receipt"] = receipt_object().digest.to_hex().into();
        }
        assert_eq!(*found, due);
    }
}

#[test]
fn who_verifies_is_told_who_has_left_what_the_build_was_given() {
    let key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let verdict = |(spec, receipt): &(BuildSpec, Receipt), producers: &Producers| {
        let statement = Statement::provenance(spec, receipt, &asserted(), producers, &builder());
        let bundle = key.attest(&statement.unwrap()).unwrap().to_json().unwrap();
        crate::verify(&bundle, &key.public().to_pem(), &Digest::of(ARTIFACT)).unwrap()
    };
    let found = verdict(&given(fetch(), recipe()), &known());
    let producer = &found.producers["deps/x"];
    assert_eq!(found.producers.len(), 1);
    assert_eq!(producer.build, builder().invocation(&fixture::attempt()));
    assert_eq!(producer.builder, proven().builder());
    assert_eq!(producer.provenance, Digest::of(&SIGNED.0));
    let line = format!(
        "earlier build  deps/x: left by {}, built by {}\n",
        producer.build, producer.builder
    );
    assert!(found.to_string().contains(&line), "{found}");
    let none = verdict(
        &(fixture::spec(), fixture::receipt()),
        &Producers::default(),
    );
    assert!(none.producers.is_empty() && none.base.is_none());
}

/// What belljard could say, each with a part of the reason.
#[test]
fn what_no_provenance_of_the_own_key_says_is_never_attested() {
    type Change = fn(&mut ArtifactFetch, &mut Recipe);
    let rows: [(&str, Change, &str); 8] = [
        (
            "something else than the specification names",
            |_, recipe| {
                if let Recipe::Artifact { content, .. } = recipe {
                    *content = ObjectId::of(b"a page");
                }
            },
            "was not made of what",
        ),
        (
            "what the build has not left",
            |fetch, recipe| {
                fetch.artifact = Digest::of(b"other");
                if let Recipe::Artifact { content, .. } = recipe {
                    *content = ObjectId::of(b"other");
                }
            },
            "has not left sha256:",
        ),
        (
            "another way of making a tree of it",
            |_, recipe| {
                if let Recipe::Artifact { unpack, .. } = recipe {
                    *unpack = Unpack::tar(0).unwrap();
                }
            },
            "was not made of what",
        ),
        (
            "other provenance",
            |_, recipe| {
                if let Recipe::Artifact { producer, .. } = recipe {
                    producer.provenance = Digest::of(b"x");
                }
            },
            "is not sha256:",
        ),
        (
            "a build that nobody knows",
            |_, recipe| {
                if let Recipe::Artifact { producer, .. } = recipe {
                    producer.attempt = "01jd8q6z8r4x7j2m5t9v0w3y6a-1".parse().unwrap();
                }
            },
            "no provenance of 01jd8q6z8r4x7j2m5t9v0w3y6a-1 that holds",
        ),
        (
            "another build than the one that is demanded",
            |fetch, _| {
                fetch.build = Some("01jd8q6z8r4x7j2m5t9v0w3y6a".parse().unwrap());
            },
            "was not made of what",
        ),
        (
            "another builder than the one that is demanded",
            |fetch, _| {
                let id = "urn:belljar:embedded/builders/hermetic/v1";
                fetch.builder = Some(BuilderId::new(id).unwrap());
            },
            "not by the builder that the specification demands",
        ),
        (
            "a directory of another receipt",
            |fetch, recipe| {
                (*fetch, *recipe) = directory();
                if let Recipe::OutputDirectory { receipt, .. } = recipe {
                    *receipt = ObjectId::of(b"written by belljard");
                }
            },
            "has not left sha256:",
        ),
    ];
    assert!(
        attest(&given(fetch(), recipe()), &known()).is_ok(),
        "the control"
    );
    for (what, change, due) in rows {
        let (mut fetch, mut recipe) = (fetch(), recipe());
        change(&mut fetch, &mut recipe);
        let against = attest(&given(fetch, recipe), &known()).unwrap_err();
        assert!(
            against.iter().any(|reason| reason.contains(due)),
            "{what}: {against:?}"
        );
    }
    // Without a producer that is known, and with one of another builder whose key is the same.
    let run = given(fetch(), recipe());
    assert!(attest(&run, &Producers::default()).is_err());
    let (bundle, key) = signed("urn:belljar:other");
    let mut other = Producers::default();
    other.add(fixture::attempt(), Proven::verify(&bundle, &key).unwrap());
    assert!(attest(&run, &other).is_err());
}

#[test]
fn an_input_that_brings_such_a_record_is_looked_at_as_well() {
    let (_, receipt) = given(fetch(), recipe());
    let mut run = (fixture::spec(), receipt);
    run.0.inputs = run.1.inputs.clone();
    run.1.spec = run.0.digest().unwrap();
    run.1.plan = belljar_plan::Plan::compile(&run.0).digest().unwrap();
    assert!(attest(&run, &known()).is_ok());
    let against = attest(&run, &Producers::default()).unwrap_err().join("; ");
    assert!(
        against.contains("deps/x is not of the build that is named"),
        "{against}"
    );
}

#[test]
fn provenance_of_a_producer_is_verified_as_any_other() {
    let (bundle, key) = &*SIGNED;
    assert!(proven().left(Digest::of(ARTIFACT)) && !proven().left(Digest::of(b"x")));
    let (_, other) = signed("urn:belljar:embedded");
    let class = |bundle: &[u8], key: &str| Proven::verify(bundle, key).unwrap_err().class();
    assert_eq!(class(bundle, &other), "wrong_key");
    assert_eq!(class(b"{}", key), "malformed");
    let mut value: Value = serde_json::from_slice(bundle).unwrap();
    let payload = value["dsseEnvelope"]["payload"]
        .as_str()
        .unwrap()
        .to_owned();
    let changed = payload.replacen('e', "f", 1);
    value["dsseEnvelope"]["payload"] = changed.into();
    let changed = serde_json::to_vec(&value).unwrap();
    assert!(Proven::verify(&changed, key).is_err());
}
