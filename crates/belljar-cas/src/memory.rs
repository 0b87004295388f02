use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_core::{BlobName, Digest, ObjectId, bounds};

use crate::expected::Expecting;
use crate::{Batch, BlobSink, BlobSource, PendingBlob, ReadError, WriteError};

/// Objects in memory, for tests of whatever stands on the two traits. Handles share the objects.
#[derive(Clone, Debug)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<ObjectId, Arc<[u8]>>>>,
    capacity: u64,
}

struct PendingBytes {
    memory: Memory,
    expected: Option<BlobName>,
    bytes: Vec<u8>,
}

impl Memory {
    /// Holds at most `capacity` bytes of content; beyond that it is full, as a disk would be.
    pub fn new(capacity: u64) -> Self {
        let empty = (ObjectId::of(b""), Arc::from([]));
        Self {
            objects: Arc::new(Mutex::new(BTreeMap::from([empty]))),
            capacity,
        }
    }

    /// Keeps `content`, whatever the capacity.
    pub fn put(&self, content: &[u8]) -> ObjectId {
        let object = ObjectId::of(content);
        self.lock().insert(object, Arc::from(content));
        object
    }

    /// Keeps `content` under a name that need not be its own, as a failing disk would.
    pub fn put_as(&self, object: ObjectId, content: &[u8]) {
        self.lock().insert(object, Arc::from(content));
    }

    /// The ids of everything that is kept; the empty object always is.
    pub fn ids(&self) -> Vec<ObjectId> {
        self.lock().keys().copied().collect()
    }

    /// Takes an object away; gives its size if there was one.
    pub(crate) fn take(&self, digest: Digest) -> Option<u64> {
        let mut objects = self.lock();
        let object = objects.keys().find(|id| id.digest == digest).copied()?;
        objects.remove(&object);
        Some(object.size)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Arc<[u8]>>> {
        // Every change is one insertion: a panic elsewhere cannot leave half of one.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> u64 {
        self.lock().keys().map(|object| object.size).sum()
    }
}

impl BlobSource for Memory {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        let objects = self.lock();
        if let Some(content) = objects.get(&object) {
            return Ok(Box::new(Cursor::new(Arc::clone(content))));
        }
        match objects.keys().find(|other| other.digest == object.digest) {
            Some(other) => Err(ReadError::Size {
                object,
                found: other.size,
            }),
            None => Err(ReadError::Missing(object)),
        }
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        Ok(self.lock().contains_key(&object))
    }
}

impl BlobSink for Memory {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        if expected.is_some_and(|object| object.size > bounds::BLOB_BYTES) {
            return Err(WriteError::TooLarge);
        }
        Ok(Box::new(PendingBytes {
            memory: self.clone(),
            expected,
            bytes: Vec::new(),
        }))
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        Ok(Batch::new(()))
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        let ((), objects) = batch.into_parts()?;
        for (_, bytes) in objects {
            let bytes: Vec<u8> = bytes;
            self.put(&bytes);
        }
        Ok(())
    }

    /// Nothing is noted of when something was given.
    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError> {
        Ok(self.lock().contains_key(&object))
    }
}

impl PendingBlob for PendingBytes {
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        let written = (self.bytes.len() as u64).saturating_add(piece.len() as u64);
        match self.expected {
            Some(expected) if written > expected.size => {
                return Err(WriteError::TooLong { expected });
            }
            _ if written > bounds::BLOB_BYTES => return Err(WriteError::TooLarge),
            _ => {}
        }
        if self.memory.used().saturating_add(written) > self.memory.capacity {
            return Err(WriteError::Full(io::ErrorKind::StorageFull.into()));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError> {
        let memory = self.memory.clone();
        let (_, bytes) = self.verified()?;
        Ok(memory.put(&bytes))
    }

    fn finish_into(self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError> {
        let (found, bytes) = self.verified()?;
        batch.push(found, bytes)?;
        Ok(found)
    }
}

impl PendingBytes {
    fn verified(self) -> Result<(ObjectId, Vec<u8>), WriteError> {
        let mut content = Expecting::new(self.expected);
        content.update(&self.bytes);
        Ok((content.finish(self.bytes.len() as u64)?, self.bytes))
    }
}
