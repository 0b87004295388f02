//! Pid 1 of a sandbox: the spawner's own code in a process of its own. It confines itself by the
//! containment list, waits at the barrier, runs the steps of the build one after the other, and reaps.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use belljar_plan::{Plan, WORKDIR};
use belljar_sys::process::{self, Ended};
use belljar_sys::program::{self, StandardStream};
use belljar_sys::seccomp::Program;
use belljar_sys::seqpacket::Connection;

use crate::containment::{Run, Step};
use crate::ids::Pair;
use crate::record::Record;
use crate::rootfs::HostRootFs;
use crate::staging::Places;

/// Longest explanation that follows a [`Record::StepFailed`], in bytes.
pub const EXPLANATION_BYTES: usize = 512;

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
    pub rootfs: &'a HostRootFs,
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
    Record::AtBarrier.send(&init.socket)?;
    match Record::receive(&init.socket)? {
        Some(Record::Go) => {}
        _ => return Err(io::Error::other("the spawner did not let the build begin")),
    }
    let environment: Vec<_> = init
        .plan
        .environment()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for argv in init.plan.argv() {
        let begun = Instant::now();
        let pid = match start(&argv, &environment, init) {
            Ok(pid) => pid,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                return Record::StartFailed { errno }.send(&init.socket);
            }
        };
        let ended = reap_until(pid)?;
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
        if ended != Ended::Exited(0) {
            break;
        }
    }
    // What a step has left running dies with this process, the first of its pid namespace.
    Record::Done.send(&init.socket)
}

/// Forks a process that becomes the step's program; gives its id when it has.
fn start(argv: &[&str; 4], environment: &[String], init: &Init<'_>) -> io::Result<u32> {
    let (mut started, report) = io::pipe()?;
    let pid = process::fork_child(|| {
        let error = match prepare(init, report.as_fd()) {
            Ok(()) => program::execute(argv[0], argv, environment),
            Err(error) => error,
        };
        let errno = error.raw_os_error().unwrap_or(0);
        let _ = (&report).write_all(&errno.to_ne_bytes());
        127
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

fn prepare(init: &Init<'_>, report: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    program::set_standard_stream(null.as_fd(), StandardStream::Input)?;
    program::set_standard_stream(init.log.as_fd(), StandardStream::Output)?;
    program::set_standard_stream(init.log.as_fd(), StandardStream::Error)?;
    drop(null);
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    program::close_others(&[input.as_fd(), output.as_fd(), error.as_fd(), report])?;
    program::set_umask(0o022);
    std::env::set_current_dir(WORKDIR)
}

/// Reaps children, also those that were left to pid 1, until `pid` has ended.
fn reap_until(pid: u32) -> io::Result<Ended> {
    loop {
        match process::wait_any()? {
            Some((ended, how)) if ended == pid => return Ok(how),
            Some(_) => {}
            None => return Err(io::Error::other("the step's process has vanished")),
        }
    }
}
