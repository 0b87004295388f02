//! What a process does to itself before it becomes another program: signals, descriptors, limits,
//! keyrings, and the exec itself.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Starts a session of its own without a controlling terminal (setsid(2)).
///
/// # Errors
/// What setsid(2) says.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Gives every signal its default disposition, SIGPIPE too (which the Rust runtime ignores), and
/// unblocks all of them: an ignored signal would be inherited by the build.
///
/// # Errors
/// What sigaction(2) or sigprocmask(2) say.
pub fn reset_signals() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        let fixed = number == libc::SIGKILL
            || number == libc::SIGSTOP
            || (32..libc::SIGRTMIN()).contains(&number);
        if fixed {
            continue;
        }
        // WHY: nix's `Signal` does not know the real-time signals.
        // SAFETY: SIG_DFL installs no handler, so nothing of this process can be called asynchronously.
        if unsafe { libc::signal(number, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(io::Error::from)
}

/// A descriptor that becomes readable when SIGTERM or SIGINT comes (signalfd(2)); both are blocked.
///
/// # Errors
/// What sigprocmask(2) or signalfd(2) say.
pub fn termination_signals() -> io::Result<OwnedFd> {
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    set.thread_block()?;
    let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    descriptor.as_fd().try_clone_to_owned()
}

/// A descriptor that becomes readable when a child ends (SIGCHLD by signalfd(2)), which is blocked for it.
/// Children inherit that: see [`unblock_signals`].
///
/// # Errors
/// What sigprocmask(2) or signalfd(2) say.
pub fn child_signals() -> io::Result<OwnedFd> {
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let set = SigSet::from_iter([Signal::SIGCHLD]);
    set.thread_block()?;
    let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    descriptor.as_fd().try_clone_to_owned()
}

/// Takes what has come over a descriptor of [`child_signals`], so that it is readable by what comes later
/// only.
///
/// # Errors
/// What read(2) says.
pub fn take_signals(signals: BorrowedFd<'_>) -> io::Result<()> {
    let mut taken = [0; 1024];
    loop {
        match rustix::io::read(signals, &mut taken) {
            Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a directory the working directory; it may have been opened for nothing but that (fchdir(2)).
///
/// # Errors
/// What fchdir(2) says.
pub fn enter_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::fchdir(directory)?)
}

/// Unblocks every signal.
///
/// # Errors
/// What sigprocmask(2) says.
pub fn unblock_signals() -> io::Result<()> {
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(io::Error::from)
}

/// Closes every descriptor of this process but those in `keep` (close_range(2)).
///
/// # Errors
/// What close_range(2) says.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = keep
        .iter()
        .map(|fd| fd.as_raw_fd().unsigned_abs())
        .collect();
    numbers.sort_unstable();
    let mut first = 0;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // WHY: no safe wrapper exists; closing descriptors by number cannot be expressed by owned handles.
    // SAFETY: called only in a child that is about to run another program or a closed set of steps, and
    // that uses none of the handles whose descriptors are closed (they are leaked by `exit_now`).
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes `source` descriptor 0, 1 or 2 of this process (dup3(2)), open across exec.
///
/// # Errors
/// What dup2(2) says.
pub fn set_standard_stream(source: BorrowedFd<'_>, number: StandardStream) -> io::Result<()> {
    match number {
        StandardStream::Input => rustix::stdio::dup2_stdin(source)?,
        StandardStream::Output => rustix::stdio::dup2_stdout(source)?,
        StandardStream::Error => rustix::stdio::dup2_stderr(source)?,
    }
    Ok(())
}

/// One of the three standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardStream {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

/// Becomes the program at `path` (execve(2)). Returns only when that fails.
pub fn execute(path: &str, argv: &[&str], environment: &[String]) -> io::Error {
    let text = |text: &str| CString::new(text);
    let prepared = (|| {
        let argv = argv
            .iter()
            .map(|a| text(a))
            .collect::<Result<Vec<_>, _>>()?;
        let environment = environment
            .iter()
            .map(|e| text(e))
            .collect::<Result<Vec<_>, _>>()?;
        Ok::<_, std::ffi::NulError>((text(path)?, argv, environment))
    })();
    match prepared {
        Ok((path, argv, environment)) => match nix::unistd::execve(&path, &argv, &environment) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        Err(error) => error.into(),
    }
}

/// Lowers one resource limit, soft and hard (setrlimit(2)); a limit that is lower already stays. Only the soft
/// limit on core dumps becomes what the hard one is: nothing stops a piped core_pattern but a limit of one
/// byte, not even zero (core(5)).
///
/// # Errors
/// What setrlimit(2) says.
pub fn lower_limit(resource: Limited, most: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let resource = match resource {
        Limited::Core => Resource::RLIMIT_CORE,
        Limited::OpenFiles => Resource::RLIMIT_NOFILE,
        Limited::LockedMemory => Resource::RLIMIT_MEMLOCK,
        Limited::MessageQueues => Resource::RLIMIT_MSGQUEUE,
        Limited::PendingSignals => Resource::RLIMIT_SIGPENDING,
        Limited::RealTimePriority => Resource::RLIMIT_RTPRIO,
        Limited::Niceness => Resource::RLIMIT_NICE,
        Limited::AddressSpace => Resource::RLIMIT_AS,
        Limited::CpuSeconds => Resource::RLIMIT_CPU,
    };
    let (soft, hard) = getrlimit(resource)?;
    let hard = hard.min(most);
    let soft = match resource {
        Resource::RLIMIT_CORE => hard,
        _ => soft.min(most),
    };
    Ok(setrlimit(resource, soft, hard)?)
}

/// Raises how many files this process may have open to what it may raise that to by itself, and to no more than `most`; a
/// limit that is higher already stays (setrlimit(2)).
///
/// # Errors
/// What setrlimit(2) says.
pub fn raise_open_files(most: u64) -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = hard.min(most);
    if soft < raised {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    }
    Ok(())
}

/// Takes a negative nice value, by which the process would come before others, back to 0 (setpriority(2)); one
/// that is not negative stays. It counts for the calling thread and all that it starts.
///
/// # Errors
/// What setpriority(2) says, or that the kernel tells another value afterwards.
pub fn not_before_others() -> io::Result<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    if getpriority_process(None)? < 0 {
        setpriority_process(None, 0)?;
    }
    match getpriority_process(None)? {
        0.. => Ok(()),
        nice => Err(io::Error::other(format!("the nice value is still {nice}"))),
    }
}

/// Resource limits that a sandbox lowers (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// RLIMIT_CORE, bytes.
    Core,
    /// RLIMIT_NOFILE, descriptors.
    OpenFiles,
    /// RLIMIT_MEMLOCK, bytes.
    LockedMemory,
    /// RLIMIT_MSGQUEUE, bytes.
    MessageQueues,
    /// RLIMIT_SIGPENDING, signals.
    PendingSignals,
    /// RLIMIT_RTPRIO, priority.
    RealTimePriority,
    /// RLIMIT_NICE, 20 less the nice value.
    Niceness,
    /// RLIMIT_AS, bytes.
    AddressSpace,
    /// RLIMIT_CPU, seconds.
    CpuSeconds,
}

/// Replaces the session keyring by a fresh, empty one (keyctl_join_session_keyring(3)).
///
/// # Errors
/// What keyctl(2) says; `Unsupported` where the kernel has no keys, which leaves nothing to inherit.
pub fn fresh_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // WHY: no safe wrapper exists in the crates used here.
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    match unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Sets the file mode creation mask (umask(2)).
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}
