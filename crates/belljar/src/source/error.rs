use std::path::PathBuf;

use belljar_core::{Invalid, RelPath};

/// Why a source tree cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A name or a target that a tree cannot hold.
    #[error("the source `{path}` cannot be taken: {why}")]
    Name {
        /// The path, readable.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Neither file nor directory nor link.
    #[error(
        "the source `{path}` is {kind}; only files, directories and symbolic links can be taken"
    )]
    Special {
        /// The path.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
    /// A git submodule, or another repository inside this one.
    #[error("the source `{path}` is {what}, which is not supported yet")]
    Repository {
        /// The path.
        path: RelPath,
        /// Which of the two.
        what: &'static str,
    },
    /// A file was written to while it was read, or between its hashing and its upload.
    #[error("the source `{0}` changed while it was read")]
    Changed(RelPath),
    /// A bound was reached.
    #[error("the source tree is too large: {0}")]
    TooLarge(String),
    /// git could not be run.
    #[error("`git` cannot be run, and {} lies in a git work tree", dir.display())]
    NoGit {
        /// The source directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// git failed.
    #[error("`git {what}` failed in {}: {said}", dir.display())]
    Git {
        /// What was asked.
        what: &'static str,
        /// The source directory.
        dir: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// git was not done in time, and was ended.
    #[error(
        "`git {what}` was not done after {seconds} seconds in {}", dir.display()
    )]
    GitSlow {
        /// What was asked.
        what: &'static str,
        /// The source directory.
        dir: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// What git would open in its own directory, and might wait for.
    #[error("{} is {kind}, and git would read it as a file", path.display())]
    GitSpecial {
        /// What.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// git leaves everything out.
    #[error("git ignores everything in {}", .0.display())]
    AllIgnored(PathBuf),
    /// The paths do not make a tree.
    #[error("the source tree cannot be taken: {0}")]
    Tree(Invalid),
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Changed(_) => Some("let editors and other builds come to rest, and run again"),
            Self::NoGit { .. } => Some("install git, or take every file by --no-git"),
            Self::Git { said, .. } if said.contains("dubious ownership") => Some(
                "the work tree belongs to another user than yours; git trusts it after \
                 `git config --global --add safe.directory DIR`. Or take every file by --no-git",
            ),
            Self::GitSlow { .. } => Some(
                "look for named pipes with `find -type p`: among the files that git reads, such as .gitignore, one of \
                 them holds it up for ever. Or take every file by --no-git",
            ),
            Self::GitSpecial { .. } => {
                Some("remove it, clone the repository anew, or take every file by --no-git")
            }
            Self::AllIgnored(_) => Some(
                "take every file by --no-git, or move the directory to where git does not ignore it",
            ),
            Self::Git { .. } => {
                Some("mend what git complains about, or take every file by --no-git")
            }
            Self::Repository { .. } => {
                Some("copy its files into the source tree, or take every file by --no-git")
            }
            _ => None,
        }
    }

    /// Whether the sources as such are at fault, and not the reading of them.
    pub(crate) fn is_usage(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Changed(_))
    }

    pub(super) fn name(path: &[u8], why: impl ToString) -> Self {
        Self::Name {
            path: String::from_utf8_lossy(path).escape_debug().to_string(),
            why: why.to_string(),
        }
    }
}
