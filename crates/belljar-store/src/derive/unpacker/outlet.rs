use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use belljar_core::{ObjectId, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::unpack::{Said, Told};
use belljar_sys::seqpacket::Connection;

/// The unpacker's end of its connection to the store.
pub(super) struct Outlet<'a> {
    connection: &'a Connection,
    buffer: RefCell<Vec<u8>>,
}

/// Why an unpacker stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nothing can be made of what it reads.
    Refused(String),
    /// Something else failed, or the store has hung up.
    Failed(io::Error),
}

impl Stop {
    /// The same, said of something further out.
    pub(super) fn within(self, outer: &str) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(format!("{outer} {why}")),
            failed @ Self::Failed(_) => failed,
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a> Outlet<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            buffer: RefCell::new(vec![0; bounds::FRAME_BYTES]),
        }
    }

    /// Says something to the store.
    pub(super) fn say(&self, message: &Said) -> io::Result<()> {
        self.connection
            .send(&frame::encode(message).map_err(io::Error::other)?)
    }

    /// Sends a piece of the file that was begun, at most [`bounds::CHUNK_BYTES`] long.
    pub(super) fn piece(&self, piece: &[u8]) -> io::Result<()> {
        self.connection
            .send_parts(&frame::data(piece).map_err(io::Error::other)?)
    }

    /// What the store says.
    pub(super) fn told(&self) -> io::Result<(Told, Option<OwnedFd>)> {
        let mut buffer = self.buffer.borrow_mut();
        let received = self.connection.receive(&mut buffer)?;
        let received = received.ok_or_else(|| io::Error::other("the store has hung up"))?;
        match frame::parse(&buffer[..received.length]).map_err(io::Error::other)? {
            Frame::Control(rest) => {
                let told = frame::decode(rest).map_err(io::Error::other)?;
                Ok((told, received.descriptor))
            }
            Frame::Data(_) => Err(io::Error::other("the store has sent content")),
        }
    }

    /// The content of an object of the store.
    pub(super) fn need(&self, object: ObjectId) -> io::Result<File> {
        self.say(&Said::Need { object })?;
        match self.told()? {
            (Told::Content {}, Some(pipe)) => Ok(File::from(pipe)),
            (Told::Missing {}, _) => Err(io::Error::other("the store lacks an object")),
            _ => Err(io::Error::other("content was due")),
        }
    }

    /// The content of a small object, whole.
    pub(super) fn document(&self, object: ObjectId, most: u64) -> Result<Vec<u8>, Stop> {
        if object.size > most {
            return Err(Stop::Refused(format!(
                "has {} bytes; {most} are allowed",
                object.size
            )));
        }
        let mut bytes = Vec::new();
        self.need(object)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
