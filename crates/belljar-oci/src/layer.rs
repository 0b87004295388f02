use std::collections::BTreeMap;

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_plan::{OutputEntry, OutputKind};

use crate::tar::{self, Head};

/// What the names begin with that take something of lower layers away (OCI image-spec, "whiteouts").
const WHITEOUT: &str = ".wh.";
/// Two blocks of zero bytes end an archive.
const END: usize = 2 * tar::BLOCK;

/// What one layer has, sorted by path. As an archive it has one form: see [`Layer::parts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    entries: BTreeMap<RelPath, Node>,
}

/// What stands at a path of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
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
        target: String,
    },
}

impl From<&OutputKind> for Node {
    fn from(kind: &OutputKind) -> Self {
        match kind {
            OutputKind::Directory => Self::Directory,
            OutputKind::File {
                object, executable, ..
            } => Self::File {
                object: *object,
                executable: *executable,
            },
            OutputKind::Symlink { target } => Self::Symlink {
                target: target.clone(),
            },
        }
    }
}

/// Entries of a layer that may not be all of it yet: never more than a layer may have.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    all: BTreeMap<RelPath, Node>,
    names: usize,
}

impl Entries {
    /// One more. What stands there already may only be a directory that is one.
    pub(crate) fn put(&mut self, path: RelPath, node: Node) -> Result<(), Invalid> {
        if let Some(there) = self.all.get(&path) {
            return match (there, &node) {
                (Node::Directory, Node::Directory) => Ok(()),
                _ => Err(Invalid::new(format!("`{path}` stands there twice"))),
            };
        }
        let target = match &node {
            Node::Symlink { target } => target.len(),
            Node::Directory | Node::File { .. } => 0,
        };
        self.names = self.names.saturating_add(path.as_str().len() + target);
        if self.all.len() >= bounds::LAYER_ENTRIES {
            return Err(Invalid::new(format!(
                "more than {} entries are in it, the directories between outputs with them",
                bounds::LAYER_ENTRIES
            )));
        }
        if self.names > bounds::LAYER_NAMES_BYTES {
            return Err(Invalid::new(format!(
                "the paths and link targets in it, with those of the directories between outputs, are longer than {} bytes",
                bounds::LAYER_NAMES_BYTES
            )));
        }
        self.all.insert(path, node);
        Ok(())
    }

    /// The path that comes last.
    pub(crate) fn last(&self) -> Option<&RelPath> {
        self.all.last_key_value().map(|(path, _)| path)
    }

    /// All of the layer.
    pub(crate) fn finish(self) -> Layer {
        Layer { entries: self.all }
    }
}

/// A part of the archive that a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The content of this object.
    Content(ObjectId),
}

impl Layer {
    /// The layer of what was collected.
    ///
    /// # Errors
    /// As [`Layer::new`].
    pub fn of(outputs: &[OutputEntry], root: Option<&RelPath>) -> Result<Self, Invalid> {
        let outputs = outputs.iter();
        Self::new(
            outputs.map(|entry| (entry.path.clone(), Node::from(&entry.kind))),
            root,
        )
    }

