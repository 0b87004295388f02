//! Runs a program and stops it at each call that counts (ptrace(2)).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::calls::{Call, Stopped};
use super::names::Namer;
use super::{Change, Event, Kill, When};
use std::os::unix::fs::MetadataExt;

/// Waits for a line before it becomes the program: until it is traced.
const UNTIL_TRACED: &str = "read -r _ && exec \"$@\" </dev/null";
/// Name of the file with the process id of the program.
pub const PID: &str = "pid";
/// Name of the file that says where it is to die.
pub const KILL: &str = "kill";
/// Name of the file with what it has done.
pub const EVENTS: &str = "events";

/// What is to be run.
#[derive(Debug)]
pub struct Order {
    /// Where this is told of, and told what to do.
    pub directory: PathBuf,
    /// The state directory of the program.
    pub state: PathBuf,
    /// Whether to keep what is written.
    pub record: bool,
    /// User and group id.
    pub ids: (u32, u32),
    /// Program and arguments.
    pub command: Vec<String>,
}

struct Tracer {
    leader: Pid,
    stopped: Stopped,
    namer: Namer,
    events: File,
    plan: PathBuf,
    record: bool,
    /// The kill that is asked for, and how often its call was seen since.
    armed: (String, Option<Kill>, usize),
    /// By thread: the call that it is in, if it counts.
    calls: HashMap<i32, Option<Entered>>,
}

/// A call that has begun.
struct Entered {
    call: Call,
    name: Option<String>,
    /// It is the one to die after.
    last: bool,
    /// It is the one for which there is no room.
    full: bool,
    /// Where the bytes of a write will stand.
    position: u64,
}

/// Runs it to its end. Gives how that was.
///
/// # Errors
/// When it cannot be started or traced.
pub fn run(order: &Order) -> io::Result<WaitStatus> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", UNTIL_TRACED, "sh"])
        .args(&order.command)
        .stdin(Stdio::piped())
        .gid(order.ids.1)
        .uid(order.ids.0)
        .spawn()?;
    let leader = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(leader, options)?;
    ptrace::interrupt(leader)?;
    fs::write(order.directory.join(PID), leader.to_string())?;
    let mut go = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    go.write_all(b"\n")?;
    drop(go);
    let events = File::options()
        .append(true)
        .create(true)
        .open(order.directory.join(EVENTS))?;
    let tracer = Tracer {
        leader,
        stopped: Stopped::new(leader.as_raw())?,
        namer: Namer::new(&order.state),
        events,
        plan: order.directory.join(KILL),
        record: order.record,
        armed: (String::new(), None, 0),
        calls: HashMap::new(),
    };
    tracer.trace()
}

