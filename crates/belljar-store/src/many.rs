use belljar_cas::{Batch, BlobSink, PendingBlob};
use belljar_core::{BlobDigest, BlobName, ObjectId, bounds};
use belljar_plan::store::{Answer, Failure, NamedBlob, RefusedBlob};

use crate::channel::{Broken, Channel};
use crate::failed::Failed;

/// Takes the contents that follow a `PutMany` and answers it once: what is not refused is durable. The
/// contents come without gaps, so that one that cannot be kept costs the others nothing.
pub(crate) fn put_many(
    channel: &mut Channel,
    sink: &dyn BlobSink,
    blobs: Vec<BlobName>,
) -> Result<(), Broken> {
    let mut left = checked(&blobs)?;
    let mut taking = Taking::new(sink, blobs)?;
    while left > 0 {
        let piece = channel.piece()?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            Broken::Refused(Failed {
                class: Failure::Content,
                why: "more content came than the blobs have together".to_owned(),
            })
        })?;
        taking.take(piece)?;
    }
    let (refused, named) = taking.finish()?;
    channel.answer(&Answer::Kept { refused, named })
}

/// How many bytes will come.
fn checked(blobs: &[BlobName]) -> Result<u64, Broken> {
    let refused = |why: String| Err(Broken::Refused(Failed::refused(why)));
    if blobs.len() > bounds::DIGESTS_PER_FRAME {
        return refused(format!(
            "{} blobs at once; {} are allowed",
            blobs.len(),
            bounds::DIGESTS_PER_FRAME
        ));
    }
    let sizes = blobs.iter().map(|blob| blob.size);
    let total = sizes.fold(0_u64, u64::saturating_add);
    if total > bounds::BATCH_BYTES as u64 {
        return refused(format!(
            "{total} bytes at once; {} are allowed",
            bounds::BATCH_BYTES
        ));
    }
    Ok(total)
}

/// Blobs as they arrive, one after the other.
struct Taking<'a> {
    sink: &'a dyn BlobSink,
    blobs: Vec<BlobName>,
    /// The one that is arriving.
    current: usize,
    pending: Option<Result<Box<dyn PendingBlob>, Failed>>,
    /// Bytes of it that have not come.
    left: u64,
    batch: Batch,
    /// Those in the batch, and what they are as objects.
    waiting: Vec<(usize, ObjectId)>,
    refused: Vec<RefusedBlob>,
    named: Vec<NamedBlob>,
}

impl<'a> Taking<'a> {
    fn new(sink: &'a dyn BlobSink, blobs: Vec<BlobName>) -> Result<Self, Broken> {
        let mut this = Self {
            sink,
            blobs,
            current: 0,
            pending: None,
            left: 0,
            batch: batch(sink)?,
            waiting: Vec::new(),
            refused: Vec::new(),
            named: Vec::new(),
        };
        this.begin();
        this.pass_complete()?;
        Ok(this)
    }

    fn begin(&mut self) {
        self.pending = self.blobs.get(self.current).map(|blob| {
            self.left = blob.size;
            self.sink.begin(Some(*blob)).map_err(Failed::from)
        });
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), Broken> {
        while !piece.is_empty() {
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let (mine, rest) = piece.split_at(most.min(piece.len()));
            if let Some(Ok(blob)) = &mut self.pending
                && let Err(error) = blob.write(mine)
            {
                self.pending = Some(Err(error.into()));
            }
            self.left -= mine.len() as u64;
            piece = rest;
            self.pass_complete()?;
        }
        Ok(())
    }

    /// Goes on to the first blob that still lacks bytes.
    fn pass_complete(&mut self) -> Result<(), Broken> {
        while self.left == 0
            && let Some(pending) = self.pending.take()
        {
            let finished = pending.and_then(|blob| {
                let finished = blob.finish_into(&mut self.batch);
                finished.map_err(Failed::from)
            });
            match finished {
                Ok(object) => self.waiting.push((self.current, object)),
                Err(failed) => self.refuse(self.current, &failed),
            }
            if self.batch.is_full() {
                self.keep()?;
            }
            self.current += 1;
            self.begin();
        }
        Ok(())
    }

    fn refuse(&mut self, index: usize, failed: &Failed) {
        tracing::debug!(blob = %self.blobs[index], why = failed.why, "a blob was not kept");
        let class = failed.class;
        self.refused.push(RefusedBlob { index, class });
    }

    /// Makes the batch durable and begins another, before the next blob is begun.
    fn keep(&mut self) -> Result<(), Broken> {
        let full = std::mem::replace(&mut self.batch, batch(self.sink)?);
        let waiting = std::mem::take(&mut self.waiting);
        if let Err(error) = self.sink.keep(full) {
            let failed = Failed::from(error);
            tracing::error!(why = failed.why, "a batch of blobs was not kept");
            for (index, _) in waiting {
                self.refuse(index, &failed);
            }
            return Ok(());
        }
        let is_named = |index: usize| !matches!(self.blobs[index].digest, BlobDigest::Sha256(_));
        let named = waiting.into_iter().filter(|(index, _)| is_named(*index));
        let named = named.map(|(index, ObjectId { digest, .. })| NamedBlob { index, digest });
        self.named.extend(named);
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<RefusedBlob>, Vec<NamedBlob>), Broken> {
        self.keep()?;
        Ok((self.refused, self.named))
    }
}

fn batch(sink: &dyn BlobSink) -> Result<Batch, Broken> {
    sink.batch().map_err(|e| Broken::Refused(e.into()))
}
