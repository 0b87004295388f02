use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{GROUP, Instance, Part, STRANGER, program};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a process of Belljar from somebody who need not keep to the rules.
#[derive(Debug)]
pub struct Liar {
    child: Child,
    mouth: Option<ChildStdin>,
    ears: Receiver<String>,
    _program: TempDir,
}

/// The test peer, where everybody can run it: the checkout may be closed to others.
pub(crate) fn peer() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::copy(program("belljar-test-peer"), dir.path().join("peer")).expect("a copy");
    dir
}

/// A program that runs as a user of Belljar, or as a stranger.
pub(crate) fn command_as(uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let gid = if uid == STRANGER { STRANGER } else { GROUP };
    command.env_clear().current_dir("/").uid(uid).gid(gid);
    command
}

impl Liar {
    /// Connects to a process as a user.
    pub fn connect(instance: &Instance, part: Part, uid: u32) -> Self {
        let program = peer();
        let mut child = command_as(uid, program.path().join("peer"))
            .arg(part.socket(instance.state()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer");
        let (told, ears) = channel();
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            mouth: child.stdin.take(),
            child,
            ears,
            _program: program,
        }
    }

    /// Sends a control message.
    pub fn say(&mut self, message: &Value) {
        self.send(format!("J{message}").as_bytes());
    }

    /// Sends any bytes as one message.
    pub fn send(&mut self, message: &[u8]) {
        self.line("", message);
    }

    /// Sends any bytes with a descriptor.
    pub fn send_with_descriptor(&mut self, message: &[u8]) {
        self.line("+", message);
    }

    fn line(&mut self, before: &str, message: &[u8]) {
        let digits: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
        let mouth = self.mouth.as_mut().expect("the peer's input");
        // A peer whose connection was closed has ended; that is heard.
        let _ = mouth.write_all(format!("{before}{digits}\n").as_bytes());
    }

    /// The next message; none if the connection was closed.
    ///
    /// # Panics
    /// When nothing comes for too long, or content.
    pub fn hear(&mut self) -> Option<Value> {
        let line = self.ears.recv_timeout(PATIENCE).expect("something comes");
        if line == "closed" {
            return None;
        }
        Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.mouth = None;
        let _ = self.child.wait();
    }
}

impl Instance {
    /// Runs a shell script as a user. Gives its exit status and what it said on standard error.
    pub fn try_as(&self, uid: u32, script: &str) -> (i32, String) {
        let ended = command_as(uid, "/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .output();
        let ended = ended.expect("a shell");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code().unwrap_or(-1), said)
    }
}
