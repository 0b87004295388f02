//! What the daemon answers, as the client reads it: builds, server information, problems.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{
    Artifact, ArtifactKind, BuildEvidence, BuildRecord, BuildState, BuildSummary, Evidence, Layer,
    LayerVerdict, Problem, Reason, ServerInfo, StepEnding, StepReport, build_name,
    parse_build_name, parse_evidence_name, v1,
};
use belljar_core::{
    BuildId, BuildSpec, Digest, Image, Inputs, Invalid, LimitKind, Limits, Network, ObjectId,
    Outcome, Outputs, ProjectId, RelPath, RequestId, Script, Steps, Timestamp, bounds,
};
use prost::Message as _;
use tonic::Status;

const ID: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn record() -> BuildRecord {
    BuildRecord {
        id: BuildId::new(ID).unwrap(),
        request_id: RequestId::new("r.1").unwrap(),
        spec: BuildSpec {
            image: Image::Host,
            source: ObjectId::of(b"tree"),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(vec![Script::new("make").unwrap()]).unwrap(),
            env: BTreeMap::new(),
            outputs: Outputs::new([path("out")].into()).unwrap(),
            limits: Limits::DEFAULT,
            network: Network::None,
            source_date_epoch: 0,
        },
        state: BuildState::Ended,
        sequence: 9,
        attempt: 2,
        outcome: Some(Outcome::Succeeded),
        artifacts: vec![
            Artifact {
                path: path("out"),
                kind: ArtifactKind::Directory {
                    root: Some(ObjectId::of(b"root")),
                    tree: Some(ObjectId::of(b"tree")),
                },
            },
            Artifact {
                path: path("out/empty"),
                kind: ArtifactKind::DIRECTORY,
            },
            Artifact {
                path: path("out/app"),
                kind: ArtifactKind::File {
                    object: ObjectId::of(b"app"),
                    executable: true,
                },
            },
            Artifact {
                path: path("out/link"),
                kind: ArtifactKind::Symlink {
                    target: "app".to_owned(),
                },
            },
        ],
        evidence: Evidence {
            bundle: Some(ObjectId::of(b"bundle")),
            receipt: Some(ObjectId::of(b"receipt")),
            receipt_bundle: Some(ObjectId::of(b"receipt bundle")),
            spec: Some(ObjectId::of(b"spec")),
            plan: Some(ObjectId::of(b"plan")),
            audit_trail: Some(ObjectId::of(b"audit")),
            log: Some(ObjectId::of(b"log")),
            key_id: Some("SHA256:abc".to_owned()),
        },
        created: Timestamp::from_millis(1_763_771_400_123),
        started: Some(Timestamp::from_millis(1_763_771_400_999)),
        ended: Some(Timestamp::from_millis(1_763_771_401_000)),
        submitter: "unix:uid=0".to_owned(),
        steps: [
            StepEnding::Exited(0),
            StepEnding::Signalled(9),
            StepEnding::Killed,
        ]
        .map(|ending| StepReport {
            ending,
            started: Timestamp::from_millis(1_763_771_400_500),
            wall_micros: 1,
            cpu_micros: 2,
            log_offset: 3,
            log_bytes: 4,
        })
        .into(),
        project: ProjectId::new("web").unwrap(),
        image: None,
    }
}

#[test]
fn a_build_survives_the_wire() {
    let full = record();
    assert_eq!(BuildRecord::try_from(v1::Build::from(&full)), Ok(full));
    let fresh = BuildRecord {
        state: BuildState::Queued,
        attempt: 0,
        outcome: None,
        artifacts: Vec::new(),
        steps: Vec::new(),
        evidence: Evidence::default(),
        started: None,
        ended: None,
        ..record()
    };
    assert_eq!(BuildRecord::try_from(v1::Build::from(&fresh)), Ok(fresh));
}

#[test]
fn a_build_that_left_nothing_but_outermost_directories_with_the_longest_names_fits_a_message() {
    let entries = usize::try_from(Limits::CEILING.get().output_entries).unwrap();
    let name = |number| format!("{number:0>0$}", bounds::OUTPUT_NAMES_BYTES / entries);
    let object = ObjectId {
        digest: Digest::of(b""),
        size: u64::try_from(bounds::OUTPUT_TREES_BYTES).unwrap(),
    };
    let artifacts = (0..entries).map(|number| Artifact {
        path: path(&name(number)),
        kind: ArtifactKind::Directory {
            root: Some(object),
            tree: Some(object),
        },
    });
    let build = BuildRecord {
        artifacts: artifacts.collect(),
        ..record()
    };
    let bytes = v1::Build::from(&build).encoded_len() + bounds::SPEC_BYTES;
    // The rest of it, such as an image's layers, is small.
    assert!(bytes < bounds::GRPC_MESSAGE_BYTES - 128 * 1024, "{bytes}");
}

