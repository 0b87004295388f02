use std::fs;
use std::time::{Duration, Instant};

use belljar_core::{BuildId, Outcome};
use belljar_tests::{Instance, Part, Project, Running, wait_for};
use belljar_wire::BuildState;
use rustix::process::{Pid, Signal, kill_process};
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
fn a_signal_ends_the_way_home_and_leaves_no_half_output() {
    let mut instance = Instance::started();
    let many =
        "mkdir d; python3 -c 'for n in range(3000): open(f\"d/f{n}\", \"w\").write(\"whole\")'";
    let project = Project::of(&[many], &["d/f*"], "");
    let mut running: Running = instance.begin(&project);
    let d = running.output().join("d");
    wait_for("the first artifact", Duration::from_secs(60), || {
        (d.exists() || running.has_ended()).then_some(())
    });
    if !running.has_ended() {
        running.signal(Signal::TERM);
    }
    let run = instance.finish(running);
    assert_eq!(run.exit_code, 13, "{run}");
    let left: Vec<_> = fs::read_dir(run.output())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in &left {
        assert!(["build.log", "d"].contains(&name.as_str()), "{left:?}");
    }
    for entry in fs::read_dir(run.output().join("d")).unwrap() {
        assert_eq!(fs::read(entry.unwrap().path()).unwrap(), b"whole");
    }
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

/// A process that stands still for a while, so that a build has to wait for it where it is.
struct Held(Pid);

impl Held {
    fn new(instance: &Instance, part: Part) -> Self {
        let pid = i32::try_from(instance.pid_of(part)).unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn trail_of(instance: &Instance, build: &BuildId) -> String {
    let path = format!("daemon/audit/{build}.jsonl");
    fs::read_to_string(instance.state().join(path)).unwrap()
}

#[test]
fn a_build_whose_inputs_or_outputs_are_being_taken_ends_as_cancelled() {
    let instance = Instance::started();
    let client = instance.client();
    for state in [BuildState::Staging, BuildState::Collecting] {
        let files = [("in", format!("{state:?}"))];
        let files = files
            .each_ref()
            .map(|(name, content)| (*name, content.as_str()));
        let script = "echo begun; sleep 2; cp in out";
        let spec = client.spec(&files, &[script], &["out"]);
        let mut held = (state == BuildState::Staging).then(|| Held::new(&instance, Part::Store));
        let build = client.submit(&format!("{state:?}"), &spec).unwrap();
        if state == BuildState::Collecting {
            client.until(&build.id, |build| build.state == BuildState::Running);
            instance.wait_until_logged("begun");
            held = Some(Held::new(&instance, Part::Store));
        }
        client.until(&build.id, |build| build.state == state);
        let asked = client.cancel(&build.id, "changed my mind").unwrap();
        assert_eq!((asked.state, asked.outcome), (state, None));
        drop(held);
        let ended = client.until(&build.id, |build| build.state == BuildState::Ended);
        let due = Outcome::Cancelled {
            by: "unix:uid=0".to_owned(),
            reason: Some("changed my mind".to_owned()),
        };
        assert_eq!((ended.attempt, ended.outcome), (1, Some(due)), "{state:?}");
        assert!(ended.artifacts.is_empty(), "{state:?}");
        assert_eq!(ended.evidence.bundle, None, "{state:?}");
        let trail = trail_of(&instance, &build.id);
        for told in ["cancel_requested", "changed my mind", "unix:uid=0"] {
            assert!(trail.contains(told), "{state:?}: {trail}");
        }
        let signed = format!("evidence/{}-1.sigstore.json", build.id);
        assert!(!instance.state().join(signed).exists(), "{state:?}");
        // The place is free, and the same build can be had.
        let again = client.submit(&format!("{state:?}-again"), &spec).unwrap();
        let ended = client.until(&again.id, |build| build.state == BuildState::Ended);
        assert_eq!(ended.outcome, Some(Outcome::Succeeded), "{state:?}");
    }
}

#[test]
fn a_success_that_is_being_attested_stays_one_and_who_wanted_its_end_is_told() {
    let instance = Instance::started();
    let client = instance.client();
    let spec = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    // The key is known before.
    client.server_info();
    let held = Held::new(&instance, Part::Signer);
    let build = client.submit("late", &spec).unwrap();
    client.until(&build.id, |build| build.state == BuildState::Attesting);
    let asked = client.cancel(&build.id, "too late").unwrap();
    assert_eq!(asked.state, BuildState::Attesting);
    drop(held);
    let ended = client.until(&build.id, |build| build.state == BuildState::Ended);
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
    assert!(ended.evidence.bundle.is_some() && ended.artifacts.len() == 1);
    let trail = trail_of(&instance, &build.id);
    assert!(
        trail.contains("cancel_requested") && trail.contains("too late"),
        "{trail}"
    );
}
