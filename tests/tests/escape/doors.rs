//! Doors out of the sandbox, one probe each: `hostile/*.c` have what is tried, the table below what must come.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use belljar_tests::{Instance, Project};
use tempfile::TempDir;

use crate::{source, sources};

/// How a probe is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// With this error number.
    Errno(i32),
    /// The call may have been answered, but what was hoped for has not come.
    NoEffect,
    /// The process was killed by seccomp.
    Killed,
}

use By::{Errno, Killed, NoEffect};

const EPERM: By = Errno(1);
const ENOENT: By = Errno(2);
const ESRCH: By = Errno(3);
const EBADF: By = Errno(9);
const EACCES: By = Errno(13);
const EROFS: By = Errno(30);
const ENOSYS: By = Errno(38);
const EAFNOSUPPORT: By = Errno(97);
const ENETUNREACH: By = Errno(101);
const ECONNREFUSED: By = Errno(111);

/// One thing that must not be possible.
struct Case {
    name: &'static str,
    does: &'static str,
    refused: By,
}

const fn case(name: &'static str, does: &'static str, refused: By) -> Case {
    Case {
        name,
        does,
        refused,
    }
}

/// The programs, in the order in which they run.
const PROGRAMS: &[&str] = &["mounts", "kernel", "processes", "files", "sockets"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    // mounts.c
    case("mount-old", "mounts a tmpfs by mount(2)", EPERM),
    case("mount-new", "begins a mount by fsopen(2)", EPERM),
    case("mount-bind", "binds /usr elsewhere", EPERM),
    case("mount-clone-tree", "clones a mount by open_tree(2)", EPERM),
    case("mount-remount-writable", "remounts the read-only /usr writable", EPERM),
    case("mount-setattr-writable", "does so by mount_setattr(2)", EPERM),
    case("unmount", "takes a mount off", EPERM),
    case("pivot-root", "takes another root", EPERM),
    case("chroot", "changes its root directory", EPERM),
    case("unshare-user", "makes a user namespace", EPERM),
    case("unshare-mount", "makes a mount namespace", EPERM),
    case("unshare-pid", "makes a pid namespace", EPERM),
    case("unshare-net", "makes a network namespace", EPERM),
    case("unshare-ipc", "makes an IPC namespace", EPERM),
    case("unshare-uts", "makes a UTS namespace", EPERM),
    case("unshare-cgroup", "makes a cgroup namespace", EPERM),
    case("unshare-time", "makes a time namespace", EPERM),
    case("clone-user", "clones into a user namespace", EPERM),
    case("clone-user-high-bits", "does so with further bits set that the kernel ignores", EPERM),
    case("clone3-user", "does so by clone3(2), whose flags a filter cannot read", ENOSYS),
    case("setns", "enters a namespace", EPERM),
    // kernel.c
    case("io-uring", "sets up an io_uring, which works past seccomp", ENOSYS),
    case("bpf", "makes a BPF map", EPERM),
    case("perf-event", "opens a performance event", EPERM),
    case("userfaultfd", "handles page faults, the favourite of kernel exploits", EPERM),
    case("add-key", "adds a key", EPERM),
    case("join-keyring", "joins a session keyring", EPERM),
    case("request-key", "asks for a key", EPERM),
    case("fanotify", "watches the file system by fanotify", EPERM),
    case("open-by-handle", "opens a file by its handle, past every mount", EPERM),
    case("personality-read-implies-exec", "makes all memory executable", EPERM),
    case("modify-ldt", "reaches the local descriptor table", EPERM),
    case("quotactl", "acts on quotas", EPERM),
    case("sethostname", "changes the host name", EPERM),
    case("setdomainname", "changes the NIS domain", EPERM),
    case("reboot", "reboots, with wrong magic numbers", EPERM),
    case("adjtimex", "sets the clock's frequency to what it is", EPERM),
    case("syslog", "reads the kernel's log", EPERM),
    case("swapon", "swaps on a file that is not there", EPERM),
    case("acct", "writes process accounting to a file that is not there", EPERM),
    case("vhangup", "hangs a terminal up", EPERM),
    case("move-pages", "moves pages between nodes", EPERM),
    case("tiocsti", "types into its terminal", EPERM),
    case("tiocsti-high-bits", "does so with further bits set that the kernel ignores", EPERM),
    case("core-limit", "raises its limit on core dumps", NoEffect),
    case("real-time", "asks for real-time priority", EPERM),
    case("nice", "asks for a better nice value", EACCES),
    case("int-80", "makes a system call of 32-bit programs", Killed),
    case("core-pattern-write", "opens core_pattern for writing", ENOENT),
    case("core-pattern-read", "opens core_pattern for reading", ENOENT),
    case("proc-kallsyms", "reads the kernel's symbols", EACCES),
    case("proc-keys", "reads /proc/keys", EACCES),
    case("dev-kmsg", "reads the kernel's log by its device", ENOENT),
    case("proc-slabinfo", "reads the kernel's allocations", EACCES),
    case("proc-cmdline", "reads the host's kernel command line", EACCES),
    case("proc-1-cmdline", "reads init's command line, which is the spawner's", ENOENT),
    case("sysfs", "looks into /sys", ENOENT),
    case("cgroupfs", "looks into the cgroup file system", ENOENT),
    case("oom-score", "opens its oom_score_adj for writing", EROFS),
    // processes.c
    case("ptrace-seize-init", "traces init", EPERM),
    case("ptrace-attach-init", "attaches to init", EPERM),
    case("proc-init-mem", "opens init's memory", ENOENT),
    case("proc-init-maps", "reads init's mappings", ENOENT),
    case("proc-init-environ", "reads init's environment", ENOENT),
    case("proc-init-fd", "lists init's descriptors", ENOENT),
    case("proc-init-root", "enters init's root", ENOENT),
    case("proc-init-exe", "opens init's program, the spawner", ENOENT),
    case("proc-init-ns", "opens a namespace of init", ENOENT),
    case("process-vm-readv-init", "reads init's memory", EPERM),
    case("process-vm-writev-init", "writes init's memory", EPERM),
    case("pidfd-getfd-init", "takes a descriptor of init", EPERM),
    case("kcmp-init", "compares itself with init", EPERM),
    case("prlimit-init-nofile", "lowers init's limit on descriptors", EPERM),
    case("prlimit-init-core", "sets init's limit on core dumps", EPERM),
    case("kill-init", "kills init", NoEffect),
    case("stop-init", "stops init", NoEffect),
    case("terminate-init", "sends SIGTERM to init", NoEffect),
    case("signal-init-real-time", "sends a real-time signal to init", NoEffect),
    case("see-process-outside", "looks at a process of the host", ENOENT),
    case("signal-process-outside", "signals a process of the host", ESRCH),
    case("inherited-descriptors", "finds a descriptor beyond the standard streams", EBADF),
    case("setuid-zero", "becomes user 0", EPERM),
    case("setgroups", "joins a group", EPERM),
    case("capset", "takes a capability", EPERM),
    case("setuid-program", "gains by a set-user-id program", NoEffect),
    // files.c
    case("read-shadow", "reads the host's passwords", ENOENT),
    case("create-in-usr", "makes a file in /usr", EROFS),
    case("create-in-root", "makes a file in /", EROFS),
    case("create-in-etc", "makes a file in /etc", EROFS),
    case("create-in-dev", "makes a file in /dev", EROFS),
    case("tmpfile-in-usr", "makes a file without a name in /usr", EROFS),
    case("write-setuid-program", "opens a set-user-id program for writing", EACCES),
    case("append-to-program", "opens a program of the host for appending", EACCES),
    case("utimes-in-usr", "sets times of a file of the host", EROFS),
    case("chmod-in-usr", "sets the mode of a file of the host", EROFS),
    case("chown-to-another", "gives a file to another user", EPERM),
    case("file-capability", "gives a file a capability", EPERM),
    case("trusted-overlay-xattr", "sets an attribute that an overlay obeys", EPERM),
    case("immutable-flag", "makes a file immutable, to be in the way of the teardown", EPERM),
    case("mknod-null", "makes a character device", EACCES),
    case("mknod-block", "makes a block device", EACCES),
    case("mknod-whiteout", "makes a whiteout, the device that needs no capability", EACCES),
    case("mknod-whiteout-in-sources", "does so in the overlay", EACCES),
    case("hard-link-in-usr", "links a program of the host", EROFS),
    case("home-of-root", "looks into /root", ENOENT),
    case("var-lib", "looks into /var/lib", EACCES),
    case("dot-dot-shadow", "goes up beyond the root", ENOENT),
    case("proc-self-root-shadow", "goes by /proc/self/root", ENOENT),
    // sockets.c
    case("socket-vsock", "makes a socket to the hypervisor", EAFNOSUPPORT),
    case("socket-vsock-high-bits", "does so with further bits set that the kernel ignores", EAFNOSUPPORT),
    case("socket-packet", "makes a packet socket", EAFNOSUPPORT),
    case("socket-netlink-uevent", "listens to the kernel's device events", EAFNOSUPPORT),
    case("socket-netlink-netfilter", "speaks to netfilter", EAFNOSUPPORT),
    case("socket-raw", "makes a raw IPv4 socket", EPERM),
    case("socket-raw6", "makes a raw IPv6 socket", EPERM),
    case("tcp-host-loopback", "connects to a service on the host's 127.0.0.1", ECONNREFUSED),
    case("tcp6-host-loopback", "connects to a service on the host's ::1", ECONNREFUSED),
    case("udp-host-loopback", "gets a datagram from a service on the host", ECONNREFUSED),
    case("unix-abstract-host", "connects to an abstract socket of the host", ECONNREFUSED),
    case("unix-path-host", "connects to a socket in the host's file system", ENOENT),
    case("file-of-host", "reads a file of the host that everybody may read", ENOENT),
    case("dev-shm-of-host", "reads shared memory of the host", ENOENT),
    case("state-directory", "looks into Belljar's state directory", ENOENT),
    case("network-interfaces", "finds an interface that leads out", NoEffect),
    case("route-out", "finds a route to a network", ENETUNREACH),
];

