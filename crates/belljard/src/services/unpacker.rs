use std::io::{self, Read};

use belljar_core::bounds;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tonic::codegen::Bytes;

use super::zstd::{Malformed, PIECE, unpack};
use crate::places::Turn;

/// Unpacks on a thread of its own what tasks give and take piece by piece. The thread ends when either
/// side is dropped.
pub(super) struct Unpacker {
    /// Takes packed pieces; dropped, it is the end.
    pub(super) packed: mpsc::Sender<Bytes>,
    /// Gives unpacked pieces, and the reason if there is nothing more to be had.
    pub(super) unpacked: mpsc::Receiver<Result<Vec<u8>, Malformed>>,
}

impl Unpacker {
    /// Begins to unpack at most `size` bytes. `permit` is given back when the thread ends.
    pub(super) fn start(size: u64, permit: Turn) -> Self {
        let (packed, source) = mpsc::channel(bounds::WAITING_PIECES);
        let (drain, unpacked) = mpsc::channel(bounds::WAITING_PIECES);
        drop(spawn_blocking(move || {
            let _permit = permit;
            let give = |piece| drain.blocking_send(Ok(piece)).map_err(|_| Malformed::Gone);
            let source = io::BufReader::with_capacity(PIECE, Pieces::new(source));
            if let Err(error) = unpack(source, size, give) {
                // Who no longer listens needs no reason.
                let _ = drain.blocking_send(Err(error));
            }
        }));
        Self { packed, unpacked }
    }
}

/// Pieces that tasks send, as one stream of bytes.
struct Pieces {
    source: mpsc::Receiver<Bytes>,
    piece: io::Cursor<Bytes>,
}

impl Pieces {
    fn new(source: mpsc::Receiver<Bytes>) -> Self {
        let piece = io::Cursor::default();
        Self { source, piece }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.source.blocking_recv() {
                Some(piece) => self.piece = io::Cursor::new(piece),
                None => return Ok(0),
            }
        }
    }
}
