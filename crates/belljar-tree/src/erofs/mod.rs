//! A tree as an EROFS image (the kernel's `Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`) of
//! metadata alone: a file's content is named, not held. Overlayfs fetches it from a directory of objects
//! that is given to it as a data-only layer (`Documentation/filesystems/overlayfs.rst`): an inode with the
//! attribute `trusted.overlay.metacopy` has its content at the path in `trusted.overlay.redirect`.
//!
//! ```text
//! 0       nothing
//! 1024    superblock, 128 bytes
//! 1152    inodes, each at a multiple of 32, which divided by 32 is its number; with attributes, with what
//!         fits of a directory's entries or a link's target, in the order of the tree's levels
//! …       the rest of directories and long targets, in blocks of 4096
//! ```
//!
//! Everything belongs to user and group 0. Files are 0644 or 0755, directories 0755, and one time is that of all
//! of them, but for nodes whose properties say otherwise. The same tree and time always give the same bytes.

mod format;
mod layout;

use std::collections::BTreeMap;

use belljar_core::{Invalid, ObjectId, bounds};

use crate::Directory;
use layout::Layout;

/// Which bytes a tree becomes: part of whatever an image is named by.
pub const FORMAT: u32 = 1;

/// The image of the tree whose top is `root`, out of `directories`, which has every directory of it. `mtime`
/// is the time of every file, directory and link that has none of its own, in seconds since 1970.
///
/// # Errors
/// When a directory is missing in `directories`, when the tree has more than [`bounds::TREE_ENTRIES`] entries,
/// is deeper than [`bounds::PATH_DEPTH`], or would become more than [`bounds::IMAGE_BYTES`], and when `mtime`
/// is beyond what a file system can hold.
pub fn image(
    root: ObjectId,
    directories: &BTreeMap<ObjectId, Directory>,
    mtime: u64,
) -> Result<Vec<u8>, Invalid> {
    let mtime = i64::try_from(mtime)
        .map_err(|_| Invalid::field("mtime", "is beyond what a file system can hold"))?;
    let layout = Layout::new(root, directories)?;
    format::write(&layout, mtime)
}

fn too_large() -> Invalid {
    Invalid::new(format!(
        "its image would have more than the {} bytes allowed: too many or too long names and link targets",
        bounds::IMAGE_BYTES
    ))
}

#[cfg(test)]
mod tests;
