//! What a step may do to the next one and to init is its own affair: the build ends by it, never Belljar.

use belljar_tests::{Instance, Project, Run};
use serde_json::json;

use crate::source;

/// Steps: what a survivor of the first one may do to all others, which are too long for one page of arguments.
fn with_survivor(first: &str, limits: &str) -> Project {
    let idle = format!(": {}", "x".repeat(5000));
    let mut steps = vec![format!("cc -O2 -o /tmp/next next-step.c; {first}")];
    steps.resize(24, idle);
    let steps: Vec<_> = steps.iter().map(String::as_str).collect();
    let project = Project::of(&steps, &["out"], limits);
    project.write("next-step.c", source("next-step.c"));
    project
}

/// Runs it until the survivor has met a process in the moment that it waits for: on a busy machine it may miss all.
fn met(project: &Project) -> Run {
    const TRIES: usize = 20;
    let mut instance = Instance::started();
    for _ in 0..TRIES {
        let run = instance.run(project);
        if run.outcome()["kind"] != "output_rejected" {
            return run;
        }
    }
    panic!("no process was met before it had become a program")
}

#[test]
fn a_step_that_an_earlier_one_keeps_from_starting_has_failed() {
    let run = met(&with_survivor("/tmp/next take", ""));
    let step = run.outcome()["step"].as_u64().unwrap_or_default();
    run.assert_ended(1, json!({"kind": "failed", "step": step, "exit_code": 126}));
    assert!(step > 0, "{run}");
    assert!(
        run.log
            .contains("belljar: this step cannot be started: Argument list too long"),
        "{run}"
    );
}

#[test]
fn a_step_that_an_earlier_one_stops_does_not_keep_others_from_hearing_of_the_end() {
    let hear =
        "sh -c 'trap \"echo asked; exit\" TERM; while :; do sleep 0.1; done' & /tmp/next leave";
    let project = with_survivor(hear, "[limits]\nwall_seconds = 5\ngrace_seconds = 2");
    let run = met(&project);
    run.assert_ended(3, json!({"kind": "timed_out", "wall_seconds": 5}));
    assert!(run.log.contains("asked"), "{run}");
}

#[test]
fn a_step_that_shuts_its_directory_does_not_shut_the_next_one_out() {
    let mut instance = Instance::started();
    for directory in [".", "sub"] {
        let more = match directory {
            "." => String::new(),
            other => format!("working_directory = \"{other}\""),
        };
        let project = Project::of(
            &["echo done > /build/out; chmod 0 . /build", "echo two"],
            &["out"],
            &more,
        );
        project.write("sub/file", "");
        let run = instance.run(&project);
        run.assert_succeeded();
        assert_eq!(run.log, "two\n", "{run}");
        assert_eq!(run.file("out"), b"done\n", "{run}");
    }
}

#[test]
fn init_traces_nobody_who_asks_it_to() {
    // A signal of each sort stops who is traced, and so does what execve(2) sends.
    let traced = "import ctypes, os, signal
libc, heard = ctypes.CDLL(None), []
numbers = [signal.SIGUSR1, signal.SIGTRAP, signal.SIGRTMAX]
for number in numbers:
    signal.signal(number, lambda number, _: heard.append(number))
    print(libc.ptrace(0, 0, None, None))
    signal.raise_signal(number)
print(heard == numbers, libc.ptrace(0, 0, None, None), flush=True)
os.execv('/bin/sh', ['sh', '-c', 'echo became; : > became; exit 3'])
";
    let orphan = "import os, time
if os.fork():
    os._exit(0)
while os.getppid() != 1:
    time.sleep(0.01)
";
    let mut instance = Instance::started();
    for (before, step) in [
        ("", "exec python3 traced.py"),
        // Init has this one only since its parent is gone.
        (
            orphan,
            "python3 traced.py; for _ in $(seq 200); do [ ! -e became ] || exit 3; sleep 0.1; done",
        ),
    ] {
        let project = Project::of(&[step], &["out"], "");
        project.write("traced.py", format!("{before}{traced}"));
        let run = instance.run(&project);
        run.assert_ended(1, json!({"kind": "failed", "step": 0, "exit_code": 3}));
        assert_eq!(run.log, "0\n0\n0\nTrue 0\nbecame\n", "{run}");
    }
}
