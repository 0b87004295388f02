//! The one connection from belljard.

use std::collections::VecDeque;
use std::io;

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_plan::spawner::Request;
use belljar_sys::seqpacket::{Connection, Received};

/// Messages that wait for belljard to read; one more, and the connection is given up.
const OUTBOX: usize = 4096;

/// A connection that never waits.
pub struct Client {
    /// The connection.
    pub connection: Connection,
    outbox: VecDeque<Vec<u8>>,
}

/// What came.
pub enum Heard {
    /// A request.
    Request(Request),
    /// Nothing yet.
    Nothing,
    /// The other end has closed, or what came was no request: why.
    Over(Option<String>),
}

impl Client {
    /// Over a connection that was just accepted.
    ///
    /// # Errors
    /// When it cannot be kept from waiting.
    pub fn new(connection: Connection) -> io::Result<Self> {
        connection.set_nonblocking(true)?;
        Ok(Self {
            connection,
            outbox: VecDeque::new(),
        })
    }

    /// Whether something waits to be sent.
    pub fn is_behind(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Takes the next message.
    pub fn hear(&self) -> Heard {
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        match self.connection.receive(&mut buffer) {
            Ok(Some(received)) => match read(&buffer, &received) {
                Ok(request) => Heard::Request(request),
                Err(why) => Heard::Over(Some(why)),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Ok(None) => Heard::Over(None),
            Err(error) => Heard::Over(Some(error.to_string())),
        }
    }

    /// Sends a message, now or when the other end reads.
    ///
    /// # Errors
    /// When it does not read, or the connection failed.
    pub fn send(&mut self, message: Vec<u8>) -> io::Result<()> {
        if self.outbox.len() == OUTBOX {
            return Err(io::Error::other("belljard does not read"));
        }
        self.outbox.push_back(message);
        self.flush()
    }

    /// Sends what waits, as far as that is possible now.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(message) = self.outbox.front() {
            match self.connection.send(message) {
                Ok(()) => self.outbox.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

fn read(buffer: &[u8], received: &Received) -> Result<Request, String> {
    if received.descriptor.is_some() {
        return Err("a descriptor came; none is taken".to_owned());
    }
    match frame::parse(&buffer[..received.length]).map_err(|e| e.to_string())? {
        Frame::Control(control) => frame::decode(control).map_err(|e| e.to_string()),
        Frame::Data(_) => Err("content came; none is taken".to_owned()),
    }
}
