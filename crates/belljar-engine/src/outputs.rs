//! What an attempt left, by the digests under which it can be found again.

use std::collections::BTreeMap;

use belljar_core::{Digest, Invalid, ObjectId, RelPath, bounds};
use belljar_plan::{OutputKind, Receipt};
use belljar_tree::{Built, Leaf, SymlinkTarget, outermost};

use crate::life::Evidence;
use crate::queue::Left;

/// The directories among the outputs that lie in no other, each as its tree. Of a build whose evidence has `trees` the store
/// has [`Built::tree`]; the `Directory` messages by themselves only if it was asked to make the tree.
///
/// # Errors
/// When the receipt has outputs that no collection leaves.
pub fn directories(receipt: &Receipt) -> Result<BTreeMap<RelPath, Built>, Invalid> {
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

/// The directories, if the receipt is one that a collection leaves.
pub(crate) fn found(receipt: &Receipt) -> BTreeMap<RelPath, Built> {
    directories(receipt).unwrap_or_else(|error| {
        tracing::warn!(attempt = %receipt.attempt, %error, "directories that it left cannot be found");
        BTreeMap::new()
    })
}

/// The `Tree` messages of these directories, each once.
///
/// # Errors
/// When they are longer than [`bounds::OUTPUT_TREES_BYTES`] together, which those of no collection are.
pub(crate) fn trees(
    directories: &BTreeMap<RelPath, Built>,
) -> Result<BTreeMap<ObjectId, Vec<u8>>, Invalid> {
    let mut trees = BTreeMap::new();
    let mut bytes = 0;
    for (path, built) in directories {
        let tree = built.tree();
        let object = ObjectId::of(&tree);
        if trees.contains_key(&object) {
            continue;
        }
        bytes += tree.len();
        if bytes > bounds::OUTPUT_TREES_BYTES {
            let most = bounds::OUTPUT_TREES_BYTES;
            let why = format!("the Tree messages up to this one are longer than {most} bytes");
            return Err(Invalid::field(path.as_str(), why));
        }
        trees.insert(object, tree);
    }
    Ok(trees)
}

/// All objects that an attempt left: [`Receipt::artifacts`], and what was made of its directories, unless its evidence says
/// that nothing was.
pub(crate) fn objects(receipt: &Receipt, evidence: Option<&Evidence>) -> Vec<Digest> {
    let mut objects = receipt.artifacts();
    if evidence.is_none_or(|evidence| evidence.trees) {
        objects.extend(found(receipt).values().map(tree_of));
    }
    objects
}

/// Its regular files, these directories, and what was made of them if `trees` says so.
pub(crate) fn left(receipt: &Receipt, directories: &BTreeMap<RelPath, Built>, trees: bool) -> Left {
    let made = directories.values().filter(|_| trees);
    Left {
        files: receipt.artifacts(),
        trees: made.map(tree_of).collect(),
        directories: directories
            .values()
            .map(|built| built.root.digest)
            .collect(),
    }
}

fn tree_of(built: &Built) -> Digest {
    Digest::of(&built.tree())
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::Limits;

    /// A directory with so many files, with names so long.
    fn directory(files: usize, name: usize) -> BTreeMap<RelPath, Built> {
        let file = |number| {
            let path = RelPath::new(format!("d/{number:0>name$}")).unwrap();
            let object = ObjectId {
                digest: Digest::of(b""),
                size: Limits::CEILING.get().output_bytes,
            };
            let executable = true;
            (path, Some(Leaf::File { object, executable }))
        };
        let top = (RelPath::new("d").unwrap(), None);
        outermost((0..files).map(file).chain([top])).unwrap()
    }

    #[test]
    fn what_a_build_may_leave_fits_and_not_much_more_is_made() {
        let most = usize::try_from(Limits::CEILING.get().output_entries).unwrap();
        let name = bounds::OUTPUT_NAMES_BYTES / most;
        let trees = trees(&directory(most - 1, name)).unwrap();
        let bytes: usize = trees.values().map(Vec::len).sum();
        assert!(bytes > bounds::OUTPUT_NAMES_BYTES);
        let refused = super::trees(&directory(most * 5 / 4, name)).unwrap_err();
        assert_eq!(refused.field, "d");
    }

    #[test]
    fn equal_directories_are_one_message() {
        let one = directory(1, 1);
        let built = one.values().next().unwrap();
        let both = ["a", "b"].map(|name| (RelPath::new(name).unwrap(), built.clone()));
        let trees = trees(&both.into()).unwrap();
        let tree = built.tree();
        assert_eq!(trees, [(ObjectId::of(&tree), tree)].into());
    }
}
