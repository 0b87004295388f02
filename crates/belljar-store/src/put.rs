use belljar_cas::BlobSink;
use belljar_core::{ObjectId, bounds};
use belljar_plan::store::{Answer, Failure};

use crate::channel::{Broken, Channel};
use crate::failed::Failed;

/// Takes the content that follows a `Put` and answers it. When it cannot be kept, the rest is still read
/// and thrown away: the answer comes after the last piece, so that both ends know where they are.
pub(crate) fn put(
    channel: &mut Channel,
    sink: &dyn BlobSink,
    object: ObjectId,
) -> Result<(), Broken> {
    if object.size > bounds::BLOB_BYTES {
        // Not worth reading to its end.
        return Err(Broken::Refused(Failed {
            class: Failure::Content,
            why: format!(
                "{object} is larger than the {} bytes that one object may have",
                bounds::BLOB_BYTES
            ),
        }));
    }
    let mut pending = sink.begin(Some(object.into())).map_err(Failed::from);
    let mut left = object.size;
    while left > 0 {
        let piece = channel.piece()?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            Broken::Refused(Failed {
                class: Failure::Content,
                why: format!("more content came than the {} bytes announced", object.size),
            })
        })?;
        if let Ok(blob) = &mut pending
            && let Err(error) = blob.write(piece)
        {
            pending = Err(error.into());
        }
    }
    match pending.and_then(|blob| blob.finish().map_err(Failed::from)) {
        Ok(_) => channel.answer(&Answer::Stored),
        Err(failed) => channel.answer(&failed.into()),
    }
}
