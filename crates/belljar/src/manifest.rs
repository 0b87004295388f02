//! `belljar.toml` and `belljar.lock` as files; what they say is `belljar-manifest`'s.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use belljar_core::bounds;
use belljar_manifest::{FILE, Lock, Manifest, Wrong, lock};
use rustix::fs::OFlags;

use crate::regular;

/// Why a `belljar.toml` cannot be used, or the `belljar.lock` beside it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there.
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{wrong}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What, and where in it.
        wrong: Wrong,
    },
}

/// Reads and checks `dir/belljar.toml`.
///
/// # Errors
/// See [`Error`]: what is wrong is told with file, line, column and field.
pub(crate) fn load(dir: &Path) -> Result<Manifest, Error> {
    let path = dir.join(FILE);
    let bytes = bytes(&path)?;
    let lock = load_lock(&dir.join(lock::FILE))?;
    Manifest::parse(&bytes, &lock).map_err(|wrong| Error::Wrong { path, wrong })
}

/// Reads the lock at `path`. That there is none is fine: then it has no images.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_lock(path: &Path) -> Result<Lock, Error> {
    match existing_lock(path) {
        Err(Error::Missing(_)) => Ok(Lock::default()),
        read => read,
    }
}

/// Reads the lock at `path`, which has to be there.
///
/// # Errors
/// As [`load`].
pub(crate) fn existing_lock(path: &Path) -> Result<Lock, Error> {
    Lock::parse(&bytes(path)?).map_err(|wrong| Error::Wrong {
        path: path.to_owned(),
        wrong,
    })
}

/// Writes the lock at `path`: the old one is there until the new one is complete.
///
/// # Errors
/// When it would be too large to be read, and what the file system says.
pub(crate) fn save_lock(path: &Path, lock: &Lock) -> io::Result<()> {
    let text = lock.text().map_err(io::Error::other)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".belljar.lock-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(directory)?.sync_all()
}

/// The bytes of a file, and one more than allowed where there are too many.
fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::Read {
            path: path.to_owned(),
            source,
        },
    };
    let file = regular::open(path, OFlags::empty()).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bounds::CONFIG_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::{Input, InputName, ObjectId};
    use belljar_manifest::lock::{Image, Origin, Source};

    fn refusal(dir: &Path) -> String {
        load(dir).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load(dir.path()).unwrap_err();
        assert!(missing.to_string().ends_with("belljar.toml"), "{missing}");
        let path = dir.path().join(FILE);
        std::fs::write(&path, "image = 1").unwrap();
        let due = format!("{}:1:9: image: ", path.display());
        assert!(refusal(dir.path()).starts_with(&due));
        let lock = dir.path().join(lock::FILE);
        std::fs::write(&lock, "version = 2").unwrap();
        let due = format!("{}:1:11: version: ", lock.display());
        assert!(refusal(dir.path()).starts_with(&due));
        std::fs::write(&path, "#".repeat(bounds::CONFIG_BYTES + 7)).unwrap();
        std::fs::remove_file(&lock).unwrap();
        assert!(refusal(dir.path()).contains(":1:1: the file is larger than"));
    }

    #[test]
    fn a_lock_that_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(lock::FILE);
        assert_eq!(load_lock(&path).unwrap(), Lock::default());
        assert!(matches!(existing_lock(&path), Err(Error::Missing(_))));
        let mut lock = Lock::default();
        for name in ["rust", "c", "debian.12"] {
            let image = Image {
                input: Input {
                    tree: ObjectId::of(name.as_bytes()),
                    derivation: None,
                },
                source: Source {
                    origin: Origin::File(format!("{name}.tar")),
                    object: ObjectId::of(b"archive"),
                },
            };
            lock.set(InputName::new(name).unwrap(), image);
            save_lock(&path, &lock).unwrap();
            assert_eq!(load_lock(&path).unwrap(), lock);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
