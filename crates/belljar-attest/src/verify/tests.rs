use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_core::{Digest, canonical_json};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{VerifyError, verify, verify_all};
use crate::fixture::{ARTIFACT, asserted, derivation, hermetic, receipt, spec};
use crate::{BuilderConfig, Bundle, Key, Producers, Statement};

/// A key and the bundle that it signed; made once, since a key takes a while.
static SIGNED: LazyLock<(Key, String, Vec<u8>)> = LazyLock::new(|| {
    let key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let pem = key.public().to_pem();
    let bundle = key.attest(&statement()).unwrap().to_json().unwrap();
    (key, pem, bundle)
});

fn statement() -> Statement {
    let builder = BuilderConfig::new("urn:belljar:embedded").unwrap();
    Statement::provenance(
        &spec(),
        &receipt(),
        &asserted(),
        &Producers::default(),
        &builder,
    )
    .unwrap()
}

fn artifact() -> Digest {
    Digest::of(ARTIFACT)
}

fn class(bundle: &[u8]) -> &'static str {
    verify(bundle, &SIGNED.1, &artifact()).map_or_else(|e| e.class(), |_| "verified")
}

/// What comes of a statement that was changed *before* it was signed by the right key.
fn signed(change: impl FnOnce(&mut Value)) -> Result<super::Verdict, VerifyError> {
    let mut statement: Value = serde_json::from_slice(statement().payload()).unwrap();
    change(&mut statement);
    let bundle = SIGNED.0.sign(canonical_json(&statement).unwrap()).unwrap();
    verify(&bundle.to_json().unwrap(), &SIGNED.1, &artifact())
}

/// What comes of a bundle whose JSON was changed after signing.
fn edited(change: impl FnOnce(&mut Value)) -> &'static str {
    let mut bundle: Value = serde_json::from_slice(&SIGNED.2).unwrap();
    change(&mut bundle);
    class(&serde_json::to_vec(&bundle).unwrap())
}

#[test]
fn a_good_bundle_says_what_was_built() {
    let verdict = verify(&SIGNED.2, &SIGNED.1, &artifact()).unwrap();
    assert_eq!(verdict.subjects, ["app"]);
    assert_eq!(
        verdict.builder,
        "urn:belljar:embedded/builders/host-rootfs/v1"
    );
    assert!(!verdict.hermetic);
    assert_eq!(verdict.spec, spec().digest().unwrap());
    assert_eq!(verdict.receipt, Digest::of(&receipt().canonical().unwrap()));
    assert_eq!(verdict.source, spec().source.digest);
    assert_eq!(verdict.asserted.submitter, "unix:uid=0");
    assert_eq!(verdict.asserted.audit_entries, 8);
    let words = verdict.to_string().replace(&verdict.key_id, "SHA256:KEY");
    insta::assert_snapshot!(words);
}

#[test]
fn a_hermetic_bundle_names_every_tree_in_words() {
    let (spec, receipt) = hermetic();
    let builder = BuilderConfig::new("urn:belljar:embedded").unwrap();
    let statement = Statement::provenance(
        &spec,
        &receipt,
        &asserted(),
        &Producers::default(),
        &builder,
    )
    .unwrap();
    let sign = |payload: Vec<u8>| SIGNED.0.sign(payload).unwrap().to_json().unwrap();
    let verified = |bundle: &[u8]| verify(bundle, &SIGNED.1, &artifact());
    let verdict = verified(&sign(statement.payload().to_vec())).unwrap();
    assert!(verdict.hermetic);
    let image = verdict.image.unwrap();
    assert_eq!(image.tree, Digest::of(b"image"));
    assert_eq!(
        image.derivation,
        Some(Digest::of(&derivation("image").canonical().unwrap()))
    );
    assert_eq!(verdict.inputs["cargo"].tree, Digest::of(b"crates"));
    let words = verdict.to_string().replace(&verdict.key_id, "SHA256:KEY");
    insta::assert_snapshot!(words);

    type Change = fn(&mut Value);
    let lies: [(&str, Change); 4] = [
        ("hermetic, but the builder is not", |s| {
            s["predicate"]["runDetails"]["builder"]["id"] =
                json!("urn:belljar:embedded/builders/host-rootfs/v1")
        }),
        ("hermetic without a digest", |s| {
            s["predicate"]["buildDefinition"]["resolvedDependencies"][1] =
                json!({ "name": "rootfs" })
        }),
        ("not hermetic, says the builder that only is", |s| {
            s["predicate"]["buildDefinition"]["internalParameters"]["hermetic"] = json!(false)
        }),
        ("an input without a digest", |s| {
            s["predicate"]["buildDefinition"]["resolvedDependencies"][2] =
                json!({ "name": "deps/cargo" })
        }),
    ];
    for (name, change) in lies {
        let mut changed: Value = serde_json::from_slice(statement.payload()).unwrap();
        change(&mut changed);
        let refused = verified(&sign(canonical_json(&changed).unwrap()));
        let class = refused.map_err(|e| e.class()).err();
        assert_eq!(class, Some("not_provenance"), "{name}");
    }
}