#[test]
fn every_state_and_outcome_survives_the_wire() {
    use BuildState::{
        Attesting, Collecting, Destroying, Fetching, Launching, Publishing, Queued, Running,
        Staging,
    };
    for state in [
        Queued, Fetching, Staging, Launching, Running, Collecting, Attesting, Publishing,
        Destroying,
    ] {
        let build = BuildRecord {
            state,
            outcome: None,
            ..record()
        };
        assert_eq!(BuildRecord::try_from(v1::Build::from(&build)), Ok(build));
    }
    let limits = LimitKind::ALL.map(|limit| Outcome::LimitExceeded {
        limit,
        figure: 5,
        used: 6,
        output: None,
    });
    let named = Outcome::LimitExceeded {
        limit: LimitKind::OutputBytes,
        figure: 5,
        used: 6,
        output: Some(RelPath::new("d/f").unwrap()),
    };
    let outcomes = [
        Outcome::Succeeded,
        Outcome::Failed {
            step: 31,
            exit_code: 255,
        },
        Outcome::Signalled { step: 0, signal: 9 },
        Outcome::TimedOut {
            wall_seconds: 86_400,
        },
        Outcome::OutputRejected {
            why: "no `app`".to_owned(),
        },
        Outcome::Cancelled {
            by: "unix:uid=0".to_owned(),
            reason: None,
        },
        Outcome::Cancelled {
            by: "unix:uid=0".to_owned(),
            reason: Some("no longer wanted".to_owned()),
        },
        Outcome::Refused {
            reasons: vec!["a".to_owned(), "b".to_owned()],
        },
        Outcome::retryable("stage", "disk full"),
        Outcome::permanent("attest", "refused"),
    ];
    let outcomes: Vec<Outcome> = outcomes.into_iter().chain(limits).chain([named]).collect();
    let kinds: std::collections::BTreeSet<_> = outcomes.iter().map(Outcome::kind).collect();
    assert_eq!(kinds, Outcome::KINDS.into());
    for outcome in outcomes {
        let message = v1::Outcome::from(&outcome);
        assert_eq!(message.text, outcome.to_string());
        assert_eq!(Outcome::try_from(message), Ok(outcome));
    }
}

#[test]
fn a_bad_answer_is_refused_by_field() {
    let parse = |change: fn(&mut v1::Build)| {
        let mut build = v1::Build::from(&record());
        change(&mut build);
        BuildRecord::try_from(build).unwrap_err().field
    };
    assert_eq!(parse(|b| b.name = "builds/../x".to_owned()), "name");
    assert_eq!(
        parse(|b| b.artifacts[1].path = "../../etc/passwd".to_owned()),
        "artifacts[1].path"
    );
    assert_eq!(parse(|b| b.artifacts[1].kind = None), "artifacts[1].kind");
    assert_eq!(parse(|b| b.state = 77), "state");
    assert_eq!(parse(|b| b.outcome = None), "outcome");
    let exceeded = v1::outcome::LimitExceeded {
        limit: v1::outcome::limit_exceeded::Limit::OutputBytes.into(),
        output: "../x".to_owned(),
        ..Default::default()
    };
    let outcome = v1::Outcome {
        kind: Some(v1::outcome::Kind::LimitExceeded(exceeded)),
        ..Default::default()
    };
    assert_eq!(
        Outcome::try_from(outcome).unwrap_err().field,
        "limit_exceeded.output"
    );
    assert_eq!(
        parse(|b| b.create_time.as_mut().unwrap().nanos = -1),
        "create_time.nanos"
    );
    assert_eq!(
        parse(|b| b.create_time.as_mut().unwrap().seconds = i64::MAX),
        "create_time"
    );
    assert_eq!(
        parse(|b| b
            .evidence
            .as_mut()
            .unwrap()
            .log
            .as_mut()
            .unwrap()
            .hash
            .clear()),
        "evidence.log.hash"
    );
}

#[test]
fn build_names() {
    let id = BuildId::new(ID).unwrap();
    assert_eq!(parse_build_name(&build_name(&id)), Ok(id));
    for bad in [
        ID.to_owned(),
        format!("build/{ID}"),
        "builds/".to_owned(),
        format!("builds/{ID}/x"),
    ] {
        assert_eq!(parse_build_name(&bad).unwrap_err().field, "name", "{bad}");
    }
}

