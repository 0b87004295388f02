//! Builds that want more than they may have, or that do not want to end. When an instance goes, the harness
//! looks for what is left: processes, mounts, cgroups and files.

use std::process::Command;
use std::time::Instant;

use belljar_tests::{Instance, Project};
use serde_json::json;

/// Ignores every signal that can be ignored.
const DEAF: &str = "import os, signal, sys, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
";

fn limited(script: &str, limits: &str) -> Project {
    Project::of(&[script], &["out"], &format!("[limits]\n{limits}"))
}

#[test]
fn a_fork_bomb_stays_in_its_cgroup() {
    // Counts how many children of one parent live at once. The control asks for no more than it has to.
    let count = "import os, signal, sys
children = []
try:
    while len(children) < 300:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
print(len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
";
    let outside = Command::new("python3")
        .args(["-c", count])
        .output()
        .unwrap();
    let counted = String::from_utf8_lossy(&outside.stdout);
    assert_eq!(counted.trim(), "300", "{outside:?}");

    let project = limited(
        "python3 count.py > out; bomb() { bomb | bomb & }; bomb & exec python3 -c 'import time; time.sleep(1)'",
        "pids = 64",
    );
    project.write("count.py", count);
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    let inside: u32 = String::from_utf8(run.file("out"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        (1..64).contains(&inside),
        "{inside} children beside a limit of 64"
    );
    assert!(
        run.log.contains("fork"),
        "the bomb has met its limit\n{run}"
    );
}

#[test]
fn a_memory_hog_is_killed_for_it() {
    let hog = "blocks = []
for _ in range(24):
    blocks.append(bytearray(b'x') * (8 << 20))
print('had it all')
";
    let outside = Command::new("python3").args(["-c", hog]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&outside.stdout).trim(),
        "had it all"
    );

    let project = limited("python3 hog.py; echo on > out", "memory_bytes = 134217728");
    project.write("hog.py", hog);
    let run = Instance::new().run(&project);
    assert!(!run.log.contains("had it all"), "{run}");
    run.assert_limit_exceeded("memory", 134_217_728);
}

#[test]
fn scratch_space_ends() {
    // 32 MiB and 2,000 inodes, in each place that a build may write to.
    let project = limited(
        "for place in /build /tmp /home/build /dev/shm; do
            if head -c 64M /dev/zero > $place/big; then echo $place took it all; fi
            rm -f $place/big
         done
         mkdir /tmp/many
         if python3 -c 'for n in range(3000): open(f\"/tmp/many/{n}\", \"w\").close()'; then echo all files; fi
         rm -rf /tmp/many
         echo done > out",
        "scratch_bytes = 33554432\nscratch_inodes = 2000",
    );
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    assert!(
        !run.log.contains("took it all") && !run.log.contains("all files"),
        "{run}"
    );
    assert_eq!(
        run.log.matches("No space left on device").count(),
        5,
        "{run}"
    );
}

#[test]
fn a_build_that_ignores_every_signal_ends_at_its_time() {
    let project = limited(
        "exec python3 deaf.py",
        "wall_seconds = 1\ngrace_seconds = 1",
    );
    project.write("deaf.py", format!("{DEAF}time.sleep(600)\n"));
    let begun = Instant::now();
    let run = Instance::new().run(&project);
    run.assert_ended(3, json!({"kind": "timed_out", "wall_seconds": 1}));
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

/// Writes to the output as long as it lives; in a session of its own, child of nobody, deaf.
const SURVIVOR: &str = "if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open('ready', 'w').close()
end = time.time() + 60
while time.time() < end and not os.path.exists('enough'):
    with open('out', 'a') as out:
        out.write('survivor\\n')
    time.sleep(0.001)
";

#[test]
fn a_survivor_does_not_outlive_its_build() {
    let script =
        "echo first > out; python3 survivor.py & while [ ! -e ready ]; do sleep 0.01; done";
    let project = limited(script, "wall_seconds = 30");
    project.write("survivor.py", format!("{DEAF}{SURVIVOR}"));

    // Outside it goes on after the script that has started it.
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(
        project.path().join("survivor.py"),
        place.path().join("survivor.py"),
    )
    .unwrap();
    let shell = Command::new("sh")
        .args(["-c", script])
        .current_dir(place.path())
        .status();
    assert!(shell.unwrap().success());
    let size = || std::fs::metadata(place.path().join("out")).unwrap().len();
    let before = size();
    belljar_tests::wait_for(
        "the survivor to write",
        std::time::Duration::from_secs(10),
        || (size() > before).then_some(()),
    );
    std::fs::write(place.path().join("enough"), "").unwrap();

    let mut instance = Instance::new();
    let run = instance.run(&project);
    run.assert_succeeded();
    // What was collected is what was hashed: a write in between would have broken the verification above.
    assert!(run.file("out").starts_with(b"first\n"), "{run}");
    let left = Command::new("pgrep")
        .args(["-f", "^python3 survivor.py$"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "a survivor");
}

#[test]
fn killing_everybody_kills_nobody_else() {
    let run = Instance::new().run(&Project::of(
        &[
            "sleep 100 & kill -KILL -1; wait || true; echo one > out",
            "echo two >> out",
        ],
        &["out"],
        "",
    ));
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"one\ntwo\n");
}

#[test]
fn descriptors_in_flight_do_not_hold_anything_open() {
    // Each pair of sockets lies in its own queue, with the log and an output: only the kernel's garbage
    // collector can close them, after everybody is dead.
    let project = Project::script("python3 cycle.py");
    project.write(
        "cycle.py",
        "import array, os, socket
out = os.open('out', os.O_RDWR | os.O_CREAT)
for _ in range(100):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for x, y in ((a, b), (b, a)):
        descriptors = array.array('i', [x.fileno(), y.fileno(), 1, out])
        x.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
os.write(out, b'done\\n')
",
    );
    let begun = Instant::now();
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn asynchronous_io_that_all_share_is_not_to_be_had() {
    // fs.aio-max-nr bounds the whole machine: one build could leave nothing to others.
    let source = "#include <stdio.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
    unsigned long context = 0;
    long result = syscall(SYS_io_setup, 8, &context);
    printf(\"%ld %d\\n\", result, result ? errno : 0);
}
";
    let place = tempfile::tempdir().unwrap();
    let (file, program) = (place.path().join("aio.c"), place.path().join("aio"));
    std::fs::write(&file, source).unwrap();
    assert!(
        Command::new("cc")
            .arg("-o")
            .arg(&program)
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(Command::new(&program).output().unwrap().stdout, b"0 0\n");

    let project = Project::script("cc -o /tmp/aio aio.c && /tmp/aio > out");
    project.write("aio.c", source);
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"-1 38\n");
}

#[test]
fn sockets_count_as_memory() {
    // Each may hold more than 208 KiB: 484 at least are too many for 128 MiB, 100 are not.
    let script = "python3 -c 'import socket, time
kept = [socket.socket() for _ in range(COUNT)]
time.sleep(2)
print(len(kept), \"kept\")'; echo done > out";
    let run = |count: u32| {
        let script = script.replace("COUNT", &count.to_string());
        Instance::new().run(&limited(&script, "memory_bytes = 134217728"))
    };
    let few = run(100);
    few.assert_succeeded();
    assert_eq!(few.log, "100 kept\n", "{few}");
    let many = run(1000);
    assert_eq!(many.log, "", "{many}");
    many.assert_limit_exceeded("memory", 134_217_728);
}

#[test]
fn what_waits_in_tcp_counts_as_memory() {
    // Little of it would be seen by its sockets alone: they are few, and their buffers grow.
    let fill = "import socket, time
listening = socket.create_server((\"127.0.0.1\", 0))
kept, sent = [listening], 0
for _ in range(100):
    a = socket.create_connection(listening.getsockname())
    b, _ = listening.accept()
    a.setblocking(False)
    kept += [a, b]
    try:
        while sent < 256 << 20:
            sent += a.send(bytes(65536))
    except BlockingIOError:
        pass
print(sent)
";
    let outside = Command::new("python3").args(["-c", fill]).output().unwrap();
    let sent = |log: &str| log.trim().parse::<u64>().unwrap_or(0);
    let outside = sent(&String::from_utf8_lossy(&outside.stdout));
    assert!(outside >= 192 << 20, "{outside} bytes outside");

    let project = limited(
        "python3 fill.py; echo done > out",
        "memory_bytes = 134217728",
    );
    project.write("fill.py", fill);
    let run = Instance::new().run(&project);
    // Each socket may go on by a little where the limit is reached: outside, twice as much waits.
    assert!(sent(&run.log) < 160 << 20, "{run}");
}
