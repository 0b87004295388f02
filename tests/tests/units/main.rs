//! The installed daemon under systemd: `cargo xtask test-vm` installs it in a virtual machine, by README's own
//! commands, and runs these tests there, one after the other. Anywhere else they would stop somebody's daemon.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fetching;

use belljar_tests::{Installed, Part, Project, Running};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The provenance's builder, as the machine's configuration names it.
const BUILDER: &str = "https://vm.example.net/belljar/builders/host-rootfs/v1";

fn limited(script: &str, limit: &str) -> Project {
    Project::of(&[script], &["out"], &format!("[limits]\n{limit}"))
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn doctor_finds_every_layer_enforced() {
    let installed = Installed::here();
    let output = installed.command("doctor --json").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["suffices"], true, "{report:#}");
    assert_eq!(report["daemon"], "/run/belljar/belljard/belljard.sock");
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() >= 9, "{report:#}");
    let all = layers.iter().all(|layer| layer["verdict"] == "enforced");
    assert!(all, "{report:#}");
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_build_goes_through_the_units_and_is_verified() {
    let installed = Installed::here();
    let project = Project::script("cat in > out; cc -o /tmp/x x.c && /tmp/x >> out");
    project.write("in", "from outside\n");
    project.write(
        "x.c",
        "#include <stdio.h>\nint main(void) { puts(\"compiled\"); }\n",
    );
    let run = installed.run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"from outside\ncompiled\n");
    assert_eq!(run.json["daemon"]["embedded"], false, "{run}");
    assert_eq!(
        run.receipt()["enforcement"]["cgroup"]["floor"],
        "v2",
        "{run}"
    );
    let key = installed.command("key public").output().unwrap();
    assert!(key.status.success(), "{key:?}");
    let place = run.output().join("trusted.pub");
    std::fs::write(&place, &key.stdout).unwrap();
    let verify = |builder: &str| {
        let mut command = installed.command("verify");
        command
            .arg(run.output().join("out"))
            .arg("--key")
            .arg(&place);
        command.args(["--builder", builder]).output().unwrap()
    };
    let verified = verify(BUILDER);
    assert!(verified.status.success(), "{verified:?}");
    let lowered = verify(&BUILDER.replace("host-rootfs", "dev"));
    assert_eq!(lowered.status.code(), Some(9), "{lowered:?}");
    installed.assert_nothing_left();
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn whoever_is_not_allowed_is_refused() {
    let place = Project::script("true");
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["/usr/bin/belljar", "key", "public", "--json"])
        .current_dir(place.path().parent().unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

/// Runs builds two at a time, which is as many as the machine has CPUs and the spawner slots.
fn in_pairs<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    for pair in cases.chunks(2) {
        std::thread::scope(|scope| {
            for case in pair {
                scope.spawn(|| run(case));
            }
        });
    }
}

