//! Waiting for several descriptors at once (poll(2)).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

/// What is waited for on one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'a> {
    /// The descriptor.
    pub descriptor: BorrowedFd<'a>,
    /// What about it.
    pub event: Event,
}

/// A condition of a descriptor. An error or a hang-up always counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something can be read.
    Readable,
    /// Something can be read, or written without waiting.
    ReadableOrWritable,
    /// An exceptional condition: a cgroup file has changed.
    Priority,
}

/// Waits until something happens on one of `interests`, or `timeout` has passed (none: for ever). Gives
/// for each, in order, whether it has happened.
///
/// # Errors
/// What ppoll(2) says.
pub fn wait(interests: &[Interest<'_>], timeout: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = interests
        .iter()
        .map(|interest| {
            let flags = match interest.event {
                Event::Readable => PollFlags::IN,
                Event::ReadableOrWritable => PollFlags::IN | PollFlags::OUT,
                Event::Priority => PollFlags::PRI,
            };
            PollFd::from_borrowed_fd(interest.descriptor, flags)
        })
        .collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(vec![false; interests.len()]),
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// How many bytes wait to be read from a pipe (FIONREAD, ioctl_tty(2)).
///
/// # Errors
/// What ioctl(2) says.
pub fn readable_bytes(pipe: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(pipe)?)
}

/// Has reads from here end with EAGAIN instead of waiting (O_NONBLOCK, open(2)): through every descriptor of the same
/// open file, so of this end of a pipe only.
///
/// # Errors
/// What fcntl(2) says.
pub fn never_wait(reading: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(reading)?;
    Ok(rustix::fs::fcntl_setfl(reading, flags | OFlags::NONBLOCK)?)
}
