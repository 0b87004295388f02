use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use belljar_core::{BlobName, ObjectId, bounds};

use crate::{Batch, BlobSink, PendingBlob, Space, WriteError};

/// Takes new objects only while so much room is left: it is for builds that run, whose logs, outputs and
/// evidence go past this.
pub struct Headroom<S> {
    inner: S,
    room: Room,
}

/// How much room has to stay on a file system while something is written to it. Clones count together.
#[derive(Clone, Debug)]
pub struct Room {
    root: PathBuf,
    reserve: u64,
    /// How many bytes may come, from all together, before it is looked again.
    left: Arc<Mutex<u64>>,
}

/// An object that is being written. Also one that there was room for when it was begun: others may have been begun since.
struct Growing {
    inner: Box<dyn PendingBlob>,
    room: Room,
}

impl Room {
    /// Keeps `reserve` bytes of the file system free that `root` lies on.
    pub fn new(root: &Path, reserve: u64) -> Self {
        Self {
            root: root.to_owned(),
            reserve,
            left: Arc::default(),
        }
    }

    /// To be called before so many bytes more are written. Looks at the first, and again when as many have come, from all
    /// together, as there was room for then: at most [`bounds::ROOM_BYTES`].
    ///
    /// # Errors
    /// [`WriteError::Reserved`] when they would use what is kept, [`WriteError::Io`].
    pub fn before(&self, bytes: u64) -> Result<(), WriteError> {
        // A number has no half of a change.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = match left.checked_sub(bytes) {
            Some(left) => left,
            None => self.beside(bytes)?.min(bounds::ROOM_BYTES),
        };
        Ok(())
    }

    /// Whether so many bytes more may be written.
    pub(crate) fn has(&self, needed: u64) -> Result<(), WriteError> {
        self.beside(needed).map(drop)
    }

    /// How much room there is beside so many bytes and what is kept.
    fn beside(&self, needed: u64) -> Result<u64, WriteError> {
        let space = Space::of(&self.root).map_err(|source| WriteError::Io {
            doing: "looking how much room there is",
            source,
        })?;
        let beside = space
            .available
            .checked_sub(self.reserve.saturating_add(needed));
        beside.ok_or(WriteError::Reserved {
            needed,
            available: space.available,
            reserve: self.reserve,
        })
    }
}

impl<S> Headroom<S> {
    /// Keeps `room` free.
    pub fn new(inner: S, room: Room) -> Self {
        Self { inner, room }
    }
}

impl<S: BlobSink> BlobSink for Headroom<S> {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        self.room.beside(expected.map_or(0, |object| object.size))?;
        let (inner, room) = (self.inner.begin(expected)?, self.room.clone());
        Ok(Box::new(Growing { inner, room }))
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        self.inner.batch()
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        self.inner.keep(batch)
    }

    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError> {
        self.inner.give_again(object)
    }
}

impl PendingBlob for Growing {
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.room.before(piece.len() as u64)?;
        self.inner.write(piece)
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError> {
        self.inner.finish()
    }

    fn finish_into(self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError> {
        self.inner.finish_into(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobSource, Memory};

    #[test]
    fn what_would_use_the_reserve_is_refused_with_figures() {
        let root = tempfile::tempdir().unwrap();
        let available = Space::of(root.path()).unwrap().available;
        let memory = Memory::new(1 << 20);
        let put = |reserve, content: &[u8]| {
            let sink = Headroom::new(memory.clone(), Room::new(root.path(), reserve));
            let mut blob = sink.begin(Some(ObjectId::of(content).into()))?;
            blob.write(content)?;
            blob.finish()
        };
        let object = put(0, b"there is room").unwrap();
        assert!(memory.contains(object).unwrap());
        // More than there is, however much others write and remove meanwhile.
        let error = put(available.saturating_mul(2), b"there is none").unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, WriteError::Reserved { needed: 13, .. }),
            "{text}"
        );
        assert!(text.contains("belljar store"), "{text}");
        assert!(!memory.contains(ObjectId::of(b"there is none")).unwrap());
    }

    #[test]
    fn what_comes_without_a_length_is_taken_as_long_as_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        let available = Space::of(root.path()).unwrap().available;
        let memory = Memory::new(1 << 20);
        let put = |reserve| {
            let sink = Headroom::new(memory.clone(), Room::new(root.path(), reserve));
            let mut blob = Box::new(Growing {
                inner: sink.inner.begin(None)?,
                room: sink.room.clone(),
            });
            blob.write(b"piece")?;
            blob.finish()
        };
        assert!(put(0).is_ok());
        let error = put(available.saturating_mul(2)).unwrap_err();
        assert!(
            matches!(error, WriteError::Reserved { needed: 5, .. }),
            "{error}"
        );
    }

    #[test]
    fn it_is_not_looked_at_every_piece_and_all_count_together() {
        let root = tempfile::tempdir().unwrap();
        let mut room = Room::new(root.path(), 0);
        assert!(room.before(1).is_ok());
        let mut other = room.clone();
        for room in [&mut room, &mut other] {
            // Whoever looks finds nothing.
            room.reserve = u64::MAX;
        }
        assert!(room.before(bounds::ROOM_BYTES / 2).is_ok());
        assert!(other.before(bounds::ROOM_BYTES / 2).is_ok());
        assert!(other.before(1).is_err() && room.before(1).is_err());
    }
}
