use std::time::Duration;

use super::*;
use belljar_audit::Found;
use belljar_core::{Input, InputName, bounds};
use proptest::prelude::*;

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
        digest: receipt(),
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
fn what_is_declared_is_fetched_before_anything_is_mounted() {
    let (build, effects) = walk_from(fetching(), [Event::SlotFree]);
    assert_eq!(build.stage, Stage::Fetching);
    assert_eq!(deeds(&effects), [&Effect::Fetch(attempt(1))]);
    let (build, effects) = walk_from(fetching(), [Event::SlotFree, of(1, fetched())]);
    assert_eq!((build.stage, build.fetched), (Stage::Staging, trees()));
    assert_eq!(
        effects,
        [
            Effect::Record(Fact::Fetched(attempt(1), report())),
            Effect::Stage(attempt(1))
        ]
    );
    // Nothing of it where nothing is declared.
    let (build, _) = walk([Event::SlotFree]);
    assert_eq!(build.stage, Stage::Staging);
    assert!(step(&build, of(1, fetched()), Timestamp::from_millis(3)).is_err());
}

#[test]
fn a_fetch_that_fails_costs_an_attempt_or_ends_the_build() {
    for (outcome, due) in [
        (Outcome::retryable("fetch", "no answer"), "destroying"),
        (Outcome::permanent("fetch", "another digest"), "publishing"),
        (
            Outcome::Refused {
                reasons: vec!["not allowed".to_owned()],
            },
            "publishing",
        ),
        // What cannot be: it is no success.
        (Outcome::Succeeded, "publishing"),
    ] {
        let (build, effects) =
            walk_from(fetching(), [Event::SlotFree, of(1, not_fetched(outcome))]);
        assert_eq!(build.stage.name(), due);
        assert_eq!(
            effects[0],
            Effect::Record(Fact::Fetched(attempt(1), report()))
        );
        assert!(build.fetched.is_empty());
    }
}

