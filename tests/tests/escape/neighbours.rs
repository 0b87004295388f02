//! Two builds that want to meet: at once, or one after the other.

use std::path::Path;
use std::process::{Command, Stdio};

use belljar_tests::{Instance, Project, Run};

/// Leaves a sign wherever another could see it and looks for the other's for some seconds. Prints the ways
/// on which it has seen something.
const MEET: &str = r#"
import ctypes, os, socket, sys, time
me, other, key = sys.argv[1], sys.argv[2], int(sys.argv[3])
shared = sys.argv[4:]
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
keep, seen = [], set()
name = lambda who: f'belljar-meet-{key}-{who}'

# Signs.
segment = libc.shmget(key + (me == 'b'), 64, 0o1600)
queue = libc.mq_open(('/' + name(me)).encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
abstract = socket.socket(socket.AF_UNIX); abstract.bind('\0' + name(me)); abstract.listen()
tcp = socket.socket(); tcp.bind(('127.0.0.1', key % 20000 + 20000 + (me == 'b'))); tcp.listen()
for directory in shared:
    open(f'{directory}/{name(me)}', 'w').close()
    s = socket.socket(socket.AF_UNIX); s.bind(f'{directory}/{name(me)}.socket'); s.listen(); keep.append(s)

# Looks.
def connects(family, address):
    s = socket.socket(family)
    try:
        s.connect(address)
        return True
    except OSError:
        return False
    finally:
        s.close()

end = time.time() + 4
while time.time() < end and len(seen) < 4 + 2 * len(shared):
    if libc.shmget(key + (other == 'b'), 64, 0) != -1:
        seen.add('sysv-shm')
    if libc.mq_open(('/' + name(other)).encode(), os.O_RDWR) != -1:
        seen.add('posix-mq')
    if connects(socket.AF_UNIX, '\0' + name(other)):
        seen.add('abstract')
    if connects(socket.AF_INET, ('127.0.0.1', key % 20000 + 20000 + (other == 'b'))):
        seen.add('tcp')
    for directory in shared:
        if os.path.exists(f'{directory}/{name(other)}'):
            seen.add('file ' + directory)
        if connects(socket.AF_UNIX, f'{directory}/{name(other)}.socket'):
            seen.add('socket ' + directory)
    time.sleep(0.02)
# The other may not have seen everything yet.
time.sleep(1)
print('seen:', *sorted(seen), sep='\n')
libc.shmctl(segment, 0, None)
libc.mq_unlink(('/' + name(me)).encode())
for directory in shared:
    for file in (name(me), name(me) + '.socket'):
        os.unlink(f'{directory}/{file}')
"#;

fn meet_outside(place: &Path, key: &str) -> [String; 2] {
    std::fs::write(place.join("meet.py"), MEET).unwrap();
    let start = |me: &str, other: &str| {
        Command::new("python3")
            .args(["meet.py", me, other, key, ".", "/dev/shm"])
            .current_dir(place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = [start("a", "b"), start("b", "a")];
    both.map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
}

#[test]
fn two_builds_at_once_do_not_meet() {
    let place = tempfile::tempdir().unwrap();
    let key = (std::process::id() % 1_000_000 * 2 + 0x1000_0000).to_string();
    for seen in meet_outside(place.path(), &key) {
        for way in [
            "sysv-shm",
            "posix-mq",
            "abstract",
            "tcp",
            "file .",
            "socket .",
            "file /dev/shm",
            "socket /dev/shm",
        ] {
            assert!(
                seen.lines().any(|line| line == way),
                "{way} must be seen outside: {seen}"
            );
        }
    }

    let mut instance = Instance::started();
    let project = |me: &str, other: &str| {
        let script = format!(
            "date +%s.%N > out; python3 meet.py {me} {other} {key} . /tmp /home/build /dev/shm; date +%s.%N >> out"
        );
        let project = Project::script(&script);
        project.write("meet.py", MEET);
        project
    };
    let projects = [project("a", "b"), project("b", "a")];
    let both = projects.each_ref().map(|project| instance.begin(project));
    let runs = both.map(|running| instance.finish(running));
    for run in &runs {
        run.assert_succeeded();
        assert_eq!(run.log, "seen:\n", "{run}");
    }
    let [a, b] = runs.each_ref().map(times);
    assert!(
        a.0 < b.1 && b.0 < a.1,
        "they did not run at once: {a:?} {b:?}"
    );
}

/// When a run of the test above began and ended.
fn times(run: &Run) -> (f64, f64) {
    let text = String::from_utf8(run.file("out")).unwrap();
    let mut lines = text.lines().map(|line| line.parse().unwrap());
    (lines.next().unwrap(), lines.next().unwrap())
}

/// Takes every inotify instance that is to be had, up to 512, and keeps them for a while.
const TAKE_ALL: &str = "import ctypes, time
libc = ctypes.CDLL(None)
taken = 0
while taken < 512 and libc.inotify_init1(0) >= 0:
    taken += 1
time.sleep(3)
print(taken)
";

#[test]
fn one_build_cannot_take_what_is_counted_by_user_from_another() {
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    let limit: u32 = limit.trim().parse().unwrap();
    // The control: of one user two cannot have all of it.
    let start = || {
        Command::new("setpriv")
            .args([
                "--reuid=1870000001",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
            ])
            .arg(TAKE_ALL)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let taken = [start(), start()].map(|child| {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse::<u32>().unwrap()
    });
    let all = limit.min(512);
    if limit < 512 {
        assert!(taken.iter().sum::<u32>() <= limit, "{taken:?} of {limit}");
    }

    let mut instance = Instance::started();
    let project = || {
        let project = Project::script("date +%s.%N > out; python3 take.py; date +%s.%N >> out");
        project.write("take.py", TAKE_ALL);
        project
    };
    let projects = [project(), project()];
    let both = projects.each_ref().map(|project| instance.begin(project));
    let runs = both.map(|running| instance.finish(running));
    for run in &runs {
        run.assert_succeeded();
        assert_eq!(run.log, format!("{all}\n"), "{run}");
    }
    let [a, b] = runs.each_ref().map(times);
    assert!(
        a.0 < b.1 && b.0 < a.1,
        "they did not run at once: {a:?} {b:?}"
    );
}

/// What nsfs has a file of for every process: of those in one namespace the same.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// One locks files that everybody has and looks who opens them, the other opens them and looks for locks.
const SHARED_FILES: &str = r#"
import ctypes, fcntl, os, select, struct, sys, time
files = ['/usr/bin/env', '/dev/null'] + ['/proc/self/ns/' + kind for kind in sys.argv[2].split(',')]
end, seen = time.time() + 4, set()
if sys.argv[1] == 'a':
    kept = [open(file, 'rb') for file in files]
    for file in kept:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    names = {libc.inotify_add_watch(watch, file.encode(), 0x20): file for file in files}
    while time.time() < end:
        if select.select([watch], [], [], 0.1)[0]:
            events = os.read(watch, 65536)
            for at in range(0, len(events), 16):
                seen.add('opened ' + names[struct.unpack_from('i', events, at)[0]])
else:
    while time.time() < end:
        for file in files:
            with open(file, 'rb') as opened:
                try:
                    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    seen.add('locked ' + file)
        try:
            os.utime('/dev/null')
            seen.add('times of /dev/null')
        except OSError:
            pass
        time.sleep(0.02)
print('seen:', *sorted(seen), sep='\n')
"#;

#[test]
fn files_of_the_host_carry_no_locks_and_no_events() {
    let start = |me: &str| {
        Command::new("/usr/bin/python3")
            .args(["-c", SHARED_FILES, me, &NAMESPACES.join(",")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both = ["a", "b"].map(start);
    let [a, b] =
        both.map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap());
    let seen = |how: &str| {
        let namespaces = NAMESPACES.map(|kind| format!("{how} /proc/self/ns/{kind}\n"));
        format!(
            "seen:\n{how} /dev/null\n{}{how} /usr/bin/env\n",
            namespaces.concat()
        )
    };
    assert_eq!(a, seen("opened"));
    assert_eq!(b, seen("locked") + "times of /dev/null\n");

    let mut instance = Instance::started();
    let project = |me: &str| {
        let project = Project::script(&format!(
            "date +%s.%N > out; python3 shared.py {me} {}; date +%s.%N >> out",
            NAMESPACES.join(",")
        ));
        project.write("shared.py", SHARED_FILES);
        project
    };
    let projects = [project("a"), project("b")];
    let both = projects.each_ref().map(|project| instance.begin(project));
    let runs = both.map(|running| instance.finish(running));
    for run in &runs {
        run.assert_succeeded();
        assert_eq!(run.log, "seen:\n", "{run}");
    }
    let [a, b] = runs.each_ref().map(times);
    assert!(
        a.0 < b.1 && b.0 < a.1,
        "they did not run at once: {a:?} {b:?}"
    );
}

#[test]
fn nothing_is_left_for_the_next_build() {
    let mut instance = Instance::started();
    let leave = "for place in /tmp /home/build /dev/shm /build; do echo secret > $place/left; done
        chmod +w source; echo changed > source; echo more >> source; ipcmk -M 4096 -p 0666 > /dev/null; cp source out";
    let look = "cat source; ls -A /tmp /home/build /dev/shm; test ! -e left; ipcs -m | grep -c 0x || true; cp source out";
    let project = |script: &str| {
        let project = Project::script(script);
        project.write("source", "as it was\n");
        project
    };
    let first = instance.run(&project(leave));
    first.assert_succeeded();
    assert_eq!(first.file("out"), b"changed\nmore\n");
    let second = instance.run(&project(look));
    second.assert_succeeded();
    assert_eq!(second.file("out"), b"as it was\n");
    assert_eq!(
        second.log, "as it was\n/dev/shm:\n\n/home/build:\n\n/tmp:\n0\n",
        "{second}"
    );
}

/// Ends with connections that have much to send and are not to send it: nobody has them any more then.
const FORSAKE: &str = r#"
import socket, time
SO_MAX_PACING_RATE, COUNT = 47, 60
listening = socket.create_server(("127.0.0.1", 0))
for _ in range(COUNT):
    a = socket.create_connection(listening.getsockname())
    b, _ = listening.accept()
    a.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 1)
    a.setblocking(False)
    b.setblocking(False)
    try:
        while True:
            a.send(bytes(65536))
    except BlockingIOError:
        pass
    time.sleep(0.002)
    try:
        # With something unread, its end would reset the connection.
        while b.recv(1 << 20):
            pass
    except BlockingIOError:
        pass
    a.close()
    b.close()
"#;

/// Connections of the whole machine, whatever their network, that no process has any more.
fn forsaken() -> u32 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let mut words = text.split_whitespace();
    words.find(|word| *word == "orphan").unwrap();
    words.next().unwrap().parse().unwrap()
}

#[test]
fn connections_end_with_their_build() {
    let before = forsaken();
    let project = Project::script(
        "python3 forsake.py && grep -o 'orphan [0-9]*' /proc/net/sockstat; echo done > out",
    );
    project.write("forsake.py", FORSAKE);
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    let inside = run.log.trim().strip_prefix("orphan ").unwrap().parse();
    assert!(
        inside.is_ok_and(|inside: u32| inside >= before + 50),
        "{run}"
    );
    assert!(forsaken() < before + 30, "{} after {before}", forsaken());

    // Outside, in a network of its own, the kernel keeps them for minutes.
    let up = "import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh14x', b'lo', 0x49))  # SIOCSIFFLAGS";
    let before = forsaken();
    let outside = Command::new("unshare")
        .args(["--net", "python3", "-c", &format!("{up}\n{FORSAKE}")])
        .status();
    assert!(outside.unwrap().success());
    assert!(forsaken() >= before + 50, "{} after {before}", forsaken());
}

#[test]
fn host_user_1000_is_not_the_build() {
    // A listed path of the host in which somebody has a file of his own: the build has the same number inside,
    // and nothing else of him.
    const OF_SOMEBODY: u32 = 1000;
    let place = tempfile::Builder::new()
        .prefix(".belljar-test-")
        .tempdir_in("/usr/local/share")
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), open).unwrap();
    let private = place.path().join("private");
    std::fs::write(&private, "his own\n").unwrap();
    std::fs::set_permissions(
        &private,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    std::os::unix::fs::chown(&private, Some(OF_SOMEBODY), Some(OF_SOMEBODY)).unwrap();
    let script = format!("cat {0} || true; stat -c %u {0} > out", private.display());

    // Outside, that user reads it.
    let outside = Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "cat"])
        .arg(&private)
        .output()
        .unwrap();
    assert_eq!(outside.stdout, b"his own\n");

    let run = Instance::new().run(&Project::script(&script));
    run.assert_succeeded();
    assert!(
        run.log.contains("Permission denied") && !run.log.contains("his own"),
        "{run}"
    );
    assert_eq!(run.file("out"), b"65534\n");
}
