use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use belljar_attest::{Key, KeyError};
use belljar_sys::durable;
use zeroize::Zeroizing;

/// Largest key file, in bytes; a P-256 key in PKCS#8 has 138.
const KEY_BYTES: usize = 4096;

/// The file that holds the private key, open, after its owner and mode were checked.
pub(crate) struct KeyFile(File);

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// There is none, and none may be made.
    #[error(
        "there is no key. hint: set `generate_key = true` to have one made, or put a PKCS#8 file there"
    )]
    Missing,
    /// The path has no directory or no name.
    #[error("not the path of a file")]
    Path,
    /// Others could have read or written it.
    #[error(
        "must be a regular file of uid {owner} with mode 0600 or 0400; it is of uid {uid} with mode {mode:04o}"
    )]
    Unsafe {
        /// Who it must belong to.
        owner: u32,
        /// Who it belongs to.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Another signer has it.
    #[error("another signer uses this key")]
    Locked,
    /// It holds no such key.
    #[error("{0}")]
    Key(KeyError),
    /// Something else went wrong with the file.
    #[error("{0}")]
    Io(io::Error),
}

impl KeyFile {
    /// Opens the key of `owner` (this process's user id), after making one where there is none and
    /// `generate` allows it.
    pub(crate) fn open(path: &Path, owner: u32, generate: bool) -> Result<Self, KeyFileError> {
        let parent = path.parent().ok_or(KeyFileError::Path)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or(KeyFileError::Path)?;
        let directory = durable::open_directory(parent).map_err(KeyFileError::Io)?;
        let file = match durable::open_regular(&directory, name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && generate => {
                make(&directory, name)?;
                durable::open_regular(&directory, name)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(KeyFileError::Missing),
            other => other,
        };
        let file = file.map_err(KeyFileError::Io)?;
        let status = file.metadata().map_err(KeyFileError::Io)?;
        let mode = status.mode() & 0o7777;
        if status.uid() != owner || !matches!(mode, 0o600 | 0o400) {
            return Err(KeyFileError::Unsafe {
                owner,
                uid: status.uid(),
                mode,
            });
        }
        Ok(Self(file))
    }

    /// Opens the key that the service manager has put at `path` for `owner`: a file of root's or of `owner`, which
    /// nobody else may read. (Where an access list lets the owner read a file of root's, its mode shows a group.)
    pub(crate) fn open_credential(path: &Path, owner: u32) -> Result<Self, KeyFileError> {
        let parent = path.parent().ok_or(KeyFileError::Path)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let directory = durable::open_directory(parent).map_err(KeyFileError::Io)?;
        let file = durable::open_regular(&directory, name.ok_or(KeyFileError::Path)?);
        let file = file.map_err(KeyFileError::Io)?;
        let status = file.metadata().map_err(KeyFileError::Io)?;
        let (uid, mode) = (status.uid(), status.mode() & 0o7777);
        let group = mode & 0o040 == 0 || (uid, status.gid()) == (0, 0);
        if !(uid == 0 || uid == owner) || mode & 0o037 != 0 || !group {
            return Err(KeyFileError::Unsafe { owner, uid, mode });
        }
        Ok(Self(file))
    }

    /// Reads the key.
    pub(crate) fn read(&self) -> Result<Key, KeyFileError> {
        // Wiped when it is dropped, and never moved before.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
        (&self.0)
            .take(KEY_BYTES as u64)
            .read_to_end(&mut bytes)
            .map_err(KeyFileError::Io)?;
        Key::from_pkcs8(&bytes).map_err(KeyFileError::Key)
    }

    /// Keeps other signers from using the key for as long as the returned file is open.
    pub(crate) fn lock(self) -> Result<File, KeyFileError> {
        match self.0.try_lock() {
            Ok(()) => Ok(self.0),
            Err(TryLockError::WouldBlock) => Err(KeyFileError::Locked),
            Err(TryLockError::Error(error)) => Err(KeyFileError::Io(error)),
        }
    }
}

/// Makes a key that is durable before anything is signed with it. If another process made one meanwhile,
/// that one stays.
fn make(directory: &File, name: &str) -> Result<(), KeyFileError> {
    let bytes = Key::generate_pkcs8().map_err(KeyFileError::Key)?;
    // Of this process alone: two that start at once must not write into one file.
    let temporary = format!("{name}.{}.tmp", std::process::id());
    durable::remove(directory, &temporary).map_err(KeyFileError::Io)?;
    let made = write_and_link(directory, &temporary, name, &bytes);
    let removed = durable::remove(directory, &temporary);
    match made {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.and(removed).map_err(KeyFileError::Io),
    }
}

fn write_and_link(directory: &File, temporary: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = durable::create_new(directory, temporary, 0o600)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    durable::link_new(directory, temporary, name)?;
    directory.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_sys::process::effective_uid;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pk8");
        assert!(matches!(
            KeyFile::open(&path, effective_uid(), false),
            Err(KeyFileError::Missing)
        ));
        let open = |generate| KeyFile::open(&path, effective_uid(), generate).unwrap();
        let made = open(true).read().unwrap();
        assert_eq!(open(true).read().unwrap().public(), made.public());
        assert_eq!(open(false).read().unwrap().public(), made.public());
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn one_signer_per_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pk8");
        let open = || KeyFile::open(&path, effective_uid(), true).unwrap();
        let held = open().lock().unwrap();
        assert!(matches!(open().lock(), Err(KeyFileError::Locked)));
        drop(held);
        assert!(open().lock().is_ok());
    }

    #[test]
    fn a_credential_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signer-key");
        let uid = effective_uid();
        assert!(KeyFile::open_credential(&path, uid).is_err());
        std::fs::write(&path, Key::generate_pkcs8().unwrap()).unwrap();
        let group = path.metadata().unwrap().gid();
        for (mode, fine) in [
            (0o400, true),
            (0o600, true),
            (0o440, (uid, group) == (0, 0)),
            (0o444, false),
            (0o460, false),
        ] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let opened = KeyFile::open_credential(&path, uid).map(|file| file.read().unwrap());
            assert_eq!(opened.is_ok(), fine, "{mode:o}");
        }
    }

    #[test]
    fn keys_that_others_can_reach_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pk8");
        drop(KeyFile::open(&path, effective_uid(), true).unwrap());
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o700, false),
            (0o4600, false),
        ] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let got = KeyFile::open(&path, effective_uid(), false).map(drop);
            assert_eq!(got.is_ok(), fine, "{mode:o}: {got:?}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            KeyFile::open(&path, effective_uid() + 1, false),
            Err(KeyFileError::Unsafe { .. })
        ));
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(
            KeyFile::open(&path, effective_uid(), true),
            Err(KeyFileError::Io(_))
        ));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "no key").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let read = KeyFile::open(&path, effective_uid(), false).unwrap().read();
        assert!(matches!(read, Err(KeyFileError::Key(KeyError::Unreadable))));
    }
}
