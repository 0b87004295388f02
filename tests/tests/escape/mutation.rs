//! Whether the suite would notice: each containment step is left out in turn, and what turns red is compared
//! with the table below, which is SECURITY.md's.
//!
//! Two runs for each step. In the first one only that step is left out: what the barrier sees (self-probes,
//! read-back) must refuse the sandbox, or the step is one that cannot be seen there. In the second one the
//! barrier is left out too, so that the hostile programs get to run.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use belljar_tests::{Instance, Part, Project, wait_for};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::doors::CASES;
use crate::outside::{Outside, verdicts};

/// What is left out together with a step in the second run.
const BARRIER: [&str; 2] = ["self-probe", "read-back"];
/// What the spawner has open, and nobody else may have: its lock on the ids of this host.
const LOCK: &str = "/run/belljar-ids/";

/// What comes of a sandbox that lacks one step.
struct Row {
    step: &'static str,
    /// Words of the refusal at the barrier; none if it cannot see that the step is missing.
    barrier: Option<&'static str>,
    /// Cases that turn red without the barrier; [`NO_BUILD`] alone if no build comes of it at all.
    red: &'static [&'static str],
}

/// No build can run without the step.
const NO_BUILD: &str = "no build runs";
/// Looked at from outside: init has descriptors that are not for it.
const INIT_DESCRIPTORS: &str = "init-descriptors";
/// Looked at from outside: the sandbox is still there when its spawner has been killed.
const OUTLIVES: &str = "outlives-spawner";

const fn row(
    step: &'static str,
    barrier: Option<&'static str>,
    red: &'static [&'static str],
) -> Row {
    Row { step, barrier, red }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("cgroup", Some("there is no cgroup to begin in"), &[NO_BUILD]),
    row("namespaces", Some("there is no sandbox to place"), &[NO_BUILD]),
    row("placement", Some("it took too long"), &[NO_BUILD]),
    row("descriptors", None, &[INIT_DESCRIPTORS]),
    row("network", Some("it was possible to reach a network"), &["network-interfaces", "route-out", "shares-network-namespace", "tcp-host-loopback", "tcp6-host-loopback", "udp-host-loopback", "unix-abstract-host"]),
    row("cgroup root", Some("cgroup is not an own one"), &["shares-cgroup-namespace"]),
    row("host name", None, &["host-name"]),
    row("root file system", Some("`devices` failed"), &[NO_BUILD]),
    row("devices", Some("`work space` failed"), &[NO_BUILD]),
    row("work space", Some("/build is not an overlay of its own"), &[NO_BUILD]),
    row("proc", None, &["oom-score", "proc-cmdline", "proc-kallsyms", "proc-keys", "proc-slabinfo"]),
    row("pivot", Some("`Landlock` failed"), &[NO_BUILD]),
    row("session", None, &["session-of-outside"]),
    row("signals", None, &["signals-of-outside"]),
    row("limits", None, &["core-dumps"]),
    row("user namespace", Some("`capabilities` failed"), &[NO_BUILD]),
    row("ids", Some("all four are due to be the build's"), &["identity-of-outside"]),
    row("bound to the spawner", None, &[OUTLIVES]),
    row("capabilities", Some("it was possible to become user 0"), &["bounding-set"]),
    row("no new privileges", Some("`Landlock` failed"), &[NO_BUILD]),
    row("Landlock", Some("it was possible to read a file without a Landlock rule"), &["mknod-block", "mknod-null", "mknod-whiteout", "mknod-whiteout-in-sources", "var-lib"]),
    row("seccomp", Some("it was possible to set up io_uring"), &["add-key", "flow-label", "io-uring", "perf-event", "socket-vsock", "tiocsti", "unshare-user"]),
    row("self-probe", Some("only 0 self-probes were told"), &[]),
    row("read-back", Some("nothing was read back"), &[]),
];

/// What turned red when `without` were left out.
fn red(without: &[&str]) -> (BTreeSet<String>, String) {
    let mut instance = Instance::started_without(without);
    let outside = Outside::new(instance.state());
    let run = instance.run(&outside.compiled_project());
    let shut = verdicts(&run.log);
    let differs = |case: &&crate::doors::Case| {
        let verdict = shut.get(case.name);
        !verdict.is_some_and(|verdict| case.is_refused_as_due(verdict))
    };
    let mut red: BTreeSet<String> = CASES
        .iter()
        .filter(differs)
        .map(|case| case.name.to_owned())
        .collect();
    if !CASES.iter().any(|case| shut.contains_key(case.name)) {
        red = BTreeSet::from([NO_BUILD.to_owned()]);
    } else {
        red.extend(from_outside(&mut instance));
    }
    (red, run.to_string())
}

