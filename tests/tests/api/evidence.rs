use belljar_core::{BuildId, ObjectId};
use belljar_tests::{Client, Instance, Part};
use belljar_wire::{BuildEvidence, build_name, evidence_name, v1};
use tonic::Code;

use crate::{build, endless, quick};

/// The evidence of builds with an artifact, and the next token.
fn by_artifact(
    client: &Client,
    sha256: &str,
    size: i32,
    token: &str,
) -> (Vec<BuildEvidence>, String) {
    let request = v1::ListEvidenceRequest {
        artifact_sha256: sha256.to_owned(),
        page_size: size,
        page_token: token.to_owned(),
    };
    let answer = client.wait(client.evidence().list_evidence(request));
    let answer = answer.unwrap().into_inner();
    let found = answer
        .evidence
        .into_iter()
        .map(|one| one.try_into().unwrap());
    (found.collect(), answer.next_page_token)
}

fn of(client: &Client, build: &BuildId) -> BuildEvidence {
    let name = evidence_name(build);
    let request = v1::GetEvidenceRequest { name };
    let answer = client.wait(client.evidence().get_evidence(request));
    answer.unwrap().into_inner().try_into().unwrap()
}

fn trail(client: &Client, build: &BuildId, offset: i64, limit: i64) -> Vec<u8> {
    let request = v1::ReadAuditTrailRequest {
        name: build_name(build),
        offset,
        limit,
    };
    let answer = client.wait(client.evidence().read_audit_trail(request));
    answer.unwrap().into_inner().data
}

#[test]
fn an_artifact_leads_to_every_build_that_made_it() {
    let mut instance = Instance::started();
    let client = instance.client();
    let same = quick(&client);
    let one = build(&client, "one", &same);
    let other = client.spec(
        &[("in", "2")],
        &["cp in out; cp in again"],
        &["out", "again"],
    );
    let third = build(&client, "other", &other);
    let two = build(&client, "two", &same);
    let [first, second] = ["1", "2"].map(|text| ObjectId::of(text.as_bytes()).digest.to_hex());
    let ids = |found: &[BuildEvidence]| -> Vec<BuildId> {
        found.iter().map(|one| one.build.clone()).collect()
    };
    let (found, token) = by_artifact(&client, &first, 0, "");
    assert_eq!(
        (ids(&found), token.as_str()),
        (vec![two.id.clone(), one.id.clone()], "")
    );
    for (evidence, build) in found.iter().zip([&two, &one]) {
        assert_eq!(evidence.outcome, build.outcome);
        assert_eq!(evidence.evidence, build.evidence);
        // The bundle comes along, and is the one.
        let object = build.evidence.bundle.unwrap();
        assert_eq!(ObjectId::of(&evidence.bundle), object);
    }
    // Two files with one content are one build.
    assert_eq!(ids(&by_artifact(&client, &second, 0, "").0), [third.id]);
    let unknown = ObjectId::of(b"nobody made this").digest.to_hex();
    assert_eq!(by_artifact(&client, &unknown, 0, "").0, []);
    // Page by page, and over a restart.
    let (page, token) = by_artifact(&client, &first, 1, "");
    assert_eq!(ids(&page), [two.id]);
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = instance.client();
    let (page, token) = by_artifact(&client, &first, 1, &token);
    assert_eq!((ids(&page), token.as_str()), (vec![one.id], ""));

    let request = v1::ListEvidenceRequest {
        artifact_sha256: "00".to_owned(),
        ..Default::default()
    };
    let refused = client.wait(client.evidence().list_evidence(request));
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn evidence_and_trail_of_a_build() {
    let instance = Instance::started();
    let client = instance.client();
    let good = build(&client, "good", &quick(&client));
    let evidence = of(&client, &good.id);
    assert_eq!(evidence.evidence, good.evidence);
    assert_eq!(evidence.attempt, 1);
    assert_eq!(
        ObjectId::of(&evidence.bundle),
        good.evidence.bundle.unwrap()
    );
    // The whole trail, to its end, and in pieces.
    let whole = trail(&client, &good.id, 0, 0);
    let entries = belljar_audit::verify(&whole).unwrap();
    let last = &entries.last().unwrap().event;
    assert!(
        matches!(last, belljar_audit::AuditEvent::Finished { .. }),
        "{last:?}"
    );
    let published = client.read(good.evidence.audit_trail.unwrap()).unwrap();
    assert!(whole.starts_with(&published) && whole.len() > published.len());
    let mut pieces = Vec::new();
    loop {
        let offset = i64::try_from(pieces.len()).unwrap();
        match trail(&client, &good.id, offset, 100) {
            piece if piece.is_empty() => break,
            piece => pieces.extend(piece),
        }
    }
    assert_eq!(pieces, whole);
    // Of a build that runs there is a trail, and no evidence yet.
    let runs = client.submit("runs", &endless(&client)).unwrap();
    client.until(&runs.id, |build| build.attempt == 1);
    let evidence = of(&client, &runs.id);
    assert_eq!((evidence.outcome, evidence.bundle), (None, Vec::new()));
    assert!(!trail(&client, &runs.id, 0, 0).is_empty());
    client.cancel(&runs.id, "").unwrap();
    client.until(&runs.id, |build| build.outcome.is_some());

    let nobody = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
    for (name, code) in [
        (evidence_name(&nobody), Code::NotFound),
        (build_name(&nobody), Code::InvalidArgument),
    ] {
        let request = v1::GetEvidenceRequest { name };
        let refused = client.wait(client.evidence().get_evidence(request));
        assert_eq!(refused.unwrap_err().code(), code);
    }
}
