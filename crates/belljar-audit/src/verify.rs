use belljar_core::{Digest, bounds, canonical_json};

use crate::Entry;
use crate::trail::first_previous;

/// Why bytes are not an intact trail. Lines are counted from 1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// No entry at all.
    #[error("the audit trail is empty")]
    Empty,
    /// More than [`bounds::AUDIT_ENTRIES`] lines.
    #[error("the audit trail has more than {} entries", bounds::AUDIT_ENTRIES)]
    TooLong,
    /// A line longer than [`bounds::AUDIT_ENTRY_BYTES`].
    #[error("line {line}: more than {} bytes", bounds::AUDIT_ENTRY_BYTES)]
    LineTooLong {
        /// Which.
        line: u64,
    },
    /// The last line has no line feed.
    #[error("line {line}: the last line is not complete")]
    Incomplete {
        /// Which.
        line: u64,
    },
    /// Not an entry.
    #[error("line {line}: not an audit entry: {why}")]
    Malformed {
        /// Which.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// An entry in another than its one encoding.
    #[error("line {line}: not in canonical form (RFC 8785)")]
    NotCanonical {
        /// Which.
        line: u64,
    },
    /// A number other than the line's own.
    #[error("line {line}: the entry has number {found}")]
    Sequence {
        /// Which.
        line: u64,
        /// The number in it.
        found: u64,
    },
    /// An entry that names another line than the one before it.
    #[error("line {line}: the chain is broken: the line before was changed, or is another one")]
    Chain {
        /// Which.
        line: u64,
    },
    /// An entry of another build.
    #[error("line {line}: the entry belongs to another build")]
    OtherBuild {
        /// Which.
        line: u64,
    },
    /// An entry that hides, or invents, that a fact is only asserted.
    #[error("line {line}: the list of asserted facts is not the one of this kind of event")]
    Asserted {
        /// Which.
        line: u64,
    },
    /// Fewer entries than a prefix should have.
    #[error("the audit trail has {found} entries; {due} are due")]
    Truncated {
        /// Entries that are there.
        found: u64,
        /// Entries that the prefix has.
        due: u64,
    },
    /// The prefix has another digest than the one known from elsewhere.
    #[error("the first entries have the digest {found}, not {due}")]
    Digest {
        /// What was computed.
        found: Digest,
        /// What was known.
        due: Digest,
    },
}

/// Reads a whole trail: bounds, canonical form, numbers, chain, one build, asserted lists. See the crate's
/// documentation for what this cannot find: a missing end, and a rewritten last line.
///
/// # Errors
/// The first thing that does not hold, with its line.
pub fn verify(bytes: &[u8]) -> Result<Vec<Entry>, VerifyError> {
    let mut entries = Vec::new();
    each_line(bytes, |_, entry| {
        entries.push(entry);
        Ok(())
    })?;
    if entries.is_empty() {
        return Err(VerifyError::Empty);
    }
    Ok(entries)
}

/// Reads a whole trail whose first `count` entries are known, from a statement, to have the digest
/// `known` (of the lines with their line feeds). Together with [`verify`]'s checks this finds every change
/// to those entries.
///
/// # Errors
/// As [`verify`], and when there are fewer entries or they have another digest.
pub fn verify_prefix(bytes: &[u8], count: u64, known: Digest) -> Result<Vec<Entry>, VerifyError> {
    let entries = verify(bytes)?;
    let found = entries.len() as u64;
    if found < count {
        return Err(VerifyError::Truncated { found, due: count });
    }
    let prefix: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .zip(0..count)
        .map(|(line, _)| line.len())
        .sum();
    let computed = Digest::of(&bytes[..prefix]);
    if computed != known {
        return Err(VerifyError::Digest {
            found: computed,
            due: known,
        });
    }
    Ok(entries)
}

/// Hands every line (without its line feed) and its entry to `take`, in order, after all checks.
pub(crate) fn each_line(
    bytes: &[u8],
    mut take: impl FnMut(&[u8], Entry) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let mut before: Option<(Digest, Entry)> = None;
    for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1_u64..) {
        if number > bounds::AUDIT_ENTRIES as u64 {
            return Err(VerifyError::TooLong);
        }
        if line.len() > bounds::AUDIT_ENTRY_BYTES {
            return Err(VerifyError::LineTooLong { line: number });
        }
        let line = line
            .strip_suffix(b"\n")
            .ok_or(VerifyError::Incomplete { line: number })?;
        let entry = read(line, number)?;
        let due = before
            .as_ref()
            .map_or_else(|| first_previous(&entry.build), |(digest, _)| *digest);
        if before
            .as_ref()
            .is_some_and(|(_, first)| first.build != entry.build)
        {
            return Err(VerifyError::OtherBuild { line: number });
        }
        if entry.previous != due {
            return Err(VerifyError::Chain { line: number });
        }
        take(line, entry.clone())?;
        before = Some((Digest::of(line), entry));
    }
    Ok(())
}

/// One line by itself.
fn read(line: &[u8], number: u64) -> Result<Entry, VerifyError> {
    let malformed = |error: serde_json::Error| VerifyError::Malformed {
        line: number,
        why: error.to_string(),
    };
    let entry: Entry = serde_json::from_slice(line).map_err(malformed)?;
    if canonical_json(&entry).ok().as_deref() != Some(line) {
        return Err(VerifyError::NotCanonical { line: number });
    }
    if entry.sequence != number {
        return Err(VerifyError::Sequence {
            line: number,
            found: entry.sequence,
        });
    }
    if entry
        .event
        .attempt()
        .is_some_and(|attempt| attempt.build() != &entry.build)
    {
        return Err(VerifyError::OtherBuild { line: number });
    }
    if !entry.asserted.iter().eq(entry.event.asserted()) {
        return Err(VerifyError::Asserted { line: number });
    }
    Ok(entry)
}
