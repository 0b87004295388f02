mod cancelling;
mod fetching;
mod promises;

use std::time::Duration;

use super::*;
use belljar_audit::Found;
use belljar_core::{FetchDigest, Input, InputName, bounds};

const ID: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";

fn build() -> Build {
    Build::new(BuildId::new(ID).unwrap(), Timestamp::from_millis(1))
}

fn attempt(number: u32) -> AttemptId {
    AttemptId::new(BuildId::new(ID).unwrap(), number).unwrap()
}

fn receipt() -> Digest {
    Digest::of(b"receipt")
}

fn object() -> ObjectId {
    ObjectId::of(b"bundle")
}

fn bundle() -> Bundle {
    Bundle {
        object: object(),
        key_id: "SHA256:k".to_owned(),
    }
}

fn evidence(attempt: AttemptId) -> Box<Evidence> {
    Box::new(Evidence {
        attempt,
        spec: object(),
        plan: object(),
        audit_trail: object(),
        receipt: None,
        receipt_bundle: None,
        log: None,
        bundle: None,
        trees: false,
    })
}

/// A build for which something is fetched.
fn fetching() -> Build {
    Build {
        fetches: true,
        ..build()
    }
}

fn report() -> FetchReport {
    FetchReport {
        name: InputName::new("x").unwrap(),
        submodule: None,
        digest: FetchDigest::Sha256(receipt()),
        found: Found::Nothing {},
        refused: None,
        tries: Vec::new(),
    }
}

fn trees() -> Inputs {
    let input = Input {
        tree: object(),
        derivation: Some(object()),
    };
    Inputs::new([(InputName::new("x").unwrap(), input)].into()).unwrap()
}

fn fetched() -> Progress {
    Progress::Fetched(Fetched {
        reports: vec![report()],
        result: Ok(trees()),
    })
}

fn not_fetched(outcome: Outcome) -> Progress {
    Progress::Fetched(Fetched {
        reports: vec![report()],
        result: Err(outcome),
    })
}

fn of(number: u32, what: Progress) -> Event {
    Event::Attempt {
        attempt: attempt(number),
        what,
    }
}

fn cancel() -> Event {
    Event::CancelRequested {
        by: "me".to_owned(),
        reason: Some("enough".to_owned()),
    }
}

/// Takes a build through `events`, all of which must make sense; gives it and the last effects.
fn walk(events: impl IntoIterator<Item = Event>) -> (Build, Vec<Effect>) {
    walk_from(build(), events)
}

