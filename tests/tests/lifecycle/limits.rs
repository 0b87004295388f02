use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn the_wall_clock_ends_a_build() {
    let mut instance = Instance::new();
    let project = Project::of(
        &["trap '' TERM INT HUP; echo begun; while :; do sleep 100 || :; done"],
        &["out"],
        "[limits]\nwall_seconds = 1",
    );
    let start = std::time::Instant::now();
    let run = instance.run(&project);
    run.assert_ended(3, json!({"kind": "timed_out", "wall_seconds": 1}));
    assert_eq!(run.log, "begun\n");
    assert!(start.elapsed().as_secs() < 20, "{run}");
}

#[test]
fn memory_ends_a_build() {
    let mut instance = Instance::new();
    let project = Project::of(
        // One line without an end, which tail has to hold.
        &["echo begun; head -c 300000000 /dev/zero | tail -n 1 > /dev/null; echo survived"],
        &["out"],
        "[limits]\nmemory_bytes = 67108864",
    );
    let run = instance.run(&project);
    run.assert_ended(
        4,
        json!({"kind": "limit_exceeded", "limit": "memory", "figure": 67_108_864}),
    );
    assert!(run.log.starts_with("begun\n"), "{run}");
    assert!(!run.log.contains("survived"), "{run}");
    // It was not the outcome alone: the kernel's killer came, and came at the limit.
    let usage = run.receipt()["usage"].clone();
    assert!(usage["oom_kills"].as_u64().unwrap() > 0, "{run}");
    let peak = usage["memory_peak_bytes"].as_u64().unwrap();
    assert!((60_000_000..75_000_000).contains(&peak), "{run}");
}

#[test]
fn cpu_time_is_rationed() {
    // How much of three seconds a process gets that never waits, in thousandths of a second.
    let script = "python3 -c '
import time
before, end = time.process_time(), time.monotonic() + 3
while time.monotonic() < end:
    pass
print(int((time.process_time() - before) * 1000))' > out";
    let mut instance = Instance::started();
    let mut used = |cpu_millis: u32| -> u32 {
        let limit = format!("[limits]\ncpu_millis = {cpu_millis}");
        let run = instance.run(&Project::of(&[script], &["out"], &limit));
        run.assert_succeeded();
        String::from_utf8(run.file("out"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let (rationed, free) = (used(100), used(1000));
    // A tenth of three seconds, and what the kernel hands out ahead. It is not starved otherwise either: with
    // ten times the ration it gets several times as much, also where others work beside it.
    assert!((100..600).contains(&rationed), "{rationed} ms of 300 ms");
    assert!(
        free > 2 * rationed && free <= 3300,
        "{free} ms, and rationed {rationed} ms"
    );
}

#[test]
fn what_a_build_may_hold_is_held_to() {
    let mut instance = Instance::started();
    // The kernel says no to the program, which goes on or fails as it likes: (script, limits, line of the log).
    let cases = [
        (
            "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all",
            "pids = 20",
            "fork",
        ),
        (
            "head -c 4000000 /dev/zero > big; echo all",
            "scratch_bytes = 1048576",
            "No space left on device",
        ),
        (
            "i=0; while [ $i -lt 400 ]; do : > f$i; i=$((i+1)); done; echo all",
            "scratch_inodes = 100",
            "No space left on device",
        ),
    ];
    for (script, limit, said) in cases {
        let run = instance.run(&Project::of(
            &[script],
            &["out"],
            &format!("[limits]\n{limit}"),
        ));
        assert_eq!(run.exit_code, 1, "{limit}: {run}");
        assert_eq!(run.outcome()["kind"], "failed", "{limit}: {run}");
        assert!(run.log.contains(said), "{limit}: {run}");
        assert!(!run.log.contains("all"), "{limit}: {run}");
    }
    // The same programs, given what they need.
    for (script, _, _) in cases {
        let run = instance.run(&Project::script(&format!("{script}; : > out")));
        run.assert_succeeded();
    }
}

#[test]
fn a_log_ends_at_its_limit_and_so_does_the_build() {
    let mut instance = Instance::new();
    let project = Project::of(&["yes; :"], &["out"], "[limits]\nlog_bytes = 1000");
    let run = instance.run(&project);
    run.assert_ended(
        4,
        json!({"kind": "limit_exceeded", "limit": "log", "figure": 1000}),
    );
    assert_eq!(run.log, "y\n".repeat(500));
    assert_eq!(run.receipt()["log"]["truncated"], true, "{run}");
}

#[test]
fn a_log_of_exactly_its_limit_is_fine() {
    let mut instance = Instance::new();
    let project = Project::of(
        &["head -c 1000 /dev/zero | tr '\\0' x; : > out"],
        &["out"],
        "[limits]\nlog_bytes = 1000",
    );
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.log, "x".repeat(1000));
    assert_eq!(run.receipt()["log"]["truncated"], false, "{run}");
}

#[test]
fn outputs_end_at_their_limits() {
    let mut instance = Instance::started();
    let script = "mkdir out; head -c 600 /dev/zero > out/a; head -c 600 /dev/zero > out/b";
    let with = |limit: &str| Project::of(&[script], &["out"], &format!("[limits]\n{limit}"));
    let run = instance.run(&with("output_bytes = 1199"));
    run.assert_ended(
        4,
        json!({"kind": "limit_exceeded", "limit": "output_bytes", "figure": 1199}),
    );
    let run = instance.run(&with("output_entries = 2"));
    run.assert_ended(
        4,
        json!({"kind": "limit_exceeded", "limit": "output_entries", "figure": 2}),
    );
    let run = instance.run(&with("output_bytes = 1200\noutput_entries = 3"));
    run.assert_succeeded();
    assert_eq!(run.file("out/b"), [0; 600]);
}
