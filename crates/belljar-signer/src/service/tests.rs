use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use belljar_attest::Key;
use belljar_core::{Digest, Outcome, bounds};
use belljar_plan::signer::{Answer, Request};
use belljar_sys::process::effective_uid;

use crate::bench::{Bench, reasons, receipt, request};
use crate::fixture;

/// The request with one thing changed.
fn changed(change: impl FnOnce(&mut String, &mut belljar_plan::signer::Asserted)) -> Request {
    let Request::Attest {
        attempt,
        mut spec,
        mut asserted,
    } = request()
    else {
        panic!("an attestation is asked")
    };
    change(&mut spec, &mut asserted);
    Request::Attest {
        attempt,
        spec,
        asserted,
    }
}

#[test]
fn a_success_is_attested_and_durable_before_the_answer() {
    let bench = Bench::with_receipt();
    let answer = bench.service().answer(&request());
    let file = std::fs::read(bench.bundle()).unwrap();
    assert_eq!(
        answer,
        Answer::Attested {
            bundle: Digest::of(&file),
            size: file.len() as u64
        }
    );
    let verdict =
        belljar_attest::verify(&file, &bench.public_key(), &Digest::of(fixture::ARTIFACT)).unwrap();
    assert_eq!(
        verdict.builder,
        "urn:belljar:embedded/builders/host-rootfs/v1"
    );
    assert_eq!(
        verdict.receipt,
        Digest::of(&std::fs::read(bench.receipt()).unwrap())
    );
    assert_eq!(
        std::fs::metadata(bench.bundle())
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o640
    );
    assert_eq!(
        std::fs::read_dir(bench.path("evidence")).unwrap().count(),
        2,
        "the bundle and what was seen: no temporary file is left"
    );
}

#[test]
fn the_same_request_gives_the_same_bundle_also_after_a_restart() {
    let bench = Bench::with_receipt();
    let service = bench.service();
    let first = service.answer(&request());
    assert!(matches!(first, Answer::Attested { .. }));
    assert_eq!(service.answer(&request()), first);
    assert_eq!(bench.service().answer(&request()), first);
}

#[test]
fn a_second_statement_is_refused_and_the_first_one_stays() {
    let bench = Bench::with_receipt();
    let service = bench.service();
    let first = service.answer(&request());
    let second = changed(|_, asserted| asserted.submitter = "unix:uid=1".to_owned());
    let (retryable, why) = reasons(service.answer(&second));
    assert!(
        !retryable && why.contains("another statement was already signed"),
        "{why}"
    );
    // Nor by way of another receipt under the same name.
    let mut other = receipt();
    other.finished = belljar_core::Timestamp::from_millis(other.finished.as_millis() + 1);
    bench.put(&other);
    assert!(
        reasons(service.answer(&request()))
            .1
            .contains("another receipt was seen")
    );
    bench.put(&receipt());
    assert_eq!(service.answer(&request()), first);
}

#[test]
fn two_at_once_get_one_statement() {
    for _ in 0..8 {
        let bench = Bench::with_receipt();
        let service = bench.service();
        let other = changed(|_, asserted| asserted.audit_entries += 1);
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let asked = [request(), other].map(|request| {
                let service = &service;
                scope.spawn(move || service.answer(&request))
            });
            asked
                .into_iter()
                .map(|answer| answer.join().unwrap())
                .collect()
        });
        let signed = answers
            .iter()
            .filter(|answer| matches!(answer, Answer::Attested { .. }))
            .count();
        assert_eq!(signed, 1, "{answers:?}");
    }
}

#[test]
fn a_specification_that_the_receipt_does_not_name_is_refused() {
    let bench = Bench::with_receipt();
    let mut other = fixture::spec();
    other.source_date_epoch += 1;
    let other = String::from_utf8(other.canonical().unwrap()).unwrap();
    let long = format!("{{\"{}\":1}}", "x".repeat(100_000));
    for (spec, due) in [
        (other.as_str(), "about the specification"),
        ("", "spec: "),
        ("{}", "spec: "),
        (&format!(" {other}"), "canonical"),
        (&long, "spec: "),
    ] {
        let (retryable, why) = reasons(
            bench
                .service()
                .answer(&changed(|text, _| *text = spec.to_owned())),
        );
        assert!(!retryable && why.contains(due), "{why}");
        assert!(why.len() < bounds::REASONS * bounds::REASON_BYTES);
    }
    assert!(!bench.bundle().exists());
}

