use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use belljar_cas::BlobSource;
use belljar_core::{ObjectId, bounds};

use super::stopped::Stopped;
use crate::failed::Failed;

/// How long the thread may take to come to its end after the reader has.
const PATIENCE: Duration = Duration::from_secs(10);

/// An object on its way to an unpacker, through a pipe, verified on the way.
pub(crate) struct Feed {
    object: ObjectId,
    ended: Receiver<io::Result<()>>,
}

/// How a feed ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// All of it was read, and it was what its name says.
    Whole,
    /// Not all of it was read.
    Partly,
}

impl Feed {
    /// Begins to feed; gives the pipe's reading end with it.
    pub(crate) fn start(
        source: &dyn BlobSource,
        object: ObjectId,
    ) -> Result<(Self, OwnedFd), Failed> {
        let content = source.read_verified(object)?;
        let system = |doing: &'static str| move |e: io::Error| Failed::internal(doing, &e);
        let (reader, writer) = io::pipe().map_err(system("making a pipe"))?;
        let (sender, ended) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || {
                // Nobody may wait for it any more.
                let _ = sender.send(copy(content, writer));
            })
            .map_err(system("starting a thread"))?;
        Ok((Self { object, ended }, OwnedFd::from(reader)))
    }

    /// Waits for its end. To be called when the reader has met the end, or is gone.
    pub(crate) fn finish(self) -> Result<Fed, Stopped> {
        match self.ended.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(Fed::Whole),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Fed::Partly),
            Ok(Err(error)) => {
                let failed = Failed::internal(&format!("reading {}", self.object), &error);
                Err(Stopped::Damaged(self.object, failed))
            }
            Err(RecvTimeoutError::Timeout) => Ok(Fed::Partly),
            Err(RecvTimeoutError::Disconnected) => {
                let gone = io::Error::other("the thread is gone");
                Err(Failed::internal("reading", &gone).into())
            }
        }
    }
}

/// The writing end is closed at the end, however it comes: the reader never waits in vain.
fn copy(mut content: impl Read, mut pipe: PipeWriter) -> io::Result<()> {
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            count => pipe.write_all(&buffer[..count])?,
        }
    }
}
