use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::trace::tracer::PID;
use crate::{BELLJARD_UID, GROUP, SIGNER_UID, STORE_UID, patience, program, wait_for};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of Belljar's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// belljar-store.
    Store,
    /// belljar-signer.
    Signer,
    /// belljar-spawner.
    Spawner,
    /// belljard.
    Belljard,
}

impl Part {
    /// All of them, in the order of their start.
    pub const ALL: [Self; 4] = [Self::Store, Self::Signer, Self::Spawner, Self::Belljard];

    /// Name of its configuration, its socket and its log.
    pub fn short(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Signer => "signer",
            Self::Spawner => "spawner",
            Self::Belljard => "belljard",
        }
    }

    /// Name of its executable.
    pub fn executable(self) -> &'static str {
        match self {
            Self::Store => "belljar-store",
            Self::Signer => "belljar-signer",
            Self::Spawner => "belljar-spawner",
            Self::Belljard => "belljard",
        }
    }

    /// Its user and group id in embedded mode.
    pub fn ids(self) -> (u32, u32) {
        match self {
            Self::Store => (STORE_UID, GROUP),
            Self::Signer => (SIGNER_UID, GROUP),
            Self::Spawner => (0, 0),
            Self::Belljard => (BELLJARD_UID, GROUP),
        }
    }

    /// Its socket in a state directory.
    pub fn socket(self, state: &Path) -> PathBuf {
        state.join(format!("run/{0}/{0}.sock", self.short()))
    }

    /// What starts it on a state directory, as embedded mode does it.
    pub fn command(self, state: &Path) -> Command {
        self.command_of(self.executable(), state)
    }

    fn command_of(self, executable: &str, state: &Path) -> Command {
        let (uid, gid) = self.ids();
        let mut command = match self {
            Self::Spawner if delegated() => {
                let mut command = Command::new("systemd-run");
                command
                    .args([
                        "--scope",
                        "--quiet",
                        "--collect",
                        "--property=Delegate=yes",
                        "--",
                    ])
                    .arg(program(executable));
                command
            }
            _ => Command::new(program(executable)),
        };
        command
            .arg("--config")
            .arg(state.join(format!("config/{}.toml", self.short())))
            .arg("--die-with-parent")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .gid(gid)
            .uid(uid);
        command
    }
}

/// Whether the spawner gets its cgroup from systemd, which runs the v2 hierarchy with all controllers.
fn delegated() -> bool {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let all = controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == "memory"));
    all && Path::new("/run/systemd/system").is_dir()
}

/// A process of an instance that was started for longer than one build.
#[derive(Debug)]
pub(crate) struct Process {
    part: Part,
    child: Child,
    log: PathBuf,
    /// Where the process that traces it, which is the child then, tells of it.
    traced: Option<PathBuf>,
}

/// Exit status of the tracer of what was killed: the shell's way to tell of SIGKILL.
const TRACED_KILLED: i32 = 128 + 9;
/// The same of what ended upon SIGTERM.
const TRACED_ENDED: i32 = 128 + 15;

impl Process {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(part: Part, state: &Path) -> Self {
        Self::start_as(part, state, part.command(state), None)
    }

    /// Starts it with a tracer that tells of it in `directory`, and keeps what is written if `record` says so.
    pub(crate) fn start_traced(part: Part, state: &Path, directory: &Path, record: bool) -> Self {
        let traced = part.command(state);
        let (uid, gid) = part.ids();
        let pid = directory.join(PID);
        // What is left of one that was traced before.
        let _ = std::fs::remove_file(&pid);
        let mut command = Command::new(program("belljar-test-tracer"));
        command
            .arg(directory)
            .arg(state)
            .args([uid.to_string(), gid.to_string()])
            .arg(if record { "record" } else { "follow" })
            .arg(traced.get_program())
            .args(traced.get_args())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self::start_as(part, state, command, Some(directory.to_owned()))
    }

    /// Starts the spawner that leaves steps of the containment list out.
    pub(crate) fn start_spawner_without(steps: &[&str], state: &Path) -> Self {
        let mut command = Part::Spawner.command_of("belljar-test-spawner", state);
        command.env("BELLJAR_TEST_WITHOUT", steps.join(","));
        Self::start_as(Part::Spawner, state, command, None)
    }

    fn start_as(part: Part, state: &Path, mut command: Command, traced: Option<PathBuf>) -> Self {
        let log = state.join(format!("daemon-logs/{}.log", part.short()));
        let stderr = File::options().append(true).create(true).open(&log);
        command.stderr(stderr.expect("a log"));
        let child = command.spawn().expect("a process");
        let mut process = Self {
            part,
            child,
            log,
            traced,
        };
        let socket = part.socket(state);
        wait_for(&format!("{part:?} listens"), PATIENCE, || {
            if let Some(status) = process.child.try_wait().expect("waitpid") {
                panic!("{part:?} ended ({status}):\n{}", process.said());
            }
            listens(&socket).then_some(())
        });
        process
    }

    pub(crate) fn part(&self) -> Part {
        self.part
    }

    pub(crate) fn pid(&self) -> u32 {
        let Some(directory) = &self.traced else {
            return self.child.id();
        };
        wait_for("the id of a traced process", PATIENCE, || {
            let told = std::fs::read_to_string(directory.join(PID)).ok()?;
            told.parse().ok()
        })
    }

    /// Whether it was killed, by its tracer.
    pub(crate) fn was_killed(&mut self) -> bool {
        let status = self.child.try_wait().expect("waitpid");
        status.is_some_and(|status| status.code() == Some(TRACED_KILLED))
    }

    fn pid_to_signal(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid()).expect("a process id")).expect("a process id")
    }

    /// What it has logged.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it without a warning.
    pub(crate) fn kill(mut self) {
        // One that its tracer has killed is gone already.
        let _ = kill_process(self.pid_to_signal(), Signal::KILL);
        let status = self.child.wait().expect("waitpid");
        let killed = status.signal() == Some(9) || status.code() == Some(TRACED_KILLED);
        assert!(
            killed,
            "{:?} ended by itself ({status}):\n{}",
            self.part,
            self.said()
        );
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waitpid") {
                return status;
            }
            let waited = start.elapsed();
            assert!(
                waited < Duration::from_secs(60),
                "{:?} goes on:\n{}",
                self.part,
                self.said()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it had ended before, had to be killed, or ended otherwise than by what it was asked for.
    pub(crate) fn end(mut self) -> Result<(), String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!(
                "{:?} had ended before ({status}):\n{}",
                self.part,
                self.said()
            ));
        }
        let _ = kill_process(self.pid_to_signal(), Signal::TERM);
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                // Whoever has nothing to clear away leaves the signal to the kernel.
                let ended = status.signal() == Some(15) || status.code() == Some(TRACED_ENDED);
                let asked = status.success() || ended;
                return if asked {
                    Ok(())
                } else {
                    Err(format!(
                        "{:?} ended with {status}:\n{}",
                        self.part,
                        self.said()
                    ))
                };
            }
            if start.elapsed() > patience(PATIENCE) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(format!(
                    "{:?} did not end upon SIGTERM:\n{}",
                    self.part,
                    self.said()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether a process takes connections at `path`: the flag `__SO_ACCEPTCON` in proc_net(5).
fn listens(path: &Path) -> bool {
    let path = path.to_str().expect("a path in UTF-8");
    let sockets = std::fs::read_to_string("/proc/thread-self/net/unix").expect("sockets");
    sockets.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        fields.get(3) == Some(&"00010000") && fields.get(7) == Some(&path)
    })
}
