//! Making, watching and confining processes.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitIdOptions, WaitOptions, pidfd_open};

use crate::poll::{self, Event, Interest};

/// A child process, held by a descriptor that no other process can take over (pidfd_open(2)).
#[derive(Debug)]
pub struct Child {
    /// Its process id as the parent sees it: for `/proc` and logs, never for signals.
    pub pid: u32,
    /// The descriptor: readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Signalled(u8),
}

/// New namespaces for a child (clone(2)), beside a copy of everything else of the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewNamespaces {
    /// Mounts, process ids, System V IPC, host name, and offsets of clocks (of none). The initial user namespace owns
    /// them, because no user namespace is made in the same call.
    pub sandbox: bool,
}

/// `struct clone_args` of clone3(2), as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_NEWNS: u64 = 0x2_0000;
/// Only clone3(2) takes it so, and has the child itself begin there; for clone(2) it is part of the exit signal.
const CLONE_NEWTIME: u64 = 0x80;
const CLONE_NEWUTS: u64 = 0x400_0000;
const CLONE_NEWIPC: u64 = 0x800_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;

/// A clone by the older call: `RestrictNamespaces=` (systemd.exec(5)) answers clone3(2) with ENOSYS, whose flags
/// a filter cannot see.
fn clone_plainly(pidfd: &mut libc::c_int) -> libc::c_long {
    let flags = CLONE_PIDFD | libc::SIGCHLD as u64;
    let none: libc::c_ulong = 0;
    // WHY: neither std, nix nor rustix offers a clone with a pidfd that returns in the child.
    // SAFETY: without CLONE_VM and with a null stack the child is a copy of this process, as by fork; the
    // only caller has seen that it has one thread. With CLONE_PIDFD the third argument, on every
    // architecture, is where the descriptor goes, and `pidfd` outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            none,
            std::ptr::from_mut(pidfd),
            none,
            none,
        )
    }
}

/// Clones this process; the child runs `body` and exits with what it returns (101 after a panic).
///
/// The caller must have one thread: a child of a process with several could find a lock held for ever.
/// `cgroup` is the directory of a v2 cgroup in which the child begins (`CLONE_INTO_CGROUP`).
/// It dies with its parent from the beginning, until it changes its credentials: it has copies of all descriptors, and
/// whoever waits at the other end of one of them would else not learn that this process is gone.
///
/// # Errors
/// What pidfd_open(2) or clone3(2) say, or clone(2) where neither namespaces nor a cgroup are asked for; `InvalidInput` when
/// this process has other threads.
pub fn clone_child(
    namespaces: NewNamespaces,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> u8,
) -> io::Result<Child> {
    if !is_single_threaded()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only a process with one thread may clone itself",
        ));
    }
    let bond = Bond::to_this_process()?;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if namespaces.sandbox {
        args.flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWTIME;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    }
    let pid = if args.flags == CLONE_PIDFD {
        clone_plainly(&mut pidfd)
    } else {
        // WHY: neither std, nix nor rustix offers clone3 with a cgroup and a pidfd.
        // SAFETY: without CLONE_VM and with a null stack the child is a copy of this process, as by fork; the
        // check above makes it the copy of the only thread, so no lock is held by a thread that is not there.
        // `args` is as large as told, and `pidfd` outlives the call.
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) }
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let body = AssertUnwindSafe(|| match bond.renew() {
                Ok(()) => body(),
                Err(_) => ORPHAN,
            });
            exit_now(catch_unwind(body).unwrap_or(101))
        }
        pid => Ok(Child {
            pid: u32::try_from(pid).map_err(io::Error::other)?,
            // WHY: the kernel gives the descriptor as a number.
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Forks this process by the older call that seccomp filters can judge; the child runs `body` and exits with
/// what it returns. Gives the child's process id. The caller must have one thread.
///
/// # Errors
/// What fork(2) says.
pub fn fork_child(body: impl FnOnce() -> u8) -> io::Result<u32> {
    // WHY: clone3 is refused inside a sandbox, and std has no fork.
    // SAFETY: the callers are init and its like, which never start a thread, so no lock can be held by a
    // thread that is not copied.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => exit_now(catch_unwind(AssertUnwindSafe(body)).unwrap_or(101)),
        pid => u32::try_from(pid).map_err(io::Error::other),
    }
}

/// Ends this process at once, without running destructors or exit handlers that belong to the parent
/// it was copied from.
pub fn exit_now(status: u8) -> ! {
    // WHY: `std::process::exit` would run the parent's exit handlers and flush its copied buffers.
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// Whether this process has exactly one thread.
///
/// # Errors
/// When `/proc` is not there.
pub fn is_single_threaded() -> io::Result<bool> {
    // As for any directory, one link for each entry beside its own two; looking in would need a right of Landlock's.
    Ok(std::fs::metadata("/proc/self/task")?.nlink() == 3)
}

impl Child {
    /// Waits for its end.
    ///
    /// # Errors
    /// What waitid(2) says.
    pub fn wait(&self) -> io::Result<Ended> {
        self.reap(WaitIdOptions::EXITED)?
            .ok_or_else(|| io::Error::other("waitid gave no status"))
    }

    /// Its end, if it has come.
    ///
    /// # Errors
    /// What waitid(2) says.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn reap(&self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        loop {
            match rustix::process::waitid(
                rustix::process::WaitId::PidFd(self.pidfd.as_fd()),
                options,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?.map(|s| ended(s.terminating_signal(), s.exit_status()))),
            }
        }
    }

    /// Sends SIGKILL.
    ///
    /// # Errors
    /// What pidfd_send_signal(2) says; a process that has ended already is no error.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn ended(signal: Option<i32>, status: Option<i32>) -> Ended {
    let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
    match signal {
        Some(signal) => Ended::Signalled(byte(signal)),
        None => Ended::Exited(byte(status.unwrap_or(255))),
    }
}

