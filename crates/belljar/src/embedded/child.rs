use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use super::{BELLJARD, Error, GROUP, LOOK, program};
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
        let mut command = Command::new(executable);
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

    fn listens(&self) -> bool {
        // belljard speaks HTTP/2 on a stream, the others exchange messages.
        let kind = if self.program.uid == BELLJARD {
            SocketType::STREAM
        } else {
            SocketType::SEQPACKET
        };
        let connected = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .and_then(|socket| connect(&socket, &SocketAddrUnix::new(&self.socket)?));
        connected.is_ok()
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
