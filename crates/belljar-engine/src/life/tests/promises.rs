//! What holds whatever happens in whatever order.

use super::*;
use proptest::prelude::*;

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
        any::<(bool, u32)>().prop_map(|(retryable, tries)| Progress::AttestRefused {
            retryable,
            reasons: vec![],
            tries
        }),
        Just(Progress::Published {
            evidence: evidence(attempt(1))
        }),
        any::<u32>().prop_map(|tries| Progress::PublishFailed {
            why: String::new(),
            tries
        }),
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
                tries: 1,
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
                tries: 1,
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
