use std::path::{Path, PathBuf};

use belljar_core::ObjectId;

use crate::{Batch, BlobSink, PendingBlob, Space, WriteError};

/// Takes new objects only while so much room is left: it is for builds that run, whose logs, outputs and
/// evidence go past this.
pub struct Headroom<S> {
    inner: S,
    root: PathBuf,
    reserve: u64,
}

impl<S> Headroom<S> {
    /// Keeps `reserve` bytes of the file system free that `root` lies on.
    pub fn new(inner: S, root: &Path, reserve: u64) -> Self {
        Self {
            inner,
            root: root.to_owned(),
            reserve,
        }
    }
}

impl<S: BlobSink> BlobSink for Headroom<S> {
    fn begin(&self, expected: Option<ObjectId>) -> Result<Box<dyn PendingBlob>, WriteError> {
        let space = Space::of(&self.root).map_err(|source| WriteError::Io {
            doing: "looking how much room there is",
            source,
        })?;
        let needed = expected.map_or(0, |object| object.size);
        if space.available < self.reserve.saturating_add(needed) {
            return Err(WriteError::Reserved {
                needed,
                available: space.available,
                reserve: self.reserve,
            });
        }
        self.inner.begin(expected)
    }

    fn batch(&self) -> Result<Batch, WriteError> {
        self.inner.batch()
    }

    fn keep(&self, batch: Batch) -> Result<(), WriteError> {
        self.inner.keep(batch)
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
            let mut blob = sink.begin(Some(ObjectId::of(content)))?;
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
}
