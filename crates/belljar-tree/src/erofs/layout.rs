use std::collections::BTreeMap;
use std::ops::Range;

use belljar_core::{Invalid, ObjectId, bounds};

use super::format::{BLOCK, EXTENDED, FIRST_INODE, INODE, SLOT, attributes};
use super::too_large;
use crate::unpacked::too_many;
use crate::{Directory, NodeProperties, SymlinkTarget};

/// Where everything of an image lies.
pub(super) struct Layout<'a> {
    /// The top first, then level by level; what stands in one directory stands side by side.
    pub(super) nodes: Vec<Node<'a>>,
    /// Bytes of the whole image, a multiple of the block.
    pub(super) size: usize,
}

/// One inode.
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind<'a>,
    /// What it has of its own instead of the usual time and mode.
    pub(super) properties: Option<&'a NodeProperties>,
    /// Offset of the inode in the image.
    pub(super) at: usize,
    /// Where whole blocks of it lie; none if everything stands beside the inode.
    pub(super) blocks: Option<usize>,
    /// Whether the last, incomplete block stands beside the inode.
    pub(super) inline: bool,
}

/// What an inode is.
pub(super) enum Kind<'a> {
    Directory(Inside),
    File { object: ObjectId, executable: bool },
    Symlink(&'a SymlinkTarget),
}

/// A directory's place in the tree.
pub(super) struct Inside {
    pub(super) parent: usize,
    pub(super) children: Range<usize>,
    pub(super) subdirectories: usize,
    dots: Dots,
    /// Its entries in the order of their names, `.` and `..` among them, cut into blocks.
    pub(super) runs: Vec<Range<usize>>,
    /// Bytes of its content.
    pub(super) size: usize,
}

impl<'a> Layout<'a> {
    pub(super) fn new(
        root: ObjectId,
        directories: &'a BTreeMap<ObjectId, Directory>,
    ) -> Result<Self, Invalid> {
        let mut layout = Self {
            nodes: Vec::new(),
            size: 0,
        };
        layout.expand(root, directories)?;
        layout.place()?;
        Ok(layout)
    }

    /// Makes the nodes, level by level: `pending` is about the directories that have a node and no children yet.
    fn expand(
        &mut self,
        root: ObjectId,
        directories: &'a BTreeMap<ObjectId, Directory>,
    ) -> Result<(), Invalid> {
        self.nodes
            .push(Node::new("", Kind::Directory(Inside::new(0)), None));
        let mut pending = vec![(0, root)];
        for _ in 0..=bounds::PATH_DEPTH {
            let mut next = Vec::new();
            for (parent, object) in pending {
                let directory = directories
                    .get(&object)
                    .ok_or_else(|| Invalid::new(format!("the directory {object} is missing")))?;
                self.children(parent, directory, &mut next)?;
            }
            if next.is_empty() {
                return Ok(());
            }
            pending = next;
        }
        Err(Invalid::new(format!(
            "the tree is more than {} directories deep",
            bounds::PATH_DEPTH
        )))
    }

    fn children(
        &mut self,
        parent: usize,
        directory: &'a Directory,
        next: &mut Vec<(usize, ObjectId)>,
    ) -> Result<(), Invalid> {
        let begin = self.nodes.len();
        if begin + directory.len() > bounds::TREE_ENTRIES + 1 {
            return Err(too_many(begin + directory.len() - 1));
        }
        let mut entries: Vec<(Node<'a>, Option<ObjectId>)> = Vec::with_capacity(directory.len());
        entries.extend(directory.files().iter().map(|file| {
            let (object, executable) = (file.object, file.executable);
            let kind = Kind::File { object, executable };
            let properties = file.properties.as_deref();
            (Node::new(file.name.as_str(), kind, properties), None)
        }));
        entries.extend(directory.symlinks().iter().map(|link| {
            let kind = Kind::Symlink(&link.target);
            let properties = link.properties.as_deref();
            (Node::new(link.name.as_str(), kind, properties), None)
        }));
        entries.extend(directory.directories().iter().map(|below| {
            let kind = Kind::Directory(Inside::new(parent));
            // Its properties stand in its own message, which comes with the next level.
            let node = Node::new(below.name.as_str(), kind, None);
            (node, Some(below.object))
        }));
        entries.sort_unstable_by_key(|(node, _)| node.name);
        for (node, below) in entries {
            if let Some(object) = below {
                next.push((self.nodes.len(), object));
            }
            self.nodes.push(node);
        }
        let end = self.nodes.len();
        let dots = Dots::among(&self.nodes[begin..end]);
        let runs = runs(&self.nodes[begin..end], dots);
        self.nodes[parent].properties = directory.properties();
        if let Kind::Directory(inside) = &mut self.nodes[parent].kind {
            inside.children = begin..end;
            inside.subdirectories = directory.directories().len();
            inside.dots = dots;
            (inside.runs, inside.size) = runs;
        }
        Ok(())
    }

    /// Gives every inode its place, and then whole blocks theirs, behind all inodes.
    fn place(&mut self) -> Result<(), Invalid> {
        let mut at = FIRST_INODE;
        for node in &mut self.nodes {
            let (head, content) = node.extent();
            let tail = content % BLOCK;
            node.inline = tail > 0 && head + tail <= BLOCK && node.has_content();
            // What stands beside an inode may not reach into the next block.
            if node.inline && at % BLOCK + head + tail > BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            node.at = at;
            at += head + if node.inline { tail } else { 0 };
            at = at.next_multiple_of(SLOT);
            if at > bounds::IMAGE_BYTES {
                return Err(too_large());
            }
        }
        let mut blocks = at.next_multiple_of(BLOCK);
        for node in self.nodes.iter_mut().filter(|node| node.has_content()) {
            let (_, content) = node.extent();
            let whole = if node.inline {
                content - content % BLOCK
            } else {
                content.next_multiple_of(BLOCK)
            };
            if whole > 0 {
                node.blocks = Some(blocks);
                blocks += whole;
            }
            if blocks > bounds::IMAGE_BYTES {
                return Err(too_large());
            }
        }
        self.size = blocks;
        Ok(())
    }
}

impl<'a> Node<'a> {
    fn new(name: &'a str, kind: Kind<'a>, properties: Option<&'a NodeProperties>) -> Self {
        Self {
            name,
            kind,
            properties,
            at: 0,
            blocks: None,
            inline: false,
        }
    }