fn walk_from(build: Build, events: impl IntoIterator<Item = Event>) -> (Build, Vec<Effect>) {
    let mut at = (build, Vec::new());
    for event in events {
        let name = event.name();
        at =
            step(&at.0, event, Timestamp::from_millis(2)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    at
}

/// What is to be done, without what is only written down.
fn deeds(effects: &[Effect]) -> Vec<&Effect> {
    effects
        .iter()
        .filter(|effect| !matches!(effect, Effect::Record(_)))
        .collect()
}

fn to_running() -> Vec<Event> {
    vec![
        Event::SlotFree,
        of(1, Progress::Staged),
        of(1, Progress::Launched),
    ]
}

fn exited(outcome: Outcome) -> Event {
    of(1, Progress::Exited { outcome })
}

fn collected(outcome: Outcome) -> Event {
    of(
        1,
        Progress::Collected {
            receipt: receipt(),
            outcome,
            outputs: 1,
        },
    )
}

fn then(mut events: Vec<Event>, more: impl IntoIterator<Item = Event>) -> Vec<Event> {
    events.extend(more);
    events
}

fn failed() -> Outcome {
    Outcome::Failed {
        step: 0,
        exit_code: 1,
    }
}

#[test]
fn a_success_goes_all_the_way() {
    let events = then(
        to_running(),
        [exited(Outcome::Succeeded), collected(Outcome::Succeeded)],
    );
    let (_, effects) = walk(events.clone());
    assert!(
        matches!(deeds(&effects)[..], [Effect::Attest { collected, .. }] if collected.receipt() == receipt())
    );
    let rest = [
        of(1, Progress::Attested { bundle: bundle() }),
        of(
            1,
            Progress::Published {
                evidence: evidence(attempt(1)),
            },
        ),
        of(1, Progress::Destroyed),
    ];
    let (build, effects) = walk(then(events, rest));
    assert_eq!(build.outcome(), Some(&Outcome::Succeeded));
    assert_eq!(
        effects.last(),
        Some(&Effect::Record(Fact::Finished(Outcome::Succeeded)))
    );
    assert_eq!(
        (
            build.started.is_some(),
            build.ended.is_some(),
            build.sequence
        ),
        (true, true, 9)
    );
}

#[test]
fn a_failure_is_collected_and_published_but_not_attested() {
    let (build, effects) = walk(then(to_running(), [exited(failed()), collected(failed())]));
    assert_eq!(build.stage.name(), "publishing");
    let [Effect::Publish { publication, .. }] = &deeds(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        publication,
        &Publication {
            outcome: failed(),
            receipt: Some(receipt()),
            bundle: None
        }
    );
}

#[test]
fn a_receipt_that_turns_a_failure_into_a_success_is_not_believed() {
    let (_, effects) = walk(then(
        to_running(),
        [exited(failed()), collected(Outcome::Succeeded)],
    ));
    let [Effect::Publish { publication, .. }] = &deeds(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(publication.outcome.kind(), "infrastructure");
    assert_eq!(publication.bundle, None);
}

#[test]
fn rejected_outputs_are_the_outcome() {
    let rejected = Outcome::OutputRejected {
        why: "a socket".to_owned(),
    };
    let (_, effects) = walk(then(
        to_running(),
        [exited(Outcome::Succeeded), collected(rejected.clone())],
    ));
    let [Effect::Publish { publication, .. }] = &deeds(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(publication.outcome, rejected);
}

#[test]
fn a_lost_spawner_costs_attempts_until_none_is_left() {
    let mut at = (build(), Vec::new());
    for number in 1..=bounds::ATTEMPTS {
        for event in [
            Event::SlotFree,
            of(number, Progress::SpawnerLost { why: "gone".into() }),
        ] {
            at = step(&at.0, event, Timestamp::from_millis(3)).unwrap();
        }
        if number < bounds::ATTEMPTS {
            assert_eq!(deeds(&at.1), [&Effect::Destroy(attempt(number))]);
            at = step(
                &at.0,
                of(number, Progress::Destroyed),
                Timestamp::from_millis(3),
            )
            .unwrap();
            assert_eq!(at.0.stage, Stage::Queued);
        }
    }
    let [Effect::Publish { publication, .. }] = &deeds(&at.1)[..] else {
        panic!("{:?}", at.1)
    };
    assert_eq!(publication.outcome.kind(), "infrastructure");
}

#[test]
fn a_restart_destroys_what_ran_and_continues_what_was_being_attested() {
    let (build, effects) = walk(then(to_running(), [Event::Recovered]));
    assert_eq!(deeds(&effects), [&Effect::Destroy(attempt(1))]);
    assert!(matches!(
        build.stage,
        Stage::Destroying {
            next: Next::Requeue { .. }
        }
    ));

    let attesting = then(
        to_running(),
        [exited(Outcome::Succeeded), collected(Outcome::Succeeded)],
    );
    let (build, effects) = walk(then(attesting, [Event::Recovered]));
    assert_eq!(build.stage.name(), "attesting");
    assert!(matches!(deeds(&effects)[..], [Effect::Attest { .. }]));

    let (queued, effects) = walk([Event::Recovered]);
    assert_eq!((queued.sequence, effects.len()), (1, 0));
}

#[test]
fn a_stale_answer_is_unexpected() {
    let (build, _) = walk([Event::SlotFree]);
    assert!(step(&build, of(2, Progress::Staged), build.updated).is_err());
    assert!(step(&build, of(1, Progress::Launched), build.updated).is_err());
    assert!(step(&build, Event::SlotFree, build.updated).is_err());
}

#[test]
fn the_signers_trouble_is_asked_again_its_refusal_is_not() {
    let attesting = then(
        to_running(),
        [exited(Outcome::Succeeded), collected(Outcome::Succeeded)],
    );
    let refused = |retryable, tries| {
        of(
            1,
            Progress::AttestRefused {
                retryable,
                reasons: vec!["no".into()],
                tries,
            },
        )
    };
    let (_, effects) = walk(then(attesting.clone(), [refused(false, 1)]));
    assert!(matches!(deeds(&effects)[..], [Effect::Publish { .. }]));

    let (_, effects) = walk(then(
        attesting.clone(),
        vec![refused(true, 1); bounds::EVIDENCE_TRIES as usize - 1],
    ));
    assert!(
        matches!(deeds(&effects)[..], [Effect::Attest { delay, .. }] if *delay == Duration::from_secs(5))
    );
    // Each at once, or each after a quarter of the time for all of them.
    for (each, count) in [
        (1, bounds::EVIDENCE_TRIES),
        (bounds::EVIDENCE_TRIES / 4, 4),
        (u32::MAX, 1),
    ] {
        let before = vec![refused(true, each); count as usize - 1];
        let (build, _) = walk(then(attesting.clone(), before));
        assert_eq!(build.stage.name(), "attesting", "{each}");
        let (build, _) = step(&build, refused(true, each), Timestamp::from_millis(3)).unwrap();
        assert!(
            matches!(&build.stage, Stage::Publishing { publication, .. } if publication.outcome.kind() == "infrastructure")
        );
    }
}

#[test]
fn evidence_that_cannot_be_published_is_no_success() {
    let published = then(
        to_running(),
        [
            exited(Outcome::Succeeded),
            collected(Outcome::Succeeded),
            of(1, Progress::Attested { bundle: bundle() }),
        ],
    );
    // Each at once, or each after a quarter of the time for all of them.
    for (each, count) in [
        (1, bounds::EVIDENCE_TRIES),
        (bounds::EVIDENCE_TRIES / 4, 4),
        (u32::MAX, 1),
    ] {
        let failed = Progress::PublishFailed {
            why: "full".into(),
            tries: each,
        };
        let before = vec![of(1, failed.clone()); count as usize - 1];
        let (build, _) = walk(then(published.clone(), before));
        assert_eq!(build.stage.name(), "publishing", "{each}");
        let (build, _) = step(&build, of(1, failed), Timestamp::from_millis(3)).unwrap();
        let (build, _) = step(&build, of(1, Progress::Destroyed), build.updated).unwrap();
        let outcome = build.outcome().unwrap();
        assert_eq!(outcome.kind(), "infrastructure", "{each}");
        assert!(outcome.to_string().contains("full"), "{outcome}");
    }
}
