use std::any::Any;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use belljar_core::{BlobName, ObjectId, bounds};
use rustix::fs::{Stat, fstat};

use crate::verify::{VerifyingRead, is_whole};
use crate::{ReadError, WriteError};

/// Where objects are read from.
pub trait BlobSource: Send + Sync {
    /// The content of an object, `object.size` bytes. It was verified when it was written; who cannot
    /// rely on the disk asks for [`BlobSource::read_verified`].
    ///
    /// # Errors
    /// [`ReadError::Missing`] when there is no such object, [`ReadError::Size`] when there is one of
    /// another size, [`ReadError::Io`].
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError>;

    /// The same, verified on the way: see [`crate::VerifyingRead`].
    ///
    /// # Errors
    /// As [`BlobSource::read`].
    fn read_verified(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        Ok(Box::new(VerifyingRead::new(self.read(object)?, object)))
    }

    /// Whether there is an object of this digest and size.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    fn contains(&self, object: ObjectId) -> Result<bool, ReadError>;

    /// Whether the content of an object is what it is named by. An implementation may answer without reading
    /// it where it knows that nothing has been written to it since somebody did.
    ///
    /// # Errors
    /// As [`BlobSource::read`].
    fn verify(&self, object: ObjectId) -> Result<bool, ReadError> {
        let whole = is_whole(self.read(object)?, object, &mut |_| {});
        whole.map_err(|source| ReadError::Io { object, source })
    }

    /// Whether all of these are there, and their content is what they are named by. Cheapest for neighbours: in
    /// the order of their digests.
    fn are_whole(&self, objects: &[ObjectId]) -> bool {
        let mut objects = objects.iter();
        objects.all(|object| matches!(self.verify(*object), Ok(true)))
    }

    /// Keeps the files of all these open, to be asked again whether they are as they are now; none unless all are
    /// what they are named by, and not where objects are no files. Cheapest for neighbours, too.
    fn hold(&self, _objects: &[ObjectId]) -> Option<Vec<HeldObject>> {
        None
    }

    /// Whether all of these are still what they are named by, where nobody has written to them and their names lead to
    /// no other file.
    fn are_as_held(&self, held: &[HeldObject]) -> bool {
        let mut held = held.iter();
        held.all(|one| matches!(self.verify(one.object), Ok(true)))
    }
}

/// The file of an object that was what it is named by when it was opened. It is opened by its path only (`O_PATH`,
/// open(2)): nobody can read or write through it.
#[derive(Debug)]
pub struct HeldObject {
    object: ObjectId,
    file: OwnedFd,
    changed: (i64, i64),
    /// The directory that it was found in.
    parent: Identity,
}

/// Which file something is: device and inode.
pub(crate) type Identity = (u64, u64);

impl HeldObject {
    pub(crate) fn new(object: ObjectId, file: OwnedFd, status: &Stat, parent: Identity) -> Self {
        let changed = changed(status);
        Self {
            object,
            file,
            changed,
            parent,
        }
    }

    /// The directory that it was found in. Another one in its place does not show on the file.
    pub(crate) fn parent(&self) -> Identity {
        self.parent
    }

    /// Which one.
    pub(crate) fn object(&self) -> ObjectId {
        self.object
    }

    /// What it looks like now; none where it looks as it did when it was opened: nobody but the kernel sets a time of
    /// change, and whoever writes to it or takes its name away leaves another.
    pub(crate) fn new_look(&self) -> io::Result<Option<Stat>> {
        let status = fstat(&self.file)?;
        Ok((changed(&status) != self.changed).then_some(status))
    }
}

fn changed(status: &Stat) -> (i64, i64) {
    let nanoseconds = i64::try_from(status.st_ctime_nsec).unwrap_or(i64::MAX);
    (status.st_ctime, nanoseconds)
}

