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
