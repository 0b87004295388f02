//! Where unpackers come from. The store has threads and may not start programs, so neither a fork nor an
//! exec is open to it. Before it gets its threads it clones a process with one thread, confined as it is, the
//! nursery, which does nothing but clone itself again when it is asked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
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
pub(crate) struct Nursery(Mutex<Connection>);

/// What the nursery answers. The descriptor of the process comes with `Started`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    Started { pid: u32 },
    Failed { why: String },
}

/// What the nursery is asked. The unpacker's end of its connection comes with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Start {},
}

impl Nursery {
    /// Clones the nursery. The caller must have one thread.
    ///
    /// # Errors
    /// What socketpair(2) or clone3(2) say.
    pub(crate) fn clone_off() -> io::Result<Self> {
        let (ours, theirs) = Connection::pair()?;
        ours.set_timeout(Some(PATIENCE))?;
        process::clone_child(NewNamespaces::default(), None, || {
            let served = confine(&theirs).and_then(|()| serve(&theirs));
            match served {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!(%error, "the nursery ends");
                    1
                }
            }
        })?;
        Ok(Self(Mutex::new(ours)))
    }
}

impl Unpackers for Nursery {
    fn start(&self) -> io::Result<Unpacker> {
        let (connection, theirs) = Connection::pair()?;
        let nursery = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let request = frame::encode(&Request::Start {}).map_err(io::Error::other)?;
        nursery.send_with(&request, theirs.as_fd())?;
        drop(theirs);
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        let gone = || io::Error::other("the nursery is gone; restart the store");
        let received = nursery.receive(&mut buffer)?.ok_or_else(gone)?;
        match (decode(&buffer[..received.length])?, received.descriptor) {
            (Answer::Started { pid }, Some(pidfd)) => Ok(Unpacker {
                connection,
                process: Some(Child { pid, pidfd }),
            }),
            (Answer::Started { .. }, None) => Err(io::Error::other("a process without a handle")),
            (Answer::Failed { why }, _) => Err(io::Error::other(why)),
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
        let Request::Start {} = decode(&buffer[..received.length])?;
        let started = match received.descriptor {
            Some(_) if children.len() >= MOST => Err(io::Error::other("too many unpackers")),
            Some(socket) => start(socket),
            None => Err(io::Error::other("no connection came for the unpacker")),
        };
        match started {
            Ok(child) => {
                let answer = Answer::Started { pid: child.pid };
                let answer = frame::encode(&answer).map_err(io::Error::other)?;
                connection.send_with(&answer, child.pidfd.as_fd())?;
                children.push(child);
            }
            Err(error) => {
                let why = error.to_string();
                let answer = frame::encode(&Answer::Failed { why }).map_err(io::Error::other)?;
                connection.send(&answer)?;
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