    /// Its number, as directories give it.
    pub(super) fn number(&self) -> u64 {
        (self.at / SLOT) as u64
    }

    /// Whether the image holds content of it: a file's is elsewhere.
    pub(super) fn has_content(&self) -> bool {
        !matches!(self.kind, Kind::File { .. })
    }

    /// Bytes of the inode itself, which is extended for a time of its own, or a size of more than 32 bits.
    pub(super) fn inode(&self) -> usize {
        let has_time = self.properties.is_some_and(|own| own.mtime().is_some());
        let is_large = match &self.kind {
            Kind::File { object, .. } => u32::try_from(object.size).is_err(),
            Kind::Directory(_) | Kind::Symlink(_) => false,
        };
        if has_time || is_large {
            EXTENDED
        } else {
            INODE
        }
    }

    /// Bytes of the inode with what always stands beside it, and of its content in the image.
    fn extent(&self) -> (usize, usize) {
        let inode = self.inode();
        match &self.kind {
            Kind::Directory(inside) => (inode, inside.size),
            Kind::Symlink(target) => (inode, target.as_str().len()),
            Kind::File { object, .. } => (inode + attributes(object.size), 0),
        }
    }
}

impl Inside {
    fn new(parent: usize) -> Self {
        Self {
            parent,
            children: 0..0,
            subdirectories: 0,
            dots: Dots { own: 0, parent: 1 },
            runs: Vec::new(),
            size: 0,
        }
    }

    /// The entry `index` of a directory whose node is `own`: `.` and `..` have their places among the names.
    pub(super) fn entry<'n>(
        &self,
        nodes: &'n [Node<'_>],
        own: usize,
        index: usize,
    ) -> (&'n str, &'n Node<'n>) {
        let children = &nodes[self.children.clone()];
        match self.dots.place(index) {
            Place::Own => (".", &nodes[own]),
            Place::Parent => ("..", &nodes[self.parent]),
            Place::Child(child) => (children[child].name, &children[child]),
        }
    }
}

/// Which entries of a directory are `.` and `..`: few names are smaller than they are.
#[derive(Clone, Copy)]
struct Dots {
    own: usize,
    parent: usize,
}

enum Place {
    Own,
    Parent,
    Child(usize),
}

impl Dots {
    fn among(children: &[Node<'_>]) -> Self {
        let before = |name: &str| children.partition_point(|child| child.name < name);
        Self {
            own: before("."),
            parent: before("..") + 1,
        }
    }

    fn place(self, index: usize) -> Place {
        match index {
            index if index == self.own => Place::Own,
            index if index == self.parent => Place::Parent,
            index => Place::Child(
                index - usize::from(index > self.own) - usize::from(index > self.parent),
            ),
        }
    }
}

/// Bytes of one entry beside its name.
pub(super) const ENTRY: usize = 12;

/// Cuts a directory's entries into blocks, and tells the bytes of all of them.
fn runs(children: &[Node<'_>], dots: Dots) -> (Vec<Range<usize>>, usize) {
    let length = |index: usize| match dots.place(index) {
        Place::Own => 1,
        Place::Parent => 2,
        Place::Child(child) => children[child].name.len(),
    };
    let mut runs = Vec::new();
    let (mut begin, mut filled) = (0, 0);
    for index in 0..children.len() + 2 {
        let entry = ENTRY + length(index);
        if filled + entry > BLOCK {
            runs.push(begin..index);
            (begin, filled) = (index, 0);
        }
        filled += entry;
    }
    let size = runs.len() * BLOCK + filled;
    runs.push(begin..children.len() + 2);
    (runs, size)
}
