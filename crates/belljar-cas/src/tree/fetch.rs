//! The directories of a tree, read some at a time.

use std::io::{self, Read};
use std::ops::Range;

use belljar_core::{Invalid, ObjectId, RelPath, bounds};
use belljar_tree::{Directory, Name};

use super::{shown, unread};
use crate::{BlobSource, TreeError};

/// Directories that are read before it is looked what they came to.
const DIRECTORIES_AT_ONCE: usize = 256;
/// Fewer directories than this are not worth a second thread.
const DIRECTORIES_PER_THREAD: usize = 16;
/// A directory that is named by one that was read.
pub(super) struct Found {
    pub(super) object: ObjectId,
    /// Which of those found before has it, under which name; none for the top.
    pub(super) within: Option<(usize, Name)>,
}

/// How many of these are read before it is looked what they came to, at least one: together they are not larger
/// than a single one may be.
pub(super) fn how_many_at_once(found: &[Found]) -> usize {
    let mut bytes: u64 = 0;
    let fit = found.iter().take(DIRECTORIES_AT_ONCE).take_while(|found| {
        bytes = bytes.saturating_add(found.object.size);
        bytes <= bounds::DIRECTORY_BYTES as u64
    });
    fit.count().max(1)
}

/// Reads and verifies those of the directories, side by side where it is worth a thread.
pub(super) fn fetch_few(
    source: &dyn BlobSource,
    found: &[Found],
    few: Range<usize>,
) -> Vec<Result<Directory, TreeError>> {
    let one = |index: usize| {
        let path = path_of(found, index)?;
        fetch(source, path.as_ref(), found[index].object)
    };
    let half = few.start + few.len() / 2;
    if few.len() < DIRECTORIES_PER_THREAD * 2 {
        return few.map(one).collect();
    }
    std::thread::scope(|scope| {
        let first = scope.spawn(|| (few.start..half).map(one).collect::<Vec<_>>());
        let second: Vec<_> = (half..few.end).map(one).collect();
        let mut all = first
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        all.extend(second);
        all
    })
}

/// Where a directory was found first; none for the top.
fn path_of(found: &[Found], index: usize) -> Result<Option<RelPath>, TreeError> {
    let mut names = Vec::new();
    let mut at = index;
    while let Some((within, name)) = &found[at].within {
        names.push(name.as_str());
        at = *within;
    }
    names.reverse();
    if names.is_empty() {
        return Ok(None);
    }
    let path = RelPath::new(names.join("/"));
    path.map(Some).map_err(|why| TreeError::Malformed {
        path: shown(None),
        why,
    })
}

/// Reads and verifies one `Directory` message.
fn fetch(
    source: &dyn BlobSource,
    path: Option<&RelPath>,
    object: ObjectId,
) -> Result<Directory, TreeError> {
    let malformed = |why| TreeError::Malformed {
        path: shown(path),
        why,
    };
    if object.size > bounds::DIRECTORY_BYTES as u64 {
        return Err(malformed(Invalid::new(format!(
            "{object} is too large for a Directory message"
        ))));
    }
    let reader = source.read_verified(object);
    let mut reader = reader.map_err(|e| unread(shown(path), e))?;
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes);
    read.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => TreeError::Damaged {
            path: shown(path),
            object,
        },
        _ => TreeError::Io {
            path: shown(path),
            object,
            source,
        },
    })?;
    Directory::decode(&bytes).map_err(malformed)
}
