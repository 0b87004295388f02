//! Images out of what was collected: one layer, laid on a base or on nothing, with the documents that name it. What they
//! are is told by `belljar-oci`; here contents are put in between, and what comes of it is kept.

use std::collections::BTreeMap;
use std::io::{self, Read};

use belljar_cas::{BlobSink, BlobSource};
use belljar_core::{BaseImage, Derivation, Invalid, ObjectId, Platform, RelPath, bounds};
use belljar_oci::{Base, Documents, Layer, Made, Node, Part};
use belljar_plan::store::{Failure, ImageOrder, Refusal};
use belljar_plan::{ImageRecord, OutputEntry};
use belljar_tree::{Directory, Name};

use crate::collect::Rejected;
use crate::derive::Derivations;
use crate::failed::Failed;
use crate::session::Store;

/// Makes one image.
pub(crate) struct Composer<'a> {
    source: &'a dyn BlobSource,
    sink: &'a dyn BlobSink,
    derivations: &'a Derivations,
    order: ImageOrder,
}

/// What a base has, as far as a layer needs to know.
struct Below {
    base: Base,
    tree: ObjectId,
}

impl<'a> Composer<'a> {
    /// One that makes what is ordered.
    pub(crate) fn of(store: &'a Store, order: ImageOrder) -> Self {
        Self {
            source: &*store.source,
            sink: &*store.sink,
            derivations: &store.derivations,
            order,
        }
    }

    /// Makes the image of what was collected, all of which is in the store. When this returns, all of it is durable.
    pub(crate) fn compose(&self, outputs: &[OutputEntry]) -> Result<ImageRecord, Rejected> {
        let output = &self.order.output;
        let mut layer = Layer::of(outputs, output.root.as_ref()).map_err(no)?;
        let (below, platform) = match output.base {
            BaseImage::Scratch(platform) => (None, platform),
            // The base says it itself.
            BaseImage::Image(input) => {
                let record = input.derivation.ok_or_else(|| no(no_image()))?;
                (Some(self.below(record)?), Platform::LinuxAmd64)
            }
        };
        if let Some(below) = &below {
            self.fit(&mut layer, below.tree)?;
        }
        let mut batch = self.sink.batch().map_err(Failed::from)?;
        let mut blob = self.sink.begin(None).map_err(Failed::from)?;
        for part in layer.parts(self.order.epoch) {
            match part {
                Part::Bytes(bytes) => blob.write(&bytes).map_err(Failed::from)?,
                Part::Content(object) => self.pour(object, |piece| Ok(blob.write(piece)?))?,
            }
        }
        let layer = blob.finish_into(&mut batch).map_err(Failed::from)?;
        let documents = Documents::new(&Made {
            base: below.as_ref().map(|below| &below.base),
            platform,
            config: &output.config,
            layer,
            epoch: self.order.epoch,
        });
        let place = match below {
            Some(_) => "image_output.base",
            None => "image_output",
        };
        let documents = documents.map_err(|e| no(e.within(place)))?;
        for document in [&documents.config, &documents.manifest, &documents.index] {
            let blob = self.sink.begin(Some(ObjectId::of(document).into()));
            let mut blob = blob.map_err(Failed::from)?;
            blob.write(document).map_err(Failed::from)?;
            blob.finish_into(&mut batch).map_err(Failed::from)?;
        }
        self.sink.keep(batch).map_err(Failed::from)?;
        Ok(documents.record())
    }

    /// The base that a record of the store's own is about, all of whose layers must be here.
    fn below(&self, record: ObjectId) -> Result<Below, Rejected> {
        let bytes = self.derivations.record(self.source, record)?;
        let made = Derivation::from_canonical(&bytes)
            .map_err(|e| Failed::internal("reading a record of a derivation", &e))?;
        let (manifest, config, _) = made.image().ok_or_else(|| no(no_image()))?;
        let documents = (self.document(manifest)?, self.document(config)?);
        let not_one = |e: Invalid| no(e.within("image_output.base"));
        let base = Base::new(&documents.0, &documents.1).map_err(not_one)?;
        for layer in base.layers() {
            if !self.source.contains(layer.object).map_err(Failed::from)? {
                return Err(missing(layer.object).into());
            }
        }
        let tree = made.tree;
        Ok(Below { base, tree })
    }

