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
