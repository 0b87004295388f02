//! What the signer has seen of the spawner's chain of receipts: their digests in order, one line each, in a file that
//! only grows. Before anything is signed about a receipt, the way from it back to the last line is gone, receipt by
//! receipt, and its lines are durable. So no receipt is taken for the chain's that another one has the place of, also
//! not after the spawner's directory was set back to an earlier day, and none whose way back is broken.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use belljar_core::{AttemptId, Digest, bounds};
use belljar_plan::Link;

use crate::evidence::{Evidence, EvidenceError};
use crate::receipts::{ReceiptError, Receipts};

/// The file's name in the directory of evidence.
const NAME: &str = "receipts.seen";
/// Bytes of a line: a digest as it is written, and a line feed.
const LINE: usize = "sha256:".len() + 64 + 1;

/// The receipts that were seen.
pub(crate) struct Seen {
    file: File,
    /// How many there are. Held while the way to a further one is gone.
    count: Mutex<u64>,
}

/// Why what was seen cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeenError {
    /// The file cannot be opened.
    #[error("{0}")]
    Evidence(EvidenceError),
    /// The file cannot be read, or not be made durable.
    #[error("{NAME}: {0}")]
    Io(io::Error),
    /// There is more after a line that is none: that was not left by a crash.
    #[error("{NAME}: line {0} is no digest, and more comes after it. {BEGIN_ANEW}")]
    Damaged(u64),
}

/// Why a receipt is not taken for the chain's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// Another one has its place.
    #[error(
        "another receipt was seen as number {0} of the chain: the directory of receipts was set back to an earlier \
         state, or written by two. {BEGIN_ANEW}"
    )]
    Forked(u64),
    /// It names none before it, or is said to be the first where it cannot be.
    #[error("the receipt number {0} does not name the one before it. {BEGIN_ANEW}")]
    Unlinked(u64),
    /// One that is needed cannot be read.
    #[error(
        "the receipt number {number} (of {attempt}), from which the chain goes on: {error}. {BEGIN_ANEW}"
    )]
    Gap {
        /// Its place.
        number: u64,
        /// What it is about.
        attempt: AttemptId,
        /// Why.
        error: ReceiptError,
    },
    /// One on the way is not the one that the next names.
    #[error("the receipt of {0} is not the one that the next in the chain names. {BEGIN_ANEW}")]
    Exchanged(AttemptId),
    /// The way is too long.
    #[error("more than {most} receipts were not seen yet. {BEGIN_ANEW}", most = bounds::RECEIPTS_UNSEEN)]
    TooFar,
    /// The list could not be read or written this time.
    #[error("{NAME}: {0}")]
    Io(io::Error),
}

/// What is left to do where a chain is broken.
const BEGIN_ANEW: &str = "hint: README, \"When the chain of receipts is broken\"";

impl ChainError {
    /// Whether asking again may end otherwise.
    pub(crate) fn retryable(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Gap { error, .. } => error.retryable(),
            _ => false,
        }
    }
}

impl Seen {
    /// Reads what was seen before this start. A line at the end that is none was being written when a process died
    /// or the power went: nothing was signed by it, and it is written again.
    pub(crate) fn open(evidence: &Evidence) -> Result<Self, SeenError> {
        let file = evidence.memory(NAME).map_err(SeenError::Evidence)?;
        let (mut reader, mut line) = (BufReader::new(&file), Vec::new());
        let (mut count, mut torn) = (0, false);
        loop {
            line.clear();
            let read = (&mut reader).take(LINE as u64).read_to_end(&mut line);
            if read.map_err(SeenError::Io)? == 0 {
                break;
            }
            match digest(&line) {
                Some(_) if torn => return Err(SeenError::Damaged(count + 1)),
                Some(_) => count += 1,
                None => torn = true,
            }
        }
        if torn {
            tracing::warn!(
                line = count + 1,
                "what was being written to {NAME} is cut off"
            );
            file.set_len(count * LINE as u64).map_err(SeenError::Io)?;
        }
        // Who wrote the last of them may not have come to that.
        file.sync_data().map_err(SeenError::Io)?;
        Ok(Self {
            file,
            count: Mutex::new(count),
        })
    }

    /// Sees that the receipt `digest`, at `link`, belongs to the chain: it is known in its place, or the way from it
    /// ends at the last one that is known. Everything on that way is known, durably, when this returns.
    pub(crate) fn follow(
        &self,
        link: Link,
        digest: Digest,
        receipts: &Receipts,
    ) -> Result<(), ChainError> {
        // It is written last of all: a panic elsewhere cannot leave it half changed.
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if link.sequence == 0 {
            return Err(ChainError::Unlinked(0));
        }
        if link.sequence <= *count {
            return match self.at(link.sequence)? == digest {
                true => Ok(()),
                false => Err(ChainError::Forked(link.sequence)),
            };
        }
        let mut unseen = self.unseen(*count, link, digest, receipts)?;
        unseen.reverse();
        self.write(*count, &unseen).map_err(ChainError::Io)?;
        *count += unseen.len() as u64;
        Ok(())
    }

    /// Makes durable what comes after the first `count`.
    fn write(&self, mut count: u64, digests: &[Digest]) -> io::Result<()> {
        for some in digests.chunks(1024) {
            let text: String = some.iter().map(|digest| format!("{digest}\n")).collect();
            self.file
                .write_all_at(text.as_bytes(), count * LINE as u64)?;
            count += some.len() as u64;
        }
        self.file.sync_data()
    }

    /// The digests on the way from a receipt to the last of `count` known ones, which is not among them.
    fn unseen(
        &self,
        count: u64,
        mut link: Link,
        digest: Digest,
        receipts: &Receipts,
    ) -> Result<Vec<Digest>, ChainError> {
        let mut unseen = vec![digest];
        loop {
            let number = link.sequence;
            let (previous, attempt) = match (link.previous, link.previous_attempt) {
                (None, None) if number == 1 && count == 0 => return Ok(unseen),
                (Some(previous), Some(attempt)) if number > 1 => (previous, attempt),
                _ => return Err(ChainError::Unlinked(number)),
            };
            if number - 1 == count {
                return match self.at(count)? == previous {
                    true => Ok(unseen),
                    false => Err(ChainError::Forked(count)),
                };
            }
            if unseen.len() == bounds::RECEIPTS_UNSEEN {
                return Err(ChainError::TooFar);
            }
            let (before, found) = receipts.link(&attempt).map_err(|error| ChainError::Gap {
                number: number - 1,
                attempt: attempt.clone(),
                error,
            })?;
            if found != previous || before.attempt != attempt || before.sequence != number - 1 {
                return Err(ChainError::Exchanged(attempt));
            }
            unseen.push(previous);
            link = before;
        }
    }

    fn at(&self, number: u64) -> Result<Digest, ChainError> {
        let mut line = [0; LINE];
        self.file
            .read_exact_at(&mut line, (number - 1) * LINE as u64)
            .map_err(ChainError::Io)?;
        let damaged = || io::Error::other(format!("line {number} is no digest"));
        digest(&line).ok_or_else(|| ChainError::Io(damaged()))
    }
}

/// The digest of a whole line; none for anything else.
fn digest(line: &[u8]) -> Option<Digest> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;
