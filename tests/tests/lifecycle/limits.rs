use belljar_core::Limits;
use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn the_wall_clock_ends_a_build() {
    let mut instance = Instance::new();
    let project = Project::of(
        &["trap '' TERM INT HUP; echo begun; while :; do sleep 100 || :; done"],
        &["out"],
        "[limits]\nwall_seconds = 1\ngrace_seconds = 1",
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
    run.assert_limit_exceeded("memory", 67_108_864);
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
    // The kernel says no to the program, which fails by that: (script, limit, figure, line of the log, words).
    let cases = [
        (
            "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i+1)); done; echo all",
            "pids",
            20,
            "fork",
            "20 of 20 processes and threads at once (pids)",
        ),
        (
            "head -c 4000000 /dev/zero > big; echo all",
            "scratch_bytes",
            1_048_576,
            "No space left on device",
            "1 048 576 of 1 048 576 bytes of scratch space (scratch_bytes)",
        ),
        (
            "i=0; while [ $i -lt 400 ]; do : > f$i; i=$((i+1)); done; echo all",
            "scratch_inodes",
            100,
            "No space left on device",
            "100 of 100 files, directories and links in scratch space (scratch_inodes)",
        ),
    ];
    for (script, limit, figure, said, words) in cases {
        let limits = format!("[limits]\n{limit} = {figure}");
        let run = instance.run(&Project::of(&[script], &["out"], &limits));
        run.assert_limit_exceeded(limit, figure);
        assert_eq!(run.receipt()["outcome"], *run.outcome(), "{run}");
        let summary = run.json["summary"].as_str().unwrap();
        assert!(summary.contains(words), "{limit}: {run}");
        assert!(run.log.contains(said), "{limit}: {run}");
        assert!(!run.log.contains("all"), "{limit}: {run}");
        // Whoever copes with it has not failed: the receipt has the figures.
        let coped = format!("( {script} ) || :; rm -f big f*; : > out");
        let run = instance.run(&Project::of(&[&coped], &["out"], &limits));
        run.assert_succeeded();
        let usage = &run.receipt()["usage"];
        if limit == "pids" {
            assert!(usage["pids_refused"].as_u64() >= Some(1), "{run}");
        }
        // What failed in an earlier step is not what a later one failed by.
        let run = instance.run(&Project::of(&[&coped, "exit 9"], &["out"], &limits));
        run.assert_ended(1, json!({"kind": "failed", "step": 1, "exit_code": 9}));
    }
    // The same programs, given what they need.
    for (script, ..) in cases {
        let run = instance.run(&Project::script(&format!("{script}; : > out")));
        run.assert_succeeded();
    }
}

#[test]
fn cpu_time_ends_a_build() {
    let mut instance = Instance::started();
    let limited = |script: &str| {
        Project::of(
            &[script],
            &["out"],
            "[limits]\ncpu_seconds = 1\nwall_seconds = 120",
        )
    };
    let run = instance.run(&limited("echo begun; while :; do :; done"));
    run.assert_limit_exceeded("cpu", 1);
    assert_eq!(run.log, "begun\n");
    let summary = run.json["summary"].as_str().unwrap();
    assert!(
        summary.contains(" of 1 seconds of CPU time (cpu_seconds)"),
        "{run}"
    );
    assert_eq!(run.json["steps"][0]["exit_code"], json!(null), "{run}");
    assert!(run.json["steps"][0]["cpu_micros"].as_u64() > Some(1_000_000));
    instance
        .run(&limited("sleep 2; : > out"))
        .assert_succeeded();
}

#[test]
fn processes_that_an_earlier_step_left_count_too() {
    let project = Project::of(
        &[
            "python3 hog.py & while [ ! -e full ]; do sleep 0.05; done",
            // Whoever has no place free any more cannot start a process.
            "sleep 0.1; n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; sleep 0.1; : > out",
        ],
        &["out"],
        "[limits]\npids = 24",
    );
    // Takes every place, and takes it again when it gets free.
    project.write(
        "hog.py",
        "import os, signal, time
while True:
    try:
        if os.fork() == 0:
            signal.pause()
    except BlockingIOError:
        open('full', 'w').close()
        time.sleep(0.001)
",
    );
    let mut instance = Instance::new();
    let run = instance.run(&project);
    // Whether init or the step's own shell is refused: it is the build's doing, not the host's.
    run.assert_limit_exceeded("pids", 24);
}

#[test]
fn exit_status_137_is_not_memory() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::of(&["exit 137"], &["out"], ""));
    run.assert_ended(1, json!({"kind": "failed", "step": 0, "exit_code": 137}));
    assert_eq!(run.receipt()["usage"]["oom_kills"], 0, "{run}");
}

#[test]
fn a_log_ends_at_its_limit_and_so_does_the_build() {
    let mut instance = Instance::new();
    let project = Project::of(&["yes; :"], &["out"], "[limits]\nlog_bytes = 1000");
    let run = instance.run(&project);
    run.assert_limit_exceeded("log", 1000);
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
    run.assert_too_much_output("output_bytes", 1199, "out/b");
    let run = instance.run(&with("output_entries = 2"));
    run.assert_too_much_output("output_entries", 2, "out/b");
    assert_eq!(run.receipt()["outcome"], *run.outcome());
    assert!(
        instance.trail(&run).contains(r#""output":"out/b""#),
        "{run}"
    );
    let run = instance.run(&with("output_bytes = 1200\noutput_entries = 3"));
    run.assert_succeeded();
    assert_eq!(run.file("out/b"), [0; 600]);
}

#[test]
fn the_least_of_each_limit_is_enough_for_a_build_and_less_is_refused() {
    let mut instance = Instance::started();
    let mut run = |name: &str, figure: u64| {
        let limit = format!("[limits]\n{name} = {figure}");
        instance.run(&Project::of(&["echo > out"], &["out"], &limit))
    };
    for (name, least) in Limits::FLOOR.get().named() {
        let at_least = run(name, least);
        at_least.assert_succeeded();
        if least > 1 {
            let less = run(name, least - 1);
            assert_eq!(less.exit_code, 2, "{less}");
            let why = format!(
                "{} is too little for any build; at least {least}",
                least - 1
            );
            assert!(less.to_string().contains(&why), "{less}");
        }
    }
}
