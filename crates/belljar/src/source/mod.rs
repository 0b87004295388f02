//! The source tree: which files belong to it, what they are, and their digests.
//!
//! In a git work tree: what git tracks, plus what is neither tracked nor ignored, as the `git` program
//! lists it, since nothing else knows the exact meaning of a user's own ignore rules. Elsewhere:
//! everything but [`IGNORED`]. In both cases never the `--output` directory.

mod error;
mod fingerprint;
mod git;
mod hash;
mod remembered;
mod root;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::File;
use std::path::Path;

use belljar_core::{ObjectId, RelPath, bounds};
use belljar_tree::{Leaf, SymlinkTarget};

pub(crate) use error::Error;

use fingerprint::Fingerprint;
use remembered::Remembered;
use root::{Kind, Look, Root};

pub(crate) use remembered::{Memory, home as caches};

/// Names of directories and files that are left out everywhere when there is no git to ask: what version
/// control systems keep about a tree, which is not part of it.
pub(crate) const IGNORED: [&str; 5] = [".git", ".hg", ".svn", ".jj", ".bzr"];

/// A source tree, hashed. The contents of its files are read again when they are uploaded, and must then
/// be the same.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The root `Directory`.
    pub(crate) tree: ObjectId,
    /// Every `Directory` with its encoding.
    pub(crate) directories: Vec<(ObjectId, Vec<u8>)>,
    /// Every regular file.
    pub(crate) files: Vec<SourceFile>,
    /// Who said what belongs to it.
    pub(crate) listed_by: ListedBy,
    root: Root,
    remembered: Option<Remembered>,
}

/// Who said what belongs to a source tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListedBy {
    /// git.
    Git,
    /// Everything that is there, but [`IGNORED`].
    Walk,
    /// A lock file.
    Lock,
}

/// Files of one directory of this host, hashed, that go into a tree under other names.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The files, in the order in which they were named.
    pub(crate) files: Vec<SourceFile>,
    root: Root,
}

/// One regular file of a source tree.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Where, below the source directory.
    pub(crate) path: RelPath,
    /// Its content.
    pub(crate) object: ObjectId,
    fingerprint: Fingerprint,
    /// Whether that is remembered from an earlier time, and was not read now.
    pub(crate) remembered: bool,
}

/// What to collect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection<'a> {
    /// The source directory.
    pub(crate) dir: &'a Path,
    /// The output directory, if it lies below the source directory.
    pub(crate) output: Option<&'a RelPath>,
    /// Whether git is asked where there is a work tree.
    pub(crate) ask_git: bool,
    /// Where digests are remembered, if they are.
    pub(crate) memory: Option<Memory<'a>>,
}

impl Sources {
    /// Lists, looks at and hashes what belongs to a source tree.
    ///
    /// # Errors
    /// See [`Error`]; what stands in the way is named.
    pub(crate) fn collect(selection: Selection<'_>) -> Result<Self, Error> {
        let root = Root::at(selection.dir)?;
        let remembered = selection
            .memory
            .and_then(|memory| Remembered::open(memory, selection.dir, &root));
        let (listed, listed_by) = list(&root, selection)?;
        let (mut leaves, mut found) = (Vec::new(), Vec::new());
        let mut look = Look::at(&root);
        for path in listed {
            if selection
                .output
                .is_some_and(|output| path.starts_with(output))
            {
                continue;
            }
            match look.look(&path)? {
                // Tracked, and deleted in the work tree.
                None => {}
                Some(Kind::File(fingerprint)) => found.push((path, fingerprint)),
                Some(Kind::Symlink { target }) => leaves.push((path, Leaf::Symlink { target })),
                // git lists no directories: a tracked file was replaced by one, and so deleted.
                Some(Kind::Directory) if listed_by == ListedBy::Git => {}
                Some(Kind::Directory) => leaves.push((path, Leaf::EmptyDirectory)),
            }
        }
        let files = contents(&root, remembered.as_ref(), found)?;
        let total: u64 = files.iter().map(|file| file.object.size).sum();
        if total > bounds::TREE_BYTES {
            return Err(Error::TooLarge(format!(
                "{total} bytes; {} are allowed",
                bounds::TREE_BYTES
            )));
        }
        for file in &files {
            let (object, executable) = (file.object, file.fingerprint.executable());
            leaves.push((file.path.clone(), Leaf::File { object, executable }));
        }
        let built = belljar_tree::build(leaves).map_err(Error::Tree)?;
        Ok(Self {
            tree: built.root,
            directories: built.directories,
            files,
            listed_by,
            root,
            remembered,
        })
    }

    /// How many files were read, and not remembered.
    pub(crate) fn read(&self) -> usize {
        self.files.iter().filter(|file| !file.remembered).count()
    }

    /// Opens a file of the tree again.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is not the file that was hashed.
    pub(crate) fn open(&self, file: &SourceFile) -> Result<File, Error> {
        let opened = self.root.open(&file.path)?;
        file.fingerprint.check(&file.path, &opened)?;
        Ok(opened)
    }

