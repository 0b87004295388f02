//! Objects and trees in a store, put there without it: by itself it would make each of them durable.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use belljar_core::{Invalid, ObjectId, RelPath};
use belljar_tree::{Built, Leaf};

use super::processes::State;

/// Files in one directory.
const WIDTH: usize = 100;

/// A tree whose objects are in the store.
pub(super) struct Tree {
    pub(super) files: Vec<(RelPath, ObjectId)>,
    pub(super) root: ObjectId,
    pub(super) store: Store,
}

/// Where the store's objects lie, and whose they are.
#[derive(Clone)]
pub(super) struct Store {
    objects: PathBuf,
    /// The same for who links and copies.
    beside: Option<PathBuf>,
    owner: (u32, u32),
}

impl Tree {
    /// Puts `count` small files, all different, into the store, which must not run: by itself that would
    /// make each of them durable, which is not what is measured.
    pub(super) fn put(store: &Store, count: usize) -> Result<Self> {
        let mut files = Vec::with_capacity(count);
        for (path, content) in small_files(count) {
            files.push((path?, store.put(&content)?));
        }
        let mut tree = Self {
            files,
            root: ObjectId::of(b""),
            store: store.clone(),
        };
        tree.root = tree.directories(None)?;
        Ok(tree)
    }

    /// The tree with one more file in it, so that nobody has seen it.
    pub(super) fn varied(&self, number: usize) -> Result<ObjectId> {
        let path = RelPath::new(format!("another{number}"))?;
        self.directories(Some((path, self.files[number].1)))
    }

    fn directories(&self, more: Option<(RelPath, ObjectId)>) -> Result<ObjectId> {
        let built = built(self.files.iter().cloned().chain(more))?;
        for (_, bytes) in &built.directories {
            self.store.put(bytes)?;
        }
        Ok(built.root)
    }
}

/// A tree of so many small files, and all blobs of it, for who uploads them.
pub(super) fn blobs(count: usize) -> Result<(ObjectId, Vec<Vec<u8>>)> {
    let (mut files, mut blobs) = (Vec::new(), Vec::new());
    for (path, content) in small_files(count) {
        files.push((path?, ObjectId::of(&content)));
        blobs.push(content);
    }
    let built = built(files)?;
    blobs.extend(built.directories.into_iter().map(|(_, bytes)| bytes));
    Ok((built.root, blobs))
}

/// Small files, all different, some in each directory.
fn small_files(count: usize) -> impl Iterator<Item = (Result<RelPath, Invalid>, Vec<u8>)> {
    (0..count).map(move |number| {
        let content = format!("small file {number} of {count}\n").into_bytes();
        let (outer, inner) = (number / (WIDTH * WIDTH), number / WIDTH % WIDTH);
        (
            RelPath::new(format!("d{outer}/d{inner}/f{number}")),
            content,
        )
    })
}

fn built(files: impl IntoIterator<Item = (RelPath, ObjectId)>) -> Result<Built> {
    let leaf = |(path, object): (RelPath, ObjectId)| {
        let executable = false;
        (path, Leaf::File { object, executable })
    };
    Ok(belljar_tree::build(files.into_iter().map(leaf))?)
}

fn path_in(objects: &Path, object: ObjectId) -> PathBuf {
    let hex = object.digest.to_hex();
    objects.join(&hex[..2]).join(&hex[2..])
}

impl Store {
    /// That of a state directory.
    pub(super) fn of(state: &State) -> Result<Self> {
        Ok(Self {
            objects: state.path().join("store/objects/sha256"),
            beside: None,
            owner: state.ids("store")?,
        })
    }

    /// Puts everything into a second place as well, for who links and copies.
    pub(super) fn with_peers(mut self, place: &Path) -> Self {
        self.beside = Some(place.to_owned());
        self
    }

    /// Where an object lies in the second place.
    pub(super) fn beside(&self, object: ObjectId) -> Result<PathBuf> {
        let place = self.beside.as_deref().context("there is no second place")?;
        Ok(path_in(place, object))
    }

    /// An object as the store itself leaves it, but not durable; and in the second place.
    pub(super) fn put(&self, content: &[u8]) -> Result<ObjectId> {
        let object = ObjectId::of(content);
        for objects in std::iter::once(&self.objects).chain(&self.beside) {
            let path = path_in(objects, object);
            if path.exists() {
                continue;
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, content)?;
            chown(&path, Some(self.owner.0), Some(self.owner.1))?;
            let verified = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let file = fs::File::options().write(true).open(&path)?;
            file.set_modified(verified)?;
            file.set_permissions(fs::Permissions::from_mode(0o440))?;
        }
        Ok(object)
    }
}
