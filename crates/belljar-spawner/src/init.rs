//! Pid 1 of a sandbox: the spawner's own code in a process of its own. It confines itself by the
//! containment list, waits at the barrier, runs the steps of the build one after the other, reaps, and passes on
//! the wish that they end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use belljar_plan::{Plan, WORKDIR};
use belljar_sys::files::{self, Kind};
use belljar_sys::poll::{self, Event, Interest};
use belljar_sys::process::{self, Ended, Reaped};
use belljar_sys::program::{self, StandardStream};
use belljar_sys::seccomp::Program;
use belljar_sys::seqpacket::Connection;
use belljar_sys::{Errno, mount};

use crate::containment::{Run, Step};
use crate::ids::Pair;
use crate::record::Record;
use crate::rootfs::RootFs;
use crate::staging::Places;

/// Longest explanation that follows a [`Record::StepFailed`], in bytes.
pub const EXPLANATION_BYTES: usize = 512;

/// Exit status of a step's process that could not become its program, as of a shell's (POSIX, "Exit Status for
/// Commands").
const CANNOT_START: u8 = 126;

/// What init has while it confines itself.
pub struct Init<'a> {
    /// The containment list.
    pub steps: &'static [Step],
    /// The socket to the spawner.
    pub socket: Connection,
    /// Writing end of the log.
    pub log: OwnedFd,
    /// The network namespace to enter.
    pub network: OwnedFd,
    /// The user namespace to enter, last.
    pub user_namespace: OwnedFd,
    /// A user namespace that nobody enters: its map says whose files of the host are whose inside.
    pub host_owners: OwnedFd,
    /// Where mounts of the attempt lie.
    pub places: &'a Places,
    /// Host ids.
    pub ids: Pair,
    /// The root file system.
    pub rootfs: RootFs<'a>,
    /// The system call filter.
    pub filter: &'a Program,
    /// What to run.
    pub plan: &'a Plan,
}

/// The whole life of init; what it returns is its exit status, which nobody relies on.
pub fn run(mut init: Init<'_>) -> u8 {
    match Record::receive(&init.socket) {
        Ok(Some(Record::Placed)) => {}
        _ => return 1,
    }
    for (step, index) in init.steps.iter().zip(0..) {
        if let Run::Inside(run) = step.run
            && let Err(error) = run(&mut init)
        {
            let errno = error.raw_os_error().unwrap_or(0);
            let mut explanation = error.to_string().into_bytes();
            explanation.truncate(EXPLANATION_BYTES);
            // If the spawner is gone, so is everyone who could want to know.
            let _ = Record::StepFailed { step: index, errno }.send(&init.socket);
            let _ = init.socket.send(&explanation);
            return 1;
        }
    }
    match build(&init) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn build(init: &Init<'_>) -> io::Result<()> {
    if let Err(error) = enter_working_directory(init.plan) {
        let errno = error.raw_os_error().unwrap_or(0);
        return Record::NoDirectory { errno }.send(&init.socket);
    }
    Record::AtBarrier.send(&init.socket)?;
    match Record::receive(&init.socket)? {
        Some(Record::Go) => {}
        _ => return Err(io::Error::other("the spawner did not let the build begin")),
    }
    let environment = init.plan.environment().into_iter();
    let environment: Vec<_> = environment
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut children = Children {
        socket: &init.socket,
        signals: program::child_signals()?,
        terminated: false,
    };
    let failed = |error: io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        Record::StartFailed { errno }.send(&init.socket)
    };
    if let Err(error) = prepare(init) {
        return failed(error);
    }
    let steps = init.plan.argv();
    for (index, (argv, left)) in steps.iter().zip((0..steps.len()).rev()).enumerate() {
        let begun = Instant::now();
        let started = match index {
            0 => start_first(argv, &environment),
            _ => start(argv, &environment),
        };
        let pid = match started {
            Ok(pid) => pid,
            Err(error) => return failed(error),
        };
        let ended = children.until_ended(pid)?;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (signalled, code) = match ended {
            Ended::Exited(code) => (false, code),
            Ended::Signalled(signal) => (true, signal),
        };
        Record::StepEnded {
            signalled,
            code,
            micros,
        }
        .send(&init.socket)?;
        let last = ended != Ended::Exited(0) || left == 0 || children.terminated;
        if last || !children.may_go_on()? {
            break;
        }
    }
    if children.terminated {
        children.until_all_ended()?;
    }
    // What a step has left running dies with this process, the first of its pid namespace.
    Record::Done.send(&init.socket)
}

/// Enters the directory that the steps run in, and inherit. It is looked up and entered once, before the first of
/// them: what a step does to its name does not lead the next one elsewhere, and what it does to its mode does not
/// keep the next one out.
fn enter_working_directory(plan: &Plan) -> io::Result<()> {
    let top = mount::directory(Path::new(WORKDIR))?;
    let Some(below) = &plan.working_directory else {
        return program::enter_directory(top.as_fd());
    };
    let found = files::open_beneath(top.as_fd(), below.as_str())?;
    if files::kind(found.as_fd())? != Kind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    program::enter_directory(found.as_fd())
}

