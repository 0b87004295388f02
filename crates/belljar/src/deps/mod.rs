//! Lock files: from `deps` in `belljar.toml` to packages that the daemon can make inputs of.
//!
//! The packages come out of the cache of the user's own package manager. What is missing there the package
//! manager is asked to fetch, with the user's own configuration and never with the project's: that could
//! name programs to run, and places to send the user's secrets to. Whoever relies on a project's
//! configuration fills the cache himself. In either case bytes count only if they have the lock's digest.

mod cargo;
mod npm;
mod program;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belljar_core::{Invalid, ObjectId, Recipe, RelPath, bounds};
use belljar_lock::Ecosystem;
use belljar_manifest::LockFile;

use crate::source::{self, Sources};
use crate::terminal::Terminal;

/// What the daemon needs to make one input.
#[derive(Debug)]
pub(crate) struct Supply {
    /// The lock file.
    pub(crate) file: LockFile,
    /// Its content, which is part of the sources.
    pub(crate) lock: ObjectId,
    /// Its packages, every one with the right bytes.
    pub(crate) packages: Arc<Sources>,
}

/// Why packages cannot be supplied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The lock file does not belong to the sources.
    #[error("the lock file `{0}` is not among the sources")]
    NotASource(RelPath),
    /// Something in the lock file is wrong.
    #[error("{path}: {invalid}")]
    Lock {
        /// The lock file.
        path: RelPath,
        /// The package, and the reason.
        invalid: Invalid,
    },
    /// A package is nowhere to be had.
    #[error("{package} is missing: {} has nothing with {expected}", place.display())]
    Missing {
        /// Lock file, name and version.
        package: String,
        /// The digest in the lock file.
        expected: String,
        /// Where it was looked for.
        place: PathBuf,
        /// What the package manager said, if it was asked.
        #[source]
        said: Option<Box<program::Error>>,
    },
    /// A package has other bytes than the lock file says.
    #[error(
        "{package} is not what was locked: {expected} is expected, {} has {found}", file.display()
    )]
    Differs {
        /// Lock file, name and version.
        package: String,
        /// The file that has other bytes.
        file: PathBuf,
        /// The digest in the lock file.
        expected: String,
        /// The digest of the file.
        found: String,
    },
    /// A package of the project lies elsewhere.
    #[error(
        "{package} is a path dependency, and no member of the workspace in the source directory"
    )]
    Outside {
        /// Lock file, name and version.
        package: String,
    },
    /// A package manager could not be asked.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// A file could not be read.
    #[error(transparent)]
    Source(#[from] source::Error),
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotASource(_) => Some(
                "a build sees only what git does not ignore; add the lock file to git, or take every file by --no-git",
            ),
            Self::Missing { .. } => Some(
                "fetch it by your package manager in the project (`cargo fetch`, `npm ci --ignore-scripts`), and run again",
            ),
            Self::Differs { .. } => Some(
                "remove that file and run again; if it comes back, the registry gives other bytes than were locked",
            ),
            Self::Outside { .. } => Some(
                "move it into the source directory as a member of the workspace, or take a release from a registry",
            ),
            Self::Program(error) => error.hint(),
            Self::Source(error) => error.hint(),
            Self::Lock { .. } => None,
        }
    }

    /// Whether the project as such is at fault, and not what is on this host.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::NotASource(_) | Self::Lock { .. } | Self::Outside { .. } => true,
            Self::Source(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// Finds the packages of every lock file.
///
/// # Errors
/// The first thing that is wrong, by package.
pub(crate) fn supply(
    dir: &Path,
    files: &[LockFile],
    sources: &Sources,
    terminal: &mut Terminal,
) -> Result<Vec<Supply>, Error> {
    let one = |file: &LockFile| {
        let (lock, bytes) = content(file, sources)?;
        let packages = match file.ecosystem {
            Ecosystem::Cargo => cargo::packages(dir, file, &bytes, terminal)?,
            Ecosystem::Npm => npm::packages(file, &bytes, terminal)?,
        };
        Ok(Supply {
            file: file.clone(),
            lock,
            packages: Arc::new(packages),
        })
    };
    files.iter().map(one).collect()
}

/// The lock file as it is among the sources: the build sees this one and no other.
fn content(file: &LockFile, sources: &Sources) -> Result<(ObjectId, Vec<u8>), Error> {
    let listed = sources.files.iter().find(|source| source.path == file.path);
    let listed = listed.ok_or_else(|| Error::NotASource(file.path.clone()))?;
    let opened = sources.open(listed)?;
    let mut bytes = Vec::new();
    (&opened)
        .take(bounds::LOCK_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| sources.unreadable(listed, e))?;
    sources.unchanged(listed, &opened)?;
    Ok((listed.object, bytes))
}

impl Supply {
    /// How the daemon makes an input of it.
    pub(crate) fn recipe(&self) -> Recipe {
        let (lock, packages) = (self.lock, self.packages.tree);
        match self.file.ecosystem {
            Ecosystem::Cargo => Recipe::CargoLock { lock, packages },
            Ecosystem::Npm => Recipe::NpmLock { lock, packages },
        }
    }
}

/// A package of a lock file, for people.
fn named(file: &LockFile, package: impl std::fmt::Display) -> String {
    format!("{}: {package}", file.path)
}

fn wrong(file: &LockFile, invalid: Invalid) -> Error {
    Error::Lock {
        path: file.path.clone(),
        invalid,
    }
}

#[cfg(test)]
mod tests;
