use std::error::Error;

use belljar_cas::{ReadError, TreeError, WriteError};
use belljar_core::{Invalid, bounds};
use belljar_plan::store::{Answer, Failure};

/// Longest reason in an answer: a name and a sentence.
const REASON_BYTES: usize = 2 * bounds::PATH_BYTES;

/// A request that failed: whose doing it was, and what happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) class: Failure,
    pub(crate) why: String,
}

impl Failed {
    /// The peer may not ask this, or not now.
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self {
            class: Failure::Refused,
            why: why.into(),
        }
    }

    /// Another connection is at it.
    pub(crate) fn busy(why: impl Into<String>) -> Self {
        Self {
            class: Failure::Busy,
            why: why.into(),
        }
    }

    /// The store's own trouble.
    pub(crate) fn internal(doing: &str, error: &dyn Error) -> Self {
        Self {
            class: Failure::Internal,
            why: format!("{doing}: {}", chain(error)),
        }
    }

    /// The disk is full.
    pub(crate) fn full(error: &dyn Error) -> Self {
        Self::of(Failure::Full, error)
    }

    fn of(class: Failure, error: &dyn Error) -> Self {
        Self {
            class,
            why: chain(error),
        }
    }
}

/// An error with everything that led to it: for logs, and for peers, which are Belljar's own processes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A reason with names in it that somebody else chose: cut to what always fits a message, without
/// anything that moves a cursor, is not seen or orders text anew.
pub(crate) fn printable(text: &str) -> String {
    let mut kept = String::new();
    for c in text.chars() {
        if kept.len() + c.len_utf8() > REASON_BYTES {
            break;
        }
        kept.push(if is_seen(c) { c } else { '\u{fffd}' });
    }
    kept
}

fn is_seen(c: char) -> bool {
    // Not at the beginning, where a mark that combines would stand alone.
    matches!(c, '"' | '\'' | '\\') || format!("a{c}").escape_debug().count() == 2
}

impl From<Failed> for Answer {
    fn from(failed: Failed) -> Self {
        Self::Failed {
            class: failed.class,
            why: printable(&failed.why),
        }
    }
}

impl From<Invalid> for Failed {
    fn from(invalid: Invalid) -> Self {
        Self::refused(invalid.to_string())
    }
}

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        let class = match &error {
            WriteError::Mismatch { .. } | WriteError::TooLong { .. } | WriteError::TooLarge => {
                Failure::Content
            }
            WriteError::Full(_) | WriteError::Reserved { .. } => Failure::Full,
            WriteError::Io { .. } => Failure::Internal,
        };
        Self::of(class, &error)
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        let class = match &error {
            ReadError::Missing(_) | ReadError::Size { .. } => Failure::Missing,
            ReadError::Io { .. } => Failure::Internal,
        };
        Self::of(class, &error)
    }
}

impl From<TreeError> for Failed {
    fn from(error: TreeError) -> Self {
        let class = match &error {
            TreeError::NoRoom(WriteError::Io { .. }) => Failure::Internal,
            TreeError::Missing { .. } => Failure::Missing,
            TreeError::Malformed { .. }
            | TreeError::Damaged { .. }
            | TreeError::TooManyEntries
            | TreeError::TooManyBytes
            | TreeError::TooManyNames => Failure::Content,
            TreeError::Full(_) | TreeError::NoRoom(_) => Failure::Full,
            TreeError::Image(_) | TreeError::Io { .. } => Failure::Internal,
        };
        Self::of(class, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_replaced_and_the_rest_cut() {
        let told = printable("a\n\u{1b}[2J\u{202e}\u{feff}\u{fffd}`\"'\\ e\u{301} ü\u{9b}");
        let r = '\u{fffd}';
        assert_eq!(told, format!("a{r}{r}[2J{r}{r}{r}`\"'\\ e\u{301} ü{r}"));
        assert!(printable(&"ü".repeat(REASON_BYTES)).len() <= REASON_BYTES);
    }
}