#[test]
fn who_cancels_a_fetch_need_not_wait_for_it() {
    let (build, effects) = walk_from(fetching(), [Event::SlotFree, cancel()]);
    let [Effect::Publish { publication, .. }] = &deeds(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(publication.outcome.kind(), "cancelled");
    // What came of it meanwhile is nothing to anybody.
    assert!(step(&build, of(1, fetched()), Timestamp::from_millis(3)).is_err());
}

#[test]
fn a_restart_in_the_middle_of_a_fetch_costs_an_attempt() {
    let (build, effects) = walk_from(fetching(), [Event::SlotFree, Event::Recovered]);
    assert_eq!(build.stage.name(), "destroying");
    assert_eq!(deeds(&effects), [&Effect::Destroy(attempt(1))]);
    let rest = [of(1, Progress::Destroyed), Event::SlotFree];
    let events = [Event::SlotFree, Event::Recovered].into_iter().chain(rest);
    let (_, effects) = walk_from(fetching(), events);
    assert_eq!(deeds(&effects), [&Effect::Fetch(attempt(2))]);
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

/// One row per stage: what cancelling does there, and how the build ends if all else goes well.
#[test]
fn cancel_in_every_stage() {
    let cancelled = Outcome::Cancelled {
        by: "me".to_owned(),
        reason: Some("enough".to_owned()),
    };
    let kill = Effect::Kill {
        attempt: attempt(1),
        by: "me".to_owned(),
    };
    let success = then(to_running(), [exited(Outcome::Succeeded)]);
    let attesting = then(success.clone(), [collected(Outcome::Succeeded)]);

    let (queued, _) = walk([cancel()]);
    assert_eq!(queued.outcome(), Some(&cancelled));

    for events in [
        vec![Event::SlotFree],
        vec![Event::SlotFree, of(1, Progress::Staged)],
        to_running(),
    ] {
        let (_, effects) = walk(then(events, [cancel()]));
        assert_eq!(deeds(&effects), [&kill]);
    }
    // The request overtook the launch: it is made again.
    let (_, effects) = walk([
        Event::SlotFree,
        of(1, Progress::Staged),
        cancel(),
        of(1, Progress::Launched),
    ]);
    assert_eq!(deeds(&effects), [&Effect::AwaitExit(attempt(1)), &kill]);
    // Nothing is launched any more.
    let (_, effects) = walk([Event::SlotFree, cancel(), of(1, Progress::Staged)]);
    assert_eq!(deeds(&effects), [&Effect::Collect(attempt(1))]);
    // The steps had just succeeded: asked for is asked for.
    let (build, _) = walk(then(success, [cancel(), collected(Outcome::Succeeded)]));
    assert!(
        matches!(&build.stage, Stage::Publishing { publication, .. } if publication.outcome == cancelled)
    );
    // The statement may exist already: too late, but written down.
    let (build, effects) = walk(then(attesting, [cancel()]));
    assert_eq!((build.stage.name(), effects.len()), ("attesting", 1));
    // No further attempt.
    let lost = of(1, Progress::SpawnerLost { why: "gone".into() });
    let (build, _) = walk([Event::SlotFree, lost, cancel(), of(1, Progress::Destroyed)]);
    assert_eq!(build.outcome(), Some(&cancelled));
}

#[test]
fn a_failure_of_its_own_stays_one_even_if_somebody_cancelled() {
    let (build, _) = walk(then(
        to_running(),
        [cancel(), exited(failed()), collected(failed())],
    ));
    assert!(
        matches!(&build.stage, Stage::Publishing { publication, .. } if publication.outcome == failed())
    );
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
fn the_signers_trouble_is_asked_again_its_refusal_is_not() {
    let attesting = then(
        to_running(),
        [exited(Outcome::Succeeded), collected(Outcome::Succeeded)],
    );
    let refused = |retryable| {
        of(
            1,
            Progress::AttestRefused {
                retryable,
                reasons: vec!["no".into()],
            },
        )
    };
    let (_, effects) = walk(then(attesting.clone(), [refused(false)]));
    assert!(matches!(deeds(&effects)[..], [Effect::Publish { .. }]));

    let (build, effects) = walk(then(
        attesting.clone(),
        vec![refused(true); bounds::EVIDENCE_TRIES as usize - 1],
    ));
    assert!(
        matches!(deeds(&effects)[..], [Effect::Attest { delay, .. }] if *delay == Duration::from_secs(5))
    );
    let (build, _) = step(&build, refused(true), Timestamp::from_millis(3)).unwrap();
    assert!(
        matches!(&build.stage, Stage::Publishing { publication, .. } if publication.outcome.kind() == "infrastructure")
    );
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
    let in_vain = vec![
        of(1, Progress::PublishFailed { why: "full".into() });
        bounds::EVIDENCE_TRIES as usize
    ];
    let (build, _) = walk(then(then(published, in_vain), [of(1, Progress::Destroyed)]));
    assert_eq!(build.outcome().map(Outcome::kind), Some("infrastructure"));
}

#[test]
fn a_stale_answer_is_unexpected() {
    let (build, _) = walk([Event::SlotFree]);
    assert!(step(&build, of(2, Progress::Staged), build.updated).is_err());
    assert!(step(&build, of(1, Progress::Launched), build.updated).is_err());
    assert!(step(&build, Event::SlotFree, build.updated).is_err());
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Succeeded),
        1 => Just(failed()),
        1 => Just(Outcome::TimedOut { wall_seconds: 1 }),
        1 => Just(Outcome::Cancelled { by: "me".to_owned(), reason: None }),
        1 => Just(Outcome::retryable("stage", "trouble")),
        1 => Just(Outcome::permanent("stage", "trouble")),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let what = prop_oneof![
        Just(fetched()),
        any_outcome().prop_map(not_fetched),
        Just(Progress::Staged),
        Just(Progress::Launched),
        any_outcome().prop_map(|outcome| Progress::Exited { outcome }),
        any_outcome().prop_map(|outcome| Progress::Collected {
            receipt: receipt(),
            outcome,
            outputs: 1
        }),
        any_outcome().prop_map(|outcome| Progress::Failed { outcome }),
        Just(Progress::SpawnerLost { why: String::new() }),
        Just(Progress::Attested { bundle: bundle() }),
        any::<bool>().prop_map(|retryable| Progress::AttestRefused {
            retryable,
            reasons: vec![]
        }),
        Just(Progress::Published {
            evidence: evidence(attempt(1))
        }),
        Just(Progress::PublishFailed { why: String::new() }),
        Just(Progress::Destroyed),
    ];
    prop_oneof![
        2 => Just(Event::SlotFree),
        1 => Just(cancel()),
        1 => Just(Event::Recovered),
        1 => Just(Event::Condemned { why: "damaged".to_owned() }),
        12 => (1..=bounds::ATTEMPTS, what).prop_map(|(number, what)| of(number, what)),
    ]
}

/// What must hold of every life, whatever happens in whatever order.
#[derive(Default)]
struct Watch {
    collected: Option<AttemptId>,
    running: Option<AttemptId>,
    attested: u32,
    ended: bool,
}

impl Watch {
    fn saw(&mut self, event: &Event, before: &Build, after: &Build, effects: &[Effect]) {
        if let Event::Attempt { attempt, what } = event {
            match what {
                Progress::Collected { outcome, .. } if outcome.is_success() => {
                    self.collected = Some(attempt.clone())
                }
                Progress::Attested { .. } => self.attested += 1,
                Progress::Destroyed => self.running = None,
                _ => {}
            }
        }
        assert!(self.attested <= 1, "attested twice");
        for effect in effects {
            assert!(
                !self.ended || matches!(effect, Effect::Record(_)),
                "{effect:?} after the end"
            );
            match effect {
                Effect::Fetch(_) => {
                    assert!(before.fetches, "nothing is to be fetched");
                    assert_eq!(self.running, None, "the attempt before was not destroyed");
                }
                Effect::Stage(attempt) => {
                    assert!(!after.fetches || after.fetched == trees(), "not fetched");
                    assert_eq!(self.running, None, "the attempt before was not destroyed");
                    self.running = Some(attempt.clone());
                    assert!(attempt.number() <= bounds::ATTEMPTS);
                    assert_eq!(self.attested, 0, "another attempt after a statement");
                }
                Effect::Attest { collected, .. } => {
                    assert_eq!(self.collected.as_ref(), Some(&collected.attempt))
                }
                _ => {}
            }
        }
        if let Some(outcome) = after.outcome() {
            assert_eq!(self.running, None, "ended, but not destroyed");
            assert!(
                !outcome.is_success() || self.attested == 1,
                "a success without a statement"
            );
            assert!(
                !self.ended || before == after,
                "something changed after the end"
            );
            self.ended = true;
        }
    }
}

/// The answers that an honest or failing world may give to an effect.
fn answer(effect: &Effect, outcome: Outcome, luck: u8) -> Option<Event> {
    let lost = Progress::SpawnerLost {
        why: "gone".to_owned(),
    };
    let (attempt, what) = match effect {
        Effect::Record(_) | Effect::Kill { .. } => return None,
        Effect::Fetch(attempt) => (
            attempt,
            [
                fetched(),
                not_fetched(outcome.clone()),
                not_fetched(outcome),
            ],
        ),
        Effect::Stage(attempt) => (
            attempt,
            [Progress::Staged, Progress::Failed { outcome }, lost],
        ),
        Effect::Launch(attempt) => (
            attempt,
            [Progress::Launched, Progress::Failed { outcome }, lost],
        ),
        Effect::AwaitExit(attempt) => (
            attempt,
            [
                Progress::Exited {
                    outcome: outcome.clone(),
                },
                Progress::Exited { outcome },
                lost,
            ],
        ),
        Effect::Collect(attempt) => {
            let receipt = receipt();
            (
                attempt,
                [
                    Progress::Collected {
                        receipt,
                        outcome: outcome.clone(),
                        outputs: 1,
                    },
                    Progress::Failed { outcome },
                    lost,
                ],
            )
        }
        Effect::Attest { collected, .. } => {
            let refused = |retryable| Progress::AttestRefused {
                retryable,
                reasons: vec!["no".to_owned()],
            };
            (
                &collected.attempt,
                [
                    Progress::Attested { bundle: bundle() },
                    refused(true),
                    refused(false),
                ],
            )
        }
        Effect::Publish { attempt, .. } => {
            let evidence = evidence(attempt.clone());
            let failed = Progress::PublishFailed {
                why: "full".to_owned(),
            };
            (
                attempt,
                [Progress::Published { evidence }, failed.clone(), failed],
            )
        }
        Effect::Destroy(attempt) => (
            attempt,
            [
                Progress::Destroyed,
                Progress::Destroyed,
                Progress::Destroyed,
            ],
        ),
    };
    let which = if luck < 6 {
        0
    } else {
        usize::from(luck % 2) + 1
    };
    Some(Event::Attempt {
        attempt: attempt.clone(),
        what: what[which].clone(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn any_order_of_events_keeps_the_promises(
        fetches in any::<bool>(),
        events in proptest::collection::vec(any_event(), 0..200),
    ) {
        let (mut at, mut watch) = (Build { fetches, ..build() }, Watch::default());
        for event in events {
            if let Ok((after, effects)) = step(&at, event.clone(), Timestamp::from_millis(5)) {
                watch.saw(&event, &at, &after, &effects);
                prop_assert!(after.sequence == at.sequence + u64::from(after != at));
                at = after;
            }
        }
    }

    #[test]
    fn every_life_that_is_answered_ends(
        luck in proptest::collection::vec((any_outcome(), 0..10u8), 400),
        interruptions in proptest::collection::vec((0..120usize, any::<bool>()), 0..6),
        fetches in any::<bool>(),
    ) {
        let start = Build { fetches, ..build() };
        let (mut at, mut watch, mut due) = (start, Watch::default(), None);
        for (turn, (outcome, luck)) in luck.into_iter().enumerate() {
            let interruption = interruptions.iter().find(|(when, _)| *when == turn);
            let event = match (interruption, &due) {
                (Some((_, true)), _) => cancel(),
                (Some((_, false)), _) => Event::Recovered,
                (None, Some(effect)) => answer(effect, outcome, luck).unwrap(),
                (None, None) => Event::SlotFree,
            };
            let (after, effects) = step(&at, event.clone(), Timestamp::from_millis(5)).unwrap();
            watch.saw(&event, &at, &after, &effects);
            let deeds = deeds(&effects);
            let under_way = deeds.iter().filter(|deed| !matches!(deed, Effect::Kill { .. })).count();
            prop_assert!(under_way <= 1);
            match deeds.into_iter().find(|deed| !matches!(deed, Effect::Kill { .. })) {
                Some(deed) => due = Some(deed.clone()),
                None if !matches!(event, Event::CancelRequested { .. }) || after.stage == Stage::Queued => due = None,
                None => {}
            }
            at = after;
            if at.outcome().is_some() {
                return Ok(());
            }
        }
        prop_assert!(false, "still {} after 400 turns", at.stage.name());
    }

    #[test]
    fn a_life_survives_its_encoding(
        fetches in any::<bool>(),
        events in proptest::collection::vec(any_event(), 0..60),
    ) {
        let mut at = Build { fetches, ..build() };
        for event in events {
            if let Ok((after, _)) = step(&at, event, Timestamp::from_millis(5)) {
                at = after;
            }
        }
        let text = serde_json::to_string(&at).unwrap();
        prop_assert_eq!(serde_json::from_str::<Build>(&text).unwrap(), at);
    }
}
