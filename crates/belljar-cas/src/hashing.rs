use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use belljar_core::{ObjectId, bounds};

use crate::WriteError;
use crate::destination::Piece;
use crate::expected::Expecting;

/// Where content is hashed, in the order in which it comes.
pub(crate) enum Hashing {
    /// While who brings it waits.
    Here(Expecting),
    /// On a thread of its own, while more comes.
    Beside {
        pieces: SyncSender<Arc<Piece>>,
        thread: JoinHandle<Expecting>,
    },
    /// No thread was to be had.
    Failed,
}

impl Hashing {
    /// Hashes on a thread of its own from here on.
    pub(crate) fn go_beside(&mut self) -> Result<(), WriteError> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Here(mut content) => {
                let (pieces, incoming) = sync_channel::<Arc<Piece>>(bounds::WRITTEN_BEHIND);
                let work = move || {
                    for piece in incoming {
                        content.update(piece.content());
                    }
                    content
                };
                let thread = thread::Builder::new().name("hash".to_owned()).spawn(work);
                let thread = thread.map_err(stopped)?;
                Self::Beside { pieces, thread }
            }
            other => other,
        };
        Ok(())
    }

    /// Takes the next piece.
    pub(crate) fn update(&mut self, piece: &Arc<Piece>) -> Result<(), WriteError> {
        match self {
            Self::Here(content) => content.update(piece.content()),
            Self::Beside { pieces, .. } => {
                let sent = pieces.send(Arc::clone(piece));
                sent.map_err(|_| stopped(gone()))?;
            }
            Self::Failed => return Err(stopped(gone())),
        }
        Ok(())
    }

    /// What came, `size` bytes of it, if that was expected.
    pub(crate) fn finish(self, size: u64) -> Result<ObjectId, WriteError> {
        let content = match self {
            Self::Here(content) => content,
            Self::Beside { pieces, thread } => {
                drop(pieces);
                let ended = thread.join();
                ended.map_err(|_| stopped(gone()))?
            }
            Self::Failed => return Err(stopped(gone())),
        };
        content.finish(size)
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that hashes has stopped")
}

fn stopped(source: io::Error) -> WriteError {
    WriteError::Io {
        doing: "hashing",
        source,
    }
}
