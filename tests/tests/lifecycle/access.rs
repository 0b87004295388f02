use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use belljar_tests::{Instance, Part, Project, STRANGER, program};
use serde_json::Value;

/// A directory that anybody can enter, with `belljar` in it, and a project and an output directory that are
/// the stranger's: the checkout itself may be closed to others.
struct Foreign {
    dir: tempfile::TempDir,
}

impl Foreign {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(program("belljar"), dir.path().join("belljar")).unwrap();
        for name in ["project", "output"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            chown(dir.path().join(name), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        let manifest = "image = \"host\"\nrun = [\": > out\"]\noutputs = [\"out\"]\n";
        std::fs::write(dir.path().join("project/belljar.toml"), manifest).unwrap();
        Self { dir }
    }

    /// `belljar run` by the stranger. Gives exit status, report and what was said.
    fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        let ended = Command::new(self.dir.path().join("belljar"))
            .env_clear()
            .arg("run")
            .arg(self.dir.path().join("project"))
            .arg("--output")
            .arg(self.dir.path().join("output"))
            .arg("--json")
            .args(arguments)
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let json = serde_json::from_slice(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        (ended.status.code().unwrap(), json, said)
    }
}

#[test]
fn without_root_embedded_mode_says_what_it_needs() {
    let foreign = Foreign::new();
    let state = foreign.dir.path().join("output/state");
    let (code, json, said) = foreign.run(&["--state", state.to_str().unwrap()]);
    assert_eq!(code, 10, "{said}");
    let error = json["error"].as_str().unwrap();
    assert!(error.contains("needs root"), "{error}");
    assert!(json["hint"].as_str().unwrap().contains("sudo"), "{json}");
    assert!(said.contains(error), "{said}");
    assert!(!state.exists(), "nothing was begun");
}

#[test]
fn a_stranger_is_refused_by_the_daemon() {
    let mut instance = Instance::started();
    let socket = Part::Belljard.socket(instance.state());
    let state = instance.state().to_owned();
    // The sockets' directory can be entered; whether the caller is allowed is the daemon's to say.
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, json, said) = Foreign::new().run(&["--socket", socket.to_str().unwrap()]);
    assert_eq!(code, 7, "{said}\n{json}");
    assert!(json["error"].as_str().unwrap().contains("65534"), "{json}");
    instance.run(&Project::script(": > out")).assert_succeeded();
}

#[test]
fn nothing_of_the_state_is_open_to_a_stranger() {
    let mut instance = Instance::started();
    instance
        .run(&Project::script("echo secret > out"))
        .assert_succeeded();
    let listed = Command::new("find")
        .arg(instance.state())
        .args(["-mindepth", "1", "-readable", "-type", "f", "-print"])
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&listed.stdout);
    let mut readable: Vec<_> = found
        .lines()
        .map(|path| path.rsplit('/').next().unwrap())
        .collect();
    readable.sort_unstable();
    // Where things are, and no secret.
    assert_eq!(
        readable,
        ["belljard.toml", "signer.toml", "spawner.toml", "store.toml"]
    );
}

#[test]
fn tcp_is_refused_in_the_configuration() {
    let instance = Instance::started();
    let state = instance.state().join("tcp");
    std::fs::create_dir_all(state.join("config")).unwrap();
    for path in [&state, &state.join("config")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let good = std::fs::read_to_string(instance.state().join("config/belljard.toml")).unwrap();
    let socket = good
        .lines()
        .find(|line| line.starts_with("socket"))
        .unwrap();
    let cases = [
        format!("listen = \"0.0.0.0:8980\"\n{good}"),
        format!("address = \"[::1]:8980\"\n{good}"),
        good.replace(socket, "socket = \"127.0.0.1:8980\""),
        good.replace(socket, "socket = \"tcp://localhost:8980\""),
    ];
    for text in cases {
        std::fs::write(state.join("config/belljard.toml"), &text).unwrap();
        let ended = Part::Belljard.command(&state).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{said}");
        assert!(said.contains("TCP comes with mutual TLS"), "{text}\n{said}");
    }
}

#[test]
fn no_process_has_a_socket_of_the_internet() {
    let mut instance = Instance::started();
    instance.run(&Project::script(": > out")).assert_succeeded();
    let mut looked = 0;
    for part in Part::ALL {
        let pid = instance.pid_of(part);
        let tables = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"].map(|table| {
            std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default()
        });
        let table = tables.concat();
        let inodes: Vec<_> = table
            .lines()
            .filter_map(|line| line.split_whitespace().nth(9))
            .collect();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
            let target = target.to_string_lossy().into_owned();
            if let Some(inode) = target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
            {
                looked += 1;
                assert!(!inodes.contains(&inode), "{part:?} has {target}");
            }
        }
    }
    assert!(looked >= 4, "each of them listens on a unix socket");
}