#[test]
fn content_made_twice_has_both_names() {
    let verdict = verify(&SIGNED.2, &SIGNED.1, &Digest::of(b"a page")).unwrap();
    assert_eq!(verdict.subjects, ["share/deep/page", "share/page"]);
}

#[test]
fn each_of_many_artifacts_has_to_be_a_subject() {
    let page = Digest::of(b"a page");
    let verdict = verify_all(&SIGNED.2, &SIGNED.1, &artifact(), &[page, artifact()]).unwrap();
    assert_eq!(verdict, verify(&SIGNED.2, &SIGNED.1, &artifact()).unwrap());
    let other = Digest::of(b"another page");
    for (one, others) in [(artifact(), [page, other]), (other, [page, artifact()])] {
        let refused = verify_all(&SIGNED.2, &SIGNED.1, &one, &others).unwrap_err();
        let due = VerifyError::NotASubject {
            artifact: other,
            subjects: 3,
        };
        assert_eq!(refused, due);
    }
}

#[test]
fn another_artifact_is_refused() {
    let refused = verify(&SIGNED.2, &SIGNED.1, &Digest::of(b"the pr0gram"));
    assert!(matches!(
        refused,
        Err(VerifyError::NotASubject { subjects: 3, .. })
    ));
}

#[test]
fn another_key_is_refused_by_name_and_by_signature() {
    let other = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let pem = other.public().to_pem();
    let refused = verify(&SIGNED.2, &pem, &artifact()).unwrap_err();
    assert_eq!(refused.class(), "wrong_key");
    // A bundle that lies about its key.
    let id = other.public().key_id();
    let mut lying: Value = serde_json::from_slice(&SIGNED.2).unwrap();
    lying["verificationMaterial"]["publicKey"]["hint"] = json!(id);
    lying["dsseEnvelope"]["signatures"][0]["keyid"] = json!(id);
    let refused = verify(&serde_json::to_vec(&lying).unwrap(), &pem, &artifact());
    assert_eq!(refused, Err(VerifyError::BadSignature));
    assert_eq!(
        verify(&SIGNED.2, "no key", &artifact())
            .unwrap_err()
            .class(),
        "unusable_key"
    );
}

#[test]
fn shapes_that_are_not_ours_are_malformed() {
    assert_eq!(edited(|_| ()), "verified");
    for (name, got) in [
        (
            "a log entry that nobody can verify",
            edited(|b| b["verificationMaterial"]["tlogEntries"] = json!([{}])),
        ),
        (
            "a time stamp that nobody can verify",
            edited(|b| {
                b["verificationMaterial"]["timestampVerificationData"] =
                    json!({ "rfc3161Timestamps": [{ "signedTimestamp": "AAAA" }] })
            }),
        ),
        (
            "media type",
            edited(|b| {
                b["mediaType"] = json!("application/vnd.dev.sigstore.bundle+json;version=0.2")
            }),
        ),
        (
            "payload type",
            edited(|b| b["dsseEnvelope"]["payloadType"] = json!("text/plain")),
        ),
        (
            "no signature",
            edited(|b| b["dsseEnvelope"]["signatures"] = json!([])),
        ),
        (
            "two signatures",
            edited(|b| {
                let one = b["dsseEnvelope"]["signatures"][0].clone();
                b["dsseEnvelope"]["signatures"] = json!([one, one]);
            }),
        ),
        (
            "a hint of another key",
            edited(|b| b["verificationMaterial"]["publicKey"]["hint"] = json!("SHA256:x")),
        ),
        (
            "a certificate",
            edited(|b| b["verificationMaterial"] = json!({ "certificate": { "rawBytes": "" } })),
        ),
        ("an unknown field", edited(|b| b["extra"] = json!(1))),
        (
            "url-safe base64",
            edited(|b| b["dsseEnvelope"]["payload"] = json!("_-8=")),
        ),
        (
            "base64 without padding",
            edited(|b| b["dsseEnvelope"]["payload"] = json!("YQ")),
        ),
        (
            "base64 with stray bits",
            edited(|b| b["dsseEnvelope"]["payload"] = json!("YR==")),
        ),
        ("not an object", class(b"[]")),
        ("nothing", class(b"")),
        (
            "too large",
            class(&vec![b' '; belljar_core::bounds::BUNDLE_BYTES + 1]),
        ),
    ] {
        assert_eq!(got, "malformed", "{name}");
    }
    let id = json!("MD5:0123");
    let other_form = edited(|b| {
        b["verificationMaterial"]["publicKey"]["hint"] = id.clone();
        b["dsseEnvelope"]["signatures"][0]["keyid"] = id.clone();
    });
    assert_eq!(other_form, "malformed");
}

#[test]
fn the_payload_type_is_signed() {
    // Signed over another type's PAE, then relabelled: must not pass.
    let payload = statement().payload().to_vec();
    let bare = edited(|b| {
        b["dsseEnvelope"]["payload"] = json!(STANDARD.encode([payload.as_slice(), b" "].concat()))
    });
    assert_eq!(bare, "bad_signature");
}

