use belljar_core::ObjectId;
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
            Stopped::Failed(failed) => failed.into(),
        }
    }
}
