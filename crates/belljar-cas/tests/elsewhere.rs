//! Objects can be kept by who has no files and does not belong to the crate: by what stands for a service to which whole
//! objects are sent.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_cas::{Batch, BlobSink, BlobSource, Memory, PendingBlob, ReadError, WriteError};
use belljar_core::{BlobName, ObjectId, bounds};

/// Keeps objects by names, and counts how often something was sent to it.
#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Vec<u8>>,
    sent: usize,
}

/// What is sent as a whole.
struct Parts(Bucket, Option<BlobName>, Vec<u8>);

fn key(object: ObjectId) -> String {
    format!("sha256/{}", object.digest.to_hex())
}

impl Bucket {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, all: Vec<(ObjectId, Vec<u8>)>) {
        let mut held = self.held();
        held.sent += 1;
        let named = all
            .into_iter()
            .map(|(object, content)| (key(object), content));
        held.objects.extend(named);
    }
}

impl BlobSource for Bucket {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        match self.held().objects.get(&key(object)) {
            Some(content) if content.len() as u64 == object.size => {
                Ok(Box::new(Cursor::new(content.clone())))
            }
            Some(content) => Err(ReadError::Size {
                object,
                found: content.len() as u64,
            }),
            None => Err(ReadError::Missing(object)),
        }
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        Ok(self.read(object).is_ok())
    }
}

impl BlobSink for Bucket {
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError> {
        Ok(Box::new(Parts(self.clone(), expected, Vec::new())))
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        Ok(Batch::new("a token of the service"))
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        let (_, all): (&str, _) = batch.into_parts()?;
        self.send(all);
        Ok(())
    }

    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError> {
        Ok(self.contains(object).unwrap_or(false))
    }
}

impl Parts {
    fn verified(&self) -> Result<ObjectId, WriteError> {
        let found = ObjectId::of(&self.2);
        match self.1 {
            Some(expected) if expected != found.into() => Err(WriteError::Mismatch {
                expected,
                found: found.into(),
            }),
            _ => Ok(found),
        }
    }
}

impl PendingBlob for Parts {
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.2.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError> {
        let found = self.verified()?;
        self.0.send(vec![(found, self.2)]);
        Ok(found)
    }

    fn finish_into(self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError> {
        let found = self.verified()?;
        batch.push(found, self.2)?;
        Ok(found)
    }
}

fn put(sink: &dyn BlobSink, batch: &mut Batch, content: &[u8]) -> Result<ObjectId, WriteError> {
    let mut pending = sink.begin(Some(ObjectId::of(content).into()))?;
    pending.write(content)?;
    pending.finish_into(batch)
}

#[test]
fn a_sink_outside_of_the_crate_keeps_batches_and_no_others() {
    let bucket = Bucket::default();
    let mut batch = bucket.batch().unwrap();
    for number in (0..=u8::MAX).take(bounds::OBJECTS_AT_ONCE) {
        put(&bucket, &mut batch, &[number]).unwrap();
    }
    assert!(matches!(
        put(&bucket, &mut batch, b"one more"),
        Err(WriteError::Io { .. })
    ));
    let first = ObjectId::of(&[0]);
    assert!(!bucket.contains(first).unwrap());
    bucket.keep(batch).unwrap();
    assert_eq!(bucket.held().sent, 1, "sent together");
    assert!(bucket.verify(first).unwrap());
    let mut content = Vec::new();
    let mut reader = bucket.read_verified(first).unwrap();
    reader.read_to_end(&mut content).unwrap();
    assert_eq!(content, [0]);

    let memory = Memory::new(100);
    let mut other = memory.batch().unwrap();
    put(&memory, &mut other, b"x").unwrap();
    assert!(matches!(bucket.keep(other), Err(WriteError::Io { .. })));
    let mut other = bucket.batch().unwrap();
    put(&bucket, &mut other, b"x").unwrap();
    assert!(matches!(memory.keep(other), Err(WriteError::Io { .. })));
    assert!(!memory.contains(ObjectId::of(b"x")).unwrap());
}

#[test]
fn what_rots_there_is_found_when_it_is_read() {
    let bucket = Bucket::default();
    let mut pending = bucket.begin(None).unwrap();
    pending.write(b"content").unwrap();
    let object = pending.finish().unwrap();
    let rotted = (key(object), b"contend".to_vec());
    bucket.held().objects.extend([rotted]);
    assert!(!bucket.verify(object).unwrap());
    let mut reader = bucket.read_verified(object).unwrap();
    assert!(reader.read_to_end(&mut Vec::new()).is_err());
}
