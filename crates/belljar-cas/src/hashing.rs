use std::io;
use std::sync::Arc;

use belljar_core::ObjectId;

use crate::WriteError;
use crate::beside::Beside;
use crate::destination::Piece;
use crate::expected::Expecting;

/// Where content is hashed, in the order in which it comes.
pub(crate) enum Hashing {
    /// While who brings it waits.
    Here(Expecting),
    /// On a thread of its own, while more comes.
    Beside(Beside<Expecting>),
    /// No thread was to be had.
    Failed,
}

impl Hashing {
    /// Hashes on a thread of its own from here on.
    pub(crate) fn go_beside(&mut self) -> Result<(), WriteError> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Here(mut content) => {
                let beside = Beside::start("hash", move |pieces| {
                    pieces.for_each(|piece| content.update(piece.content()));
                    content
                });
                Self::Beside(beside.map_err(stopped)?)
            }
            other => other,
        };
        Ok(())
    }

    /// Takes the next piece.
    pub(crate) fn update(&mut self, piece: &Arc<Piece>) -> Result<(), WriteError> {
        match self {
            Self::Here(content) => content.update(piece.content()),
            Self::Beside(beside) if beside.give(Arc::clone(piece)) => {}
            Self::Beside(_) | Self::Failed => return Err(stopped(gone())),
        }
        Ok(())
    }

    /// What came, `size` bytes of it, if that was expected.
    pub(crate) fn finish(self, size: u64) -> Result<ObjectId, WriteError> {
        let content = match self {
            Self::Here(content) => Some(content),
            Self::Beside(beside) => beside.end(),
            Self::Failed => None,
        };
        content.ok_or_else(|| stopped(gone()))?.finish(size)
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
