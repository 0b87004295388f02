use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use belljar_core::{Invalid, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::{Answer, Collected, Consent, Request, Whole};
use belljar_sys::seqpacket::Connection;

use crate::failed::Failed;
use crate::refused::Refused;

/// How long the other end may leave its messages unread, or content that it announced unsent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, message by message.
pub(crate) struct Channel {
    connection: Connection,
    buffer: Vec<u8>,
    /// Who is at the other end.
    who: String,
    /// What it has asked for last.
    asked: &'static str,
    refused: Arc<Refused>,
}

/// A second handle that only sends.
pub(crate) struct Sender(Connection);

/// Why a conversation cannot go on. The connection is closed after it.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other end has closed, in the middle of something.
    Closed,
    /// The connection failed, or the other end was silent or deaf for longer than [`PATIENCE`].
    Io(io::Error),
    /// The other end did what it may not; it is told so.
    Refused(Failed),
}

/// How long to wait for the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// As long as the connection lasts.
    ForEver,
    /// [`PATIENCE`].
    Patiently,
}

/// What can arrive while outputs are collected.
pub(crate) enum WhileCollecting<'a> {
    Collected(Collected),
    Piece(&'a [u8]),
    Request(Request, Option<OwnedFd>),
}

impl Channel {
    /// Takes over a connection from `who`, and keeps a record of what it refuses.
    pub(crate) fn new(
        connection: Connection,
        who: String,
        refused: Arc<Refused>,
    ) -> io::Result<Self> {
        connection.set_timeout(Some(PATIENCE))?;
        Ok(Self {
            connection,
            buffer: vec![0; bounds::FRAME_BYTES],
            who,
            asked: "connection",
            refused,
        })
    }

    /// A handle for answers that come unasked.
    pub(crate) fn sender(&self) -> io::Result<Sender> {
        self.connection.try_clone().map(Sender)
    }

    /// Sends one answer. A refusal is recorded before.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<(), Broken> {
        if let Some(why) = answer.refusal() {
            self.refused.note(&self.who, self.asked, why);
        }
        send(&self.connection, answer)
    }

    /// Sends content that was announced by an answer.
    pub(crate) fn content(&self, bytes: &[u8]) -> Result<(), Broken> {
        for piece in bytes.chunks(bounds::CHUNK_BYTES) {
            let message = frame::data(piece)?;
            self.connection.send_parts(&message).map_err(Broken::Io)?;
        }
        Ok(())
    }

    /// The next request and the descriptor that came with it; none when the other end has closed.
    pub(crate) fn request(&mut self) -> Result<Option<(Request, Option<OwnedFd>)>, Broken> {
        match self.receive(Wait::ForEver)? {
            None => Ok(None),
            Some((Frame::Control(rest), descriptor)) => {
                let request: Request = frame::decode(rest)?;
                self.asked = request.name();
                Ok(Some((request, descriptor)))
            }
            Some((Frame::Data(_), _)) => Err(Broken::Refused(Failed::refused(
                "content came that nobody announced",
            ))),
        }
    }

    /// The next piece of content that was announced.
    pub(crate) fn piece(&mut self) -> Result<&[u8], Broken> {
        match self.receive(Wait::Patiently)? {
            None => Err(Broken::Closed),
            Some((Frame::Data(piece), _)) => Ok(piece),
            Some((Frame::Control(_), _)) => Err(Broken::Refused(Failed::refused(
                "a request came before the content was complete",
            ))),
        }
    }

    /// The next piece of content whose length nobody announced; none when the other end says that it was all.
    pub(crate) fn piece_or_end(&mut self) -> Result<Option<&[u8]>, Broken> {
        match self.receive(Wait::Patiently)? {
            None => Err(Broken::Closed),
            Some((Frame::Data(piece), _)) => Ok(Some(piece)),
            Some((Frame::Control(rest), _)) => {
                let Whole::Whole {} = frame::decode(rest)?;
                Ok(None)
            }
        }
    }

    /// What the other end says to [`Answer::DerivationWants`].
    pub(crate) fn consent(&mut self) -> Result<Consent, Broken> {
        match self.receive(Wait::Patiently)? {
            None => Err(Broken::Closed),
            Some((Frame::Control(rest), None)) => Ok(frame::decode(rest)?),
            Some(_) => Err(Broken::Refused(Failed::refused(
                "something else came where consent was due",
            ))),
        }
    }

    /// The next message of a collector, or the request that comes instead when there is no collector any
    /// more: its connection is the spawner's own.
    pub(crate) fn while_collecting(&mut self) -> Result<WhileCollecting<'_>, Broken> {
        match self.receive(Wait::ForEver)? {
            None => Err(Broken::Closed),
            Some((Frame::Data(piece), _)) => Ok(WhileCollecting::Piece(piece)),
            Some((Frame::Control(rest), descriptor)) => match frame::decode(rest) {
                Ok(collected) => Ok(WhileCollecting::Collected(collected)),
                Err(_) => Ok(WhileCollecting::Request(frame::decode(rest)?, descriptor)),
            },
        }
    }

    fn receive(&mut self, wait: Wait) -> Result<Option<(Frame<'_>, Option<OwnedFd>)>, Broken> {
        let received = loop {
            match self.connection.receive(&mut self.buffer) {
                Ok(received) => break received,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && wait == Wait::ForEver => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Broken::Refused(Failed::refused(
                        "a message was larger than allowed",
                    )));
                }
                Err(error) => return Err(Broken::Io(error)),
            }
        };
        match received {
            None => Ok(None),
            Some(received) => {
                let frame = frame::parse(&self.buffer[..received.length])?;
                Ok(Some((frame, received.descriptor)))
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Sender {
    /// Sends one answer.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<(), Broken> {
        send(&self.0, answer)
    }
}

fn send(connection: &Connection, answer: &Answer) -> Result<(), Broken> {
    let message = frame::encode(answer).map_err(|e| Broken::Io(io::Error::other(e)))?;
    connection.send(&message).map_err(Broken::Io)
}

impl From<Invalid> for Broken {
    fn from(invalid: Invalid) -> Self {
        Self::Refused(invalid.into())
    }
}
