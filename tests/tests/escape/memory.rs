//! What the kernel keeps for a build is counted by its cgroup, or refused, or little (`hostile/memory.c`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use belljar_core::bounds::OPEN_FILES;
use belljar_tests::{Instance, Project, Run};

/// What comes of a wish for many of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// They are given, and counted: each as so many bytes at least.
    Counted(u64),
    /// They are given up to a number, by what is said here.
    Bounded(&'static str),
    /// None is given.
    Refused,
}

use Comes::{Bounded, Counted, Refused};

/// By [`OPEN_FILES`].
const AS_FILES: &str = "100 000 open files";
/// By the receive buffers that they might fill.
const AS_SOCKETS: &str = "sockets count as memory, each as a whole receive buffer";
/// By `RLIMIT_SIGPENDING`.
const AS_SIGNALS: &str = "16 384 pending signals";

/// Everything that a program can have the kernel keep, how many are asked for, what comes of it.
const KINDS: &[(&str, u64, Comes)] = &[
    ("epoll", 90_000, Bounded(AS_FILES)),
    ("eventfd", 90_000, Bounded(AS_FILES)),
    ("timerfd", 90_000, Bounded(AS_FILES)),
    ("signalfd", 90_000, Bounded(AS_FILES)),
    ("descriptor-owners", 90_000, Bounded(AS_FILES)),
    ("proc-files", 90_000, Counted(4096)),
    ("epoll-items", 2_000_000, Counted(128)),
    ("inotify-watches", 100_000, Counted(600)),
    ("dnotify", 90_000, Counted(600)),
    ("pipes", 16_000, Counted(4096)),
    ("posix-timers", 100_000, Bounded(AS_SIGNALS)),
    ("signals", 100_000, Bounded(AS_SIGNALS)),
    ("sysv-messages", 100_000, Counted(4000)),
    ("sysv-semaphores", 30_000, Counted(8000)),
    ("sysv-undo", 20_000, Counted(8000)),
    ("sysv-memory", 4000, Counted(600)),
    ("extended-attributes", 100_000, Counted(4000)),
    ("page-tables", 100_000, Counted(4000)),
    ("mappings", 600_000, Counted(192)),
    ("memory-policies", 600_000, Refused),
    ("mapping-names", 600_000, Refused),
    (
        "descriptors-in-flight",
        100_000,
        Bounded("65 536 descriptors"),
    ),
    (
        "closed-connections",
        100_000,
        Bounded("tcp_max_tw_buckets of its own network, and a minute"),
    ),
    ("multicast-groups", 100_000, Bounded(AS_SOCKETS)),
    ("absent-names", 600_000, Counted(192)),
    ("inodes", 600_000, Counted(800)),
    ("processes", 500, Counted(16_384)),
];

/// The kinds of which each is an open file.
const OPENED: &[&str] = &[
    "epoll",
    "eventfd",
    "timerfd",
    "signalfd",
    "descriptor-owners",
    "proc-files",
    "dnotify",
];
/// What may be uncounted, in bytes.
const LITTLE: u64 = 64 << 20;
/// What it may be beside that for each open file, in bytes: the spawner looks at each in `/proc` for its locks, which
/// leaves an inode and a name there (some 870 bytes on 6.18) until the kernel wants that memory or the process has ended.
const LOOKED_AT: u64 = 1024;
/// How often it is looked again where others may have done it: memory of the whole machine is what is compared.
const TRIES: usize = 3;
/// As long as the kernel gives back what the one before had, it has less after this time.
const SETTLED: Duration = Duration::from_millis(150);
/// By how much less, in bytes, at least.
const GIVEN_BACK: u64 = 1 << 20;
/// How long a build holds what it has taken, in seconds: it is looked at some eight times meanwhile.
const HELD: &str = "0.5";

/// Gives the program.
fn compile(place: &Path) -> PathBuf {
    let program = place.join("memory");
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(&program)
        .arg(crate::sources().join("memory.c"))
        .status();
    assert!(compiled.unwrap().success());
    program
}

