use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Error, Floor, GROUP, LOOK, ROOT, host_floor, program};
use crate::terminal::tame;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of a log's end that an error repeats.
const TAIL: u64 = 2048;

/// A program and who it runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// Name of the executable.
    pub(super) name: &'static str,
    /// Name of its configuration, its socket and its log.
    pub(super) short: &'static str,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A running process of Belljar.
#[derive(Debug)]
pub(super) struct Daemon {
    program: Program,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program on a state directory.
    pub(super) fn start(program: Program, state: &Path) -> Result<Self, Error> {
        let executable = self::program(program.name)?;
        let log = state.join(format!("daemon-logs/{}.log", program.short));
        let stderr = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&log);
        let stderr = stderr.map_err(|source| Error::SetUp {
            path: log.clone(),
            source,
        })?;
        let mut command = match program.uid {
            ROOT => spawner_command(&executable),
            _ => Command::new(executable),
        };
        command
            .arg("--config")
            .arg(state.join(format!("config/{}.toml", program.short)))
            .arg("--die-with-parent")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // An interrupt at the terminal is for us: we cancel the build, and need them to do so.
            .process_group(0)
            // The supplementary groups are dropped along with this (std's `CommandExt::uid`).
            .gid(program.gid)
            .uid(program.uid);
        let child = command.spawn().map_err(|source| Error::Start {
            name: program.name,
            source,
        })?;
        Ok(Self {
            program,
            child,
            socket: state.join(format!("run/{0}/{0}.sock", program.short)),
            log,
        })
    }

    /// Waits until it listens, and the others may connect.
    pub(super) fn wait_until_ready(&mut self, deadline: Instant) -> Result<(), Error> {
        let name = self.program.name;
        loop {
            let ended = self
                .child
                .try_wait()
                .map_err(|source| Error::Start { name, source })?;
            if let Some(status) = ended {
                return Err(self.died(status));
            }
            if self.is_open() && self.listens() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let tail = self.tail();
                return Err(Error::Late { name, tail });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the group may connect; the spawner's socket is root's until it is handed over.
    fn is_open(&self) -> bool {
        self.socket
            .symlink_metadata()
            .is_ok_and(|status| status.gid() == GROUP && status.mode() & 0o060 == 0o060)
    }

    /// Whether it listens, as the kernel tells it: to connect would have it complain about a stranger.
    fn listens(&self) -> bool {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
        sockets.lines().any(|line| is_listener(line, &self.socket))
    }

    fn died(&self, status: ExitStatus) -> Error {
        Error::Died {
            name: self.program.name,
            status,
            tail: self.tail(),
        }
    }

    /// The end of its log.
    fn tail(&self) -> String {
        let mut tail = Vec::new();
        if let Ok(mut file) = File::open(&self.log) {
            let length = file.metadata().map_or(0, |status| status.len());
            // Whatever cannot be read is missing in a message that says so by being empty.
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL)));
            let _ = file.take(TAIL).read_to_end(&mut tail);
        }
        tame(String::from_utf8_lossy(&tail).trim())
    }

    /// Asks it to end, waits, and ends it if it does not.
    pub(super) fn end(mut self) {
        // It is not reaped yet, so the id is still its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// How the spawner is begun. It needs a cgroup of its own that it may divide: where systemd runs the v2
/// hierarchy, that is a scope with delegation (systemd-run(1)), and the spawner is the scope's process.
pub(crate) fn spawner_command(executable: &Path) -> Command {
    if !Path::new("/run/systemd/system").is_dir() || host_floor() != Floor::V2 {
        return Command::new(executable);
    }
    let mut command = Command::new("systemd-run");
    command.args([
        "--scope",
        "--quiet",
        "--collect",
        "--property=Delegate=yes",
        "--",
    ]);
    command.arg(executable);
    command
}

/// Whether a line of `/proc/net/unix` (proc_net(5)) is about a socket at `path` that takes connections: its
/// flags are `__SO_ACCEPTCON` (linux/net.h).
fn is_listener(line: &str, path: &Path) -> bool {
    // Num: RefCount Protocol Flags Type St Inode Path
    let mut fields = line.split_ascii_whitespace();
    let listens = fields.nth(3) == Some("00010000");
    listens
        && path.to_str().is_some_and(|path| {
            line.strip_suffix(path)
                .is_some_and(|rest| rest.ends_with(' '))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_listens_is_told_from_one_that_does_not_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let seen = || {
            std::fs::read_to_string("/proc/net/unix")
                .unwrap()
                .lines()
                .any(|line| is_listener(line, &path))
        };
        assert!(!seen());
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(seen());
        let bound = "0000000000000000: 00000002 00000000 00000000 0005 01 28290 /s";
        let listens = "0000000000000000: 00000002 00000000 00010000 0005 01 28290 /s";
        let connected = "0000000000000000: 00000003 00000000 00000000 0005 03 28290 /s";
        let verdicts = [bound, listens, connected].map(|line| is_listener(line, Path::new("/s")));
        assert_eq!(verdicts, [false, true, false]);
        assert!(!is_listener(
            &listens.replace("/s", "/other/s"),
            Path::new("/s")
        ));
    }
}
