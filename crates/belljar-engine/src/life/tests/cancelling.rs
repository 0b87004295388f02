use super::*;

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
