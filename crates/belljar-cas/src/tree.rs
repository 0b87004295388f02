mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use belljar_core::{ObjectId, RelPath, bounds};
use belljar_tree::{Directory, NodeProperties, erofs};

use crate::{BlobSource, ReadError, TreeError};
use fetch::{Found, fetch_few, how_many_at_once};

/// Fewer objects than this are not worth a second thread.
const OBJECTS_PER_THREAD: usize = 1024;
/// After so many it is asked whether another thread has found a damaged one.
const OBJECTS_AT_A_TIME: usize = 256;
/// Threads that look at the objects of one tree.
const THREADS: usize = 4;

/// What a tree comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Files, directories and links, without the top; a directory that stands at two places counts twice
    /// with all that is in it.
    pub entries: u64,
    /// Bytes of content of all files.
    pub bytes: u64,
    /// Bytes of all names and link targets, and of properties.
    names: u64,
}

/// Every directory of a tree, read and verified against its digest; and what the tree comes to.
#[derive(Debug)]
pub(crate) struct Tree {
    root: ObjectId,
    directories: BTreeMap<ObjectId, Directory>,
    pub(crate) measure: Measure,
}

impl Measure {
    /// As an image tells it.
    pub(crate) fn told(entries: u64, bytes: u64) -> Self {
        Self {
            entries,
            bytes,
            names: 0,
        }
    }

    fn alone(directory: &Directory) -> Self {
        let files = directory.files().iter().map(|file| &file.name);
        let below = directory.directories().iter().map(|below| &below.name);
        let links = directory.symlinks().iter();
        let targets = links
            .clone()
            .map(|link| link.target.as_str().len())
            .sum::<usize>();
        let properties = directory.all_properties().map(NodeProperties::weight);
        let properties: usize = properties.sum();
        let names = files.chain(below).chain(links.map(|link| &link.name));
        Self {
            entries: directory.len() as u64,
            bytes: directory
                .files()
                .iter()
                .fold(0, |sum: u64, file| sum.saturating_add(file.object.size)),
            names: (names.map(|name| name.as_str().len()).sum::<usize>() + targets + properties)
                as u64,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            bytes: self.bytes.saturating_add(other.bytes),
            names: self.names.saturating_add(other.names),
        }
    }

    fn check(&self) -> Result<(), TreeError> {
        if self.entries > bounds::TREE_ENTRIES as u64 {
            return Err(TreeError::TooManyEntries);
        }
        if self.bytes > bounds::TREE_BYTES {
            return Err(TreeError::TooManyBytes);
        }
        if self.names > bounds::TREE_NAMES_BYTES {
            return Err(TreeError::TooManyNames);
        }
        Ok(())
    }
}

/// Post-order without recursion. A directory cannot contain itself, since nothing can name a digest that
/// depends on the name; so every child was left before its parent is.
enum Step {
    Enter(ObjectId),
    Leave(ObjectId),
}

impl Tree {
    /// Reads all directories. Each different one is read once, however often it stands in the tree, so a small
    /// message that means a billion files costs little to refuse.
    pub(crate) fn read(source: &dyn BlobSource, root: ObjectId) -> Result<Self, TreeError> {
        let mut directories: BTreeMap<ObjectId, Directory> = BTreeMap::new();
        let mut seen = BTreeSet::from([root]);
        let mut found = vec![Found {
            object: root,
            within: None,
        }];
        // What was read stays in memory: at least once each directory is part of the tree.
        let mut read = Measure::default();
        let mut next = 0;
        while next < found.len() {
            let few = next..next + how_many_at_once(&found[next..]);
            next = few.end;
            for (index, directory) in few.clone().zip(fetch_few(source, &found, few)) {
                let directory = directory?;
                read = read.and(Measure::alone(&directory));
                read.check()?;
                let below = directory.directories().iter();
                let new = below.filter(|child| seen.insert(child.object));
                found.extend(new.map(|child| Found {
                    object: child.object,
                    within: Some((index, child.name.clone())),
                }));
                directories.insert(found[index].object, directory);
            }
        }
        Ok(Self {
            root,
            measure: measure(root, &directories)?,
            directories,
        })
    }

    /// The objects that its files have as content, each once, without the empty one.
    pub(crate) fn objects(&self) -> Vec<ObjectId> {
        let files = self.directories.values().flat_map(Directory::files);
        let mut objects: Vec<_> = files
            .map(|file| file.object)
            .filter(|o| o.size > 0)
            .collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }

