use belljar_core::{BuildId, Digest, Hasher, Timestamp, bounds, canonical_json};
use serde::{Deserialize, Serialize};

use crate::AuditEvent;
use crate::verify::{self, VerifyError};

/// One line of a trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Position, from 1.
    pub sequence: u64,
    /// When belljard wrote it, by its own clock: not necessarily rising.
    pub time: Timestamp,
    /// The build; the same in every entry of a trail.
    pub build: BuildId,
    /// What happened.
    pub event: AuditEvent,
    /// Which facts of this entry nobody but belljard vouches for: exactly [`AuditEvent::asserted`].
    pub asserted: Vec<String>,
    /// Digest of the line before, without its line feed; for the first entry of the build id's text.
    pub previous: Digest,
}

/// Makes the lines of one build's trail.
#[derive(Clone)]
pub struct Trail {
    build: BuildId,
    entries: u64,
    previous: Digest,
    whole: Hasher,
}

/// Why an event was not appended. The trail is as it was.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AppendError {
    /// [`bounds::AUDIT_ENTRIES`] is reached.
    #[error(
        "the audit trail has {} entries and takes no more",
        bounds::AUDIT_ENTRIES
    )]
    Full,
    /// The event is about an attempt at another build.
    #[error("the event is about attempt {0}, which is not this build's")]
    OtherBuild(String),
    /// The entry is larger than [`bounds::AUDIT_ENTRY_BYTES`] even with its free texts cut.
    #[error("the audit entry has {0} bytes; {limit} are allowed", limit = bounds::AUDIT_ENTRY_BYTES)]
    TooLarge(usize),
    /// The entry has no canonical encoding.
    #[error("the audit entry cannot be encoded")]
    Encoding,
}

impl Trail {
    /// The empty trail of `build`.
    pub fn new(build: BuildId) -> Self {
        Self {
            previous: first_previous(&build),
            build,
            entries: 0,
            whole: Hasher::new(),
        }
    }

    /// Goes on where the file with these bytes ends, after a restart. What follows the last line feed was
    /// being written when the process died and was never acted upon: the second value is the length of the
    /// part before it, to which the file must be truncated before it is appended to. No bytes at all are an
    /// empty trail.
    ///
    /// # Errors
    /// When a complete line does not verify, or the trail is another build's.
    pub fn resume(build: BuildId, bytes: &[u8]) -> Result<(Self, usize), VerifyError> {
        let intact = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut trail = Self::new(build);
        let kept = &bytes[..intact];
        verify::each_line(kept, |line, entry| {
            if entry.build != trail.build {
                return Err(VerifyError::OtherBuild {
                    line: entry.sequence,
                });
            }
            trail.take(line, entry.sequence);
            Ok(())
        })?;
        Ok((trail, intact))
    }

    /// The line of the next entry, with its line feed, to be made durable before `event` has effects. An
    /// event whose free texts are too long for one entry is written with them cut, visibly.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, time: Timestamp, event: AuditEvent) -> Result<Vec<u8>, AppendError> {
        if self.entries >= bounds::AUDIT_ENTRIES as u64 {
            return Err(AppendError::Full);
        }
        if let Some(other) = event
            .attempt()
            .filter(|attempt| attempt.build() != &self.build)
        {
            return Err(AppendError::OtherBuild(other.to_string()));
        }
        let mut line = self.encode(time, event.clone())?;
        if line.len() >= bounds::AUDIT_ENTRY_BYTES {
            line = self.encode(time, event.shortened())?;
        }
        if line.len() >= bounds::AUDIT_ENTRY_BYTES {
            return Err(AppendError::TooLarge(line.len()));
        }
        self.take(&line, self.entries + 1);
        line.push(b'\n');
        Ok(line)
    }

    /// Digest of all lines so far, each with its line feed: of the file.
    pub fn digest(&self) -> Digest {
        self.whole.clone().finish()
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn encode(&self, time: Timestamp, event: AuditEvent) -> Result<Vec<u8>, AppendError> {
        let entry = Entry {
            sequence: self.entries + 1,
            time,
            build: self.build.clone(),
            asserted: event
                .asserted()
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
            event,
            previous: self.previous,
        };
        canonical_json(&entry).map_err(|_| AppendError::Encoding)
    }

    fn take(&mut self, line: &[u8], sequence: u64) {
        self.entries = sequence;
        self.previous = Digest::of(line);
        self.whole.update(line);
        self.whole.update(b"\n");
    }
}

/// What the first entry of a build's trail names as the line before it.
pub(crate) fn first_previous(build: &BuildId) -> Digest {
    Digest::of(build.as_str().as_bytes())
}
