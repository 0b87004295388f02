//! A build's audit trail on disk: `<directory>/<build>.jsonl`, one durable line per entry.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use belljar_audit::{AppendError, AuditEvent, Trail, VerifyError, verify};
use belljar_core::{AttemptId, BuildId, Digest, Hasher, Outcome, Timestamp, bounds};

/// The largest trail that can be: every entry of the largest size.
const TRAIL_BYTES: u64 = (bounds::AUDIT_ENTRIES * bounds::AUDIT_ENTRY_BYTES) as u64;

/// An open trail. All methods block on the disk.
pub(crate) struct TrailFile {
    path: PathBuf,
    file: File,
    trail: Trail,
    /// Bytes of whole, durable lines.
    length: u64,
    requested: Vec<Requested>,
    /// The newest entry's.
    last: Option<AuditEvent>,
}

/// The part of a trail up to and including a request for attestation: what the statement names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) attempt: AttemptId,
    pub(crate) digest: Digest,
    pub(crate) entries: u64,
    length: u64,
}

/// Why a trail could not be opened or continued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrailError {
    #[error("the audit trail {} cannot be written", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the audit trail {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: VerifyError,
    },
    #[error("the audit trail {} takes no further entry", path.display())]
    Entry {
        path: PathBuf,
        #[source]
        source: AppendError,
    },
}

impl TrailFile {
    /// Opens the trail of `build`, or begins it. What was being written when the process died, after the
    /// last whole line, was never acted upon and is cut off.
    pub(crate) fn open(directory: &Path, build: &BuildId) -> Result<Self, TrailError> {
        let path = directory.join(format!("{build}.jsonl"));
        let failed = |source| TrailError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        let options = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640);
        let mut file = options.open(&path).map_err(failed)?;
        // An append of an earlier life of the daemon may still be on its way to the disk.
        file.try_lock().map_err(|e| failed(e.into()))?;
        let mut bytes = Vec::new();
        (&mut file)
            .take(TRAIL_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let damaged = |source| TrailError::Damaged {
            path: path.clone(),
            source,
        };
        let (trail, intact) = Trail::resume(build.clone(), &bytes).map_err(damaged)?;
        bytes.truncate(intact);
        let (requested, last) = read(&bytes).map_err(damaged)?;
        let length = intact as u64;
        file.set_len(length).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
        Ok(Self {
            file,
            trail,
            length,
            requested,
            last,
            path,
        })
    }