/// What stands outside for the probes to reach. All of it goes with this.
struct Outside {
    process: Child,
    place: TempDir,
    shared: tempfile::NamedTempFile,
    variables: Vec<(&'static str, String)>,
    _listeners: (TcpListener, TcpListener, UnixListener, UnixListener),
}

impl Outside {
    fn new(state: &Path) -> Self {
        let process = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let place = tempfile::Builder::new()
            .prefix("belljar-outside-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(place.path(), open).unwrap();
        let file = place.path().join("file");
        fs::write(&file, "of the host\n").unwrap();
        let shared = tempfile::Builder::new()
            .prefix("belljar-outside-")
            .tempfile_in("/dev/shm")
            .unwrap();
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = format!("belljar-outside-{}", process.id());
        let abstract_socket =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = place.path().join("socket");
        let path_socket = UnixListener::bind(&socket).unwrap();
        let variables = vec![
            ("OUTSIDE_PID", process.id().to_string()),
            ("OUTSIDE_COMM", "sleep".to_owned()),
            ("OUTSIDE_TCP", four.local_addr().unwrap().port().to_string()),
            ("OUTSIDE_TCP6", six.local_addr().unwrap().port().to_string()),
            ("OUTSIDE_UDP", udp.local_addr().unwrap().port().to_string()),
            ("OUTSIDE_ABSTRACT", name),
            ("OUTSIDE_SOCKET", socket.display().to_string()),
            ("OUTSIDE_FILE", file.display().to_string()),
            ("OUTSIDE_SHM", shared.path().display().to_string()),
            ("OUTSIDE_STATE", state.display().to_string()),
        ];
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..count], from);
            }
        });
        Self {
            process,
            place,
            shared,
            variables,
            _listeners: (four, six, abstract_socket, path_socket),
        }
    }

    /// What the programs print outside.
    fn control(&self) -> String {
        let mut printed = String::new();
        for name in PROGRAMS {
            let program = self.place.path().join(name);
            let compiled = Command::new("cc")
                .args(["-O1", "-Wall", "-Werror", "-o"])
                .arg(&program)
                .arg(sources().join(format!("{name}.c")))
                .output()
                .unwrap();
            assert!(
                compiled.status.success(),
                "{}",
                String::from_utf8_lossy(&compiled.stderr)
            );
            let ran = Command::new(&program)
                .args(["--control", "--all"])
                .envs(self.variables.iter().map(|(name, value)| (name, value)))
                .current_dir(self.place.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            printed.push_str(&String::from_utf8_lossy(&ran.stdout));
        }
        assert!(self.shared.path().exists());
        printed
    }

    /// What they print in a build.
    fn inside(&self, instance: &mut Instance) -> String {
        let mut script = String::new();
        for (name, value) in &self.variables {
            script += &format!("export {name}='{value}'\n");
        }
        for name in PROGRAMS {
            script += &format!("cc -O1 -o /tmp/{name} {name}.c\n/tmp/{name} --all\n");
        }
        let project = Project::script(&(script + "echo done > out"));
        project.write("probe.h", source("probe.h"));
        for name in PROGRAMS {
            let file = format!("{name}.c");
            project.write(&file, source(&file));
        }
        let run = instance.run(&project);
        run.assert_succeeded();
        run.log
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Verdicts by name, from lines such as `name: refused 1 Operation not permitted`.
fn verdicts(printed: &str) -> BTreeMap<&str, &str> {
    let lines = printed.lines().filter_map(|line| line.split_once(": "));
    lines.collect()
}

fn expected(refused: By) -> String {
    match refused {
        Errno(number) => format!("refused {number} "),
        NoEffect => "refused 0 ".to_owned(),
        Killed => format!("refused signal {}", 31 /* SIGSYS */),
    }
}

#[test]
fn every_door_is_open_outside_and_shut_inside() {
    let mut instance = Instance::new();
    let outside = Outside::new(instance.state());
    let control = outside.control();
    let inside = outside.inside(&mut instance);
    let (open, shut) = (verdicts(&control), verdicts(&inside));
    let mut wrong = Vec::new();
    for case in CASES {
        let (name, does) = (case.name, case.does);
        match open.get(name) {
            Some(&"SUCCEEDED") => {}
            other => wrong.push(format!(
                "{name} ({does}): outside it must succeed, but: {other:?}"
            )),
        }
        match shut.get(name) {
            Some(verdict) if format!("{verdict} ").starts_with(&expected(case.refused)) => {}
            other => wrong.push(format!(
                "{name} ({does}): {:?} is due inside, but: {other:?}",
                case.refused
            )),
        }
    }
    for name in shut
        .keys()
        .filter(|name| shut[*name].starts_with(['S', 'r', 'n']))
    {
        if !CASES.iter().any(|case| case.name == *name) {
            wrong.push(format!("{name}: tried, but not in the table"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n--- outside\n{control}\n--- inside\n{inside}",
        wrong.join("\n")
    );
}
