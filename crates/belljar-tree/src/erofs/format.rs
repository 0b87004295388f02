//! What lies where in an image, byte by byte. Numbers are little-endian.

use belljar_core::{Digest, Invalid};

use super::layout::{ENTRY, Inside, Kind, Layout, Node};
use crate::NodeProperties;

/// Bytes of one block: the least page of every architecture.
pub(super) const BLOCK: usize = 4096;
const BLOCK_BITS: u32 = 12;
/// Inodes begin at multiples of this.
pub(super) const SLOT: usize = 32;
/// Bytes of an inode in its compact form, whose time is the superblock's.
pub(super) const INODE: usize = 32;
/// Bytes of an inode in its extended form, which has a time, and a size of 64 bits.
pub(super) const EXTENDED: usize = 64;

const SUPERBLOCK: usize = 1024;
pub(super) const FIRST_INODE: usize = SUPERBLOCK + 128;

const MAGIC: u32 = 0xe0f5_e1e2;
/// The times of files are times of modification.
const COMPATIBLE_MTIME: u32 = 0x2;
/// There are files in chunks.
const INCOMPATIBLE_CHUNKED: u32 = 0x4;

/// Layouts of an inode's content, as they stand in `i_format`.
const PLAIN: u16 = 0 << 1;
const INLINE: u16 = 2 << 1;
const CHUNKED: u16 = 4 << 1;
const FORMAT_EXTENDED: u16 = 1;

/// File types of stat(2) modes.
const DIRECTORY: u16 = 0o040_000;
const FILE: u16 = 0o100_000;
const SYMLINK: u16 = 0o120_000;

/// Index of the prefix `trusted.` of extended attributes.
const TRUSTED: u8 = 4;
const METACOPY: &[u8] = b"overlay.metacopy";
const REDIRECT: &[u8] = b"overlay.redirect";
/// `/ab/cdef…`: the path of an object below the directory of objects.
const PATH: usize = 1 + 2 + 1 + 62;
/// Bytes before the first attribute.
const ATTRIBUTES_HEAD: usize = 12;
const METACOPY_ENTRY: usize = 4 + METACOPY.len();
const REDIRECT_ENTRY: usize = (4 + REDIRECT.len() + PATH).next_multiple_of(4);
const ATTRIBUTES: usize = ATTRIBUTES_HEAD + METACOPY_ENTRY + REDIRECT_ENTRY;
/// An attribute count as the inode gives it: the head is one, and each four bytes more.
const ATTRIBUTE_COUNT: u16 = 28;
const _: () = assert!(ATTRIBUTE_COUNT as usize == 1 + (METACOPY_ENTRY + REDIRECT_ENTRY) / 4);
/// A chunk that is not there.
const NO_BLOCK: u32 = u32::MAX;

/// Bytes beside the inode of a file of this size: attributes, and the number of its one chunk.
pub(super) fn attributes(size: u64) -> usize {
    match size {
        0 => 0,
        _ => ATTRIBUTES + 4,
    }
}

/// The image as bytes.
pub(super) fn write(layout: &Layout<'_>, mtime: i64) -> Result<Vec<u8>, Invalid> {
    let mut image = Image(vec![0; layout.size]);
    image.superblock(layout, mtime)?;
    for (index, node) in layout.nodes.iter().enumerate() {
        image.inode(index, node, &Inode::of(node, mtime))?;
        match &node.kind {
            Kind::File { object, .. } if object.size > 0 => {
                image.content_elsewhere(node.at + node.inode(), object.digest);
            }
            Kind::File { .. } => {}
            Kind::Symlink(target) => image.content(node, target.as_str().as_bytes()),
            Kind::Directory(inside) => {
                let content = entries(inside, layout, index)?;
                image.content(node, &content);
            }
        }
    }
    Ok(image.0)
}

struct Image(Vec<u8>);

/// What differs between inodes.
struct Inode {
    mode: u16,
    size: u64,
    links: u16,
    attributes: u16,
    chunk_bits: Option<u32>,
    /// Seconds and nanoseconds of the extended form; the compact one has the superblock's time.
    mtime: (i64, u32),
}