/// The kernel's own memory on the whole machine, in bytes: of each of its caches, and tables and stacks.
fn on_machine() -> BTreeMap<String, u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let number = |text: Option<&str>| text.unwrap().parse::<u64>().unwrap();
    let slabs = read("/proc/slabinfo");
    let mut all: BTreeMap<_, _> = slabs
        .lines()
        .skip(2)
        .map(|line| {
            let mut fields = line.split_whitespace();
            let name = fields.next().unwrap().to_owned();
            let active = number(fields.next());
            (name, active * number(fields.nth(1)))
        })
        .collect();
    for line in read("/proc/meminfo").lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap();
        if ["PageTables:", "KernelStack:"].contains(&name) {
            all.insert(name.to_owned(), number(fields.next()) * 1024);
        }
    }
    all
}

/// The same, once the kernel has given back what others had.
fn on_settled_machine() -> BTreeMap<String, u64> {
    let bytes = |all: &BTreeMap<String, u64>| all.values().sum::<u64>();
    let mut before = on_machine();
    loop {
        std::thread::sleep(SETTLED);
        let now = on_machine();
        if bytes(&now) + GIVEN_BACK > bytes(&before) {
            return now;
        }
        before = now;
    }
}

/// What was seen while a build held what it had taken, in bytes.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The most that its cgroup counted.
    counted: u64,
    /// The least that the kernel had beyond it: what others have passes.
    uncounted: u64,
}

/// The program inside, as it was compiled outside; it holds what it has taken for a while, and tells of it under a
/// name.
fn project(program: &Path, kind: &str, number: u64, name: &str) -> Project {
    let script = format!(
        "mkdir /tmp/in && cd /tmp/in && /build/memory {kind} {number} {HELD} {name}; echo done > /build/out"
    );
    let limits = "[limits]\nmemory_bytes = 2147483648\nwall_seconds = 120\npids = 2000";
    let project = Project::of(&[&script], &["out"], limits);
    fs::copy(program, project.path().join("memory")).unwrap();
    project
}

