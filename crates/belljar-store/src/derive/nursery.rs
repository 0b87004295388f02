//! Where unpackers come from. The store has threads and may not start programs, so neither a fork nor an
//! exec is open to it. Before it gets its threads it clones a process with one thread, confined as it is, the
//! nursery, which does nothing but clone itself again when it is asked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_sys::poll::{self, Event, Interest};
use belljar_sys::process::{self, Child, Ended, NewNamespaces};
use belljar_sys::program;
use belljar_sys::seqpacket::Connection;
use serde::{Deserialize, Serialize};

use super::unpacker;

/// How long the nursery may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Unpackers that one nursery has at most: those that are being killed are still there for a moment.
const MOST: usize = 2 * bounds::DERIVATIONS;

/// Where unpackers come from.
pub(crate) trait Unpackers: Send + Sync {
    /// A new one, which waits for its order.
    ///
    /// # Errors
    /// When there can be none.
    fn start(&self) -> io::Result<Unpacker>;
}

/// One unpacker. It is killed when this is dropped.
pub(crate) struct Unpacker {
    /// To it.
    pub(crate) connection: Connection,
    /// Nothing in tests, where it is a thread.
    pub(crate) process: Option<Child>,
}

impl Unpacker {
    /// Ends it, whatever it is doing.
    pub(crate) fn kill(&self) {
        if let Some(Err(error)) = self.process.as_ref().map(Child::kill) {
            tracing::error!(%error, "an unpacker could not be killed");
        }
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The nursery, seen from the store. It ends with this.
pub(crate) struct Nursery {
    connection: Mutex<Connection>,
    /// How many unpackers were asked for.
    asked: AtomicU64,
}

/// What the nursery answers. The descriptor of the process comes with `Started`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    Started { number: u64, pid: u32 },
    Failed { number: u64, why: String },
}

/// What the nursery is asked. The unpacker's end of its connection comes with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Start { number: u64 },
}

impl Nursery {
    fn over(connection: Connection) -> Self {
        Self {
            connection: Mutex::new(connection),
            asked: AtomicU64::new(0),
        }
    }

    /// Clones the nursery. The caller must have one thread. It cannot be done again once there are more: where the
    /// process that comes with it ends, so has the store.
    ///
    /// # Errors
    /// What socketpair(2) or clone3(2) say.
    pub(crate) fn clone_off() -> io::Result<(Self, Child)> {
        let (ours, theirs) = Connection::pair()?;
        ours.set_timeout(Some(PATIENCE))?;
        let process = process::clone_child(NewNamespaces::default(), None, || {
            let served = confine(&theirs).and_then(|()| serve(&theirs));
            match served {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!(%error, "the nursery ends");
                    1
                }
            }
        })?;
        Ok((Self::over(ours), process))
    }
}

impl Unpackers for Nursery {
    fn start(&self) -> io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        let nursery = self.connection.lock();
        let nursery = nursery.unwrap_or_else(PoisonError::into_inner);
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let request = frame::encode(&Request::Start { number }).map_err(io::Error::other)?;
        let gone = || io::Error::other("the nursery is gone; the store ends, to be started anew");
        let sent = nursery.send_with(&request, theirs.as_fd());
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => gone(),
            _ => error,
        })?;
        drop(theirs);
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        loop {
            let received = nursery.receive(&mut buffer)?.ok_or_else(gone)?;
            match (decode(&buffer[..received.length])?, received.descriptor) {
                // That one was not waited for any more, and ends with its connection.
                (Answer::Started { number: of, .. } | Answer::Failed { number: of, .. }, _)
                    if of != number => {}
                (Answer::Started { pid, .. }, Some(pidfd)) => {
                    return Ok(Unpacker {
                        connection,
                        process: Some(Child { pid, pidfd }),
                    });
                }
                (Answer::Started { .. }, None) => {
                    return Err(io::Error::other("a process without a handle"));
                }
                (Answer::Failed { why, .. }, _) => return Err(io::Error::other(why)),
            }
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(message: &[u8]) -> io::Result<T> {
    match frame::parse(message).map_err(io::Error::other)? {
        Frame::Control(rest) => frame::decode(rest).map_err(io::Error::other),
        Frame::Data(_) => Err(io::Error::other("content that nobody asked for")),
    }
}

fn confine(connection: &Connection) -> io::Result<()> {
    process::die_with_parent()?;
    let error = io::stderr();
    program::close_others(&[error.as_fd(), connection.as_fd()])
}

/// Clones unpackers until the store is gone.
fn serve(connection: &Connection) -> io::Result<()> {
    let mut children: Vec<Child> = Vec::new();
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    loop {
        let readable = |descriptor| Interest {
            descriptor,
            event: Event::Readable,
        };
        let mut interests = vec![readable(connection.as_fd())];
        interests.extend(children.iter().map(|child| readable(child.pidfd.as_fd())));
        let asked = poll::wait(&interests, None)?[0];
        bury(&mut children)?;
        if !asked {
            continue;
        }
        let Some(received) = connection.receive(&mut buffer)? else {
            return Ok(());
        };
        let Request::Start { number } = decode(&buffer[..received.length])?;
        let started = match received.descriptor {
            Some(_) if children.len() >= MOST => Err(io::Error::other("too many unpackers")),
            Some(socket) => start(socket),
            None => Err(io::Error::other("no connection came for the unpacker")),
        };
        match started {
            Ok(child) => {
                let pid = child.pid;
                let answer = frame::encode(&Answer::Started { number, pid });
                let answer = answer.map_err(io::Error::other)?;
                connection.send_with(&answer, child.pidfd.as_fd())?;
                children.push(child);
            }
            Err(error) => {
                let why = error.to_string();
                let answer = frame::encode(&Answer::Failed { number, why });
                connection.send(&answer.map_err(io::Error::other)?)?;
            }
        }
    }
}

fn start(socket: OwnedFd) -> io::Result<Child> {
    let connection = Connection::from(socket);
    process::clone_child(NewNamespaces::default(), None, || {
        unpacker::main(&connection)
    })
}

/// Takes note of the unpackers that have ended.
fn bury(children: &mut Vec<Child>) -> io::Result<()> {
    let mut left = Vec::with_capacity(children.len());
    for child in children.drain(..) {
        match child.try_wait()? {
            None => left.push(child),
            // Killed: by the store, which does that when it has heard enough.
            Some(Ended::Exited(0) | Ended::Signalled(9)) => {}
            Some(ended) => tracing::warn!(pid = child.pid, ?ended, "an unpacker failed"),
        }
    }
    *children = left;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
        let (ours, theirs) = Connection::pair().unwrap();
        ours.set_timeout(Some(Duration::from_millis(50))).unwrap();
        let nursery = Nursery::over(ours);
        let failed = |number: u64, why: &str| {
            let why = why.to_owned();
            let answer = frame::encode(&Answer::Failed { number, why }).unwrap();
            theirs.send(&answer).unwrap();
        };
        let start = || nursery.start().map(drop).unwrap_err();
        assert_eq!(start().kind(), io::ErrorKind::WouldBlock);
        failed(0, "of the first");
        failed(1, "of the second");
        assert_eq!(start().to_string(), "of the second");
        // Nobody but the last one is heard.
        failed(1, "of the second");
        assert_eq!(start().kind(), io::ErrorKind::WouldBlock);
    }
}