#[test]
fn only_a_success_is_attested() {
    let bench = Bench::new();
    let mut failure = receipt();
    failure.outcome = Outcome::Failed {
        step: 0,
        exit_code: 2,
    };
    bench.put(&failure);
    let (retryable, why) = reasons(bench.service().answer(&request()));
    assert!(
        !retryable && why.contains("only a success is attested"),
        "{why}"
    );
    assert!(!bench.bundle().exists());
}

#[test]
fn any_receipt_of_the_chain_is_signed_and_only_as_it_is() {
    let bench = Bench::new();
    let mut failure = receipt();
    failure.outcome = Outcome::Failed {
        step: 0,
        exit_code: 2,
    };
    bench.put(&failure);
    let sign = Request::SignReceipt {
        attempt: fixture::attempt(),
    };
    let service = bench.service();
    let first = service.answer(&sign);
    let name = format!("evidence/{}.receipt.sigstore.json", fixture::attempt());
    let file = std::fs::read(bench.path(&name)).unwrap();
    let due = Answer::Attested {
        bundle: Digest::of(&file),
        size: file.len() as u64,
    };
    assert_eq!(first, due);
    let named = Digest::of(&std::fs::read(bench.receipt()).unwrap());
    let verdict = belljar_attest::verify_receipt(&file, &bench.public_key(), &named).unwrap();
    assert_eq!(verdict.outcome, failure.outcome);
    // Again, and after a restart; and it is no provenance.
    assert_eq!(service.answer(&sign), first);
    assert_eq!(bench.service().answer(&sign), first);
    assert!(!bench.bundle().exists());
    // Another receipt in its place is not signed.
    bench.put(&receipt());
    let (retryable, why) = reasons(service.answer(&sign));
    assert!(
        !retryable && why.contains("another receipt was seen"),
        "{why}"
    );
    assert_eq!(std::fs::read(bench.path(&name)).unwrap(), file);
}

#[test]
fn receipts_that_the_spawner_cannot_have_written_are_refused() {
    let refused = |bench: &Bench, due: &str| {
        let (retryable, why) = reasons(bench.service().answer(&request()));
        assert!(!retryable && why.contains(due), "{why}");
        assert!(!bench.bundle().exists());
    };
    let bench = Bench::new();
    refused(&bench, "there is no receipt");

    let bench = Bench::with_receipt();
    let elsewhere = bench.path("elsewhere.json");
    std::fs::rename(bench.receipt(), &elsewhere).unwrap();
    symlink(&elsewhere, bench.receipt()).unwrap();
    refused(&bench, "not a regular file");
    std::fs::remove_file(bench.receipt()).unwrap();
    std::fs::create_dir(bench.receipt()).unwrap();
    refused(&bench, "not a regular file");

    let bench = Bench::with_receipt();
    for mode in [0o660, 0o642] {
        std::fs::set_permissions(bench.receipt(), Permissions::from_mode(mode)).unwrap();
        refused(&bench, "the receipt must be of uid");
    }
    let bench = Bench::with_receipt();
    std::fs::set_permissions(bench.path("receipts"), Permissions::from_mode(0o770)).unwrap();
    refused(&bench, "the directory of receipts must be of uid");

    let bench = Bench::with_receipt();
    let foreign = bench.service_for(effective_uid() + 1, bench.key());
    assert!(
        reasons(foreign.answer(&request()))
            .1
            .contains("must be of uid")
    );
    assert!(
        matches!(bench.service().answer(&request()), Answer::Attested { .. }),
        "the control"
    );
}

#[test]
fn receipts_with_a_bad_content_are_refused() {
    let bench = Bench::new();
    let good = receipt().canonical().unwrap();
    let mut other = receipt();
    other.attempt = "01jd8q6z8r4x7j2m5t9v0w3y6b-2".parse().unwrap();
    for (bytes, due) in [
        (Vec::new(), "the receipt is not one"),
        (good[..good.len() - 1].to_vec(), "the receipt is not one"),
        ([&good[..], b"\n"].concat(), "canonical"),
        (vec![b' '; bounds::RECEIPT_BYTES + 1], "too large"),
        (
            other.canonical().unwrap(),
            "about the attempt 01jd8q6z8r4x7j2m5t9v0w3y6b-2",
        ),
    ] {
        bench.put_bytes(&bytes);
        let (retryable, why) = reasons(bench.service().answer(&request()));
        assert!(!retryable && why.contains(due), "{why}");
    }
}

