use std::io::Read;

use belljar_core::ObjectId;

use crate::{ReadError, WriteError};

/// Where objects are read from.
pub trait BlobSource: Send + Sync {
    /// The content of an object, `object.size` bytes. It was verified when it was written; who cannot
    /// rely on the disk reads it through [`crate::VerifyingRead`].
    ///
    /// # Errors
    /// [`ReadError::Missing`] when there is no such object, [`ReadError::Size`] when there is one of
    /// another size, [`ReadError::Io`].
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError>;

    /// Whether there is an object of this digest and size.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    fn contains(&self, object: ObjectId) -> Result<bool, ReadError>;
}

/// Where objects are written to.
pub trait BlobSink: Send + Sync {
    /// Begins an object. With `expected`, exactly that content must come; without, whatever comes is
    /// kept. What is dropped unfinished leaves nothing behind.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] when more is expected than may be kept, [`WriteError::Full`],
    /// [`WriteError::Io`].
    fn begin(&self, expected: Option<ObjectId>) -> Result<Box<dyn PendingBlob>, WriteError>;
}

/// An object that is being written.
pub trait PendingBlob: Send {
    /// Takes the next piece of content, of any length.
    ///
    /// # Errors
    /// [`WriteError::TooLong`] beyond the expected size, [`WriteError::TooLarge`] beyond
    /// [`belljar_core::bounds::BLOB_BYTES`], [`WriteError::Full`], [`WriteError::Io`]. After an error
    /// only dropping makes sense.
    fn write(&mut self, piece: &[u8]) -> Result<(), WriteError>;

    /// Verifies the content, makes it durable and only then gives it its name. That it is there already
    /// is fine.
    ///
    /// # Errors
    /// [`WriteError::Mismatch`] when it is not what was expected, [`WriteError::Full`],
    /// [`WriteError::Io`].
    fn finish(self: Box<Self>) -> Result<ObjectId, WriteError>;
}
