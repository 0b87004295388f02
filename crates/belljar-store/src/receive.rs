use belljar_cas::BlobSink;
use belljar_core::{Digest, bounds};
use belljar_plan::store::{Answer, Failure};

use crate::channel::{Broken, Channel};
use crate::failed::Failed;

/// Takes content of which at most the digest is known, and answers when it is durable. It gets a name when it has that
/// digest, if one is due; else it is gone when this returns.
pub(crate) fn receive(
    channel: &mut Channel,
    sink: &dyn BlobSink,
    digest: Option<Digest>,
    most: u64,
) -> Result<(), Broken> {
    let begun = sink
        .batch()
        .and_then(|batch| Ok((batch, sink.begin(None)?)));
    let (mut batch, blob) = match begun {
        Ok(begun) => begun,
        Err(error) => return channel.answer(&Failed::from(error).into()),
    };
    channel.answer(&Answer::Receiving {})?;
    let (mut left, mut pending) = (most.min(bounds::BLOB_BYTES), Ok(blob));
    while let Some(piece) = channel.piece_or_end()? {
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
            Broken::Refused(Failed {
                class: Failure::Content,
                why: format!("more content came than the {most} bytes that may"),
            })
        })?;
        if let Ok(blob) = &mut pending
            && let Err(error) = blob.write(piece)
        {
            pending = Err(Failed::from(error));
        }
    }
    // Neither durable nor named before it is kept.
    let sealed = pending.and_then(|blob| blob.finish_into(&mut batch).map_err(Failed::from));
    let kept = sealed.and_then(|object| {
        if let Some(digest) = digest.filter(|digest| *digest != object.digest) {
            return Err(Failed {
                class: Failure::Content,
                why: format!("the content is {object}, not {digest}"),
            });
        }
        sink.keep(batch)?;
        Ok(object)
    });
    match kept {
        Ok(object) => channel.answer(&Answer::Received { object }),
        Err(failed) => channel.answer(&failed.into()),
    }
}