/// Runs a build, and looks what the kernel has while it holds what it has taken. Where it never came to that, nothing
/// is seen.
fn seen(instance: &mut Instance, project: &Project, name: &str) -> (Run, Option<Seen>) {
    let (before, counted) = (on_settled_machine(), instance.kernel_memory());
    let mut running = instance.begin(project);
    let (took, held) = (format!("{name} took"), format!("{name} held"));
    let mut seen = None;
    while !running.has_ended() && !instance.has_logged(&held) {
        if instance.has_logged(&took) {
            let (now, counted) = (on_machine(), counted());
            // Else it had been let go while it was looked at.
            if !instance.has_logged(&held) {
                let grown = now.iter().map(|(name, bytes)| {
                    let before = before.get(name).copied().unwrap_or_default();
                    bytes.saturating_sub(before)
                });
                let uncounted = grown.sum::<u64>().saturating_sub(counted);
                let least = |seen: Seen| Seen {
                    counted: seen.counted.max(counted),
                    uncounted: seen.uncounted.min(uncounted),
                };
                let now = Seen { counted, uncounted };
                seen = Some(seen.map_or(now, least));
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    (instance.finish(running), seen)
}

/// How many the program says that it got.
fn taken(log: &str) -> Option<u64> {
    let (_, rest) = log.split_once(" took ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What may be uncounted where so many of a kind have been taken, in bytes.
fn allowed(kind: &str, taken: Option<u64>) -> u64 {
    let files = taken.filter(|_| OPENED.contains(&kind)).unwrap_or_default();
    LITTLE + files * LOOKED_AT
}

/// The program outside, with little; in an IPC namespace of its own, since what it makes there would stay.
fn outside(program: &Path, kind: &str, number: u64) -> Option<u64> {
    // Where files can have attributes as large as inside.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let control = Command::new("unshare")
        .arg("--ipc")
        .arg(program)
        .args([kind, &number.to_string(), "0"])
        .current_dir(place.path())
        .output()
        .unwrap();
    taken(&String::from_utf8_lossy(&control.stdout))
}

#[test]
fn what_the_kernel_keeps_for_a_build_is_counted_or_little() {
    let place = tempfile::tempdir().unwrap();
    let program = compile(place.path());
    let mut instance = Instance::started();
    let mut wrong = Vec::new();
    for (kind, number, comes) in KINDS {
        let outside = outside(&program, kind, 10);
        // Names of mappings are not built into every kernel.
        let there = outside == Some(10) || (*kind == "mapping-names" && outside == Some(0));
        assert!(there, "{kind}: {outside:?}");
        let mut tries = Vec::new();
        let (run, last) = loop {
            let name = format!("{kind}.{}", tries.len());
            let project = project(&program, kind, *number, &name);
            let (run, seen) = seen(&mut instance, &project, &name);
            tries.push(seen);
            let most = allowed(kind, taken(&run.log));
            // One that held it to its end has to have been looked at.
            let again = seen.map_or(run.log.contains(" held"), |seen| seen.uncounted > most);
            if !again || tries.len() == TRIES {
                break (run, seen);
            }
        };
        let got = taken(&run.log);
        println!("{kind}: {got:?} taken, {last:?}");
        let as_due = match (comes, last) {
            (Refused, _) => got == Some(0),
            (Counted(each), Some(seen)) => {
                got.is_some_and(|got| got >= number / 2 && seen.counted >= got * each)
            }
            (Bounded(_), Some(_)) => got.is_some_and(|got| got > 0),
            // More than there may be has ended it.
            (Bounded(_), None) => run.outcome()["kind"] == "limit_exceeded",
            (Counted(_), None) => false,
        };
        if !as_due || last.is_some_and(|seen| seen.uncounted > allowed(kind, got)) {
            let outcome = &run.outcome()["kind"];
            wrong.push(format!(
                "{kind}: {got:?} taken, {tries:?}, {outcome}, {}",
                run.log
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn more_files_than_a_build_may_have_open_end_it_and_fewer_do_not() {
    let place = tempfile::tempdir().unwrap();
    let program = compile(place.path());
    let mut instance = Instance::started();
    let (many, few) = (OPEN_FILES + OPEN_FILES / 4, OPEN_FILES / 2);
    let (many_words, few_words) = (many.to_string(), few.to_string());
    let mut other = Command::new(&program)
        .args(["eventfd", &many_words, "3600"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Who has more outside, and fewer inside beside it.
    let mut line = String::new();
    let said = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line).unwrap();
    assert_eq!(line.trim(), format!("eventfd took {many}"));
    let run = instance.run(&project(&program, "eventfd", few, "few"));
    other.kill().unwrap();
    other.wait().unwrap();
    run.assert_succeeded();
    assert_eq!(
        run.log.trim(),
        format!("few took {few_words} \nfew held"),
        "{run}"
    );

    let script = project(&program, "eventfd", many, "many");
    let run = instance.run(&script);
    run.assert_limit_exceeded("open_files", OPEN_FILES);
    assert!(!run.log.contains("held"), "{run}");
    let summary = run.json["summary"].as_str().unwrap();
    assert!(
        summary.contains(" of 100 000 open files at once (open_files)"),
        "{run}"
    );
}

/// The table as SECURITY.md has it.
#[test]
fn the_table_of_kernel_memory_is_security_mds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
    let security = fs::read_to_string(path).unwrap();
    let rows = KINDS.iter().map(|(kind, _, comes)| {
        let comes = match comes {
            Counted(_) => "counted".to_owned(),
            Bounded(by) => format!("bounded: {by}"),
            Refused => "refused".to_owned(),
        };
        format!("| {kind} | {comes} |\n")
    });
    let rows: String = rows.collect();
    assert!(
        security.contains(&rows),
        "SECURITY.md, \"What is not defended\", has to have these rows:\n{rows}"
    );
}
