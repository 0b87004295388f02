//! What an attempt left, by the digests under which it can be found again.

use std::collections::BTreeMap;

use belljar_core::{Invalid, ObjectId, RelPath};
use belljar_plan::{OutputKind, Receipt};
use belljar_tree::{Leaf, SymlinkTarget, outermost};

use crate::queue::Left;

/// The directories among the outputs that lie in no other, each as the root `Directory` message (REAPI v2) of its tree. The
/// store has these messages only if it was asked to make the tree.
///
/// # Errors
/// When the receipt has outputs that no collection leaves.
pub fn directories(receipt: &Receipt) -> Result<BTreeMap<RelPath, ObjectId>, Invalid> {
    let entries = receipt.outputs.iter().map(|entry| {
        let leaf = match &entry.kind {
            OutputKind::File {
                object, executable, ..
            } => Some(Leaf::File {
                object: *object,
                executable: *executable,
            }),
            OutputKind::Symlink { target } => Some(Leaf::Symlink {
                target: SymlinkTarget::new(target.as_str())?,
            }),
            OutputKind::Directory => None,
        };
        Ok((entry.path.clone(), leaf))
    });
    outermost(entries.collect::<Result<Vec<_>, Invalid>>()?)
}

/// Its regular files, and its outermost directories.
pub(crate) fn left(receipt: &Receipt) -> Left {
    let found = directories(receipt).unwrap_or_else(|error| {
        tracing::warn!(attempt = %receipt.attempt, %error, "directories that it left cannot be found");
        BTreeMap::new()
    });
    Left {
        files: receipt.artifacts(),
        directories: found.values().map(|tree| tree.digest).collect(),
    }
}