    /// How the build has ended, if the trail tells so.
    pub(crate) fn finished(&self) -> Option<&Outcome> {
        match &self.last {
            Some(AuditEvent::Finished { outcome }) => Some(outcome),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.trail.entries()
    }

    /// Adds an entry; durable when this returns. After an error the trail is as it was. What is the newest entry
    /// already is not told again: the daemon died before it had done what follows from that. Only restarts are
    /// told each time.
    pub(crate) fn append(&mut self, time: Timestamp, event: AuditEvent) -> Result<(), TrailError> {
        let repeated = self.last.as_ref() == Some(&event);
        if repeated && !matches!(event, AuditEvent::Recovered { .. }) {
            return Ok(());
        }
        let last = event.clone();
        let requested = match &event {
            AuditEvent::AttestationRequested { attempt } => Some(attempt.clone()),
            _ => None,
        };
        let mut trail = self.trail.clone();
        let line = trail
            .append(time, event)
            .map_err(|source| TrailError::Entry {
                path: self.path.clone(),
                source,
            })?;
        self.write(&line).map_err(|source| TrailError::Io {
            path: self.path.clone(),
            source,
        })?;
        self.trail = trail;
        self.last = Some(last);
        self.length += line.len() as u64;
        if let Some(attempt) = requested {
            self.requested.push(Requested {
                attempt,
                digest: self.trail.digest(),
                entries: self.trail.entries(),
                length: self.length,
            });
        }
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        // An earlier write may have failed halfway.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    /// The first request for the attestation of `attempt`, if it was written.
    pub(crate) fn requested(&self, attempt: &AttemptId) -> Option<&Requested> {
        self.requested
            .iter()
            .find(|request| request.attempt == *attempt)
    }

    /// The bytes of the trail: up to a request, or all.
    pub(crate) fn bytes(&mut self, up_to: Option<&Requested>) -> Result<Vec<u8>, TrailError> {
        let length = up_to.map_or(self.length, |request| request.length);
        let mut bytes = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&mut self.file).take(length).read_to_end(&mut bytes));
        read.map_err(|source| TrailError::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok(bytes)
    }
}

/// Finds the requests for attestation in a verified trail, and what its newest entry tells.
fn read(bytes: &[u8]) -> Result<(Vec<Requested>, Option<AuditEvent>), VerifyError> {
    if bytes.is_empty() {
        return Ok((Vec::new(), None));
    }
    let (mut found, mut last) = (Vec::new(), None);
    let (mut hasher, mut length) = (Hasher::new(), 0);
    for (line, entry) in bytes
        .split_inclusive(|byte| *byte == b'\n')
        .zip(verify(bytes)?)
    {
        hasher.update(line);
        length += line.len() as u64;
        if let AuditEvent::AttestationRequested { attempt } = &entry.event {
            found.push(Requested {
                attempt: attempt.clone(),
                digest: hasher.clone().finish(),
                entries: entry.sequence,
                length,
            });
        }
        last = Some(entry.event);
    }
    Ok((found, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> BuildId {
        BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap()
    }

    fn attempt() -> AttemptId {
        AttemptId::new(build(), 1).unwrap()
    }

    fn filled(directory: &Path) -> TrailFile {
        let mut trail = TrailFile::open(directory, &build()).unwrap();
        let time = Timestamp::from_millis(1);
        trail
            .append(time, AuditEvent::AttemptStarted { attempt: attempt() })
            .unwrap();
        trail
            .append(
                time,
                AuditEvent::AttestationRequested { attempt: attempt() },
            )
            .unwrap();
        trail
            .append(time, AuditEvent::Destroyed { attempt: attempt() })
            .unwrap();
        trail
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_request_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut trail = filled(directory.path());
        let (whole, request) = (
            trail.bytes(None).unwrap(),
            trail.requested(&attempt()).unwrap().clone(),
        );
        assert_eq!(
            Digest::of(&trail.bytes(Some(&request)).unwrap()),
            request.digest
        );
        assert_eq!(request.entries, 2);
        let path = trail.path.clone();
        drop(trail);
        std::fs::write(&path, [&whole[..], b"{\"asserted\":[],"].concat()).unwrap();
        let mut trail = TrailFile::open(directory.path(), &build()).unwrap();
        assert_eq!(trail.requested(&attempt()), Some(&request));
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        trail
            .append(
                Timestamp::from_millis(2),
                AuditEvent::AttemptStarted { attempt: attempt() },
            )
            .unwrap();
        assert_eq!(verify(&trail.bytes(None).unwrap()).unwrap().len(), 4);
    }

    #[test]
    fn what_a_crash_left_as_the_newest_entry_is_not_told_twice_but_restarts_are() {
        let directory = tempfile::tempdir().unwrap();
        let time = Timestamp::from_millis(2);
        let destroyed = || AuditEvent::Destroyed { attempt: attempt() };
        let recovered = || AuditEvent::Recovered {
            attempt: attempt(),
            state: "destroying".to_owned(),
        };
        drop(filled(directory.path()));
        let again = || TrailFile::open(directory.path(), &build()).unwrap();
        again().append(time, destroyed()).unwrap();
        assert_eq!(again().entries(), 3);
        again().append(time, recovered()).unwrap();
        again().append(time, recovered()).unwrap();
        again().append(time, destroyed()).unwrap();
        assert_eq!(again().entries(), 6);
        assert_eq!(again().finished(), None);
        let outcome = Outcome::Succeeded;
        let finished = AuditEvent::Finished { outcome };
        again().append(time, finished).unwrap();
        assert_eq!(again().finished(), Some(&Outcome::Succeeded));
    }

    #[test]
    fn only_one_may_have_it_open() {
        let directory = tempfile::tempdir().unwrap();
        let trail = filled(directory.path());
        assert!(matches!(
            TrailFile::open(directory.path(), &build()),
            Err(TrailError::Io { .. })
        ));
        drop(trail);
        assert_eq!(
            TrailFile::open(directory.path(), &build())
                .unwrap()
                .entries(),
            3
        );
    }

    #[test]
    fn a_changed_line_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let mut trail = filled(directory.path());
        let mut bytes = trail.bytes(None).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&trail.path, bytes).unwrap();
        drop(trail);
        assert!(matches!(
            TrailFile::open(directory.path(), &build()),
            Err(TrailError::Damaged { .. })
        ));
    }
}
