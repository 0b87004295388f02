use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use belljar_core::bounds;

use crate::destination::Piece;

/// A thread that works on pieces in the order in which they come, at most [`bounds::WRITTEN_BEHIND`] of them behind. It
/// has ended when this is gone: what nobody wanted to the end takes no more room.
pub(crate) struct Beside<T> {
    pieces: Option<SyncSender<Arc<Piece>>>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Beside<T> {
    /// Starts one that works on all there will be, or ends early.
    pub(crate) fn start(
        name: &str,
        work: impl FnOnce(&mut dyn Iterator<Item = Arc<Piece>>) -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (pieces, incoming) = sync_channel(bounds::WRITTEN_BEHIND);
        let thread = thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || work(&mut incoming.into_iter()))?;
        Ok(Self {
            pieces: Some(pieces),
            thread: Some(thread),
        })
    }
}

impl<T> Beside<T> {
    /// Waits for room. Whether the thread takes it: if not, it has ended early.
    pub(crate) fn give(&self, piece: Arc<Piece>) -> bool {
        let pieces = self.pieces.as_ref();
        pieces.is_some_and(|pieces| pieces.send(piece).is_ok())
    }

    /// Waits for what comes of all pieces. None if the thread has panicked.
    pub(crate) fn end(mut self) -> Option<T> {
        self.wait()
    }

    fn wait(&mut self) -> Option<T> {
        drop(self.pieces.take());
        self.thread.take()?.join().ok()
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.wait();
    }
}
