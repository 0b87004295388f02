use belljar_cas::BlobSink;
use belljar_core::{BlobName, Digest, bounds};
use belljar_plan::store::{Answer, Failure, Sender};

use crate::channel::{Broken, Channel};
use crate::failed::Failed;
use crate::partial::{Opening, Partials};

/// Which upload, of what, from where on.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) key: Digest,
    pub(crate) sender: Sender,
    pub(crate) blob: BlobName,
    pub(crate) offset: u64,
}

/// Begins an upload, or goes on with one. Whatever came before the connection breaks stays for a while;
/// content that is refused does not.
pub(crate) fn upload(
    channel: &mut Channel,
    sink: &dyn BlobSink,
    partials: &std::sync::Arc<Partials>,
    asked: Asked,
) -> Result<(), Broken> {
    let blob = asked.blob;
    if blob.size > bounds::BLOB_BYTES {
        return channel.answer(&Answer::from(Failed::from(
            belljar_cas::WriteError::TooLarge,
        )));
    }
    let begin = || sink.begin(Some(blob)).map_err(Failed::from);
    let mut open = match partials.open(asked, begin) {
        Ok(Opening::Here(open)) => open,
        Ok(Opening::Elsewhere { committed }) => {
            return channel.answer(&Answer::Upload {
                committed,
                open: false,
            });
        }
        Err(failed) => return channel.answer(&failed.into()),
    };
    let committed = open.written();
    channel.answer(&Answer::Upload {
        committed,
        open: true,
    })?;
    let mut left = blob.size.saturating_sub(committed);
    while left > 0 {
        let piece = match channel.piece() {
            Ok(piece) => piece,
            Err(broken) => {
                // Whoever sends something else wants nothing kept, or is not well.
                if matches!(broken, Broken::Refused(_)) {
                    open.forget();
                }
                return Err(broken);
            }
        };
        let Some(rest) = left.checked_sub(piece.len() as u64) else {
            open.forget();
            let why = "more content came than was announced".to_owned();
            let class = Failure::Content;
            return Err(Broken::Refused(Failed { class, why }));
        };
        if let Err(failed) = open.write(piece) {
            return Err(Broken::Refused(failed));
        }
        left = rest;
    }
    match open.finish() {
        Ok(object) => channel.answer(&Answer::Received { object }),
        Err(failed) => channel.answer(&failed.into()),
    }
}
