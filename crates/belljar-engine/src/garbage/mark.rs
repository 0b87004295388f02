use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use belljar_cas::{BlobSource, ReachError, Reached, ReadError, objects_of_prefix};
use belljar_core::{AttemptId, BuildId, Derivation, Digest, Image, ObjectId, Timestamp, bounds};
use belljar_plan::Receipt;

use super::{Retention, SweepError};
use crate::life::{Build, Evidence};
use crate::outputs::objects;
use crate::ownership::{Ownership, published};
use crate::ports::Spawner;
use crate::queue::{Pin, Record, Target};

/// What is needed.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Builds up to this place were looked at.
    pub(super) position: i64,
    /// Pins up to this number were.
    pin: u64,
    /// Those that are kept.
    pub(super) builds: HashSet<BuildId>,
    pub(super) reached: Reached,
}

/// What is not, what was used longest ago first.
#[derive(Debug, Default)]
pub(super) struct Unneeded {
    pub(super) objects: Vec<Digest>,
}

impl Marked {
    /// All that a build needs that is kept: its inputs, its evidence. Its outputs are told apart.
    pub(super) fn add_build(
        &mut self,
        source: &dyn BlobSource,
        record: &Record,
    ) -> Result<(), SweepError> {
        let spec = &record.submission.spec;
        let mut trees = vec![spec.source];
        let image = match &spec.image {
            Image::Tree(input) => Some(input),
            Image::Host => None,
        };
        let fetched = record.build.fetched.iter();
        let further = spec.inputs.iter().chain(fetched).map(|(_, input)| input);
        let base = spec.image_output.as_ref();
        let base = base.and_then(|output| output.base.image());
        for input in image.into_iter().chain(further).chain(base) {
            trees.push(input.tree);
            if let Some(record) = input.derivation {
                self.reached.add(record.digest)?;
            }
        }
        if let Some(record) = base.and_then(|input| input.derivation) {
            for object in layers(source, record)? {
                self.reached.add(object.digest)?;
            }
        }
        for tree in trees {
            self.reached.add_tree(source, tree, |_| {})?;
        }
        self.reached.add(record.submission.spec_object.digest)?;
        for digest in record.build.evidence.iter().flat_map(published) {
            self.reached.add(digest)?;
        }
        self.builds.insert(record.build.id.clone());
        Ok(())
    }

    /// All that is pinned, as far as it was not looked at yet.
    pub(super) fn add_pins(
        &mut self,
        source: &dyn BlobSource,
        pins: &[Pin],
    ) -> Result<(), SweepError> {
        for pin in pins {
            if pin.number <= self.pin {
                continue;
            }
            self.pin = pin.number;
            match &pin.target {
                // It is kept, and was looked at.
                Target::Build(_) => {}
                Target::Tree(tree) => self.reached.add_tree(source, *tree, |_| {})?,
                Target::Object(object) => {
                    self.reached.add(object.digest)?;
                }
            }
        }
        Ok(())
    }

    /// Trees that were made for projects, and of which one was told that it has it at `before` or later: all that
    /// is in them, since a project has the whole tree by its root.
    pub(super) fn add_trees(
        &mut self,
        source: &dyn BlobSource,
        ownership: &Ownership,
        root: &Path,
        before: u64,
    ) -> Result<(), SweepError> {
        for (digest, _) in ownership.trees(before)? {
            if let Some(tree) = sized(root, digest).map_err(SweepError::Store)? {
                self.reached.add_tree(source, tree.0, |_| {})?;
            }
        }
        Ok(())
    }
}

impl Unneeded {
    /// Lists the objects below the store's `root` that are not needed and whose lease was over before `before`.
    pub(super) fn list(
        marked: &mut Marked,
        source: &dyn BlobSource,
        ownership: &Ownership,
        root: &Path,
        before: u64,
    ) -> Result<Self, SweepError> {
        let mut last = HashMap::<Digest, u64>::new();
        ownership.objects(|digest, used| {
            let latest = last.entry(digest).or_default();
            *latest = used.max(*latest);
        })?;
        let mut trees = Vec::new();
        for (digest, used) in ownership.trees(0)? {
            if let Some((tree, given)) = sized(root, digest).map_err(SweepError::Store)? {
                let used = used.max(given);
                trees.push((last.get(&digest).map_or(used, |told| used.max(*told)), tree));
            }
        }
        // The latest comes first: so each object is told once, with that.
        trees.sort_unstable_by_key(|(used, tree)| (Reverse(*used), tree.digest));
        let (mut seen, mut roots) = (Reached::default(), HashSet::new());
        for (used, tree) in trees {
            roots.insert(tree.digest);
            if used >= before {
                marked.reached.add_tree(source, tree, |_| {})?;
            } else {
                // Files of a tree that was made for a project are used when the tree is.
                seen.add_tree(source, tree, |digest| {
                    let latest = last.entry(digest).or_default();
                    *latest = used.max(*latest);
                })?;
            }
        }
        let mut found = Vec::new();
        for prefix in 0..=u8::MAX {
            for object in objects_of_prefix(root, prefix).map_err(SweepError::Store)? {
                let used = last.get(&object.digest).copied().unwrap_or(0);
                let used = used.max(object.given);
                let free = used < before && !marked.reached.has(object.digest);
                if free && object.size > 0 && found.len() < bounds::UNREACHED_OBJECTS {
                    found.push((used, !roots.contains(&object.digest), object.digest));
                }
            }
        }
        // A tree goes from its root on: what is left of it is no tree any more for its project.
        found.sort_unstable();
        Ok(Self {
            objects: found.into_iter().map(|(_, _, digest)| digest).collect(),
        })
    }
}

