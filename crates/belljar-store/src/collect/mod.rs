mod rules;

use std::os::fd::OwnedFd;

use belljar_cas::{Batch, BlobSink, PendingBlob, WriteError};
use belljar_core::{Outputs, Sha512Hasher};
use belljar_plan::store::{Answer, Collected, Refusal, Request};
use belljar_plan::{ImageRecord, OutputEntry};

use crate::channel::{Broken, Channel, WhileCollecting};
use crate::compose::Composer;
use crate::failed::{Failed, printable};

pub(crate) use rules::{Collection, Limits, Rejected};

/// Takes outputs from the collector, has an image made of them if one shall be, and answers, after the last or at the first
/// refusal. `all_read` is called when the last of them has come, before any more is done with them.
///
/// The connection is lent to the collector, which reads no answers: after a refusal its messages are
/// still read, and thrown away, so that it can come to its end. When a request comes instead of one of
/// them, there is no collector any more; the collection is over without an answer, and the request is
/// returned to be served.
pub(crate) fn collect(
    channel: &mut Channel,
    sink: &dyn BlobSink,
    declared: Outputs,
    limits: Limits,
    composer: Option<Composer<'_>>,
    all_read: impl FnOnce(),
) -> Result<Option<(Request, Option<OwnedFd>)>, Broken> {
    let mut work = Work {
        sink,
        rules: Collection::new(declared, limits),
        file: None,
        batch: None,
    };
    let rejected = loop {
        let step = match channel.while_collecting()? {
            WhileCollecting::Request(request, descriptor) => {
                return Ok(Some((request, descriptor)));
            }
            WhileCollecting::Collected(Collected::End) => {
                all_read();
                let all = work.end().and_then(|entries| {
                    let image = composer.map(|composer| composer.compose(&entries));
                    Ok((entries, image.transpose()?))
                });
                answer_all(channel, all)?;
                return Ok(None);
            }
            WhileCollecting::Collected(Collected::Refused { why }) => {
                channel.answer(&Answer::OutputsRefused {
                    why: Refusal::Entry {
                        why: printable(&why),
                    },
                })?;
                return Ok(None);
            }
            WhileCollecting::Collected(message) => work.message(message),
            WhileCollecting::Piece(piece) => work.piece(piece),
        };
        if let Err(rejected) = step {
            break rejected;
        }
    };
    // Whole batches that were kept stay, as objects that nothing refers to; the rest leaves nothing.
    drop(work);
    answer_all(channel, Err(rejected))?;
    discard(channel)
}

struct Work<'a> {
    sink: &'a dyn BlobSink,
    rules: Collection,
    file: Option<PendingFile>,
    /// Complete files that are not durable yet. Made before the first of them is begun.
    batch: Option<Batch>,
}

struct PendingFile {
    blob: Box<dyn PendingBlob>,
    sha512: Sha512Hasher,
}

impl Work<'_> {
    fn message(&mut self, message: Collected) -> Result<(), Rejected> {
        match message {
            Collected::File {
                path,
                executable,
                size,
            } => {
                self.rules.begin_file(path, executable, size)?;
                if self.batch.is_none() {
                    self.batch = Some(self.sink.batch().map_err(kept)?);
                }
                self.file = Some(PendingFile {
                    blob: self.sink.begin(None).map_err(kept)?,
                    sha512: Sha512Hasher::new(),
                });
                Ok(())
            }
            Collected::FileEnd => {
                let (Some(file), Some(mut batch)) = (self.file.take(), self.batch.take()) else {
                    return Err(Rejected::Failed(Failed::refused(
                        "a file ended that was not begun",
                    )));
                };
                let object = file.blob.finish_into(&mut batch).map_err(kept)?;
                if batch.is_full() {
                    self.sink.keep(batch).map_err(kept)?;
                } else {
                    self.batch = Some(batch);
                }
                self.rules.end_file(object, file.sha512.finish())
            }
            Collected::Symlink { path, target } => self.rules.symlink(path, target),
            Collected::Directory { path } => self.rules.directory(path),
            // The caller ends the collection at these.
            Collected::End | Collected::Refused { .. } => Ok(()),
        }
    }

    fn piece(&mut self, piece: &[u8]) -> Result<(), Rejected> {
        self.rules.piece(piece.len())?;
        if let Some(file) = &mut self.file {
            file.blob.write(piece).map_err(kept)?;
            file.sha512.update(piece);
        }
        Ok(())
    }

    /// The entries, when all that they name is durable.
    fn end(self) -> Result<Vec<OutputEntry>, Rejected> {
        let entries = self.rules.end()?;
        if let Some(batch) = self.batch {
            self.sink.keep(batch).map_err(kept)?;
        }
        Ok(entries)
    }
}

fn kept(error: WriteError) -> Rejected {
    Rejected::Failed(error.into())
}

fn answer_all(
    channel: &Channel,
    result: Result<(Vec<OutputEntry>, Option<ImageRecord>), Rejected>,
) -> Result<(), Broken> {
    match result {
        Ok((entries, image)) => {
            for entry in entries {
                channel.answer(&Answer::Output { entry })?;
            }
            if let Some(image) = image {
                channel.answer(&Answer::Image(Box::new(image)))?;
            }
            channel.answer(&Answer::CollectDone)
        }
        Err(Rejected::Outputs(why)) => channel.answer(&Answer::OutputsRefused { why }),
        Err(Rejected::Failed(failed)) => channel.answer(&failed.into()),
    }
}

/// Reads what a collector still sends, up to its last message or the first of somebody else.
fn discard(channel: &mut Channel) -> Result<Option<(Request, Option<OwnedFd>)>, Broken> {
    loop {
        match channel.while_collecting()? {
            WhileCollecting::Request(request, descriptor) => {
                return Ok(Some((request, descriptor)));
            }
            WhileCollecting::Collected(Collected::End | Collected::Refused { .. }) => {
                return Ok(None);
            }
            WhileCollecting::Collected(_) | WhileCollecting::Piece(_) => {}
        }
    }
}
