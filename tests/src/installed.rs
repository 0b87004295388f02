use std::path::Path;
use std::process::Command;

use crate::{Part, Project, Run, Running, residue, wait_for};

/// The state of the installed daemon.
const STATE: &str = "/var/lib/belljar";
/// How long systemd may take to start a unit again.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// The daemon that systemd runs on this machine. There is one, so its tests run one after the other, and only
/// on a machine that is theirs.
#[derive(Debug)]
pub struct Installed(());

impl Installed {
    /// What is installed here.
    ///
    /// # Panics
    /// Unless belljard runs.
    pub fn here() -> Self {
        let installed = Self(());
        for part in Part::ALL {
            installed.pid_of(part);
        }
        installed
    }

    /// `belljar COMMAND`, which finds the installed daemon by itself.
    pub fn command(&self, command: &str) -> Command {
        let mut belljar = Command::new("/usr/bin/belljar");
        belljar
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .args(command.split_whitespace());
        belljar
    }

    /// `belljar run` on a project.
    pub fn run(&self, project: &Project) -> Run {
        self.begin(project).wait()
    }

    /// Begins one, for tests that do something meanwhile.
    pub fn begin(&self, project: &Project) -> Running {
        Running::begin(self.command("run"), project, &[], Path::new(STATE))
    }

    /// Waits until it has ended.
    pub fn finish(&self, running: Running) -> Run {
        running.wait()
    }

    /// Waits until a build that was begun has logged `text`, which no build before has.
    pub fn wait_until_logged(&self, running: &mut Running, text: &str) {
        running.wait_until_logged(text);
    }

    /// Has systemd do something with a unit.
    pub fn systemctl(&self, arguments: &[&str], part: Part) -> String {
        let mut systemctl = Command::new("systemctl");
        let output = systemctl.args(arguments).arg(unit(part)).output();
        let output = output.expect("systemctl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} {part:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Main process of a unit that runs.
    pub fn pid_of(&self, part: Part) -> u32 {
        let pid = || self.systemctl(&["show", "--property=MainPID", "--value"], part);
        wait_for(&format!("{} runs", unit(part)), PATIENCE, || {
            pid().parse().ok().filter(|pid| *pid != 0)
        })
    }

    /// Connects to a process as root, and hangs up.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(&self, part: Part) {
        let path = format!("/run/belljar/{0}/{0}.sock", part.short());
        let connected = if part == Part::Belljard {
            std::os::unix::net::UnixStream::connect(&path).map(drop)
        } else {
            belljar_sys::seqpacket::Connection::connect(Path::new(&path)).map(drop)
        };
        connected.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Kills the main process of a unit without a warning, and waits until systemd has started it again.
    pub fn kill(&self, part: Part) {
        let before = self.pid_of(part);
        self.systemctl(&["kill", "--kill-whom=main", "--signal=KILL"], part);
        wait_for(&format!("{} runs again", unit(part)), PATIENCE, || {
            (self.pid_of(part) != before).then_some(())
        });
    }

    /// Fails the test if anything is left of any build: a process, a mount, a cgroup, a staged file.
    pub fn assert_nothing_left(&self) {
        let left = residue::of_builds(Path::new(STATE));
        assert!(left.is_empty(), "{}", left.join("\n"));
    }
}

/// Name of the unit of a process.
fn unit(part: Part) -> String {
    format!("{}.service", part.executable())
}