/// Where objects are written to.
pub trait BlobSink: Send + Sync {
    /// Begins an object. With `expected`, exactly that content must come; without, whatever comes is
    /// kept. By whatever function it is expected, it is kept as an object is. What is dropped unfinished leaves
    /// nothing behind.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] when more is expected than may be kept, [`WriteError::Full`],
    /// [`WriteError::Io`].
    fn begin(&self, expected: Option<BlobName>) -> Result<Box<dyn PendingBlob>, WriteError>;

    /// An empty batch for [`PendingBlob::finish_into`].
    ///
    /// # Errors
    /// [`WriteError::Io`].
    fn batch(&self) -> Result<Batch, WriteError>;

    /// Makes all objects of a batch durable together and only then gives them their names: the price of
    /// one instead of one for each. After an error any part of the batch may have been kept.
    ///
    /// # Errors
    /// [`WriteError::Full`], [`WriteError::Io`].
    fn keep(&self, batch: Batch) -> Result<(), WriteError>;

    /// Gives an object again that is there and whole, as if its content came once more: nobody removes it for a while. Else
    /// gives false.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    fn give_again(&self, object: ObjectId) -> Result<bool, WriteError>;
}

/// Verified objects that wait for [`BlobSink::keep`], at most [`bounds::OBJECTS_AT_ONCE`]. What is dropped
/// leaves nothing behind.
pub struct Batch {
    objects: Vec<(ObjectId, Box<dyn Any + Send>)>,
    begun: Box<dyn Any + Send>,
}

impl Batch {
    /// An empty one. `begun` is what the sink has to know of its beginning, whatever that is.
    pub fn new(begun: impl Any + Send) -> Self {
        Self {
            objects: Vec::new(),
            begun: Box::new(begun),
        }
    }

    /// Whether one more object would be too many.
    pub fn is_full(&self) -> bool {
        self.objects.len() >= bounds::OBJECTS_AT_ONCE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Adds an object, as its sink has it: content that nobody can change any more.
    ///
    /// # Errors
    /// [`WriteError::Io`] when the batch is full.
    pub fn push(&mut self, object: ObjectId, sealed: impl Any + Send) -> Result<(), WriteError> {
        if self.is_full() {
            return Err(WriteError::Io {
                doing: "adding to a batch",
                source: io::Error::other("it is full"),
            });
        }
        self.objects.push((object, Box::new(sealed)));
        Ok(())
    }

    /// What the sink that made it has put in: the beginning, and the objects.
    ///
    /// # Errors
    /// [`WriteError::Io`] when it was made by a sink that has other things for them.
    pub fn into_parts<B: Any, S: Any>(self) -> Result<(B, Vec<(ObjectId, S)>), WriteError> {
        let begun = self.begun.downcast().map_err(|_| foreign())?;
        let objects = self.objects.into_iter().map(|(object, sealed)| {
            let sealed = sealed.downcast().map_err(|_| foreign())?;
            Ok((object, *sealed))
        });
        Ok((*begun, objects.collect::<Result<_, WriteError>>()?))
    }
}

fn foreign() -> WriteError {
    WriteError::Io {
        doing: "keeping a batch",
        source: io::Error::other("it was made for another store"),
    }
}

/// An object that is being written.
pub trait PendingBlob: Send {
    /// Takes the next piece of content, of any length.
    ///
    /// # Errors
    /// [`WriteError::TooLong`] beyond the expected size, [`WriteError::TooLarge`] beyond
    /// [`bounds::BLOB_BYTES`], [`WriteError::Full`], [`WriteError::Io`]. After an error
    /// only dropping makes sense.
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError>;

    /// Verifies the content, makes it durable and only then gives it its name. That it is there already
    /// is fine.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`] when it is not what was expected, [`WriteError::Full`],
    /// [`WriteError::Io`].
    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError>;

    /// Verifies the content and adds it to a batch that was made before this object was begun; it is neither durable nor named before that is kept.
    ///
    /// # Errors
    /// As [`PendingBlob::finish`]; also when the batch is full.
    fn finish_into(self: Box<Self>, batch: &mut Batch) -> Result<ObjectId, WriteError>;
}