/// A limit of bytes that are written in the log or to outputs, the wall clock, CPU time, memory: reached, the build
/// is ended, with the outcome that names it. (script, limit, exit status, outcome)
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn limits_that_end_a_build_end_it() {
    let installed = Installed::here();
    let exceeded = |limit: &str, figure: u64| json!({"kind": "limit_exceeded", "limit": limit, "figure": figure});
    let with_b = |mut outcome: Value| {
        outcome["output"] = "out/b".into();
        outcome
    };
    let outputs = "mkdir out; head -c 600 /dev/zero > out/a; head -c 600 /dev/zero > out/b";
    let cases = [
        (
            "head -c 300000000 /dev/zero | tail -n 1 > /dev/null; echo survived",
            "memory_bytes = 67108864",
            4,
            exceeded("memory", 67_108_864),
        ),
        (
            "trap '' TERM INT HUP; while :; do sleep 100 || :; done",
            "wall_seconds = 2\ngrace_seconds = 1",
            3,
            json!({"kind": "timed_out", "wall_seconds": 2}),
        ),
        ("yes; :", "log_bytes = 1000", 4, exceeded("log", 1000)),
        (
            "while :; do :; done",
            "cpu_seconds = 1",
            4,
            exceeded("cpu", 1),
        ),
        (
            outputs,
            "output_bytes = 1199",
            4,
            with_b(exceeded("output_bytes", 1199)),
        ),
        (
            outputs,
            "output_entries = 2",
            4,
            with_b(exceeded("output_entries", 2)),
        ),
        // No limit of the specification; and with some of the time that they take here.
        (
            "python3 -c '
import fcntl, os, time
kept = [os.memfd_create(\"locks\") for _ in range(600)]
for fd in kept:
    for n in range(250): fcntl.lockf(fd, fcntl.LOCK_EX, 1, 2 * n)
time.sleep(100)
print(\"survived\")'",
            "wall_seconds = 300",
            4,
            exceeded("file_locks", 100_000),
        ),
        (
            "python3 -c '
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (60000, 60000))
for _ in range(3):
    if os.fork() == 0:
        kept = [os.eventfd(0) for _ in range(50000)]
        time.sleep(100)
time.sleep(100)
print(\"survived\")'",
            "wall_seconds = 300",
            4,
            exceeded("open_files", 100_000),
        ),
    ];
    in_pairs(&cases, |(script, limit, exit_code, outcome)| {
        let run = installed.run(&limited(script, limit));
        let mut outcome = outcome.clone();
        // How much was used when it was looked at, nobody can say in advance.
        if let Some(used) = run.outcome()["used"].as_u64() {
            assert!(used >= outcome["figure"].as_u64().unwrap(), "{run}");
            outcome["used"] = used.into();
        }
        run.assert_ended(*exit_code, outcome);
        assert!(!run.log.contains("survived"), "{run}");
    });
    installed.assert_nothing_left();
}

/// Processes, bytes and files in scratch space: reached, the kernel refuses more, and the build fails by it.
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn limits_that_refuse_a_build_something_refuse_it() {
    let installed = Installed::here();
    // (script, limit, its name in the outcome, what the kernel's refusal is called in the log)
    let cases = [
        (
            "python3 -c '
import os
for n in range(40):
    if os.fork() == 0: os.execvp(\"sleep\", [\"sleep\", \"100\"])'",
            "pids = 20",
            "pids",
            "Resource temporarily unavailable",
        ),
        (
            "head -c 4000000 /dev/zero > big",
            "scratch_bytes = 1048576",
            "scratch_bytes",
            "No space left on device",
        ),
        (
            "i=0; while [ $i -lt 400 ]; do : > f$i; i=$((i+1)); done",
            "scratch_inodes = 100",
            "scratch_inodes",
            "No space left on device",
        ),
    ];
    in_pairs(&cases, |(script, limit, name, said)| {
        let run = installed.run(&limited(script, limit));
        assert_eq!(run.exit_code, 4, "{limit}: {run}");
        assert_eq!(run.outcome()["kind"], "limit_exceeded", "{limit}: {run}");
        assert_eq!(run.outcome()["limit"], *name, "{limit}: {run}");
        assert!(run.log.contains(said), "{limit}: {run}");
    });
    installed.assert_nothing_left();
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_build_is_cancelled() {
    let installed = Installed::here();
    let project =
        Project::script("trap '' INT TERM; echo to be cancelled; while :; do sleep 100 || :; done");
    let mut running = installed.begin(&project);
    installed.wait_until_logged(&mut running, "to be cancelled");
    running.signal(Signal::INT);
    let run = installed.finish(running);
    let due = json!({
        "kind": "cancelled",
        "by": "unix:uid=0",
        "reason": "interrupted at the command line",
    });
    run.assert_ended(6, due);
    installed.assert_nothing_left();
}

/// A fifth of a CPU is a fifth of the time, whoever else works there; and who is killed does not wait for the quota
/// to die, which before Linux 6.18 they do: these processes need some seconds of CPU to do so. Each closes thousands
/// of descriptors of a file on which others hold locks, all of which are gone through each time, and only then the one
/// by which it holds its own.
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_build_gets_its_ration_of_the_cpu_and_is_cancelled_soon_when_that_is_used_up() {
    let installed = Installed::here();
    let script = "python3 -c '
import fcntl, os, resource, time
before, end = time.process_time(), time.monotonic() + 3
while time.monotonic() < end:
    pass
print(\"used\", int((time.process_time() - before) * 1000), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (25000, 25000))
ready, tell = os.pipe()
opened = lambda name: os.open(\"/tmp/\" + name, os.O_RDWR | os.O_CREAT)
for many, one in (\"a\", \"b\"), (\"b\", \"a\"):
    kept = [opened(many)]
    kept += [os.dup(kept[0]) for _ in range(20000)]
    last = opened(one)
    for process in range(4):
        if os.fork() == 0:
            for n in range(400): fcntl.lockf(last, fcntl.LOCK_EX, 1, 2 * (400 * process + n))
            os.write(tell, b\".\")
            time.sleep(1000)
    os.closerange(kept[0], last + 1)
for _ in range(8): os.read(ready, 1)
print(\"its quota is used up\", flush=True)
time.sleep(1000)'";
    let project = limited(script, "cpu_millis = 200\ngrace_seconds = 1");
    let mut running = installed.begin(&project);
    installed.wait_until_logged(&mut running, "its quota is used up");
    let cancelled = std::time::Instant::now();
    running.signal(Signal::INT);
    let run = installed.finish(running);
    let took = cancelled.elapsed();
    assert_eq!(run.outcome()["kind"], "cancelled", "{run}");
    // Beside much other work it was seen to take 10 s here, and 31 s where the quota stays.
    assert!(took < std::time::Duration::from_secs(18), "{took:?}");
    let used = run.log.lines().find_map(|line| line.strip_prefix("used "));
    let used: u32 = used.unwrap_or_else(|| panic!("{run}")).parse().unwrap();
    // And what the kernel hands out ahead.
    assert!((100..1200).contains(&used), "{used} ms of 600 ms");
    installed.assert_nothing_left();
}

/// Builds in whose middle something happens to a process, each one after the other. It takes a moment to reach that:
/// where a build was over by then, as an attempt too few tells, another one is tried that takes longer.
fn interrupted(what: &str, happens: impl Fn(&Installed, Part)) {
    let installed = Installed::here();
    for (part, attempts) in ATTEMPTS {
        let tried = [3, 30].into_iter().find_map(|seconds| {
            let mark = format!("{what}-{}-{seconds}", part.short());
            let script = format!("echo {mark}; sleep {seconds}; echo done > out");
            let project = Project::script(&script);
            let mut running: Running = installed.begin(&project);
            installed.wait_until_logged(&mut running, &mark);
            happens(&installed, part);
            let run = installed.finish(running);
            run.assert_succeeded();
            assert_eq!(run.file("out"), b"done\n");
            installed.assert_nothing_left();
            let attempt = run.json["attempt"].as_u64().unwrap();
            assert!(attempt <= *attempts.end(), "{part:?}: {run}");
            attempts.contains(&attempt).then_some(())
        });
        assert!(
            tried.is_some(),
            "{part:?} was {what}, and no attempt was lost"
        );
    }
}

/// At which attempts the build succeeds that a process was taken from. A store that is not back when the second
/// one begins, half a second later, costs that too; before the third the engine waits for five.
const ATTEMPTS: [(Part, std::ops::RangeInclusive<u64>); 4] = [
    (Part::Belljard, 2..=2),
    (Part::Spawner, 2..=2),
    (Part::Store, 2..=3),
    (Part::Signer, 1..=1),
];

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_killed_process_is_started_again_and_its_build_ends_well() {
    interrupted("killed", Installed::kill);
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_unit_can_be_restarted_in_mid_build() {
    interrupted("restarted", |installed, part| {
        installed.systemctl(&["restart"], part);
    });
}

#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn no_unit_is_more_exposed_than_promised() {
    // Of ten, as systemd-analyze(1) rates the unit that it has loaded.
    for (unit, most) in [
        ("belljar-signer.service", 1.0),
        ("belljar-store.service", 1.5),
        ("belljard.service", 1.5),
        ("belljar-spawner.service", 5.0),
    ] {
        let output = std::process::Command::new("systemd-analyze")
            .args(["security", "--no-pager", unit])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let rating = said
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for "))
            .and_then(|(_, rest)| rest.split_once(": "))
            .and_then(|(_, rating)| rating.split_whitespace().next()?.parse::<f64>().ok());
        let rating = rating.unwrap_or_else(|| panic!("{unit}: {said}"));
        println!("{unit} {rating}");
        assert!(rating <= most, "{unit}: {said}");
    }
}

/// A process in mid-start keeps nobody out: who connects meanwhile waits in the socket, which is systemd's.
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_restart_loses_no_connection() {
    let installed = Installed::here();
    for part in [Part::Store, Part::Signer, Part::Spawner, Part::Belljard] {
        let done = std::sync::atomic::AtomicBool::new(false);
        let connected = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| {
                let mut connected = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    installed.connect(part);
                    connected += 1;
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
                connected
            });
            installed.systemctl(&["restart"], part);
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            connecting.join().unwrap()
        });
        assert!(connected > 0, "{part:?}");
    }
    // One that is stopped is started by who connects.
    installed.systemctl(&["stop"], Part::Belljard);
    let listed = installed.command("list --json").output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    installed.pid_of(Part::Belljard);
}

/// A drop-in of this test's for a unit, which goes with it.
struct DropIn {
    part: Part,
    path: std::path::PathBuf,
}

impl DropIn {
    fn new(installed: &Installed, part: Part, name: &str, text: &str) -> Self {
        let folder = format!("/run/systemd/system/{}.service.d", part.executable());
        std::fs::create_dir_all(&folder).unwrap();
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(&path, text).unwrap();
        let this = Self { part, path };
        this.take_effect(installed);
        this
    }

    fn take_effect(&self, installed: &Installed) {
        let reloaded = std::process::Command::new("systemctl")
            .arg("daemon-reload")
            .status();
        assert!(reloaded.unwrap().success());
        installed.systemctl(&["restart"], self.part);
    }

    fn end(self, installed: &Installed) {
        std::fs::remove_file(&self.path).unwrap();
        self.take_effect(installed);
    }
}

/// Of a process that stands still, systemd notices, and starts it anew.
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_process_that_stands_still_is_started_anew() {
    let installed = Installed::here();
    let watchdog = "[Service]\nWatchdogSec=5s\n";
    let drop_in = DropIn::new(&installed, Part::Signer, "watchdog.conf", watchdog);
    // One that goes on is left alone, though nobody asks it anything.
    let before = installed.pid_of(Part::Signer);
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(installed.pid_of(Part::Signer), before);
    let pid = rustix::process::Pid::from_raw(i32::try_from(before).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    belljar_tests::wait_for("another signer", std::time::Duration::from_secs(30), || {
        (installed.pid_of(Part::Signer) != before).then_some(())
    });
    drop_in.end(&installed);
    installed
        .run(&Project::script("echo done > out"))
        .assert_succeeded();
}

/// The key as a credential that is encrypted on the disk, by the unit's own example.
#[test]
#[ignore = "needs the installed daemon: cargo xtask test-vm"]
fn a_key_from_an_encrypted_credential_signs() {
    let installed = Installed::here();
    let key = || installed.command("key public").output().unwrap().stdout;
    let before = key();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let (file, hidden) = ("/var/lib/belljar/signer/key.pk8", "/root/key.pk8");
    let credential = "/etc/credstore.encrypted/belljar.signer-key";
    run("mkdir", &["-p", "/etc/credstore.encrypted"]);
    run(
        "systemd-creds",
        &[
            "encrypt",
            "--with-key=host",
            "--name=signer-key",
            file,
            credential,
        ],
    );
    std::fs::rename(file, hidden).unwrap();
    let config = "/etc/belljar/signer.toml";
    let written = std::fs::read_to_string(config).unwrap();
    let changed = written
        .replace(
            &format!("key = \"{file}\""),
            "key = \"$CREDENTIALS_DIRECTORY/signer-key\"",
        )
        .replace("generate_key = true", "");
    assert_ne!(changed, written);
    std::fs::write(config, changed).unwrap();
    let example = include_str!("../../../systemd/belljar-signer.service.d/credential.conf.example");
    let drop_in = DropIn::new(&installed, Part::Signer, "credential.conf", example);
    assert_eq!(
        String::from_utf8_lossy(&key()),
        String::from_utf8_lossy(&before)
    );
    installed
        .run(&Project::script("echo done > out"))
        .assert_succeeded();
    // As it was, for whoever comes next.
    std::fs::rename(hidden, file).unwrap();
    std::fs::write(config, written).unwrap();
    drop_in.end(&installed);
    assert_eq!(key(), before);
}
