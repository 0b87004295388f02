use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use belljar_core::{AttemptId, bounds};
use belljar_sys::durable;

/// The directory of bundles: the signer's durable memory of what it has signed. belljard reads it by group.
pub(crate) struct Evidence {
    directory: PathBuf,
    /// Who the directory and each bundle must belong to: this process.
    owner: u32,
}

/// Why evidence could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    /// Somebody else could have written it.
    #[error("{what} must be of uid {owner} and writable by nobody else")]
    Unsafe {
        /// The directory or a file in it.
        what: String,
        /// Who it must belong to.
        owner: u32,
    },
    /// A file that is there is not what it must be.
    #[error("{0} is not a regular file within the bounds")]
    Irregular(String),
    /// Another operation failed; it may not the next time.
    #[error("{0}")]
    Io(io::Error),
}

impl EvidenceError {
    /// Whether asking again may end otherwise.
    pub(crate) fn retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// What a bundle is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The artifacts of an attempt.
    Artifacts,
    /// Its receipt.
    Receipt,
}

/// Name of the public key's file.
const PUBLIC_KEY: &str = "builder.pub";
/// Name under which a file is written before it gets its own. One for all: only this process writes here, one
/// file at a time, so that what a killed one leaves is one file, and the next start removes it.
const TEMPORARY: &str = "next.tmp";
/// Permission bits of bundles: belljard's group reads them.
const BUNDLE_MODE: u32 = 0o640;
/// Permission bits of the public key: it is everybody's.
const PUBLIC_KEY_MODE: u32 = 0o644;

/// Keeps other signers from this memory of what was signed, for as long as the returned file is open.
pub(crate) fn claim(directory: &Path) -> io::Result<File> {
    let directory = durable::open_directory(directory)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another signer uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Evidence {
    /// Evidence in `directory`, all of it `owner`'s.
    pub(crate) fn new(directory: PathBuf, owner: u32) -> Self {
        Self { directory, owner }
    }

    /// The bundle of `attempt` about this, if one was ever made; durable when this returns, even if the process that
    /// made it died before it could see to that.
    pub(crate) fn load(
        &self,
        attempt: &AttemptId,
        about: About,
    ) -> Result<Option<Vec<u8>>, EvidenceError> {
        let directory = self.open()?;
        let name = bundle_name(attempt, about);
        let found = self.read(&directory, &name, bounds::BUNDLE_BYTES)?;
        if found.is_some() {
            directory.sync_all().map_err(EvidenceError::Io)?;
        }
        Ok(found)
    }

    /// Keeps the bundle of `attempt` about this: durable when this returns, and never in the place of another.
    pub(crate) fn keep(
        &self,
        attempt: &AttemptId,
        about: About,
        bundle: &[u8],
    ) -> Result<(), EvidenceError> {
        let directory = self.open()?;
        let write = || {
            write_temporary(&directory, TEMPORARY, bundle, BUNDLE_MODE)?;
            durable::link_new(&directory, TEMPORARY, &bundle_name(attempt, about))?;
            directory.sync_all()
        };
        let written = write();
        let removed = durable::remove(&directory, TEMPORARY);
        written.and(removed).map_err(EvidenceError::Io)
    }

    /// What is done at the start: removes what a killed process was writing, and puts the public key beside
    /// the bundles, in the place of an older one.
    pub(crate) fn begin(&self, pem: &str) -> Result<(), EvidenceError> {
        let directory = self.open()?;
        durable::remove(&directory, TEMPORARY).map_err(EvidenceError::Io)?;
        match self.read(&directory, PUBLIC_KEY, bounds::CONFIG_BYTES)? {
            Some(present) if present == pem.as_bytes() => return Ok(()),
            Some(_) => tracing::warn!("the public key changed: older bundles need the older key"),
            None => {}
        }
        let write = || {
            write_temporary(&directory, TEMPORARY, pem.as_bytes(), PUBLIC_KEY_MODE)?;
            std::fs::rename(
                self.directory.join(TEMPORARY),
                self.directory.join(PUBLIC_KEY),
            )?;
            directory.sync_all()
        };
        write().map_err(EvidenceError::Io)
    }

    /// A file of the signer's own in this directory, made if it is not there. Its name is durable when this returns.
    pub(crate) fn memory(&self, name: &str) -> Result<File, EvidenceError> {
        let directory = self.open()?;
        let file = match durable::open_or_create(&directory, name, 0o600) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(EvidenceError::Irregular(name.to_owned()));
            }
            other => other.map_err(EvidenceError::Io)?,
        };
        self.check(name, &file)?;
        directory.sync_all().map_err(EvidenceError::Io)?;
        Ok(file)
    }

    fn open(&self) -> Result<File, EvidenceError> {
        let directory = durable::open_directory(&self.directory).map_err(EvidenceError::Io)?;
        self.check("the directory of evidence", &directory)?;
        Ok(directory)
    }

    fn read(
        &self,
        directory: &File,
        name: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, EvidenceError> {
        let irregular = || EvidenceError::Irregular(name.to_owned());
        let file = match durable::open_regular(directory, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(irregular()),
            other => other.map_err(EvidenceError::Io)?,
        };
        self.check(name, &file)?;
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(EvidenceError::Io)?;
        if bytes.len() > limit {
            return Err(irregular());
        }
        Ok(Some(bytes))
    }

    fn check(&self, what: &str, file: &File) -> Result<(), EvidenceError> {
        let status = file.metadata().map_err(EvidenceError::Io)?;
        if status.uid() != self.owner || status.mode() & 0o022 != 0 {
            return Err(EvidenceError::Unsafe {
                what: what.to_owned(),
                owner: self.owner,
            });
        }
        Ok(())
    }
}

fn bundle_name(attempt: &AttemptId, about: About) -> String {
    match about {
        About::Artifacts => format!("{attempt}.sigstore.json"),
        About::Receipt => format!("{attempt}.receipt.sigstore.json"),
    }
}

fn write_temporary(directory: &File, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    durable::remove(directory, name)?;
    let mut file = durable::create_new(directory, name, 0o600)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