#[test]
fn what_a_killed_signer_left_behind_does_not_matter() {
    let evidence =
        |bench: &Bench| crate::evidence::Evidence::new(bench.path("evidence"), effective_uid());
    // Killed while it wrote: the next bundle is written all the same, with or without a new start.
    let bench = Bench::with_receipt();
    let left = bench.path("evidence/next.tmp");
    std::fs::write(&left, "half a bund").unwrap();
    assert!(matches!(
        bench.service().answer(&request()),
        Answer::Attested { .. }
    ));
    assert!(!left.exists());
    // Killed between link and removal: the bundle counts, and the start removes the other name.
    let first = bench.service().answer(&request());
    std::fs::hard_link(bench.bundle(), &left).unwrap();
    evidence(&bench).begin("pem").unwrap();
    assert!(!left.exists());
    assert_eq!(bench.service().answer(&request()), first);
    // Something planted there is not written through.
    let bench = Bench::with_receipt();
    let victim = bench.path("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, bench.path("evidence/next.tmp")).unwrap();
    assert!(matches!(
        bench.service().answer(&request()),
        Answer::Attested { .. }
    ));
    assert_eq!(std::fs::read(victim).unwrap(), b"precious");
}

#[test]
fn a_bundle_that_was_tampered_with_is_not_given_out() {
    let bench = Bench::with_receipt();
    assert!(matches!(
        bench.service().answer(&request()),
        Answer::Attested { .. }
    ));
    let another_key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let rotated = bench.service_for(effective_uid(), another_key);
    assert!(
        reasons(rotated.answer(&request()))
            .1
            .contains("another key")
    );

    let good = std::fs::read(bench.bundle()).unwrap();
    for bytes in [&b""[..], b"{}", &good[..good.len() / 2]] {
        std::fs::write(bench.bundle(), bytes).unwrap();
        let (retryable, why) = reasons(bench.service().answer(&request()));
        assert!(
            !retryable && why.contains("the bundle of this attempt"),
            "{why}"
        );
    }
    std::fs::write(bench.bundle(), &good).unwrap();
    std::fs::set_permissions(bench.bundle(), Permissions::from_mode(0o666)).unwrap();
    assert!(
        reasons(bench.service().answer(&request()))
            .1
            .contains("writable by nobody else")
    );
}

#[test]
fn trouble_of_the_signer_s_own_may_pass() {
    let bench = Bench::with_receipt();
    let service = bench.service();
    std::fs::rename(bench.path("evidence"), bench.path("away")).unwrap();
    assert!(reasons(service.answer(&request())).0);
    std::fs::rename(bench.path("away"), bench.path("evidence")).unwrap();
    assert!(matches!(
        service.answer(&request()),
        Answer::Attested { .. }
    ));
    std::fs::rename(bench.path("receipts"), bench.path("away")).unwrap();
    assert!(reasons(service.answer(&request())).0);
}

#[test]
fn the_public_key_is_told() {
    let bench = Bench::new();
    let (pem, key_id) = (bench.public_key(), bench.key().public().key_id());
    assert_eq!(
        bench.service().answer(&Request::PublicKey),
        Answer::PublicKey { pem, key_id }
    );
}

#[test]
fn the_public_key_lies_beside_the_evidence() {
    let bench = Bench::new();
    let evidence = crate::evidence::Evidence::new(bench.path("evidence"), effective_uid());
    for pem in ["one", "one", "two"] {
        evidence.begin(pem).unwrap();
        assert_eq!(
            std::fs::read_to_string(bench.path("evidence/builder.pub")).unwrap(),
            pem
        );
    }
    let mode = std::fs::metadata(bench.path("evidence/builder.pub"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert_eq!(
        std::fs::read_dir(bench.path("evidence")).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

/// A later build that was given what the first one has left.
fn given(provenance: Digest) -> (Request, belljar_plan::Receipt) {
    let unpack = belljar_core::Unpack::file("tool", true).unwrap();
    let artifact = Digest::of(fixture::ARTIFACT);
    let fetch = belljar_core::ArtifactFetch {
        artifact,
        form: belljar_core::ArtifactForm::File(unpack.clone()),
        build: None,
        builder: None,
    };
    let recipe = belljar_core::Recipe::Artifact {
        producer: belljar_core::Producer {
            attempt: fixture::attempt(),
            provenance,
        },
        content: belljar_core::ObjectId::of(fixture::ARTIFACT),
        unpack,
    };
    let (spec, mut given) = fixture::given(fetch, recipe);
    given.sequence = 2;
    given.previous = Some(Digest::of(&receipt().canonical().unwrap()));
    given.previous_attempt = Some(fixture::attempt());
    let request = Request::Attest {
        attempt: given.attempt.clone(),
        spec: String::from_utf8(spec.canonical().unwrap()).unwrap(),
        asserted: fixture::asserted(),
    };
    (request, given)
}

/// Asks for a statement about such a build, of which belljard names this provenance, or that which there is.
fn asked(sign_first: bool, provenance: Option<Digest>, key: Option<Key>) -> Answer {
    let bench = Bench::with_receipt();
    if sign_first {
        bench.service().answer(&request());
    }
    let signed = || Digest::of(&std::fs::read(bench.bundle()).unwrap());
    ask(&bench, provenance.unwrap_or_else(signed), key)
}

fn ask(bench: &Bench, provenance: Digest, key: Option<Key>) -> Answer {
    let (request, receipt) = given(provenance);
    let path = bench.path(&format!("receipts/{}.json", receipt.attempt));
    std::fs::write(&path, receipt.canonical().unwrap()).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
    let key = key.unwrap_or_else(|| bench.key());
    bench.service_for(effective_uid(), key).answer(&request)
}

#[test]
fn what_a_build_was_given_of_another_is_looked_up_in_what_was_signed_here() {
    let other = || Some(Digest::of(b"never signed"));
    let (retryable, why) = reasons(asked(false, other(), None));
    let due = format!("no provenance of {} was signed here", fixture::attempt());
    assert!(why.contains(&due) && !retryable, "{why}");
    // Signed, but it is not what belljard says.
    let (_, why) = reasons(asked(true, other(), None));
    assert!(why.contains("is not of the build that is named"), "{why}");
    // By another key than the signer's own.
    let key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    let (_, why) = reasons(asked(true, None, Some(key)));
    assert!(why.contains("the bundle was signed with the key"), "{why}");
    let answer = asked(true, None, None);
    assert!(matches!(answer, Answer::Attested { .. }), "{answer:?}");
}

/// The bundle that was signed about the receipt of the same attempt, by the same key.
fn of_receipt(bench: &Bench, _: &[u8]) -> Vec<u8> {
    let attempt = fixture::attempt();
    let name = format!("evidence/{attempt}.receipt.sigstore.json");
    let answer = bench.service().answer(&Request::SignReceipt { attempt });
    assert!(matches!(answer, Answer::Attested { .. }), "{answer:?}");
    std::fs::read(bench.path(&name)).unwrap()
}

/// Another statement under the old signature.
fn forged(_: &Bench, good: &[u8]) -> Vec<u8> {
    let mut forged = good.to_vec();
    let text = std::str::from_utf8(good).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 400;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    forged
}

#[test]
fn a_producers_bundle_that_was_exchanged_is_no_provenance() {
    type Exchange = fn(&Bench, &[u8]) -> Vec<u8>;
    let rows: [(Exchange, &str); 3] = [
        (of_receipt, "is not Belljar's provenance"),
        (forged, "the signature does not fit"),
        (|_, _| b"{}".to_vec(), "the bundle is malformed"),
    ];
    for (exchange, due) in rows {
        // belljard names what is there now, or what was signed.
        for now in [true, false] {
            let bench = Bench::with_receipt();
            bench.service().answer(&request());
            let good = std::fs::read(bench.bundle()).unwrap();
            let exchanged = exchange(&bench, &good);
            std::fs::write(bench.bundle(), &exchanged).unwrap();
            let named = Digest::of(if now { &exchanged } else { &good });
            let (retryable, why) = reasons(ask(&bench, named, None));
            assert!(why.contains(due) && !retryable, "{why}");
        }
    }
}