    /// The layer of these outputs: of all at their own paths, or of what is in the directory `root` among them. Directories
    /// that lie between are added, since those who unpack layers make missing ones in different ways.
    ///
    /// # Errors
    /// When a name means something else in a layer, nothing is in it, it is larger than [`bounds::BLOB_BYTES`], or more is in it
    /// than [`bounds::LAYER_ENTRIES`] and [`bounds::LAYER_NAMES_BYTES`] allow.
    pub fn new(
        outputs: impl IntoIterator<Item = (RelPath, Node)>,
        root: Option<&RelPath>,
    ) -> Result<Self, Invalid> {
        let mut entries = Entries::default();
        for (output, node) in outputs {
            let path = match root {
                None => output.clone(),
                Some(root) if *root == output => {
                    if node != Node::Directory {
                        let why = "is no directory, and so cannot be the root of an image's layer";
                        return Err(Invalid::new(format!("the output `{output}` {why}")));
                    }
                    continue;
                }
                Some(root) if output.starts_with(root) => {
                    RelPath::new(&output.as_str()[root.as_str().len() + 1..])?
                }
                Some(_) => continue,
            };
            if path.components().any(|name| name.starts_with(WHITEOUT)) {
                return Err(Invalid::new(format!(
                    "the output `{output}` cannot be part of an image: in a layer a name that begins with `{WHITEOUT}` removes \
                     something of the base"
                )));
            }
            let in_layer = |e: Invalid| Invalid::new(format!("the image's layer: {}", e.reason));
            for above in path.prefixes().filter(|above| *above != path.as_str()) {
                let put = entries.put(RelPath::new(above)?, Node::Directory);
                put.map_err(in_layer)?;
            }
            entries.put(path, node).map_err(in_layer)?;
        }
        let layer = entries.finish();
        if layer.entries.is_empty() {
            let root = root.map_or("", RelPath::as_str);
            return Err(Invalid::new(format!(
                "the output `{root}` is empty, and so would be the image's layer"
            )));
        }
        if layer.size() > bounds::BLOB_BYTES {
            return Err(Invalid::new(format!(
                "the image's layer has {} bytes, and one object may have {}",
                layer.size(),
                bounds::BLOB_BYTES
            )));
        }
        Ok(layer)
    }

    /// What is in it, sorted by path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RelPath, &Node)> {
        self.entries.iter()
    }

    /// Leaves a directory out, which the base has: its owner and mode stay.
    pub fn leave_out(&mut self, directory: &RelPath) {
        self.entries.remove(directory);
    }

    /// Bytes of the archive.
    pub fn size(&self) -> u64 {
        let entries = self.entries.iter().map(|(path, node)| {
            let size = size(node);
            (head(path, node, 0).len() + tar::padding(size)) as u64 + size
        });
        entries.fold(END as u64, u64::saturating_add)
    }

    /// The archive, in parts: headers, contents, and what fills blocks. Everything in it is of `mtime`, in seconds since 1970,
    /// at most
    /// [`ImageOutput::LAST_EPOCH`](belljar_core::ImageOutput::LAST_EPOCH).
    pub fn parts(&self, mtime: u64) -> impl Iterator<Item = Part> {
        let entries = self.entries.iter().flat_map(move |(path, node)| {
            let head = Some(Part::Bytes(head(path, node, mtime)));
            let (content, filling) = match node {
                Node::File { object, .. } => {
                    let filling = vec![0; tar::padding(object.size)];
                    (Some(Part::Content(*object)), Some(Part::Bytes(filling)))
                }
                Node::Directory | Node::Symlink { .. } => (None, None),
            };
            head.into_iter().chain(content).chain(filling)
        });
        entries.chain([Part::Bytes(vec![0; END])])
    }

    /// The digests and paths of all regular files.
    pub fn files(&self) -> impl Iterator<Item = (&RelPath, ObjectId)> {
        self.entries.iter().filter_map(|(path, node)| match node {
            Node::File { object, .. } => Some((path, *object)),
            Node::Directory | Node::Symlink { .. } => None,
        })
    }
}

fn size(node: &Node) -> u64 {
    match node {
        Node::File { object, .. } => object.size,
        Node::Directory | Node::Symlink { .. } => 0,
    }
}

/// The header of an entry.
pub(crate) fn head(path: &RelPath, node: &Node, mtime: u64) -> Vec<u8> {
    let directory;
    let (kind, name, target, executable) = match node {
        Node::Directory => {
            directory = format!("{path}/");
            (tar::DIRECTORY, directory.as_str(), "", true)
        }
        Node::File { executable, .. } => (tar::FILE, path.as_str(), "", *executable),
        Node::Symlink { target } => (tar::SYMLINK, path.as_str(), target.as_str(), true),
    };
    let head = Head {
        kind,
        name,
        target,
        executable,
        size: size(node),
        mtime,
    };
    head.encode()
}