/// An object as an id, and when it was last given, in seconds since 1970, if it is there.
fn sized(root: &Path, digest: Digest) -> io::Result<Option<(ObjectId, u64)>> {
    match fs::symlink_metadata(belljar_cas::path_of(root, digest)) {
        Ok(status) => {
            let size = status.len();
            let given = u64::try_from(status.ctime()).unwrap_or(0);
            Ok(Some((ObjectId { digest, size }, given)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a build left, by the receipt of its attempt: as long as its evidence is made that file is the only place
/// where that stands.
pub(super) async fn outputs<S: Spawner>(
    spawner: &S,
    source: &dyn BlobSource,
    build: &Build,
    attempt: &AttemptId,
) -> Result<Vec<Digest>, SweepError> {
    let kept = build
        .evidence
        .as_ref()
        .and_then(|evidence| evidence.receipt);
    if let Some(receipt) = kept.and_then(|object| receipt(source, object)) {
        return Ok(objects(&receipt, build.evidence.as_ref()));
    }
    let bytes = match spawner.receipt(attempt).await {
        Ok(bytes) => bytes,
        // Of a build that has ended nobody is served artifacts without it.
        Err(error) if build.outcome().is_some() => {
            tracing::warn!(build.id = %build.id, %error, "what the build left cannot be told");
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    match Receipt::from_canonical(&bytes) {
        Ok(receipt) => Ok(objects(&receipt, build.evidence.as_ref())),
        Err(error) => {
            tracing::warn!(build.id = %build.id, %error, "what the build left cannot be told");
            Ok(Vec::new())
        }
    }
}

fn receipt(source: &dyn BlobSource, object: ObjectId) -> Option<Receipt> {
    let bytes = whole(source, object, bounds::RECEIPT_BYTES);
    let bytes = bytes.ok().flatten()?;
    Receipt::from_canonical(&bytes).ok()
}

/// What the image is made of that the store has made a tree of, by its record: another layer is laid on it.
fn layers(source: &dyn BlobSource, record: ObjectId) -> Result<Vec<ObjectId>, ReachError> {
    let bytes = whole(source, record, bounds::DERIVATION_BYTES)?;
    let record = bytes.and_then(|bytes| Derivation::from_canonical(&bytes).ok());
    let image = record.as_ref().and_then(|record| record.image());
    let Some((manifest, config, layers)) = image else {
        // Nothing can be laid on it; the build ends with that.
        return Ok(Vec::new());
    };
    Ok([&[manifest, config], layers].concat())
}

/// The content of an object of at most so many bytes; none if it is larger, is not there, or is damaged.
fn whole(
    source: &dyn BlobSource,
    object: ObjectId,
    most: usize,
) -> Result<Option<Vec<u8>>, ReadError> {
    if object.size > most as u64 {
        return Ok(None);
    }
    let mut reader = match source.read_verified(object) {
        Ok(reader) => reader,
        Err(ReadError::Missing(_) | ReadError::Size { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(source) => Err(ReadError::Io { object, source }),
    }
}

/// A build that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    id: BuildId,
    at: Timestamp,
    evidence: Option<Evidence>,
}

impl Ended {
    pub(super) fn of(record: &Record) -> Option<Self> {
        let build = &record.build;
        build.outcome()?;
        Some(Self {
            id: build.id.clone(),
            at: build.ended.unwrap_or(build.updated),
            evidence: build.evidence.clone(),
        })
    }
}

/// Those of a project's builds, the newest first, that are not to be kept.
pub(super) fn over(
    source: &dyn BlobSource,
    retention: Retention,
    builds: Vec<Ended>,
    now: Timestamp,
) -> Vec<BuildId> {
    let mut over = Vec::new();
    let (mut bytes, mut counted) = (0_u64, HashSet::new());
    let (mut kept, mut full) = (0, false);
    for build in builds {
        if let Some(most) = retention.bytes.filter(|_| !full) {
            for object in build.evidence.iter().flat_map(|e| left(source, e)) {
                if counted.insert(object.digest) {
                    bytes = bytes.saturating_add(object.size);
                }
            }
            full = bytes > most;
        }
        let age = now.as_millis().saturating_sub(build.at.as_millis()) / 1000;
        let old = retention.seconds.is_some_and(|most| age > most);
        let many = retention.builds.is_some_and(|most| kept >= most);
        if old || many || full {
            over.push(build.id);
        } else {
            kept += 1;
        }
    }
    over
}

/// Artifacts and log of a build.
fn left(source: &dyn BlobSource, evidence: &Evidence) -> Vec<ObjectId> {
    let receipt = evidence.receipt.and_then(|object| receipt(source, object));
    let outputs = receipt.map(|receipt| receipt.output_objects());
    let log = evidence.log.as_ref().map(|log| log.object);
    outputs.into_iter().flatten().chain(log).collect()
}

/// Names of the files in a directory.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

/// Files in a directory, the oldest first: when each was last written to, in seconds since 1970.
pub(super) fn by_age(directory: &Path) -> io::Result<Vec<(u64, String)>> {
    let mut found = Vec::new();
    for name in names(directory)? {
        match fs::symlink_metadata(directory.join(&name)) {
            Ok(status) => found.push((u64::try_from(status.mtime()).unwrap_or(0), name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a file was last written to before `before`, in seconds since 1970.
pub(super) fn is_older(path: &Path, before: u64) -> bool {
    let status = fs::symlink_metadata(path);
    status.is_ok_and(|status| u64::try_from(status.mtime()).unwrap_or(0) < before)
}