    /// Leaves out the directories that the base has, whose owners and modes stay so; and sees that nothing else changes by
    /// the layer than what it has.
    fn fit(&self, layer: &mut Layer, tree: ObjectId) -> Result<(), Rejected> {
        // The base's directories that the layer goes into; the top has no path.
        let mut into: BTreeMap<Option<RelPath>, Directory> = BTreeMap::new();
        into.insert(None, self.directory(tree)?);
        let mut known = Vec::new();
        for (path, node) in layer.iter() {
            let above = path.as_str().rsplit_once('/').map(|(above, _)| above);
            let above = above.map(RelPath::new).transpose().map_err(no)?;
            let Some(directory) = into.get(&above) else {
                continue;
            };
            let name = path.file_name();
            let below = named(directory.directories(), name, |below| &below.name);
            let link = named(directory.symlinks(), name, |link| &link.name);
            let file = named(directory.files(), name, |file| &file.name);
            match (node, below, link) {
                (Node::Directory, Some(below), _) => {
                    let below = self.directory(below.object)?;
                    into.insert(Some(path.clone()), below);
                    known.push(path.clone());
                }
                (Node::Directory, None, Some(link)) => {
                    let target = link.target.as_str().escape_debug();
                    return Err(no(Invalid::new(format!(
                        "the image's layer has a directory `{path}`, where the base has a symbolic link to `{target}`: put what is in \
                         it where that leads, or the link would be gone"
                    ))));
                }
                (Node::Directory, None, None) if file.is_some() => {
                    return Err(no(Invalid::new(format!(
                        "the image's layer has a directory `{path}`, where the base has a file"
                    ))));
                }
                (Node::File { .. } | Node::Symlink { .. }, Some(_), _) => {
                    return Err(no(Invalid::new(format!(
                        "the image's layer has `{path}`, where the base has a directory, which would be gone with all that is in it"
                    ))));
                }
                _ => {}
            }
        }
        for path in known {
            layer.leave_out(&path);
        }
        Ok(())
    }

    fn directory(&self, object: ObjectId) -> Result<Directory, Failed> {
        let bytes = self.small(object, bounds::DIRECTORY_BYTES as u64)?;
        Directory::decode(&bytes).map_err(|e| Failed::internal("reading the base's tree", &e))
    }

    /// A manifest or a configuration.
    fn document(&self, object: ObjectId) -> Result<Vec<u8>, Failed> {
        self.small(object, bounds::OCI_DOCUMENT_BYTES)
    }

    fn small(&self, object: ObjectId, most: u64) -> Result<Vec<u8>, Failed> {
        if object.size > most {
            return Err(Failed::refused(format!(
                "{object} is too large for what it should be"
            )));
        }
        let mut bytes = Vec::new();
        self.pour(object, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads an object, verified, piece by piece.
    fn pour(
        &self,
        object: ObjectId,
        mut take: impl FnMut(&[u8]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let broken = |e: io::Error| Failed::internal(&format!("reading {object}"), &e);
        let mut content = self.source.read_verified(object)?;
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            match content.read(&mut buffer).map_err(broken)? {
                0 => return Ok(()),
                read => take(&buffer[..read])?,
            }
        }
    }
}

/// The entry of that name, if there is one; they are sorted by their names.
fn named<'a, T>(all: &'a [T], name: &str, of: impl Fn(&T) -> &Name) -> Option<&'a T> {
    let found = all.binary_search_by(|one| of(one).as_str().cmp(name));
    found.ok().and_then(|at| all.get(at))
}

fn no_image() -> Invalid {
    Invalid::field(
        "image_output.base",
        "its tree was made of no OCI image, so that there are no layers to lay one over",
    )
}

fn no(invalid: Invalid) -> Rejected {
    Rejected::Outputs(Refusal::Entry {
        why: crate::failed::printable(&invalid.to_string()),
    })
}

fn missing(object: ObjectId) -> Failed {
    Failed {
        class: Failure::Missing,
        why: format!("{object}, a layer of the image's base, is not in the store any more"),
    }
}

impl From<Failed> for Rejected {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}
