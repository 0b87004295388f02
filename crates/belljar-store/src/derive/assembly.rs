use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_tree::{Built, Leaf, SymlinkTarget, build};

/// A tree that is put together out of what an unpacker says: a state machine without I/O. Entries fit what
/// came before, later ones take the place of earlier ones as tar(1) has it, and totals stay under their
/// bounds. Every refusal is a sentence with the name in it.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// By path; every directory on the way to an entry is an entry itself.
    entries: BTreeMap<String, Entry>,
    layer: usize,
    /// Where lower layers have nothing any more, since this layer said so: looking again would be waste,
    /// which somebody could ask for without end.
    hidden: BTreeSet<String>,
    open: Option<(RelPath, bool)>,
    /// Entries that came, with those that are gone.
    came: usize,
    names: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    /// The last layer that said something of it, or of something below it.
    layer: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File { object: ObjectId, executable: bool },
    Symlink(SymlinkTarget),
}

/// A tree that is complete.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Its directories.
    pub(crate) built: Built,
    /// The content of its files, each once.
    pub(crate) objects: Vec<ObjectId>,
    /// Files, directories and links.
    pub(crate) entries: u64,
    /// Content bytes, each file's where it stands.
    pub(crate) bytes: u64,
}

type Rejected = String;

impl Assembly {
    /// A layer begins over all that came.
    pub(crate) fn begin_layer(&mut self) -> Result<(), Rejected> {
        self.closed()?;
        self.layer += 1;
        self.hidden.clear();
        if self.layer > bounds::OCI_LAYERS {
            return Err(format!("more than {} layers came", bounds::OCI_LAYERS));
        }
        Ok(())
    }

    /// A file begins.
    pub(crate) fn begin_file(&mut self, path: RelPath, executable: bool) -> Result<(), Rejected> {
        self.admit(&path)?;
        self.open = Some((path, executable));
        Ok(())
    }

    /// Whether there is a file that content may come for.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The file that was begun is complete.
    pub(crate) fn end_file(&mut self, object: ObjectId) -> Result<(), Rejected> {
        let Some((path, executable)) = self.open.take() else {
            return Err("a file ended that was not begun".to_owned());
        };
        self.put(path, Kind::File { object, executable })
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: RelPath, target: String) -> Result<(), Rejected> {
        self.admit(&path)?;
        self.count_name(target.len())?;
        let target = SymlinkTarget::new(target)
            .map_err(|e| format!("the entry `{}` cannot be taken: {e}", shown(&path)))?;
        self.put(path, Kind::Symlink(target))
    }

    /// Another name of an entry that came before.
    pub(crate) fn hard_link(&mut self, path: RelPath, target: &RelPath) -> Result<(), Rejected> {
        self.admit(&path)?;
        let kind = match self.entries.get(target.as_str()).map(|entry| &entry.kind) {
            Some(Kind::Directory) => Err("which is a directory"),
            Some(kind) => Ok(kind.clone()),
            None => Err("which did not come before it"),
        };
        let kind = kind.map_err(|why| {
            format!(
                "the entry `{}` is a hard link to `{}`, {why}",
                shown(&path),
                shown(target)
            )
        })?;
        self.put(path, kind)
    }

    /// A directory.
    pub(crate) fn directory(&mut self, path: RelPath) -> Result<(), Rejected> {
        self.admit(&path)?;
        self.put(path, Kind::Directory)
    }

    /// What lower layers have at `path` is gone. That they have nothing there is fine.
    pub(crate) fn whiteout(&mut self, path: &RelPath) -> Result<(), Rejected> {
        self.count(path.as_str())?;
        self.hide_below(path.as_str());
        let hidden = |entry: &mut Entry| entry.layer < self.layer;
        if self.entries.get_mut(path.as_str()).is_some_and(hidden) {
            self.entries.remove(path.as_str());
        }
        Ok(())
    }

    /// What lower layers have in a directory is gone; without a path, all.
    pub(crate) fn opaque(&mut self, path: Option<&RelPath>) -> Result<(), Rejected> {
        let path = path.map_or("", RelPath::as_str);
        self.count(path)?;
        self.hide_below(path);
        Ok(())
    }

    /// The end.
    pub(crate) fn finish(self) -> Result<Assembled, Rejected> {
        self.closed()?;
        let mut objects: Vec<ObjectId> = Vec::new();
        let mut bytes: u64 = 0;
        for entry in self.entries.values() {
            if let Kind::File { object, .. } = entry.kind {
                objects.push(object);
                bytes = bytes.saturating_add(object.size);
            }
        }
        objects.sort_unstable();
        objects.dedup();
        if bytes > bounds::TREE_BYTES {
            return Err(format!(
                "the files have {bytes} bytes together; {} are allowed",
                bounds::TREE_BYTES
            ));
        }
        let entries = self.entries.len() as u64;
        let leaves = self.leaves();
        let built = leaves.and_then(build).map_err(|e| e.to_string())?;
        Ok(Assembled {
            built,
            objects,
            entries,
            bytes,
        })
    }

