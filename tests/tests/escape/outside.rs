//! What stands outside of a sandbox for hostile programs to reach, and what they print there and inside.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use belljar_tests::{Instance, Project};
use tempfile::TempDir;

use crate::{source, sources};

/// The programs, in the order in which they run.
const PROGRAMS: &[&str] = &[
    "mounts",
    "kernel",
    "processes",
    "files",
    "sockets",
    "inherited",
];

/// What stands outside for the probes to reach. All of it goes with this.
pub struct Outside {
    process: Child,
    place: TempDir,
    shared: tempfile::NamedTempFile,
    variables: Vec<(&'static str, String)>,
    _listeners: (TcpListener, TcpListener, UnixListener, UnixListener),
}

impl Outside {
    /// All of it, for probes that look for the state directory `state`.
    pub fn new(state: &Path) -> Self {
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
            ("OUTSIDE_CGROUP_NS", namespace("cgroup")),
            ("OUTSIDE_NET_NS", namespace("net")),
            ("OUTSIDE_PID_NS", namespace("pid")),
            ("OUTSIDE_USER_NS", namespace("user")),
            ("OUTSIDE_TIME_NS", namespace("time")),
            ("OUTSIDE_HOST", host_name()),
            ("OUTSIDE_SESSION", session().to_string()),
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
    pub fn control(&self) -> String {
        let mut printed = String::new();
        for name in PROGRAMS {
            // Signals are ignored by whoever makes sandboxes, too.
            let ran = Command::new("sh")
                .args(["-c", "trap '' PIPE; exec \"$0\" \"$@\""])
                .arg(self.compile(name))
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

    /// A project that runs them as they are compiled outside: less of a sandbox has to work for that than
    /// for a compiler.
    pub fn compiled_project(&self) -> Project {
        let mut script = self.exports();
        for name in PROGRAMS {
            script += &format!("./{name} --all || true\n");
        }
        script += "echo done > out";
        // A sandbox that lacks something need not come to an end by itself.
        let limits = "[limits]\nwall_seconds = 20\ngrace_seconds = 1";
        let project = Project::of(&[&script], &["out"], limits);
        for name in PROGRAMS {
            project.write_executable(name, fs::read(self.compile(name)).unwrap());
        }
        project
    }

    fn compile(&self, name: &str) -> PathBuf {
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
        program
    }

    fn exports(&self) -> String {
        let lines = self.variables.iter();
        lines
            .map(|(name, value)| format!("export {name}='{value}'\n"))
            .collect()
    }

    /// What they print in a build.
    pub fn inside(&self, instance: &mut Instance) -> String {
        let mut script = self.exports();
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
pub fn verdicts(printed: &str) -> BTreeMap<&str, &str> {
    let lines = printed.lines().filter_map(|line| line.split_once(": "));
    lines.collect()
}

/// A namespace of this process, as readlink(2) of /proc/self/ns tells it.
fn namespace(kind: &str) -> String {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.display().to_string()
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().unwrap().to_owned()
}

/// 0 if the session's leader is of another pid namespace, as it can be in a container (getsid(2)).
fn session() -> i32 {
    nix::unistd::getsid(None).unwrap().as_raw()
}
