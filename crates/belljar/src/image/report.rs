//! What `belljar image` prints under `--json`, see [`crate::report`].

use std::collections::BTreeMap;
use std::path::Path;

use belljar_core::{Dropped, InputName, ObjectId};
use belljar_manifest::Lock;
use belljar_manifest::lock::{Image, Origin};
use belljar_wire::DerivedTree;
use serde::Serialize;

/// An image by its name in a lock.
#[derive(Debug, Serialize)]
struct LockedImage<'a> {
    name: &'a str,
    tree: ObjectId,
    derivation: Option<ObjectId>,
    /// Where it is from.
    source: ImageSource<'a>,
}

#[derive(Debug, Serialize)]
struct ImageSource<'a> {
    /// What it was imported from.
    file: Option<&'a str>,
    /// By which reference it was pulled.
    reference: Option<String>,
    object: ObjectId,
}

impl<'a> LockedImage<'a> {
    fn new(name: &'a InputName, image: &'a Image) -> Self {
        let (file, reference) = match &image.source.origin {
            Origin::File(file) => (Some(file.as_str()), None),
            Origin::Registry(reference) => (None, Some(reference.to_string())),
        };
        Self {
            name: name.as_str(),
            tree: image.input.tree,
            derivation: image.input.derivation,
            source: ImageSource {
                file,
                reference,
                object: image.source.object,
            },
        }
    }
}

/// An image that was imported.
#[derive(Debug, Serialize)]
pub(crate) struct Imported<'a> {
    schema: &'static str,
    #[serde(flatten)]
    image: LockedImage<'a>,
    /// Files, directories and links.
    entries: u64,
    /// Content bytes.
    bytes: u64,
    /// What was left out, and how often.
    dropped: &'a BTreeMap<Dropped, u64>,
    /// The lock that names it now.
    lock: &'a Path,
}

impl<'a> Imported<'a> {
    /// With what came of it.
    pub(crate) fn new(
        name: &'a InputName,
        image: &'a Image,
        derived: &'a DerivedTree,
        lock: &'a Path,
    ) -> Self {
        Self {
            schema: "belljar.image/v1",
            image: LockedImage::new(name, image),
            entries: derived.entries,
            bytes: derived.bytes,
            dropped: &derived.dropped,
            lock,
        }
    }
}

/// The images that a lock names.
#[derive(Debug, Serialize)]
pub(crate) struct Images<'a> {
    schema: &'static str,
    lock: &'a Path,
    images: Vec<LockedImage<'a>>,
}

impl<'a> Images<'a> {
    /// Of the lock at `path`.
    pub(crate) fn new(path: &'a Path, lock: &'a Lock) -> Self {
        let images = lock.images();
        Self {
            schema: "belljar.images/v1",
            lock: path,
            images: images
                .map(|(name, image)| LockedImage::new(name, image))
                .collect(),
        }
    }
}