    /// That a file of the tree could not be read.
    pub(crate) fn unreadable(&self, file: &SourceFile, source: std::io::Error) -> Error {
        self.root.unreadable(&file.path, source)
    }

    /// Checks, after a file was read to its end, that it still is the file that was hashed.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub(crate) fn unchanged(&self, file: &SourceFile, opened: &File) -> Result<(), Error> {
        file.fingerprint.check(&file.path, opened)
    }

    /// That a file has other content than was remembered: nothing that is remembered counts any more.
    pub(crate) fn misremembered(&self, file: &SourceFile) -> Error {
        if let Some(remembered) = &self.remembered {
            remembered.forget();
        }
        Error::Changed(file.path.clone())
    }
}

impl Gathered {
    /// Hashes regular files below `dir`, which are reached without a symbolic link.
    ///
    /// # Errors
    /// When one of them cannot be read, or is changed meanwhile.
    pub(crate) fn hash(dir: &Path, paths: Vec<RelPath>) -> Result<Self, Error> {
        let root = Root::at(dir)?;
        let files = hash::all(&root, paths)?;
        Ok(Self { files, root })
    }

    /// Opens one of the files again.
    ///
    /// # Errors
    /// [`Error::Changed`] if it is not the file that was hashed.
    pub(crate) fn open(&self, file: &SourceFile) -> Result<File, Error> {
        let opened = self.root.open(&file.path)?;
        file.fingerprint.check(&file.path, &opened)?;
        Ok(opened)
    }

    /// That one of the files could not be read.
    pub(crate) fn unreadable(&self, file: &SourceFile, source: std::io::Error) -> Error {
        self.root.unreadable(&file.path, source)
    }

    /// The tree of those files that `name` has a name for.
    ///
    /// # Errors
    /// When two have the same.
    pub(crate) fn into_tree(
        self,
        mut name: impl FnMut(&SourceFile) -> Option<RelPath>,
    ) -> Result<Sources, Error> {
        let (mut files, mut leaves) = (Vec::new(), Vec::new());
        for file in self.files {
            if let Some(name) = name(&file) {
                let (object, executable) = (file.object, false);
                leaves.push((name, Leaf::File { object, executable }));
                files.push(file);
            }
        }
        let built = belljar_tree::build(leaves).map_err(Error::Tree)?;
        Ok(Sources {
            tree: built.root,
            directories: built.directories,
            files,
            listed_by: ListedBy::Lock,
            root: self.root,
            remembered: None,
        })
    }
}

/// The files with their contents: as remembered where they look as they did, else read.
fn contents(
    root: &Root,
    remembered: Option<&Remembered>,
    found: Vec<(RelPath, Fingerprint)>,
) -> Result<Vec<SourceFile>, Error> {
    let (mut files, mut unknown) = (Vec::with_capacity(found.len()), Vec::new());
    for (path, fingerprint) in found {
        match remembered.and_then(|known| known.content(path.as_str(), &fingerprint)) {
            Some(object) => files.push(SourceFile {
                path,
                object,
                fingerprint,
                remembered: true,
            }),
            None => unknown.push(path),
        }
    }
    files.extend(hash::all(root, unknown)?);
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    if let Some(remembered) = remembered {
        remembered.keep(&files);
    }
    Ok(files)
}

/// Paths of a tree: of files and links, and of directories that would else be lost; none twice.
fn list(root: &Root, selection: Selection<'_>) -> Result<(Vec<RelPath>, ListedBy), Error> {
    if !selection.ask_git || !git::is_work_tree(selection.dir)? {
        return Ok((walk::list(root, selection.output)?, ListedBy::Walk));
    }
    let paths = git::list(selection.dir)?;
    if paths.is_empty() {
        return Err(Error::AllIgnored(selection.dir.to_owned()));
    }
    Ok((paths, ListedBy::Git))
}

/// A path that came as bytes.
fn rel_path(bytes: &[u8]) -> Result<RelPath, Error> {
    let text = str::from_utf8(bytes).map_err(|_| Error::name(bytes, "its name is not UTF-8"))?;
    RelPath::new(text).map_err(|e| Error::name(bytes, e))
}

/// A link's target that came as bytes.
fn link_target(path: &RelPath, bytes: &[u8]) -> Result<SymlinkTarget, Error> {
    let refused = |why: String| Error::name(path.as_str().as_bytes(), why);
    let text = str::from_utf8(bytes).map_err(|_| refused("its target is not UTF-8".to_owned()))?;
    SymlinkTarget::new(text).map_err(|e| refused(e.to_string()))
}

/// Refuses to list more.
fn bounded(count: usize) -> Result<(), Error> {
    if count > bounds::TREE_ENTRIES {
        return Err(Error::TooLarge(format!(
            "more than {} entries",
            bounds::TREE_ENTRIES
        )));
    }
    Ok(())
}