impl Tracer {
    fn trace(mut self) -> io::Result<WaitStatus> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
            let signal = match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    if pid == self.leader {
                        return Ok(status);
                    }
                    self.calls.remove(&pid.as_raw());
                    continue;
                }
                WaitStatus::PtraceSyscall(thread) => {
                    self.on_call(thread)?;
                    None
                }
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => {
                    // Another memory than before.
                    self.stopped = Stopped::new(self.leader.as_raw())?;
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => None,
            };
            if let Some(thread) = status.pid() {
                // It may have been killed meanwhile, which will be told.
                match ptrace::syscall(thread, signal) {
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn on_call(&mut self, thread: Pid) -> io::Result<()> {
        let key = thread.as_raw();
        match self.calls.remove(&key) {
            Some(entered) => match entered {
                Some(entered) => self.on_exit(thread, entered),
                None => Ok(()),
            },
            None => {
                let entered = self.on_entry(thread)?;
                self.calls.insert(key, entered);
                Ok(())
            }
        }
    }

    fn on_entry(&mut self, thread: Pid) -> io::Result<Option<Entered>> {
        let Some((number, arguments, _)) = registers(thread) else {
            return Ok(None);
        };
        let Some(call) = self.stopped.call(number, arguments) else {
            return Ok(None);
        };
        let name = self.namer.name(&call, &self.stopped);
        if name.is_none() && !self.record {
            return Ok(None);
        }
        let (mut last, mut full) = (false, false);
        if let Some(name) = &name
            && let Some(when) = self.is_due(name)
        {
            match when {
                When::Before => {
                    self.tell(Some(format!("killed before {name}")), None)?;
                    kill(self.leader, Signal::SIGKILL)?;
                    return Ok(None);
                }
                When::After => last = true,
                When::Full => {
                    skip(thread)?;
                    full = true;
                }
            }
        }
        let position = match &call {
            Call::Write {
                offset: Some(offset),
                ..
            } => *offset,
            Call::Write { descriptor, .. } if self.record => self.position(*descriptor),
            _ => 0,
        };
        Ok(Some(Entered {
            call,
            name,
            last,
            full,
            position,
        }))
    }

    fn position(&self, descriptor: i32) -> u64 {
        let end = || Some(self.stopped.file(descriptor)?.1.size());
        let position = match self.stopped.appends(descriptor) {
            true => end(),
            false => self.stopped.position(descriptor),
        };
        position.unwrap_or_default()
    }

    /// Whether the process is to die at this call, which is counted.
    fn is_due(&mut self, name: &str) -> Option<When> {
        let plan = fs::read_to_string(&self.plan).unwrap_or_default();
        if plan != self.armed.0 {
            self.armed = (plan.clone(), Kill::from_line(&plan), 0);
        }
        let (_, Some(due), seen) = &mut self.armed else {
            return None;
        };
        if due.name != name {
            return None;
        }
        *seen += 1;
        (*seen == due.occurrence).then_some(due.when)
    }

    fn on_exit(&mut self, thread: Pid, entered: Entered) -> io::Result<()> {
        let Some((_, _, result)) = registers(thread) else {
            return Ok(());
        };
        let Entered {
            call,
            name,
            last,
            full,
            position,
        } = entered;
        if full {
            answer(thread, -i64::from(libc::ENOSPC))?;
            return self.tell(name.map(|name| format!("full at {name}")), None);
        }
        let change = (self.record && result >= 0)
            .then(|| self.change(&call, result, position))
            .flatten();
        if last {
            kill(self.leader, Signal::SIGKILL)?;
        }
        if name.is_some() || change.is_some() {
            self.tell(name.clone(), change)?;
        }
        if last {
            self.tell(name.map(|name| format!("killed after {name}")), None)?;
        }
        Ok(())
    }

    fn tell(&mut self, name: Option<String>, change: Option<Change>) -> io::Result<()> {
        let event = Event {
            at: monotonic()?,
            name,
            change,
        };
        let mut line = serde_json::to_vec(&event).map_err(io::Error::other)?;
        line.push(b'\n');
        self.events.write_all(&line)
    }

    /// What a call that has succeeded has changed on disk.
    fn change(&self, call: &Call, result: i64, position: u64) -> Option<Change> {
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let stopped = &self.stopped;
        Some(match call {
            Call::Open { path, named, .. } => {
                let (file, status) = stopped.file(i32::try_from(result).ok()?)?;
                Change::Create {
                    file,
                    path: if *named { Some(text(path)?) } else { None },
                    mode: status.mode() & 0o7777,
                }
            }
            Call::Write {
                descriptor, bytes, ..
            } => {
                let (file, status) = stopped.file(*descriptor)?;
                let written = usize::try_from(result).ok()?;
                if !status.is_file() {
                    return None;
                }
                let bytes = bytes.get(..written)?;
                Change::Write {
                    file,
                    offset: position,
                    bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                }
            }
            Call::Truncate { descriptor, length } => Change::Truncate {
                file: stopped.file(*descriptor)?.0,
                length: *length,
            },
            Call::Sync { descriptor } => {
                let (file, status) = stopped.file(*descriptor)?;
                let path = stopped.target(*descriptor)?;
                Change::Sync {
                    file,
                    directory: if status.is_dir() {
                        Some(text(&path)?)
                    } else {
                        None
                    },
                }
            }
            Call::SyncAll => Change::SyncAll,
            Call::Attributes { descriptor } => {
                let (file, status) = stopped.file(*descriptor)?;
                Change::Attributes {
                    file,
                    mode: status.mode() & 0o7777,
                    group: status.gid(),
                    modified: status.mtime(),
                }
            }
            Call::Directory { path, mode } => Change::Directory {
                path: text(path)?,
                mode: *mode,
            },
            Call::Link { to, .. } => {
                let status = fs::symlink_metadata(to).ok()?;
                Change::Link {
                    file: (status.dev(), status.ino()),
                    path: text(to)?,
                }
            }
            Call::Rename { from, to } => Change::Rename {
                from: text(from)?,
                to: text(to)?,
            },
            Call::Remove { path } => Change::Remove { path: text(path)? },
            Call::Send { .. } | Call::Clone | Call::Other(_) | Call::Unseen(_) => return None,
        })
    }
}

/// Number and arguments of the call that a thread is in, and its result so far.
#[cfg(target_arch = "x86_64")]
fn registers(thread: Pid) -> Option<(i64, [u64; 6], i64)> {
    // It may have been killed meanwhile.
    let all = ptrace::getregs(thread).ok()?;
    let arguments = [all.rdi, all.rsi, all.rdx, all.r10, all.r8, all.r9];
    Some((all.orig_rax.cast_signed(), arguments, all.rax.cast_signed()))
}

#[cfg(target_arch = "aarch64")]
fn registers(thread: Pid) -> Option<(i64, [u64; 6], i64)> {
    let all = ptrace::getregs(thread).ok()?.regs;
    // The first argument gives way to the result: the call itself was looked at before.
    let arguments = [all[0], all[1], all[2], all[3], all[4], all[5]];
    Some((all[8].cast_signed(), arguments, all[0].cast_signed()))
}

/// Has the call that a thread is about to make not be made.
#[cfg(target_arch = "x86_64")]
fn skip(thread: Pid) -> io::Result<()> {
    let mut all = ptrace::getregs(thread)?;
    all.orig_rax = u64::MAX;
    Ok(ptrace::setregs(thread, all)?)
}

/// Has a call that was skipped have had this result.
#[cfg(target_arch = "x86_64")]
fn answer(thread: Pid, result: i64) -> io::Result<()> {
    let mut all = ptrace::getregs(thread)?;
    all.rax = result.cast_unsigned();
    Ok(ptrace::setregs(thread, all)?)
}

#[cfg(target_arch = "aarch64")]
fn skip(_: Pid) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_arch = "aarch64")]
fn answer(_: Pid, _: i64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn monotonic() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let nanoseconds = now.tv_sec() * 1_000_000_000 + now.tv_nsec();
    u64::try_from(nanoseconds).map_err(io::Error::other)
}