    /// Sees that each of these objects of its own is there and what it is named by.
    pub(crate) fn verify(
        &self,
        source: &dyn BlobSource,
        objects: &[ObjectId],
    ) -> Result<(), TreeError> {
        if are_whole(source, objects) {
            return Ok(());
        }
        for object in objects {
            let path = || self.place_of(*object);
            match source.verify(*object) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(TreeError::Damaged {
                        path: path(),
                        object: *object,
                    });
                }
                Err(error) => return Err(unread(path(), error)),
            }
        }
        Ok(())
    }

    /// The tree as something that a kernel can mount.
    pub(crate) fn image(&self, mtime: u64) -> Result<Vec<u8>, TreeError> {
        let image = erofs::image(self.root, &self.directories, mtime);
        image.map_err(|why| TreeError::Malformed {
            path: shown(None),
            why,
        })
    }

    /// The first place where a file with this content stands.
    fn place_of(&self, object: ObjectId) -> String {
        let mut pending = vec![(None, self.root)];
        let mut seen = BTreeSet::new();
        while let Some((path, directory)) = pending.pop() {
            let Some(directory) = self
                .directories
                .get(&directory)
                .filter(|_| seen.insert(directory))
            else {
                continue;
            };
            let file = directory.files().iter().find(|file| file.object == object);
            if let Some(file) = file {
                return shown(join(path.as_ref(), file.name.as_str()).ok().as_ref());
            }
            let below = directory.directories().iter();
            pending.extend(below.filter_map(|child| {
                let path = join(path.as_ref(), child.name.as_str()).ok()?;
                Some((Some(path), child.object))
            }));
        }
        shown(None)
    }
}

/// Whether each of these objects is there and what it is named by.
pub(crate) fn are_whole(source: &dyn BlobSource, objects: &[ObjectId]) -> bool {
    all(objects, |few| source.are_whole(few))
}

/// Whether something holds for all objects, a few at a time, looked at by several threads.
pub(crate) fn all<T: Sync>(objects: &[T], holds: impl Fn(&[T]) -> bool + Sync) -> bool {
    let whole = AtomicBool::new(true);
    let look = |some: &[T]| {
        for few in some.chunks(OBJECTS_AT_A_TIME) {
            if whole.load(Ordering::Relaxed) && !holds(few) {
                whole.store(false, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS).min(objects.len() / OBJECTS_PER_THREAD);
    if threads < 2 {
        look(objects);
    } else {
        std::thread::scope(|scope| {
            for some in objects.chunks(objects.len().div_ceil(threads)) {
                scope.spawn(|| look(some));
            }
        });
    }
    whole.into_inner()
}

/// What a tree comes to, of which all directories are there.
fn measure(
    root: ObjectId,
    directories: &BTreeMap<ObjectId, Directory>,
) -> Result<Measure, TreeError> {
    let mut measures: BTreeMap<ObjectId, Measure> = BTreeMap::new();
    let mut steps = vec![Step::Enter(root)];
    while let Some(step) = steps.pop() {
        let (Step::Enter(object) | Step::Leave(object)) = step;
        let Some(directory) = directories.get(&object) else {
            continue;
        };
        let below = directory.directories().iter();
        match step {
            Step::Enter(_) if measures.contains_key(&object) => {}
            Step::Enter(_) => {
                steps.push(Step::Leave(object));
                steps.extend(below.map(|child| Step::Enter(child.object)));
            }
            Step::Leave(_) => {
                let below = below.filter_map(|child| measures.get(&child.object));
                let total = below.fold(Measure::alone(directory), |sum, child| sum.and(*child));
                total.check()?;
                measures.insert(object, total);
            }
        }
    }
    Ok(measures.remove(&root).unwrap_or_default())
}

fn join(path: Option<&RelPath>, name: &str) -> Result<RelPath, TreeError> {
    let joined = match path {
        Some(path) => path.join(name),
        None => RelPath::new(name),
    };
    joined.map_err(|why| TreeError::Malformed {
        path: shown(path),
        why,
    })
}

fn shown(path: Option<&RelPath>) -> String {
    path.map_or(".", RelPath::as_str).to_owned()
}

fn unread(path: String, error: ReadError) -> TreeError {
    match error {
        ReadError::Missing(object) | ReadError::Size { object, .. } => {
            TreeError::Missing { path, object }
        }
        ReadError::Io { object, source } => TreeError::Io {
            path,
            object,
            source,
        },
    }
}

#[cfg(test)]
mod tests;