#[test]
fn server_information_survives_the_wire() {
    let layer = |name: &str, verdict| Layer {
        name: name.to_owned(),
        found: "6".to_owned(),
        verdict,
        hint: "none".to_owned(),
    };
    let info = ServerInfo {
        version: "0.1.0".to_owned(),
        layers: vec![
            layer("a", LayerVerdict::Enforced),
            layer("b", LayerVerdict::Lowered),
            layer("c", LayerVerdict::Missing),
        ],
        can_build: false,
        public_key_pem: "pem".to_owned(),
        key_id: "SHA256:abc".to_owned(),
        builder_ids: vec!["urn:x".to_owned()],
        default_limits: Limits::DEFAULT,
        maximum_limits: Limits::CEILING,
        slots: 2,
        principal: "spiffe://example.org/ci".to_owned(),
        memberships: vec![crate::Membership {
            project: ProjectId::new("web").unwrap(),
            rights: vec!["read".to_owned(), "submit".to_owned()],
        }],
        door: Some(crate::Door {
            address: Some("127.0.0.1:8980".to_owned()),
            certificate_sha256: Some("00".repeat(32)),
            reload_error: None,
            refusals: vec![crate::Refusals {
                reason: "HANDSHAKE".to_owned(),
                count: 7,
            }],
        }),
    };
    assert_eq!(ServerInfo::try_from(v1::ServerInfo::from(&info)), Ok(info));
}

#[test]
fn problems_survive_the_wire() {
    let object = ObjectId::of(b"x");
    let problems = [
        Problem::invalid(Invalid::field("spec.outputs[2]", "is bad")),
        Problem::out_of_range(Invalid::field("offset", "beyond the end")),
        Problem::not_found("builds/x"),
        Problem::request_id_reused(&RequestId::new("r").unwrap()),
        Problem::exhausted("the queue is full", Some(Duration::from_secs(2))),
        Problem::host_lacks([
            ("landlock", "boot with lsm=landlock"),
            ("cgroup", "mount it"),
        ]),
        Problem::input_missing("spec.source", object),
        Problem::denied(["uid 7 may not build"]),
        Problem::new(Reason::DigestMismatch, "the content hashes otherwise"),
        Problem::new(Reason::DerivationRefused, "the archive is cut"),
        Problem::new(Reason::ImageRefused, "there is none of this name"),
        Problem::unsupported("GetTree"),
        Problem::unavailable("the signer does not answer"),
        Problem::internal("see the log"),
    ];
    assert_eq!(problems.len(), Reason::TABLE.len());
    for problem in problems {
        let status = Status::from(problem.clone());
        assert_eq!(status.code(), problem.reason.code());
        assert_eq!(Problem::from_status(&status), problem);
    }
}

#[test]
fn reasons_have_distinct_words() {
    let mut words: Vec<&str> = Reason::TABLE.iter().map(|(_, _, word)| *word).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Reason::TABLE.len());
}

#[test]
fn an_error_from_elsewhere_keeps_its_code() {
    let problem = Problem::from_status(&Status::deadline_exceeded("slow"));
    assert_eq!(
        problem.reason,
        Reason::Foreign(tonic::Code::DeadlineExceeded)
    );
    assert_eq!(problem.message, "slow");
}

#[test]
fn details_fit_into_headers() {
    let mut problem = Problem::invalid(Invalid::field("ü".repeat(5000), "ß".repeat(5000)));
    problem.fields = vec![problem.fields[0].clone(); 100];
    let status = Status::from(problem);
    // HTTP/2 peers commonly accept 16 KiB of headers; details travel in base 64, messages percent-encoded.
    assert!(
        status.details().len() / 3 * 4 + 3 * status.message().len() < 14_000,
        "{}",
        status.details().len()
    );
    let read = Problem::from_status(&status);
    assert_eq!(read.fields.len(), bounds::STATUS_DETAILS);
    assert!(read.message.ends_with('…') && read.message.len() <= bounds::STATUS_TEXT_BYTES);
}

#[test]
fn summaries_and_evidence_survive_the_wire() {
    let summary = BuildSummary::from(&record());
    let told = v1::Build::from(&summary);
    assert_eq!((&told.spec, told.artifacts.len()), (&None, 0));
    assert_eq!(BuildSummary::try_from(told), Ok(summary));
    // What a summary leaves out may be there.
    assert!(BuildSummary::try_from(v1::Build::from(&record())).is_ok());
    let evidence = BuildEvidence {
        build: record().id,
        attempt: 2,
        outcome: record().outcome,
        evidence: record().evidence,
        bundle: b"{}".to_vec(),
    };
    let told = v1::BuildEvidence::from(&evidence);
    assert_eq!(told.name, format!("builds/{ID}/evidence"));
    assert_eq!(BuildEvidence::try_from(told.clone()), Ok(evidence));
    let other = v1::BuildEvidence {
        build: "builds/01jd8q6z8r4x7j2m5t9v0w3y6c".to_owned(),
        ..told
    };
    assert_eq!(BuildEvidence::try_from(other).unwrap_err().field, "build");
    for bad in [ID, "builds/x/evidence", "evidence", "builds//evidence"] {
        assert_eq!(parse_evidence_name(bad).unwrap_err().field, "name", "{bad}");
    }
}
