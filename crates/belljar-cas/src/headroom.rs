use std::path::{Path, PathBuf};

use belljar_core::{BlobName, ObjectId, bounds};

use crate::{Batch, BlobSink, PendingBlob, Space, WriteError};

/// Takes new objects only while so much room is left: it is for builds that run, whose logs, outputs and
/// evidence go past this.
pub struct Headroom<S> {
    inner: S,
    room: Room,
}

/// How much room has to stay on a file system while something is written to it.
#[derive(Clone, Debug)]
pub struct Room {
    root: PathBuf,
    reserve: u64,
    /// Bytes that came since it was looked; none before.
    since: Option<u64>,
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
            since: None,
        }
    }

    /// To be called before so many bytes more are written. Looks at the first, and every [`bounds::ROOM_BYTES`].
    ///
    /// # Errors
    /// [`WriteError::Reserved`] when they would use what is kept, [`WriteError::Io`].
    pub fn before(&mut self, bytes: u64) -> Result<(), WriteError> {
        let since = self.since.unwrap_or(bounds::ROOM_BYTES);
        self.since = Some(since.saturating_add(bytes));
        if since < bounds::ROOM_BYTES {
            return Ok(());
        }
        self.since = Some(bytes);
        self.has(bytes)
    }

    fn has(&self, needed: u64) -> Result<(), WriteError> {
        let space = Space::of(&self.root).map_err(|source| WriteError::Io {
            doing: "looking how much room there is",
            source,
        })?;
        if space.available < self.reserve.saturating_add(needed) {
            return Err(WriteError::Reserved {
                needed,
                available: space.available,
                reserve: self.reserve,
            });
        }
        Ok(())
    }
}

impl<S> Headroom<S> {
    /// Keeps `reserve` bytes of the file system free that `root` lies on.
    pub fn new(inner: S, root: &Path, reserve: u64) -> Self {
        let room = Room::new(root, reserve);
        Self { inner, room }
    }
}

impl<S: BlobSink> BlobSink for Headroom<S> {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        self.room.has(expected.map_or(0, |object| object.size))?;
        let mut room = self.room.clone();
        room.since = expected.map(|_| 0);
        let inner = self.inner.begin(expected)?;
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
            let sink = Headroom::new(memory.clone(), root.path(), reserve);
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
            let sink = Headroom::new(memory.clone(), root.path(), reserve);
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
        // Not at every piece.
        let mut room = Room::new(root.path(), 0);
        assert!(room.before(1).is_ok());
        room.reserve = u64::MAX;
        assert!(room.before(bounds::ROOM_BYTES - 1).is_ok());
        assert!(room.before(1).is_err());
    }
}
