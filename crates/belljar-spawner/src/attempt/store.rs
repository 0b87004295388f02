//! An attempt's conversation with the store.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::{Answer, Request};
use belljar_sys::seqpacket::Connection;

/// How long a small message to the store may wait for room in the socket.
const SEND_TIME: Duration = Duration::from_secs(10);

/// A connection to the store that belongs to one attempt.
pub(super) struct Session {
    connection: Connection,
    buffer: Vec<u8>,
}

/// What the store says.
pub(super) enum Heard {
    /// An answer.
    Answer(Answer),
    /// A piece of a record.
    Content(Vec<u8>),
}

impl Session {
    /// Connects, and checks that it is the store that listens.
    pub(super) fn connect(socket: &Path, store_uid: u32) -> io::Result<Self> {
        let connection = Connection::connect(socket)?;
        let peer = connection.peer()?;
        // Root is the service manager, which has kept the connection for a store that is being started.
        if peer.uid != store_uid && peer.uid != 0 {
            return Err(io::Error::other(format!(
                "uid {} listens at the store's socket",
                peer.uid
            )));
        }
        connection.set_timeout(Some(SEND_TIME))?;
        Ok(Self {
            connection,
            buffer: vec![0; bounds::FRAME_BYTES],
        })
    }

    pub(super) fn ask(&self, request: &Request) -> io::Result<()> {
        self.connection
            .send(&frame::encode(request).map_err(io::Error::other)?)
    }

    pub(super) fn ask_with(&self, request: &Request, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.connection.send_with(
            &frame::encode(request).map_err(io::Error::other)?,
            descriptor,
        )
    }

    /// Takes what the store says next, which must be there.
    pub(super) fn hear(&mut self) -> io::Result<Heard> {
        let received = self.connection.receive(&mut self.buffer)?;
        let length = received
            .ok_or_else(|| io::Error::other("the store has hung up"))?
            .length;
        match frame::parse(&self.buffer[..length]).map_err(io::Error::other)? {
            Frame::Control(control) => {
                let answer = frame::decode(control).map_err(io::Error::other)?;
                Ok(Heard::Answer(answer))
            }
            Frame::Data(piece) => Ok(Heard::Content(piece.to_vec())),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