/// What is looked at from outside while a build runs, and after its spawner was killed.
fn from_outside(instance: &mut Instance) -> Vec<String> {
    let mut red = Vec::new();
    let script = "echo neighbour-lives; sleep 60";
    let limits = "[limits]\nwall_seconds = 90\ngrace_seconds = 1";
    let project = Project::of(&[script], &["out"], limits);
    let running = instance.begin(&project);
    instance.wait_until_logged("neighbour-lives");
    let init = wait_for("init", Duration::from_secs(20), || init_of(instance));
    let open = fs::read_dir(format!("/proc/{init}/fd")).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    if links.into_iter().any(|link| link.starts_with(LOCK)) {
        red.push(INIT_DESCRIPTORS.to_owned());
    }
    // It would end by itself when it hears no more from the spawner: one that is stuck cannot.
    freeze(init);
    let lock = keep_lock(instance.pid_of(Part::Spawner));
    instance.kill_part(Part::Spawner);
    let start = std::time::Instant::now();
    let alive = || {
        fs::read_to_string(format!("/proc/{init}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while alive() && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(10));
    }
    if alive() {
        red.push(OUTLIVES.to_owned());
    }
    drop(lock);
    // The real spawner clears away what is left, and gets the build again.
    instance.clear_away();
    running.signal(rustix::process::Signal::INT);
    instance.finish(running);
    red
}

/// Keeps a spawner's lock on its ids beyond its death: else any spawner that starts on this host meanwhile clears
/// away what the dead one has left.
fn keep_lock(spawner: u32) -> OwnedFd {
    let mut open = fs::read_dir(format!("/proc/{spawner}/fd")).unwrap();
    let number = open.find_map(|entry| {
        let path = entry.ok()?.path();
        let is_lock = fs::read_link(&path).ok()?.starts_with(LOCK);
        let number = path.file_name()?.to_str()?.parse().ok()?;
        is_lock.then_some(number)
    });
    let pid = Pid::from_raw(i32::try_from(spawner).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_getfd(process, number.unwrap(), PidfdGetfdFlags::empty()).unwrap()
}

/// Freezes the cgroup of a process, in the v2 tree: what is frozen can still be killed (cgroups(7)).
fn freeze(pid: u32) {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.unwrap();
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let mut groups = roots.iter().map(|root| format!("{root}/{own}"));
    let group = groups.find(|group| fs::write(format!("{group}/cgroup.freeze"), "1").is_ok());
    let events = format!("{}/cgroup.events", group.unwrap());
    wait_for("frozen", Duration::from_secs(20), || {
        let told = fs::read_to_string(&events).unwrap();
        told.contains("frozen 1").then_some(())
    });
}

/// Pid 1 of the sandbox that the instance's spawner has made: its child in another pid namespace.
fn init_of(instance: &Instance) -> Option<u32> {
    let spawner = instance.pid_of(Part::Spawner);
    let children =
        fs::read_to_string(format!("/proc/{spawner}/task/{spawner}/children")).unwrap_or_default();
    let own = fs::read_link("/proc/self/ns/pid").ok();
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        // What has ended and was not reaped has none.
        .find(|pid: &u32| {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            theirs.is_some() && theirs != own
        })
}

fn check(step: &str) {
    let row = ROWS.iter().find(|row| row.step == step);
    let row = row.unwrap_or_else(|| panic!("`{step}` has no row"));
    let mut instance = Instance::started_without(&[step]);
    let run = instance.run(&Project::script("echo x > out"));
    instance.clear_away();
    drop(instance);
    let ended = run.outcome()["why"].as_str();
    match row.barrier {
        Some(words) => assert!(ended.is_some_and(|why| why.contains(words)), "{run}"),
        // What the barrier cannot see is for the second run to find.
        None => assert!(ended.is_none(), "{run}"),
    }
    if BARRIER.contains(&step) {
        return;
    }
    let (red, said) = red(&[step, BARRIER[0], BARRIER[1]]);
    for case in row.red {
        assert!(red.contains(*case), "{case} stays green: {red:?}\n{said}");
    }
}

/// The table as SECURITY.md has it.
fn written() -> String {
    let rows = ROWS.iter().map(|row| {
        let barrier = match row.barrier {
            Some(_) if row.red == [NO_BUILD] => "the launch fails",
            Some(words) => words,
            None if row.red == [NO_BUILD] => "the build fails",
            None => "not seen there",
        };
        let red = match row.red {
            [] => "the barrier itself".to_owned(),
            red if red == [NO_BUILD] => NO_BUILD.to_owned(),
            red => red.join(", "),
        };
        format!("| {} | {barrier} | {red} |\n", row.step)
    });
    rows.collect()
}

#[test]
fn the_table_is_security_mds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
    let security = fs::read_to_string(path).unwrap();
    assert!(
        security.contains(&written()),
        "SECURITY.md, \"Each step is needed\", has to have these rows:\n{}",
        written()
    );
}

/// One test for each step, and that none is missing.
macro_rules! steps {
    ($($test:ident: $step:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($step);
            }
        )*

        #[test]
        fn every_step_has_its_row_and_its_test() {
            let steps: Vec<_> = belljar_spawner::STEPS.iter().map(|step| step.name).collect();
            let rows: Vec<_> = ROWS.iter().map(|row| row.step).collect();
            assert_eq!(rows, steps);
            assert_eq!([$($step),*].as_slice(), steps.as_slice());
            for row in ROWS {
                let known = |case: &&str| {
                    [NO_BUILD, INIT_DESCRIPTORS, OUTLIVES].contains(case)
                        || CASES.iter().any(|known| known.name == *case)
                };
                assert!(row.red.iter().all(known), "{}", row.step);
                assert!(!row.red.is_empty() || BARRIER.contains(&row.step), "{}", row.step);
            }
        }
    };
}

steps! {
    without_the_cgroup: "cgroup",
    without_namespaces: "namespaces",
    without_placement: "placement",
    without_closing_descriptors: "descriptors",
    without_the_network_namespace: "network",
    without_the_cgroup_namespace: "cgroup root",
    without_a_host_name: "host name",
    without_a_root_file_system: "root file system",
    without_devices: "devices",
    without_a_work_space: "work space",
    without_proc: "proc",
    without_pivot: "pivot",
    without_a_session: "session",
    without_resetting_signals: "signals",
    without_limits: "limits",
    without_the_user_namespace: "user namespace",
    without_ids: "ids",
    without_a_bond: "bound to the spawner",
    without_dropping_capabilities: "capabilities",
    without_no_new_privileges: "no new privileges",
    without_landlock: "Landlock",
    without_seccomp: "seccomp",
    without_probes: "self-probe",
    without_reading_back: "read-back",
}
