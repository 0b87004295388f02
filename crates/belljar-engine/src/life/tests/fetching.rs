use super::*;

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
