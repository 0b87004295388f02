use std::collections::BTreeMap;
use std::io::Read;

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_tree::Directory;

use crate::lay_out::{LaidOut, join, shown, spoilt, unread};
use crate::{BlobSource, LayOutError, VerifyingRead};

/// What a tree would become if it were laid out. Each different directory is read once, however often it
/// stands in the tree, so a small message that means a billion files costs little to refuse.
pub(crate) fn measure(
    source: &dyn BlobSource,
    tree: ObjectId,
    stop: &dyn Fn() -> bool,
) -> Result<LaidOut, LayOutError> {
    // Bounded: every directory in here but the top is at least one entry of the tree.
    let mut known: BTreeMap<ObjectId, LaidOut> = BTreeMap::new();
    let mut steps = vec![Step::Enter(None, tree)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Enter(_, object) if known.contains_key(&object) => {}
            Step::Enter(path, object) => {
                if stop() {
                    return Err(LayOutError::Stopped);
                }
                let directory = fetch(source, path.as_ref(), object)?;
                let own = alone(&directory);
                if known.len() + steps.len() > 2 * bounds::TREE_ENTRIES {
                    return Err(LayOutError::TooManyEntries);
                }
                let children = directory
                    .directories()
                    .iter()
                    .map(|child| child.object)
                    .collect();
                steps.push(Step::Leave(object, own, children));
                for child in directory.directories() {
                    steps.push(Step::Enter(
                        Some(join(path.as_ref(), child.name.as_str())?),
                        child.object,
                    ));
                }
            }
            Step::Leave(object, own, children) => {
                let below = children.iter().filter_map(|child| known.get(child));
                let total = below.fold(own, |sum, child| LaidOut {
                    entries: sum.entries.saturating_add(child.entries),
                    bytes: sum.bytes.saturating_add(child.bytes),
                });
                if total.entries > bounds::TREE_ENTRIES as u64 {
                    return Err(LayOutError::TooManyEntries);
                }
                if total.bytes > bounds::TREE_BYTES {
                    return Err(LayOutError::TooManyBytes);
                }
                known.insert(object, total);
            }
        }
    }
    Ok(known.remove(&tree).unwrap_or_default())
}

/// Post-order without recursion. A directory cannot contain itself, since nothing can name a digest that
/// depends on the name; so every child was left before its parent is.
enum Step {
    Enter(Option<RelPath>, ObjectId),
    Leave(ObjectId, LaidOut, Vec<ObjectId>),
}

fn alone(directory: &Directory) -> LaidOut {
    LaidOut {
        entries: directory.len() as u64,
        bytes: directory
            .files()
            .iter()
            .fold(0, |sum: u64, file| sum.saturating_add(file.object.size)),
    }
}

/// Reads and verifies one `Directory` message.
pub(crate) fn fetch(
    source: &dyn BlobSource,
    path: Option<&RelPath>,
    object: ObjectId,
) -> Result<Directory, LayOutError> {
    let malformed = |why| LayOutError::Malformed {
        path: shown(path),
        why,
    };
    if object.size > bounds::DIRECTORY_BYTES as u64 {
        return Err(malformed(Invalid::new(format!(
            "{object} is too large for a Directory message"
        ))));
    }
    let reader = source.read(object).map_err(|e| unread(path, e))?;
    let mut bytes = Vec::new();
    let mut reader = VerifyingRead::new(reader, object);
    reader
        .read_to_end(&mut bytes)
        .map_err(|e| spoilt(path, object, e))?;
    Directory::decode(&bytes).map_err(malformed)
}
