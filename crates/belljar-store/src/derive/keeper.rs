use belljar_cas::{Batch, BlobSink, PendingBlob};
use belljar_core::ObjectId;

use crate::failed::Failed;

/// Keeps objects in batches.
pub(crate) struct Keeper<'a> {
    sink: &'a dyn BlobSink,
    batch: Batch,
}

impl<'a> Keeper<'a> {
    /// One that has kept nothing.
    pub(crate) fn new(sink: &'a dyn BlobSink) -> Result<Self, Failed> {
        let batch = sink.batch()?;
        Ok(Self { sink, batch })
    }

    /// Adds an object, whose content `write` gives.
    pub(crate) fn put(
        &mut self,
        object: ObjectId,
        write: impl FnOnce(&mut dyn PendingBlob) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        if self.batch.is_full() {
            let full = std::mem::replace(&mut self.batch, self.sink.batch()?);
            self.sink.keep(full)?;
        }
        let mut blob = self.sink.begin(Some(object.into()))?;
        write(&mut *blob)?;
        blob.finish_into(&mut self.batch)?;
        Ok(())
    }

    /// Makes everything durable.
    pub(crate) fn finish(self) -> Result<(), Failed> {
        Ok(self.sink.keep(self.batch)?)
    }
}