/// A child of this process that has ended, if there is one by now. Whoever has made this process its tracer
/// (PTRACE_TRACEME, ptrace(2)) is let go when it stops for that, and goes on as if nobody traced it.
///
/// # Errors
/// What waitpid(2) says, or ptrace(2) about a child that is still there.
pub fn reap_any() -> io::Result<Reaped> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => match status.stopping_signal() {
                // Nobody asks for stops here, so that only a tracer hears of them.
                Some(signal) => let_go(pid, signal)?,
                None => {
                    return Ok(Reaped::One(
                        pid.as_raw_nonzero().get().unsigned_abs(),
                        ended(status.terminating_signal(), status.exit_status()),
                    ));
                }
            },
            Ok(None) => return Ok(Reaped::NoneYet),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(Reaped::Childless),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the tracing of a child that has stopped before this signal reaches it, which it gets now.
fn let_go(pid: Pid, signal: i32) -> io::Result<()> {
    let stopped = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    // execve(2) sends one to whoever is traced, as if the program had done so itself: it would die of it.
    let by_exec = signal == libc::SIGTRAP
        && nix::sys::ptrace::getsiginfo(stopped).is_ok_and(|info| info.si_code == libc::SI_USER);
    let passed_on = if by_exec { 0 } else { signal };
    // WHY: nix's `detach` takes no real-time signal.
    // SAFETY: PTRACE_DETACH reads no memory: the address is ignored and the data is the signal's number.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_DETACH,
            stopped.as_raw(),
            std::ptr::null_mut::<libc::c_void>(),
            libc::c_long::from(passed_on),
        )
    };
    match io::Error::last_os_error() {
        _ if result != -1 => Ok(()),
        // Killed meanwhile: its end is told as any other.
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// What [`reap_any`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended like this.
    One(u32, Ended),
    /// There are children, and none has ended.
    NoneYet,
    /// There are no children.
    Childless,
}

/// Sends SIGTERM to every other process that this one may signal (kill(2) with -1): as pid 1 of a pid
/// namespace to all in it.
///
/// # Errors
/// What kill(2) says; that there is nobody is none.
pub fn terminate_all() -> io::Result<()> {
    use nix::sys::signal::{Signal as NixSignal, kill};
    match kill(nix::unistd::Pid::from_raw(-1), NixSignal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How the descriptor tables of two threads compare (kcmp(2)): equal when they share one, else in an order that
/// stays the same while both are there.
///
/// # Errors
/// What kcmp(2) says: ESRCH when one of them is gone, ENOSYS where the kernel is without it.
pub fn compare_descriptor_tables(one: u32, other: u32) -> io::Result<Ordering> {
    const KCMP_FILES: libc::c_int = 2;
    compare(one, other, KCMP_FILES)
}

/// The same for their address spaces.
///
/// # Errors
/// As [`compare_descriptor_tables`].
pub fn compare_address_spaces(one: u32, other: u32) -> io::Result<Ordering> {
    const KCMP_VM: libc::c_int = 1;
    compare(one, other, KCMP_VM)
}

fn compare(one: u32, other: u32, what: libc::c_int) -> io::Result<Ordering> {
    // WHY: no safe wrapper exists in the crates used here.
    // SAFETY: all arguments are numbers; the kernel only compares addresses of its own.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, what, 0_u64, 0_u64) } {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        -1 => Err(io::Error::last_os_error()),
        other => Err(io::Error::other(format!("kcmp(2) answered {other}"))),
    }
}

/// The user id that this process acts under (geteuid(2)).
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Exit status of a child whose parent is gone.
const ORPHAN: u8 = 102;

/// What has a child die with its parent, also where it changes its credentials.
#[derive(Debug)]
pub struct Bond(OwnedFd);

impl Bond {
    /// For children of this process.
    ///
    /// # Errors
    /// What pidfd_open(2) says.
    pub fn to_this_process() -> io::Result<Self> {
        let this = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        Ok(Self(this))
    }

    /// Has this process, a child of that one, die with it from now on.
    ///
    /// # Errors
    /// What prctl(2) or poll(2) say; `NotFound` when the parent had died before: nobody else would notice, in a pid
    /// namespace of its own least of all.
    pub fn renew(&self) -> io::Result<()> {
        die_with_parent()?;
        let ended = Interest {
            descriptor: self.0.as_fd(),
            event: Event::Readable,
        };
        match poll::wait(&[ended], Some(Duration::ZERO))?[..] {
            [true] => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(()),
        }
    }
}

/// Has the kernel kill this process when its parent dies (PR_SET_PDEATHSIG, prctl(2)). A change of
/// credentials clears that: call again afterwards.
///
/// # Errors
/// What prctl(2) says.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}

/// Makes this process's memory and `/proc` entries unreadable to others of the same user id, and its
/// core undumped (PR_SET_DUMPABLE, prctl(2)).
///
/// # Errors
/// What prctl(2) says.
pub fn not_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted() {
        assert!(!is_single_threaded().unwrap());
        // The command's first process is a copy of this thread alone.
        let counted = std::process::Command::new("stat")
            .args(["--format=%h", "/proc/self/task"])
            .output()
            .unwrap();
        assert_eq!(counted.stdout, b"3\n");
    }

    #[test]
    fn a_process_with_threads_may_not_clone_itself() {
        // The test harness runs each test on a thread of its own, so there are at least two here.
        let refused = clone_child(NewNamespaces::default(), None, || 0).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