impl Inode {
    /// `mtime` is that of everything which has no time of its own.
    fn of(node: &Node<'_>, mtime: i64) -> Self {
        let own = node.properties;
        let mode = |usual: u16| own.and_then(NodeProperties::mode).unwrap_or(usual);
        let time = own.and_then(NodeProperties::mtime);
        let other = |mode, size: usize, links: usize| Self {
            mode,
            size: size as u64,
            // 1 means that nobody has counted, to find(1) and others.
            links: u16::try_from(links).unwrap_or(1),
            attributes: 0,
            chunk_bits: None,
            mtime: time.map_or((mtime, 0), |time| (time.seconds(), time.nanos())),
        };
        match &node.kind {
            Kind::Directory(inside) => other(
                DIRECTORY | mode(0o755),
                inside.size,
                inside.subdirectories + 2,
            ),
            Kind::Symlink(target) => other(SYMLINK | 0o777, target.as_str().len(), 1),
            Kind::File { object, executable } => {
                let usual = if *executable { 0o755 } else { 0o644 };
                let size = object.size;
                Self {
                    size,
                    attributes: if size > 0 { ATTRIBUTE_COUNT } else { 0 },
                    // The least power of two blocks that holds it, so that there is one chunk.
                    chunk_bits: (size > 0).then(|| {
                        let blocks = size.div_ceil(BLOCK as u64);
                        blocks.next_power_of_two().trailing_zeros()
                    }),
                    ..other(FILE | mode(usual), 0, 1)
                }
            }
        }
    }
}

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn superblock(&mut self, layout: &Layout<'_>, mtime: i64) -> Result<(), Invalid> {
        let top = layout.nodes.first().map_or(0, Node::number);
        let at = SUPERBLOCK;
        self.put(at, &MAGIC.to_le_bytes());
        self.put(at + 8, &COMPATIBLE_MTIME.to_le_bytes());
        self.put(at + 12, &[BLOCK_BITS.to_le_bytes()[0]]);
        self.put(at + 14, &small(top)?.to_le_bytes());
        self.put(at + 16, &(layout.nodes.len() as u64).to_le_bytes());
        self.put(at + 24, &mtime.to_le_bytes());
        self.put(at + 36, &number(layout.size / BLOCK)?.to_le_bytes());
        // Inodes are numbered from the beginning of the image, and no attribute is shared: both blocks are 0.
        self.put(at + 80, &INCOMPATIBLE_CHUNKED.to_le_bytes());
        Ok(())
    }

    fn inode(&mut self, index: usize, node: &Node<'_>, inode: &Inode) -> Result<(), Invalid> {
        let at = node.at;
        let layout = match inode.chunk_bits {
            Some(_) => CHUNKED,
            None if node.inline => INLINE,
            None => PLAIN,
        };
        let content = match (inode.chunk_bits, node.blocks) {
            (Some(bits), _) => bits,
            (None, Some(blocks)) => number(blocks / BLOCK)?,
            (None, None) => 0,
        };
        self.put(at + 2, &inode.attributes.to_le_bytes());
        self.put(at + 4, &inode.mode.to_le_bytes());
        self.put(at + 16, &content.to_le_bytes());
        self.put(at + 20, &number(index + 1)?.to_le_bytes());
        match u32::try_from(inode.size) {
            Ok(size) if node.inode() == INODE => {
                self.put(at, &layout.to_le_bytes());
                self.put(at + 6, &inode.links.to_le_bytes());
                self.put(at + 8, &size.to_le_bytes());
            }
            _ => {
                self.put(at, &(layout | FORMAT_EXTENDED).to_le_bytes());
                self.put(at + 8, &inode.size.to_le_bytes());
                self.put(at + 32, &inode.mtime.0.to_le_bytes());
                self.put(at + 40, &inode.mtime.1.to_le_bytes());
                self.put(at + 44, &u32::from(inode.links).to_le_bytes());
            }
        }
        Ok(())
    }

    /// Attributes that say which object a file's content is; its own only chunk is a hole.
    fn content_elsewhere(&mut self, at: usize, digest: Digest) {
        let hex = digest.to_hex();
        let path = format!("/{}/{}", &hex[..2], &hex[2..]);
        self.attribute(at + ATTRIBUTES_HEAD, METACOPY, b"");
        self.attribute(
            at + ATTRIBUTES_HEAD + METACOPY_ENTRY,
            REDIRECT,
            path.as_bytes(),
        );
        self.put(at + ATTRIBUTES, &NO_BLOCK.to_le_bytes());
    }

    fn attribute(&mut self, at: usize, name: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.put(at, &[length(name), TRUSTED, length(value), 0]);
        self.put(at + 4, name);
        self.put(at + 4 + name.len(), value);
    }

    fn content(&mut self, node: &Node<'_>, content: &[u8]) {
        let beside = if node.inline {
            content.len() % BLOCK
        } else {
            0
        };
        let (whole, tail) = content.split_at(content.len() - beside);
        if let Some(blocks) = node.blocks {
            self.put(blocks, whole);
        }
        self.put(node.at + node.inode(), tail);
    }
}

/// The content of a directory: in each block the entries, then their names.
fn entries(inside: &Inside, layout: &Layout<'_>, own: usize) -> Result<Vec<u8>, Invalid> {
    let mut content = Vec::with_capacity(inside.size);
    for run in &inside.runs {
        let mut names: Vec<u8> = Vec::new();
        for index in run.clone() {
            let (name, node) = inside.entry(&layout.nodes, own, index);
            let offset = small((run.len() * ENTRY + names.len()) as u64)?;
            content.extend(node.number().to_le_bytes());
            content.extend(offset.to_le_bytes());
            content.extend([file_type(&node.kind), 0]);
            names.extend(name.as_bytes());
        }
        content.extend(names);
        if run.end < inside.children.len() + 2 {
            content.resize(content.len().next_multiple_of(BLOCK), 0);
        }
    }
    Ok(content)
}

/// Types as in directories of most file systems (`include/linux/fs_types.h`).
fn file_type(kind: &Kind<'_>) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Directory(_) => 2,
        Kind::Symlink(_) => 7,
    }
}

fn number(n: usize) -> Result<u32, Invalid> {
    u32::try_from(n).map_err(|_| super::too_large())
}

fn small(n: u64) -> Result<u16, Invalid> {
    u16::try_from(n).map_err(|_| super::too_large())
}
