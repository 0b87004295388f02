use std::collections::HashSet;
use std::io::{self, Read};

use belljar_core::{Digest, ObjectId, bounds};
use belljar_tree::Directory;

use crate::{BlobSource, ReadError};

/// Objects that something leads to: those that were named, and all that named trees have in them. By halves of
/// their digests, so that two of which these are equal are reached together.
#[derive(Debug, Default)]
pub struct Reached {
    objects: HashSet<u128>,
    /// Directories of which all is reached, with the sizes by which they were named: by another one nothing was read.
    walked: HashSet<(u128, u64)>,
}

/// Why it cannot be told what something leads to.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A directory could not be read.
    #[error("a directory cannot be read")]
    Read(#[from] ReadError),
    /// There are too many objects.
    #[error("more than {} objects are in use", bounds::REACHED_OBJECTS)]
    TooMany,
}

impl Reached {
    /// Adds one object; says whether it is new.
    ///
    /// # Errors
    /// [`ReachError::TooMany`].
    pub fn add(&mut self, digest: Digest) -> Result<bool, ReachError> {
        if self.objects.len() >= bounds::REACHED_OBJECTS {
            return Err(ReachError::TooMany);
        }
        Ok(self.objects.insert(half(digest)))
    }

    /// Adds a tree with all that is in it. What is not there, or is no directory, leads nowhere. Each object that
    /// is new is told.
    ///
    /// # Errors
    /// See [`ReachError`].
    pub fn add_tree(
        &mut self,
        source: &dyn BlobSource,
        root: ObjectId,
        mut new: impl FnMut(Digest),
    ) -> Result<(), ReachError> {
        let mut add = |this: &mut Self, digest| -> Result<(), ReachError> {
            if this.add(digest)? {
                new(digest);
            }
            Ok(())
        };
        add(self, root.digest)?;
        let mut left = vec![root];
        while let Some(object) = left.pop() {
            if !self.walked.insert((half(object.digest), object.size)) {
                continue;
            }
            let Some(directory) = read(source, object)? else {
                continue;
            };
            for file in directory.files() {
                add(self, file.object.digest)?;
            }
            for below in directory.directories() {
                add(self, below.object.digest)?;
                left.push(below.object);
            }
        }
        Ok(())
    }

    /// Whether something leads to this object.
    pub fn has(&self, digest: Digest) -> bool {
        self.objects.contains(&half(digest))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// A directory, if it is there and is one.
fn read(source: &dyn BlobSource, object: ObjectId) -> Result<Option<Directory>, ReadError> {
    if object.size > bounds::DIRECTORY_BYTES as u64 {
        return Ok(None);
    }
    let mut reader = match source.read_verified(object) {
        Ok(reader) => reader,
        Err(ReadError::Missing(_) | ReadError::Size { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(Directory::decode(&bytes).ok()),
        // Damaged: nobody can build on it before it is given again, with whatever is missing of it then.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(source) => Err(ReadError::Io { object, source }),
    }
}

fn half(digest: Digest) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use belljar_core::RelPath;
    use belljar_tree::{Leaf, build};

    #[test]
    fn a_tree_leads_to_all_that_is_in_it_and_a_broken_one_to_itself() {
        let memory = Memory::new(1 << 20);
        let leaf = |path: &str| {
            let object = memory.put(path.as_bytes());
            let leaf = Leaf::File {
                object,
                executable: false,
            };
            (RelPath::new(path).unwrap(), leaf)
        };
        let built = build(["a", "b/c", "b/d/e"].map(leaf)).unwrap();
        for (_, bytes) in &built.directories {
            memory.put(bytes);
        }
        let mut reached = Reached::default();
        let mut told = Vec::new();
        reached
            .add_tree(&memory, built.root, |digest| told.push(digest))
            .unwrap();
        assert_eq!((reached.len(), told.len()), (6, 6));
        assert!(
            ["a", "b/c", "b/d/e"]
                .iter()
                .all(|path| reached.has(Digest::of(path.as_bytes())))
        );
        assert!(!reached.has(Digest::of(b"b")));
        reached
            .add_tree(&memory, built.root, |_| panic!("told twice"))
            .unwrap();
        // As an object alone it leads nowhere, and as a tree it does afterwards.
        let mut reached = Reached::default();
        assert!(
            reached.add(built.root.digest).unwrap() && !reached.add(built.root.digest).unwrap()
        );
        reached.add_tree(&memory, built.root, |_| {}).unwrap();
        assert_eq!(reached.len(), 6);
        let gone = ObjectId::of(b"gone");
        memory.put_as(
            built.root,
            &vec![7; usize::try_from(built.root.size).unwrap()],
        );
        let mut reached = Reached::default();
        for root in [gone, built.root, memory.put(b"no directory")] {
            reached.add_tree(&memory, root, |_| {}).unwrap();
        }
        assert_eq!(reached.len(), 3);
    }
}