/// Makes all that the steps inherit, once, before the first of them: what an earlier one has left running has the
/// same user id, and may take limits from the process of the next one as soon as that is there (prlimit(2)).
/// Init itself is out of its reach (`seccomp/table.rs` of `belljar-sys`).
fn prepare(init: &Init<'_>) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    program::set_standard_stream(null.as_fd(), StandardStream::Input)?;
    program::set_standard_stream(init.log.as_fd(), StandardStream::Output)?;
    program::set_standard_stream(init.log.as_fd(), StandardStream::Error)?;
    program::set_umask(0o022);
    Ok(())
}

/// Forks a process that becomes the first step's program; gives its id when it has. Nothing of the build runs yet, so
/// that a failure is not its doing.
fn start_first(argv: &[&str; 4], environment: &[String]) -> io::Result<u32> {
    let (mut started, report) = io::pipe()?;
    let pid = process::fork_child(|| {
        let error = become_step(argv, environment, Some(report.as_fd()));
        let errno = error.raw_os_error().unwrap_or(0);
        let _ = (&report).write_all(&errno.to_ne_bytes());
        CANNOT_START
    })?;
    drop(report);
    // The pipe closes with the exec; four bytes tell that there was none.
    let mut errno = Vec::new();
    started.read_to_end(&mut errno)?;
    match <[u8; 4]>::try_from(errno.as_slice()) {
        Ok(errno) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
        Err(_) => Ok(pid),
    }
}

/// Forks a process that becomes a later step's program. What an earlier step has left running may stop it, kill it,
/// or take so much from it that it cannot: then the step has failed, as when its program had.
fn start(argv: &[&str; 4], environment: &[String]) -> io::Result<u32> {
    process::fork_child(|| {
        let error = become_step(argv, environment, None);
        let words = format!(
            "belljar: this step cannot be started: {error}; what an earlier step has left running may keep it from that\n"
        );
        let _ = io::stderr().write_all(words.as_bytes());
        CANNOT_START
    })
}

/// Returns only when it fails. Init is not dumpable, and so this is not either until it is another program: nobody
/// inside traces it or looks into it.
fn become_step(
    argv: &[&str; 4],
    environment: &[String],
    report: Option<BorrowedFd<'_>>,
) -> io::Error {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let mut kept = vec![input.as_fd(), output.as_fd(), error.as_fd()];
    kept.extend(report);
    let prepared = program::unblock_signals().and_then(|()| program::close_others(&kept));
    match prepared {
        Ok(()) => program::execute(argv[0], argv, environment),
        Err(error) => error,
    }
}

/// Everybody in the pid namespace, whose first process this is: its children, and those left to it.
struct Children<'a> {
    socket: &'a Connection,
    signals: OwnedFd,
    /// Whether they were sent SIGTERM.
    terminated: bool,
}

/// What happened while somebody was waited for.
enum News {
    Ended(u32, Ended),
    /// Nobody is left.
    Childless,
    /// The next step may begin.
    Next,
}

impl Children<'_> {
    /// Reaps until this child has ended.
    fn until_ended(&mut self, pid: u32) -> io::Result<Ended> {
        loop {
            match self.news(true)? {
                News::Ended(ended, how) if ended == pid => return Ok(how),
                News::Ended(..) => {}
                News::Childless => {
                    return Err(io::Error::other("the step's process has vanished"));
                }
                News::Next => return Err(io::Error::other("a step runs already")),
            }
        }
    }

    /// Reaps until nobody is left.
    fn until_all_ended(&mut self) -> io::Result<()> {
        loop {
            match self.news(true)? {
                News::Childless => return Ok(()),
                News::Ended(..) | News::Next => {}
            }
        }
    }

    /// Waits until the spawner lets the next step begin; false when it wants the end instead.
    fn may_go_on(&mut self) -> io::Result<bool> {
        loop {
            match self.news(false)? {
                News::Next => return Ok(true),
                News::Ended(..) | News::Childless if self.terminated => return Ok(false),
                News::Ended(..) | News::Childless => {}
            }
        }
    }

    /// Waits for something to happen. `childless`: that nobody is left is something.
    fn news(&mut self, childless: bool) -> io::Result<News> {
        loop {
            match process::reap_any()? {
                Reaped::One(pid, how) => return Ok(News::Ended(pid, how)),
                Reaped::Childless if childless || self.terminated => return Ok(News::Childless),
                Reaped::Childless | Reaped::NoneYet => {}
            }
            let readable = |descriptor| Interest {
                descriptor,
                event: Event::Readable,
            };
            let interests = [
                readable(self.signals.as_fd()),
                readable(self.socket.as_fd()),
            ];
            let ready = poll::wait(&interests, None)?;
            if ready[0] {
                program::take_signals(self.signals.as_fd())?;
            }
            if ready[1] {
                match Record::receive(self.socket)? {
                    Some(Record::Next) => return Ok(News::Next),
                    Some(Record::Terminate) => {
                        self.terminated = true;
                        process::terminate_all()?;
                    }
                    _ => return Err(io::Error::other("the spawner has hung up")),
                }
            }
        }
    }
}
