use std::fs::File;
use std::sync::Arc;

use belljar_core::{BlobName, ObjectId, bounds};
use rustix::fs::{Mode, fchmod, fsync};

use crate::destination::{Destination, Piece};
use crate::expected::Expecting;
use crate::hashing::Hashing;
use crate::layout;
use crate::writer::{Directories, failed};
use crate::{Batch, PendingBlob, WriteError};

/// Objects are never written to once they have a name, not even by their owner.
const OBJECT_MODE: u32 = 0o440;
/// What is larger is written on a thread of its own, and hashed on another: for less, none is worth starting.
const BESIDE_BYTES: u64 = 4 << 20;

/// A file without a name. Its descriptor is known to this process alone, so what was hashed on the way
/// in is what is there.
pub(crate) struct PendingFile {
    directories: Arc<Directories>,
    expected: Option<BlobName>,
    content: Hashing,
    /// How much came.
    length: u64,
    /// What came and is not given to the destination yet.
    gathered: Piece,
    destination: Destination,
}

impl PendingBlob for PendingFile {
    fn write(&mut self, mut piece: &[u8]) -> Result<(), WriteError> {
        let length = self.length.saturating_add(piece.len() as u64);
        match self.expected {
            Some(expected) if length > expected.size => {
                return Err(WriteError::TooLong { expected });
            }
            _ if length > bounds::BLOB_BYTES => return Err(WriteError::TooLarge),
            _ => {}
        }
        self.length = length;
        while !piece.is_empty() {
            piece = self.gathered.take(piece);
            if self.gathered.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError> {
        let directories = Arc::clone(&self.directories);
        let (found, file) = self.sealed()?;
        // The content is durable before it has a name: after a crash, a name means a whole object.
        fsync(&file).map_err(|e| failed("making the content durable", e.into()))?;
        directories.give_name(&file, found)?;
        // Also where the name was there before: who made it may not have come to this point yet.
        let synced = directories.sync_parent(found);
        synced.map_err(|e| failed("making the name durable", e))?;
        Ok(found)
    }

    fn finish_into(self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError> {
        let (found, file) = self.sealed()?;
        batch.push(found, file)?;
        Ok(found)
    }
}

impl PendingFile {
    /// Takes over an empty file.
    pub(crate) fn new(
        directories: Arc<Directories>,
        file: File,
        expected: Option<BlobName>,
    ) -> Self {
        Self {
            directories,
            expected,
            content: Hashing::Here(Expecting::new(expected)),
            length: 0,
            gathered: Piece::default(),
            destination: Destination::new(file),
        }
    }

    /// Gives what was gathered to those who write and hash it.
    fn flush(&mut self) -> Result<(), WriteError> {
        let piece = Arc::new(std::mem::take(&mut self.gathered));
        self.content.update(&piece)?;
        self.destination.write(piece)?;
        if self.length >= BESIDE_BYTES {
            let announced = self.expected.map(|expected| expected.size);
            self.destination.go_beside(announced)?;
            self.content.go_beside()?;
            self.gathered = Piece::aligned();
        }
        Ok(())
    }

    /// The file, verified, as nobody will write to it again.
    fn sealed(mut self) -> Result<(ObjectId, File), WriteError> {
        self.flush()?;
        let file = self.destination.finish()?;
        let found = self.content.finish(self.length)?;
        fchmod(&file, Mode::from_raw_mode(OBJECT_MODE))
            .map_err(|e| failed("setting the mode", e.into()))?;
        layout::mark_verified(&file).map_err(|e| failed("setting the time", e))?;
        Ok((found, file))
    }
}
