//! Builds that take file locks, which no cgroup counts, by the hundred thousand (`hostile/locks.c`).

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use belljar_core::bounds::FILE_LOCKS;
use belljar_tests::{Instance, Project, Run};
use rustix::process::{Pid, Signal, kill_process_group};

/// How they are kept from whom counts: each has to be found.
const MODES: [&str; 6] = ["plain", "spread", "dead", "hop", "thread", "whole"];
/// More than a build may hold.
const MANY: u64 = FILE_LOCKS + FILE_LOCKS / 2;
/// Not more.
const FEW: u64 = FILE_LOCKS / 10 * 6;

fn compile(place: &Path) {
    let compiled = Command::new("cc")
        .args(["-O2", "-pthread", "-o"])
        .arg(place.join("locks"))
        .arg(crate::sources().join("locks.c"))
        .status();
    assert!(compiled.unwrap().success());
}

/// The program outside, and all that it has started.
struct Outside {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Outside {
    /// Begins when it has taken its locks.
    fn holding(place: &Path, mode: &str, number: u64, seconds: u32) -> Self {
        let mut child = Command::new("./locks")
            .args([mode, &number.to_string(), &seconds.to_string()])
            .current_dir(place)
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut outside = Self { child, said };
        assert_eq!(outside.line(), format!("took {number}\n"), "{mode}");
        outside
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        // One of them is always there, whoever has ended: the child is not waited for yet.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn inside(instance: &mut Instance, mode: &str, number: u64, seconds: u32) -> Run {
    let script = format!(
        "cc -O2 -pthread -o /tmp/locks locks.c && cd /tmp && ./locks {mode} {number} {seconds}; echo done > /build/out"
    );
    let project = Project::of(&[&script], &["out"], "[limits]\nwall_seconds = 120");
    project.write("locks.c", crate::source("locks.c"));
    instance.run(&project)
}

#[test]
fn more_file_locks_than_a_build_may_hold_end_it_however_they_are_held() {
    let place = tempfile::tempdir().unwrap();
    compile(place.path());
    let mut instance = Instance::started();
    for mode in MODES {
        let mut control = Outside::holding(place.path(), mode, MANY, 0);
        assert_eq!(control.line(), "held\n", "{mode}");
        drop(control);
        let run = inside(&mut instance, mode, MANY, 100);
        // One lock for each open file: there are too many of both, and whichever is found first ends it.
        let limit = match run.outcome()["limit"].as_str() {
            Some("open_files") if mode == "whole" => "open_files",
            _ => "file_locks",
        };
        run.assert_limit_exceeded(limit, FILE_LOCKS);
        assert!(!run.log.contains("held"), "{mode}: {run}");
        assert_eq!(run.receipt()["outcome"], *run.outcome(), "{run}");
        let summary = run.json["summary"].as_str().unwrap();
        let words = " of 100 000 ";
        assert!(summary.contains(words), "{mode}: {run}");
        assert!(summary.ends_with(&format!("({limit})")), "{mode}: {run}");
    }
}

#[test]
fn who_holds_fewer_is_not_disturbed_however_many_others_hold() {
    let place = tempfile::tempdir().unwrap();
    compile(place.path());
    let mut instance = Instance::started();
    let mut other = Outside::holding(place.path(), "plain", MANY, 600);
    for mode in ["plain", "hop", "thread"] {
        let run = inside(&mut instance, mode, FEW, 6);
        run.assert_succeeded();
        assert_eq!(run.log, format!("took {FEW}\nheld\n"), "{mode}: {run}");
    }
    // Those of the other were there all the time: it was counted.
    assert_eq!(other.child.try_wait().unwrap(), None);
    let held = std::fs::read_to_string("/sys/kernel/slab/file_lock_cache/total_objects").unwrap();
    let held: u64 = held.split_whitespace().next().unwrap().parse().unwrap();
    assert!(held > FILE_LOCKS, "{held}");
}

/// Known, and said in SECURITY.md: what eventfd(2) gives has one inode on the whole machine, and no filter sees which
/// descriptor a lock is for. Whoever shuts it changes both.
#[test]
fn locks_on_what_has_no_file_still_tell_between_builds() {
    let mut instance = Instance::started();
    let project = |role: &str, seconds: u32| {
        let script = format!(
            "cc -O2 -o /tmp/channel channel.c; /tmp/channel {role} {seconds}; echo done > out"
        );
        let project = Project::of(&[&script], &["out"], "[limits]\nwall_seconds = 120");
        project.write("channel.c", crate::source("channel.c"));
        project
    };
    let sending = project("send", 30);
    let sender = instance.begin(&sending);
    let run = instance.run(&project("receive", 15));
    run.assert_succeeded();
    instance.finish(sender).assert_succeeded();
    let words = run.log.split_whitespace().nth(1).map(str::parse::<u64>);
    assert!(matches!(words, Some(Ok(1..))), "{run}");
    assert!(run.log.contains(" 0 wrong"), "{run}");
    println!("{}", run.log);
}
