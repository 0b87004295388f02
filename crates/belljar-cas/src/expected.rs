use belljar_core::{Blake3Digest, BlobDigest, BlobName, Hasher, ObjectId};

use crate::WriteError;

/// Hashes content as it comes: by SHA-256, which names the object, and also by BLAKE3 where it was announced by that.
pub(crate) struct Expecting {
    expected: Option<BlobName>,
    sha256: Hasher,
    /// Two kilobytes that nobody needs otherwise.
    blake3: Option<Box<blake3::Hasher>>,
}

impl Expecting {
    pub(crate) fn new(expected: Option<BlobName>) -> Self {
        let is_blake3 = |name: &BlobName| matches!(name.digest, BlobDigest::Blake3(_));
        Self {
            expected,
            sha256: Hasher::new(),
            blake3: expected.filter(is_blake3).map(|_| Box::default()),
        }
    }

    /// Takes the next piece of content.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        if let Some(blake3) = &mut self.blake3 {
            blake3.update(piece);
        }
    }

    /// What came, `size` bytes of it, if that was expected.
    pub(crate) fn finish(self, size: u64) -> Result<ObjectId, WriteError> {
        let object = ObjectId {
            digest: self.sha256.finish(),
            size,
        };
        let found = match self.blake3 {
            None => object.into(),
            Some(blake3) => BlobName {
                digest: BlobDigest::Blake3(Blake3Digest::from_bytes(blake3.finalize().into())),
                size,
            },
        };
        match self.expected {
            Some(expected) if expected != found => Err(WriteError::Mismatch { expected, found }),
            _ => Ok(object),
        }
    }
}