    fn leaves(&self) -> Result<Vec<(RelPath, Leaf)>, Invalid> {
        let mut leaves = Vec::new();
        for (path, entry) in &self.entries {
            let leaf = match &entry.kind {
                Kind::Directory if self.is_empty(path) => Leaf::EmptyDirectory,
                Kind::Directory => continue,
                Kind::File { object, executable } => Leaf::File {
                    object: *object,
                    executable: *executable,
                },
                Kind::Symlink(target) => Leaf::Symlink {
                    target: target.clone(),
                },
            };
            leaves.push((RelPath::new(path.as_str())?, leaf));
        }
        Ok(leaves)
    }

    fn closed(&self) -> Result<(), Rejected> {
        match &self.open {
            None => Ok(()),
            Some((path, _)) => Err(format!("the file `{}` did not end", shown(path))),
        }
    }

    /// Whether one more entry may come, and can stand at `path`: the directories on the way are there
    /// afterwards.
    fn admit(&mut self, path: &RelPath) -> Result<(), Rejected> {
        self.count(path.as_str())?;
        for (end, _) in path.as_str().match_indices('/') {
            let parent = &path.as_str()[..end];
            match self.entries.get_mut(parent) {
                Some(Entry {
                    kind: Kind::Directory,
                    layer,
                }) => *layer = self.layer,
                Some(entry) => {
                    let what = match entry.kind {
                        Kind::Symlink(_) => "a symbolic link",
                        _ => "a file",
                    };
                    return Err(format!(
                        "the entry `{}` leads through `{}`, which is {what}",
                        shown(path),
                        parent.escape_debug()
                    ));
                }
                None => {
                    // Nobody has said it, but it is kept as what was said.
                    self.count_name(parent.len())?;
                    self.insert(parent.to_owned(), Kind::Directory)?;
                }
            }
        }
        Ok(())
    }

    /// Lets an entry stand at a path that was admitted.
    fn put(&mut self, path: RelPath, kind: Kind) -> Result<(), Rejected> {
        let is_directory = matches!(kind, Kind::Directory);
        let mut replaced = false;
        let conflict = match self.entries.get_mut(path.as_str()) {
            None => false,
            Some(entry) => {
                let was_directory = matches!(entry.kind, Kind::Directory);
                if was_directory && is_directory {
                    entry.layer = self.layer;
                    return Ok(());
                }
                replaced = was_directory;
                was_directory != is_directory && entry.layer == self.layer
            }
        };
        if conflict {
            return Err(format!(
                "the entry `{}` comes both as a directory and as something else",
                shown(&path)
            ));
        }
        if replaced {
            // A lower layer's directory; nothing below it is of this layer, or it were itself.
            self.hide_below(path.as_str());
        }
        self.insert(path.into(), kind)
    }

    fn insert(&mut self, path: String, kind: Kind) -> Result<(), Rejected> {
        let layer = self.layer;
        if self.entries.len() >= bounds::TREE_ENTRIES && !self.entries.contains_key(&path) {
            return Err(format!(
                "the entry `{}` is one more than the {} that a tree may have",
                path.escape_debug(),
                bounds::TREE_ENTRIES
            ));
        }
        self.entries.insert(path, Entry { kind, layer });
        Ok(())
    }

    /// Removes what lower layers have below a path; the empty one is the root.
    fn hide_below(&mut self, path: &str) {
        if !self.hidden.insert(path.to_owned()) {
            return;
        }
        let layer = self.layer;
        if path.is_empty() {
            self.entries.retain(|_, entry| entry.layer >= layer);
            return;
        }
        let hidden: Vec<String> = self
            .below(path)
            .filter(|(_, entry)| entry.layer < layer)
            .map(|(path, _)| path.clone())
            .collect();
        for path in hidden {
            self.entries.remove(&path);
        }
    }

    fn is_empty(&self, path: &str) -> bool {
        self.below(path).next().is_none()
    }

    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Entry)> {
        // `0` is the character after `/`.
        self.entries.range(format!("{path}/")..format!("{path}0"))
    }

    /// One more thing is said, about this path.
    fn count(&mut self, path: &str) -> Result<(), Rejected> {
        self.closed()?;
        self.came += 1;
        if self.came > bounds::UNPACKED_ENTRIES {
            return Err(format!(
                "more than {} entries came",
                bounds::UNPACKED_ENTRIES
            ));
        }
        self.count_name(path.len())
    }

    fn count_name(&mut self, length: usize) -> Result<(), Rejected> {
        self.names = self.names.saturating_add(length);
        if self.names > bounds::UNPACKED_NAMES_BYTES {
            return Err(format!(
                "all paths and link targets together are longer than {} bytes",
                bounds::UNPACKED_NAMES_BYTES
            ));
        }
        Ok(())
    }
}

fn shown(path: &RelPath) -> String {
    path.as_str().escape_debug().to_string()
}

#[cfg(test)]
mod tests;
