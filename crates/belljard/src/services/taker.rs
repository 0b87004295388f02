use std::io::{self, Read, Write};
use std::time::Duration;

use belljar_cas::ReadError;
use belljar_core::{ObjectId, bounds};
use belljar_wire::Problem;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::blobs::unreadable;
use super::internal;
use crate::tasks::{self, Feed};

/// How long a client may leave a message untaken.
const PATIENCE: Duration = Duration::from_secs(bounds::PACE_SECONDS);

/// Gives the messages of a stream to its client, from a thread that may block.
pub(super) struct Taker<T> {
    handle: Handle,
    sender: mpsc::Sender<Result<T, Status>>,
}

/// Why nothing more can be given.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is gone, and needs no reason.
    Gone,
    /// What the client is told.
    Status(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl<T> Taker<T> {
    /// Gives one message; the client has a while to take it.
    pub(super) fn give(&self, message: T) -> Result<(), Stop> {
        let sending = self.sender.send_timeout(Ok(message), PATIENCE);
        match self.handle.block_on(sending) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(Stop::Gone),
            Err(SendTimeoutError::Timeout(_)) => {
                let seconds = bounds::PACE_SECONDS;
                let why = format!("nothing was taken for {seconds} seconds");
                Err(Stop::Status(Problem::unavailable(why).into()))
            }
        }
    }
}

/// A stream of what `work` gives, on a thread that may block. `held` is given back when the thread ends.
pub(super) fn stream<T: Send + 'static>(
    name: &'static str,
    held: impl Send + 'static,
    work: impl FnOnce(&Taker<T>) -> Result<(), Stop> + Send + 'static,
) -> Feed<Result<T, Status>> {
    tasks::feed(name, bounds::WAITING_PIECES, move |sender| async move {
        let taker = Taker {
            handle: Handle::current(),
            sender: sender.clone(),
        };
        let working = spawn_blocking(move || {
            let _held = held;
            work(&taker)
        });
        let status = match working.await {
            Ok(Ok(()) | Err(Stop::Gone)) => return,
            Ok(Err(Stop::Status(status))) => status,
            Err(error) => internal("a stream broke off", &error),
        };
        // The thread is gone already; a client that takes nothing holds up nobody but itself.
        let _ = sender.send(Err(status)).await;
    })
}

/// Cuts bytes into messages of [`bounds::READ_CHUNK_BYTES`]. The last one stays behind until
/// [`Outlet::finish`]: whoever has received all has received what was verified.
pub(super) struct Outlet<'a, T> {
    taker: &'a Taker<T>,
    message: fn(Vec<u8>) -> T,
    piece: Vec<u8>,
    stop: Option<Stop>,
}

impl<'a, T> Outlet<'a, T> {
    pub(super) fn new(taker: &'a Taker<T>, message: fn(Vec<u8>) -> T) -> Self {
        Self {
            taker,
            message,
            piece: Vec::new(),
            stop: None,
        }
    }

    /// Gives the rest, after everything has gone well; otherwise says what has not.
    pub(super) fn finish(mut self, copied: io::Result<()>, object: ObjectId) -> Result<(), Stop> {
        if let Some(stop) = self.stop {
            return Err(stop);
        }
        copied.map_err(|source| unreadable(ReadError::Io { object, source }, object))?;
        if self.piece.is_empty() {
            return Ok(());
        }
        self.taker
            .give((self.message)(std::mem::take(&mut self.piece)))
    }
}

impl<T> Write for Outlet<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= bounds::READ_CHUNK_BYTES {
            let full = std::mem::take(&mut self.piece);
            if let Err(stop) = self.taker.give((self.message)(full)) {
                self.stop = Some(stop);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        let room = bounds::READ_CHUNK_BYTES - self.piece.len();
        let fits = &bytes[..bytes.len().min(room)];
        if self.piece.capacity() == 0 {
            self.piece
                .reserve_exact(bounds::READ_CHUNK_BYTES.min(fits.len().max(bounds::CHUNK_BYTES)));
        }
        self.piece.extend_from_slice(fits);
        Ok(fits.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of what `inner` has. The rest is read too, before the end of the part is told: an inner reader
/// that verifies does so over everything.
pub(super) struct Part<R> {
    inner: R,
    skip: u64,
    take: u64,
}

impl<R: Read> Part<R> {
    pub(super) fn new(inner: R, skip: u64, take: u64) -> Self {
        Self { inner, skip, take }
    }
}

impl<R: Read> Read for Part<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let skipped = io::copy(&mut (&mut self.inner).take(self.skip), &mut io::sink())?;
            self.skip -= skipped;
            if self.skip > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if self.take == 0 {
            io::copy(&mut self.inner, &mut io::sink())?;
            return Ok(0);
        }
        let most = usize::try_from(self.take).unwrap_or(usize::MAX);
        let room = buffer.len().min(most);
        let read = self.inner.read(&mut buffer[..room])?;
        self.take -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use belljar_cas::VerifyingRead;

    use super::*;

    #[test]
    fn a_part_is_told_to_end_only_when_all_was_verified() {
        let object = ObjectId::of(b"content");
        let part = |content: &'static [u8], skip, take| {
            let mut bytes = Vec::new();
            let whole = VerifyingRead::new(content, object);
            Part::new(whole, skip, take).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        assert_eq!(part(b"content", 0, 7).unwrap(), b"content");
        assert_eq!(part(b"content", 3, 2).unwrap(), b"te");
        assert_eq!(part(b"content", 7, 0).unwrap(), b"");
        assert_eq!(part(b"content", 0, 3).unwrap(), b"con");
        // Damage before and after the part is seen, too.
        assert!(part(b"Content", 3, 2).is_err());
        assert!(part(b"contenT", 0, 3).is_err());
        assert!(part(b"cont", 0, 3).is_err());
        assert!(part(b"cont", 5, 1).is_err());
    }
}
