//! Doors out of the sandbox, one probe each: `hostile/*.c` have what is tried, the table below what must come.

use belljar_tests::{Instance, Part, Project};
use rustix::process::{Pid, getpriority_process, setpriority_process};

use crate::outside::{Outside, verdicts};

/// How a probe is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// With this error number.
    Errno(i32),
    /// The call may have been answered, but what was hoped for has not come.
    NoEffect,
}

use By::{Errno, NoEffect};

const EPERM: By = Errno(1);
const ENOENT: By = Errno(2);
const ESRCH: By = Errno(3);
const EBADF: By = Errno(9);
const ENOMEM: By = Errno(12);
const EACCES: By = Errno(13);
const EINVAL: By = Errno(22);
const EROFS: By = Errno(30);
const ENOSYS: By = Errno(38);
const ENOPROTOOPT: By = Errno(92);
const EPROTONOSUPPORT: By = Errno(93);
const EAFNOSUPPORT: By = Errno(97);
const ENETUNREACH: By = Errno(101);
const ECONNREFUSED: By = Errno(111);

/// One thing that must not be possible.
pub struct Case {
    /// Its name.
    pub name: &'static str,
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

#[rustfmt::skip]
pub const CASES: &[Case] = &[
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
    case("line-discipline", "takes another line discipline for a terminal", EPERM),
    case("seccomp-filter", "has a filter compiled into memory that is bounded for the whole machine", EINVAL),
    case("seccomp-filter-prctl", "does so by prctl(2)", EINVAL),
    case("shared-huge-pages", "makes shared memory of the host's stock of huge pages", ENOMEM),
    case("lock-of-description", "takes a lock that is held by an open file, wherever that is", EINVAL),
    case("lease", "takes a lease of a file", EINVAL),
    case("core-limit", "raises its limit on core dumps", NoEffect),
    case("real-time", "asks for real-time priority", EPERM),
    case("nice", "asks for a better nice value", EACCES),
    case("int-80", "makes a system call of 32-bit programs", ENOSYS),
    case("core-pattern-write", "opens core_pattern for writing", ENOENT),
    case("core-pattern-read", "opens core_pattern for reading", ENOENT),
    case("proc-kallsyms", "reads the kernel's symbols", EACCES),
    case("proc-keys", "reads /proc/keys", EACCES),
    case("proc-locks", "reads which files others have locked", EACCES),
    case("proc-diskstats", "reads how much others read and write", EACCES),
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
    case("write-setuid-program", "opens a set-user-id program for writing", EROFS),
    case("append-to-program", "opens a program of the host for appending", EROFS),
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
    case("rename-whiteout", "does so by renaming, which Landlock does not see", EINVAL),
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
    case("socket-raw", "makes a raw IPv4 socket", EPROTONOSUPPORT),
    case("socket-raw6", "makes a raw IPv6 socket", EPROTONOSUPPORT),
    case("socket-mptcp", "makes a socket of a rarer protocol, which may be a module", EPROTONOSUPPORT),
    case("socket-udp-lite", "makes another", EPROTONOSUPPORT),
    case("socket-xdp", "makes a socket that is handed whole packets", EAFNOSUPPORT),
    case("socket-filter", "has a filter compiled for a socket, into memory as for seccomp-filter", EPERM),
    case("receive-buffer", "has a socket hold more, which its cgroup does not count", NoEffect),
    case("flow-label", "takes an IPv6 flow label, of which there is one stock for the whole machine", ENOPROTOOPT),
    case("tcp-signature", "has TCP sign, by an algorithm of a stock of the whole machine", ENOPROTOOPT),
    case("ipsec-port", "has IPsec in the kernel behind a port", ENOPROTOOPT),
    case("bridge-module", "asks for the version of bridges, which may be a module", EPERM),
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
    // inherited.c
    case("shares-cgroup-namespace", "is in the host's cgroup namespace", NoEffect),
    case("shares-network-namespace", "is in the host's network namespace", NoEffect),
    case("shares-pid-namespace", "is in the host's pid namespace", NoEffect),
    case("shares-user-namespace", "is in the host's user namespace", NoEffect),
    case("shares-time-namespace", "is in the host's time namespace", NoEffect),
    case("shares-time-namespace-of-children", "has children in the host's time namespace", NoEffect),
    case("host-name", "finds out the host's name", NoEffect),
    case("session-of-outside", "is in the session of whoever made the sandbox", NoEffect),
    case("signals-of-outside", "cannot be ended by SIGPIPE or SIGTERM", NoEffect),
    case("core-dumps", "may have its core dumped", NoEffect),
    case("bounding-set", "has capabilities in its bounding set", NoEffect),
    case("identity-of-outside", "is not the build's user and group", NoEffect),
];

impl Case {
    /// Whether `verdict` is the refusal that is due.
    pub fn is_refused_as_due(&self, verdict: &str) -> bool {
        format!("{verdict} ").starts_with(&expected(self.refused))
    }
}

fn expected(refused: By) -> String {
    match refused {
        Errno(number) => format!("refused {number} "),
        NoEffect => "refused 0 ".to_owned(),
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
            Some(verdict) if case.is_refused_as_due(verdict) => {}
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

/// The case `nice` once more, where there is a better value to be inherited.
#[test]
fn a_build_comes_before_nobody_though_its_spawner_does() {
    let mut instance = Instance::started();
    let spawner = i32::try_from(instance.pid_of(Part::Spawner)).unwrap();
    let spawner = Pid::from_raw(spawner);
    let project = || {
        let script = "nice; nice -n -1 true 2>&1; sh -c 'nice -n 3 nice'; echo done > out";
        Project::script(script)
    };
    for (given, due) in [(-7, 0), (0, 0), (4, 4)] {
        setpriority_process(spawner, given).unwrap();
        assert_eq!(getpriority_process(spawner), Ok(given));
        let run = instance.run(&project());
        run.assert_succeeded();
        let lines: Vec<&str> = run.log.lines().collect();
        assert_eq!(lines.first(), Some(&due.to_string().as_str()), "{run}");
        assert!(lines[1].contains("Permission denied"), "{run}");
        assert_eq!(lines.last(), Some(&(due + 3).to_string().as_str()), "{run}");
    }
}