#[test]
fn signed_is_not_enough() {
    assert!(signed(|_| ()).is_ok());
    assert!(signed(|s| s["predicate"]["later"] = json!("an unknown field is ignored")).is_ok());
    type Change = fn(&mut Value);
    let rows: &[(&str, Change)] = &[
        ("_type", |s| {
            s["_type"] = json!("https://in-toto.io/Statement/v0.1")
        }),
        ("predicateType", |s| {
            s["predicateType"] = json!("https://slsa.dev/verification_summary/v1")
        }),
        ("subject twice", |s| {
            s["subject"] = json!([s["subject"][0], s["subject"][0]])
        }),
        ("subject without sha256", |s| {
            s["subject"][1]["digest"] = json!({ "sha512": "00" })
        }),
        ("subject with a bad digest", |s| {
            s["subject"][1]["digest"]["sha256"] = json!("ABC")
        }),
        ("builder", |s| {
            s["predicate"]["runDetails"]["builder"]["id"] =
                json!("urn:belljar:embedded/builders/x/v1")
        }),
        ("builder of another base", |s| {
            s["predicate"]["runDetails"]["builder"]["id"] = json!("urn:else/builders/dev/v1");
        }),
        ("build type", |s| {
            s["predicate"]["buildDefinition"]["buildType"] = json!("urn:x")
        }),
        ("hermetic", |s| {
            s["predicate"]["buildDefinition"]["internalParameters"]["hermetic"] = json!(true)
        }),
        ("parameters", |s| {
            s["predicate"]["buildDefinition"]["externalParameters"]["env"] = json!({})
        }),
        ("byproducts", |s| {
            s["predicate"]["runDetails"]["byproducts"] = json!([])
        }),
        ("a byproduct twice", |s| {
            let one = s["predicate"]["runDetails"]["byproducts"][1].clone();
            s["predicate"]["runDetails"]["byproducts"]
                .as_array_mut()
                .unwrap()
                .push(one);
        }),
        ("times", |s| {
            s["predicate"]["runDetails"]["metadata"]["startedOn"] = json!("yesterday")
        }),
    ];
    for (name, change) in rows {
        let refused = signed(change).map_err(|e| e.class());
        assert_eq!(refused.err(), Some("not_provenance"), "{name}");
    }
}

#[test]
fn a_statement_that_two_readers_could_read_differently_is_refused() {
    let text = String::from_utf8(statement().payload().to_vec()).unwrap();
    for changed in [
        format!(" {text}"),
        text.replacen('{', r#"{"subject":[],"#, 1),
    ] {
        let bundle = SIGNED.0.sign(changed.into_bytes()).unwrap();
        assert_eq!(class(&bundle.to_json().unwrap()), "not_provenance");
    }
}

#[test]
fn a_bundle_is_read_back() {
    let bundle = Bundle::from_json(&SIGNED.2).unwrap();
    assert_eq!(bundle.payload(), statement().payload());
    assert_eq!(bundle.to_json().unwrap(), SIGNED.2);
}

proptest! {
    #[test]
    fn a_changed_byte_anywhere_in_the_bundle_is_refused(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut bundle = SIGNED.2.clone();
        // The line feed at the end may be any white space.
        let at = at.index(bundle.len() - 1);
        bundle[at] ^= flip;
        prop_assert_ne!(class(&bundle), "verified");
    }

    #[test]
    fn a_changed_byte_of_payload_or_signature_is_a_bad_signature(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let good = Bundle::from_json(&SIGNED.2).unwrap();
        let (mut payload, mut signature) = (good.payload().to_vec(), good.signature().to_vec());
        let at = at.index(payload.len() + signature.len());
        match payload.get_mut(at) {
            Some(byte) => *byte ^= flip,
            None => signature[at - payload.len()] ^= flip,
        }
        let changed = Bundle::new(payload, signature, good.key_id().to_owned());
        prop_assert_eq!(class(&changed.to_json().unwrap()), "bad_signature");
    }

    #[test]
    fn a_changed_artifact_is_refused(at in 0..ARTIFACT.len(), flip in 1_u8..) {
        let mut content = ARTIFACT.to_vec();
        content[at] ^= flip;
        let refused = verify(&SIGNED.2, &SIGNED.1, &Digest::of(&content));
        prop_assert_eq!(refused.map_err(|e| e.class()).err(), Some("not_a_subject"));
    }

    #[test]
    fn a_cut_bundle_is_refused(length in any::<prop::sample::Index>()) {
        let length = length.index(SIGNED.2.len() - 1);
        prop_assert_ne!(class(&SIGNED.2[..length]), "verified");
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), payload in "\\PC{0,80}") {
        prop_assert_ne!(class(&bytes), "verified");
        let signed = SIGNED.0.sign(payload.into_bytes()).unwrap().to_json().unwrap();
        prop_assert_eq!(class(&signed), "not_provenance");
    }
}
