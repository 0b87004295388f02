mod hands;
mod rules;

use std::os::fd::OwnedFd;
use std::thread;

use belljar_cas::BlobSink;
use belljar_core::Outputs;
use belljar_plan::store::{Answer, Collected, Refusal, Request};
use belljar_plan::{ImageRecord, OutputEntry};

use crate::channel::{Broken, Channel, WhileCollecting};
use crate::compose::Composer;
use crate::failed::printable;

use hands::Hands;
pub(crate) use rules::{Collection, Limits, Rejected};

/// What comes of a collection.
enum Over {
    /// All that is due came, and is durable.
    All(Vec<OutputEntry>),
    /// The collector says why there is nothing to be taken, and that was its last message.
    Refused(Refusal),
    /// It was refused, and more may come.
    Rejected(Rejected),
    /// It was refused at its end.
    Ended(Rejected),
    /// There is no collector any more.
    Request(Request, Option<OwnedFd>),
}

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
    let over = thread::scope(|scope| {
        let work = Work {
            hands: Hands::new(scope, sink),
            rules: Collection::new(declared, limits),
        };
        work.take(channel, all_read)
    })?;
    let all = match over {
        Over::Request(request, descriptor) => return Ok(Some((request, descriptor))),
        Over::Refused(why) => {
            channel.answer(&Answer::OutputsRefused { why })?;
            return Ok(None);
        }
        Over::Rejected(rejected) => {
            answer_all(channel, Err(rejected))?;
            return discard(channel);
        }
        Over::Ended(rejected) => Err(rejected),
        Over::All(entries) => {
            let image = composer.map(|composer| composer.compose(&entries));
            image.transpose().map(|image| (entries, image))
        }
    };
    answer_all(channel, all)?;
    Ok(None)
}

struct Work<'scope, 'env> {
    rules: Collection,
    hands: Hands<'scope, 'env>,
}

impl Work<'_, '_> {
    /// Takes what comes, to the end. When this returns, what was refused leaves nothing; only whole batches that were
    /// kept before stay, as objects that nothing refers to.
    fn take(mut self, channel: &mut Channel, all_read: impl FnOnce()) -> Result<Over, Broken> {
        loop {
            let step = match channel.while_collecting()? {
                WhileCollecting::Request(request, descriptor) => {
                    return Ok(Over::Request(request, descriptor));
                }
                WhileCollecting::Collected(Collected::End) => {
                    all_read();
                    return Ok(self.end().map_or_else(Over::Ended, Over::All));
                }
                WhileCollecting::Collected(Collected::Refused { why }) => {
                    let why = printable(&why);
                    return Ok(Over::Refused(Refusal::Entry { why }));
                }
                WhileCollecting::Collected(message) => self.message(message),
                WhileCollecting::Piece(piece) => self.piece(piece),
            };
            if let Err(rejected) = step {
                return Ok(Over::Rejected(rejected));
            }
        }
    }

    fn message(&mut self, message: Collected) -> Result<(), Rejected> {
        match message {
            Collected::File {
                path,
                executable,
                size,
            } => self.rules.begin_file(path, executable, size),
            Collected::FileEnd => {
                let number = self.rules.end_file()?;
                self.hands.end_file(number)
            }
            Collected::Symlink { path, target } => self.rules.symlink(path, target),
            Collected::Directory { path } => self.rules.directory(path),
            // The caller ends the collection at these.
            Collected::End | Collected::Refused { .. } => Ok(()),
        }
    }

    fn piece(&mut self, piece: &[u8]) -> Result<(), Rejected> {
        self.rules.piece(piece.len())?;
        self.hands.piece(piece)
    }

    /// The entries, when all that they name is durable.
    fn end(self) -> Result<Vec<OutputEntry>, Rejected> {
        let files = self.rules.is_complete()?;
        self.rules.end(&self.hands.keep(files)?)
    }
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
