use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::{Directory, DirectoryNode, FileNode, Name, SymlinkNode, SymlinkTarget};

/// What stands at one path of a tree that is to be built. Directories that lie between come by
/// themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// A regular file.
    File {
        /// Its content.
        object: ObjectId,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: SymlinkTarget,
    },
    /// A directory with nothing in it.
    EmptyDirectory,
}

/// The directories of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The directory at the top.
    pub root: ObjectId,
    /// Every directory with its canonical encoding, each once, none before a directory inside it; the
    /// last is the root.
    pub directories: Vec<(ObjectId, Vec<u8>)>,
}

/// Builds the directories of a tree out of its leaves, given in any order: the result depends on what
/// stands where alone.
///
/// # Errors
/// When two leaves stand at one path, or one below another, or when there are more than
/// [`bounds::TREE_ENTRIES`] entries, or too many in one directory for [`bounds::DIRECTORY_BYTES`].
/// The error's field is the path.
pub fn build(leaves: impl IntoIterator<Item = (RelPath, Leaf)>) -> Result<Built, Invalid> {
    let mut root = BTreeMap::new();
    let mut entries = 0;
    for (path, leaf) in leaves {
        insert(&mut root, &path, leaf, &mut entries)?;
    }
    let mut finished = Finished::default();
    let root = finished.directory(root, "")?;
    Ok(Built {
        root,
        directories: finished.directories,
    })
}

impl Built {
    /// All of it in one message, REAPI's `Tree`: the root first, then each other directory once, none before one that it
    /// lies in (`is_topologically_sorted`).
    pub fn tree(&self) -> Vec<u8> {
        // As REAPI has it: the messages as they were hashed, each behind its key and its length.
        let mut tree = Vec::new();
        for (index, (_, directory)) in self.directories.iter().rev().enumerate() {
            let field = if index == 0 { 1 } else { 2 };
            encode_key(field, WireType::LengthDelimited, &mut tree);
            encode_varint(directory.len() as u64, &mut tree);
            tree.extend_from_slice(directory);
        }
        tree
    }
}

enum Entry {
    Leaf(Leaf),
    Directory(BTreeMap<Name, Entry>),
}

fn insert(
    root: &mut BTreeMap<Name, Entry>,
    path: &RelPath,
    leaf: Leaf,
    entries: &mut usize,
) -> Result<(), Invalid> {
    let refused = |why: String| Invalid::field(path.as_str(), why);
    let mut names = path.components().peekable();
    let mut level = root;
    while let Some(name) = names.next() {
        let name = Name::new(name).map_err(|e| e.within(path))?;
        if !level.contains_key(&name) {
            *entries += 1;
            if *entries > bounds::TREE_ENTRIES {
                return Err(refused(format!(
                    "is one entry more than the {} allowed",
                    bounds::TREE_ENTRIES
                )));
            }
        }
        if names.peek().is_none() {
            return match level.insert(name, Entry::Leaf(leaf)) {
                None => Ok(()),
                Some(Entry::Leaf(_)) => Err(refused("is given twice".into())),
                Some(Entry::Directory(_)) => Err(refused(
                    "is both an entry and the directory of other entries".into(),
                )),
            };
        }
        let shown = name.to_string();
        level = match level
            .entry(name)
            .or_insert_with(|| Entry::Directory(BTreeMap::new()))
        {
            Entry::Directory(next) => next,
            Entry::Leaf(_) => {
                return Err(refused(format!(
                    "lies below `{shown}`, which is not such a directory"
                )));
            }
        };
    }
    Ok(())
}

#[derive(Default)]
struct Finished {
    directories: Vec<(ObjectId, Vec<u8>)>,
    seen: BTreeSet<ObjectId>,
}

impl Finished {
    /// Bottom-up, recursing at most [`bounds::PATH_DEPTH`] deep, since every path is a [`RelPath`].
    fn directory(
        &mut self,
        entries: BTreeMap<Name, Entry>,
        path: &str,
    ) -> Result<ObjectId, Invalid> {
        let (mut files, mut directories, mut symlinks) = (vec![], vec![], vec![]);
        for (name, entry) in entries {
            let below = match entry {
                Entry::Leaf(Leaf::File { object, executable }) => {
                    files.push(FileNode {
                        name,
                        object,
                        executable,
                        properties: None,
                    });
                    continue;
                }
                Entry::Leaf(Leaf::Symlink { target }) => {
                    symlinks.push(SymlinkNode {
                        name,
                        target,
                        properties: None,
                    });
                    continue;
                }
                Entry::Leaf(Leaf::EmptyDirectory) => BTreeMap::new(),
                Entry::Directory(below) => below,
            };
            let separator = if path.is_empty() { "" } else { "/" };
            let object = self.directory(below, &format!("{path}{separator}{name}"))?;
            directories.push(DirectoryNode { name, object });
        }
        let directory = Directory::new(files, directories, symlinks).map_err(|e| e.within(path))?;
        let encoded = directory.encode();
        let id = ObjectId::of(&encoded);
        if self.seen.insert(id) {
            self.directories.push((id, encoded));
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
