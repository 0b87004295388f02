use std::time::Instant;

use belljar_core::Outcome;
use belljar_tests::{Instance, Project, Running};
use belljar_wire::BuildState;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn an_interrupt_cancels_a_running_build() {
    let mut instance = Instance::started();
    let project = Project::of(
        &["trap '' INT TERM; echo begun; while :; do sleep 100 || :; done"],
        &["out"],
        "[limits]\ngrace_seconds = 1",
    );
    let running: Running = instance.begin(&project);
    instance.wait_until_logged("begun");
    running.signal(Signal::INT);
    let run = instance.finish(running);
    run.assert_ended(
        6,
        json!({
            "kind": "cancelled",
            "by": "unix:uid=0",
            "reason": "interrupted at the command line",
        }),
    );
    assert_eq!(run.log, "begun\n");
    assert_eq!(run.receipt()["outcome"]["kind"], "cancelled", "{run}");
    let trail = instance.trail(&run);
    assert!(trail.contains("interrupted at the command line"), "{trail}");
}

#[test]
fn a_build_that_is_asked_to_end_may_do_so_in_its_own_time() {
    let mut instance = Instance::started();
    // The step's shell dies of the signal at once; what it has started has time to clean up.
    let project = Project::of(
        &["python3 tidy.py & echo begun; wait", "echo never"],
        &["out"],
        "[limits]\ngrace_seconds = 300",
    );
    project.write(
        "tidy.py",
        "import signal, sys, time
def end(*_):
    time.sleep(1)
    print('tidied', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print('ready', flush=True)
time.sleep(600)
",
    );
    let begun = Instant::now();
    let running: Running = instance.begin(&project);
    instance.wait_until_logged("ready");
    running.signal(Signal::INT);
    let run = instance.finish(running);
    let due = json!({
        "kind": "cancelled",
        "by": "unix:uid=0",
        "reason": "interrupted at the command line",
    });
    run.assert_ended(6, due);
    assert!(run.log.ends_with("tidied\n"), "{run}");
    assert!(begun.elapsed().as_secs() < 200, "the grace was not used up");
    assert_eq!(run.json["steps"][0]["signal"], 15, "{run}");
}

#[test]
fn the_wall_clock_leaves_a_grace_too() {
    let project = Project::of(
        &["trap 'echo bye; exit 0' TERM; echo begun; while :; do sleep 0.1; done"],
        &["out"],
        "[limits]\nwall_seconds = 1\ngrace_seconds = 300",
    );
    let begun = Instant::now();
    let run = Instance::new().run(&project);
    run.assert_ended(3, json!({"kind": "timed_out", "wall_seconds": 1}));
    assert!(run.log.ends_with("bye\n"), "{run}");
    assert!(begun.elapsed().as_secs() < 200, "the grace was not used up");
}

#[test]
fn a_build_that_waits_is_cancelled_before_it_begins() {
    let instance = Instance::started();
    let client = instance.client();
    let slots = client.server_info().slots;
    let blocker = client.spec(
        &[("in", "")],
        &["echo begun; while [ ! -e /nowhere ]; do sleep 0.05; done"],
        &["out"],
    );
    let blockers: Vec<_> = (0..slots)
        .map(|n| client.submit(&format!("blocker-{n}"), &blocker).unwrap())
        .collect();
    for build in &blockers {
        client.until(&build.id, |build| build.state == BuildState::Running);
    }
    let waiting = client.submit("waiting", &blocker).unwrap();
    assert_eq!(client.get(&waiting.id).unwrap().state, BuildState::Queued);
    let cancelled = client.cancel(&waiting.id, "no longer wanted").unwrap();
    let outcome = |reason: Option<&str>| {
        Some(Outcome::Cancelled {
            by: "unix:uid=0".to_owned(),
            reason: reason.map(str::to_owned),
        })
    };
    let ended = client.until(&cancelled.id, |build| build.state == BuildState::Ended);
    assert_eq!(
        (ended.attempt, ended.outcome),
        (0, outcome(Some("no longer wanted")))
    );
    assert_eq!(ended.started, None);
    assert_eq!(ended.evidence.bundle, None);
    for build in &blockers {
        client.cancel(&build.id, "").unwrap();
        let ended = client.until(&build.id, |build| build.state == BuildState::Ended);
        assert_eq!(ended.outcome, outcome(None));
        // Once it has ended, nothing changes any more.
        assert_eq!(client.cancel(&build.id, "again"), Ok(ended));
    }
}
