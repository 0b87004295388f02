use std::io;

use belljar_core::{Invalid, ObjectId, bounds};
use belljar_plan::store::Answer;

use crate::failed::{Failed, printable};

/// Why there is no tree.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Nothing can be made of what was named.
    Refused(String),
    /// The store lacks an object.
    Lacks(ObjectId),
    /// Too many trees are being made.
    Busy,
    /// An object that was to be read is not what it is named by, or could not be read.
    Damaged(ObjectId, Failed),
    /// Something failed.
    Failed(Failed),
}

impl From<Failed> for Stopped {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<Stopped> for Answer {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Refused(why) => Self::DerivationRefused {
                why: printable(&why),
            },
            Stopped::Lacks(object) => Self::DerivationLacks { object },
            Stopped::Busy => Self::DerivationsBusy {},
            Stopped::Damaged(_, failed) | Stopped::Failed(failed) => failed.into(),
        }
    }
}

/// An object that was given was not read to its end.
pub(super) fn not_read() -> Failed {
    Failed::refused("an unpacker did not read all of an object")
}

/// An unpacker that does not keep to the order of messages was taken over, or is not well.
pub(super) fn foreign(invalid: Invalid) -> Stopped {
    Stopped::Failed(Failed::refused(format!(
        "an unpacker said what it may not: {invalid}"
    )))
}

/// The unpacker is gone in the middle of something.
pub(super) fn ended_early() -> Failed {
    let why = "the unpacker ended early: it was killed, or needed too much memory or time";
    Failed::internal("unpacking", &io::Error::other(why))
}

/// Nothing came of it in time.
pub(super) fn too_long() -> Failed {
    let seconds = bounds::DERIVATION_SECONDS;
    let why = format!("it took longer than {seconds} seconds");
    Failed::internal("unpacking", &io::Error::other(why))
}

/// What an unpacker says of commits has not the names that it should: it was taken over, or is not well.
pub(super) fn untrue(why: String) -> Stopped {
    Stopped::Failed(Failed::refused(format!(
        "what an unpacker said is not so by git's own names: {why}"
    )))
}
