use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use belljar_core::bounds;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};

use crate::WriteError;
use crate::writer::failed;

/// What memory and lengths have to be multiples of for `O_DIRECT` (open(2)) nearly everywhere; where it is more, the
/// page cache does.
const ALIGNMENT: usize = 4096;
/// How much of a large object is written before the disk begins with it: so that the disk works while the
/// rest comes, and not only at the end.
const AHEAD_BYTES: u64 = 8 << 20;

/// Where content goes, piece by piece.
pub(crate) enum Destination {
    /// Written while who brings it waits.
    Here(Target),
    /// Written on a thread of its own: the disk takes one piece while the next comes and is hashed.
    Beside(Beside),
    /// It could not be written.
    Failed,
}

/// A thread that writes. It has ended when this is gone, and what nobody wanted to the end takes no more room.
pub(crate) struct Beside {
    pieces: Option<SyncSender<Arc<Piece>>>,
    thread: Option<JoinHandle<io::Result<Target>>>,
}

/// A file that grows.
pub(crate) struct Target {
    file: File,
    written: u64,
    /// Up to where the disk was told to begin.
    begun: u64,
    /// Past the page cache.
    direct: bool,
}

/// Content that was gathered, at most [`bounds::GATHERED_BYTES`] of it.
#[derive(Default)]
pub(crate) struct Piece {
    bytes: Vec<u8>,
    /// Where in it the content begins.
    start: usize,
}

impl Destination {
    pub(crate) fn new(file: File) -> Self {
        Self::Here(Target {
            file,
            written: 0,
            begun: 0,
            direct: false,
        })
    }

    /// Writes on a thread of its own from here on, what is [`Piece::aligned`]; `direct`: and past the page cache, if
    /// the file system can.
    pub(crate) fn go_beside(&mut self, direct: bool) -> Result<(), WriteError> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Here(target) => target.go_beside(direct)?,
            other => other,
        };
        Ok(())
    }

    /// Takes the next piece. An error may be about an earlier one.
    pub(crate) fn write(&mut self, piece: Arc<Piece>) -> Result<(), WriteError> {
        match self {
            Self::Here(target) => {
                let written = target.write(piece.content());
                written.map_err(|e| failed("writing", e))
            }
            Self::Beside(beside) => {
                if beside.give(piece) {
                    return Ok(());
                }
                std::mem::replace(self, Self::Failed).finish().map(drop)
            }
            Self::Failed => Err(stopped()),
        }
    }

    /// The file, with all in it.
    pub(crate) fn finish(self) -> Result<File, WriteError> {
        let target = match self {
            Self::Here(target) => Ok(target),
            Self::Beside(mut beside) => beside.end().ok_or_else(stopped)?,
            Self::Failed => return Err(stopped()),
        };
        Ok(target.map_err(|e| failed("writing", e))?.file)
    }
}

impl Beside {
    /// Waits for room. Whether the thread takes it: if not, it has ended with an error.
    fn give(&self, piece: Arc<Piece>) -> bool {
        let pieces = self.pieces.as_ref();
        pieces.is_some_and(|pieces| pieces.send(piece).is_ok())
    }

    /// Waits until all is written. None if the thread has panicked.
    fn end(&mut self) -> Option<io::Result<Target>> {
        drop(self.pieces.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.end();
    }
}

impl Target {
    fn go_beside(mut self, direct: bool) -> Result<Destination, WriteError> {
        if direct {
            self.direct = set_direct(&self.file, true).is_ok();
        }
        let (pieces, incoming) = sync_channel::<Arc<Piece>>(bounds::WRITTEN_BEHIND);
        let work = move || {
            for piece in incoming {
                self.write(piece.content())?;
            }
            Ok(self)
        };
        let thread = thread::Builder::new().name("disk".to_owned()).spawn(work);
        let thread = thread.map_err(|e| failed("starting a thread", e))?;
        Ok(Destination::Beside(Beside {
            pieces: Some(pieces),
            thread: Some(thread),
        }))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.direct && !piece.len().is_multiple_of(ALIGNMENT) {
            self.go_indirect()?;
        }
        match self.file.write_all_at(piece, self.written) {
            // It wants more than `ALIGNMENT`, or has taken part of the piece only.
            Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => {
                self.go_indirect()?;
                self.file.write_all_at(piece, self.written)?;
            }
            other => other?,
        }
        self.written += piece.len() as u64;
        if let Some(length) = NonZeroU64::new(self.written - self.begun)
            && length.get() >= AHEAD_BYTES
            && !self.direct
        {
            // Begins to write out what is dirty (posix_fadvise(2)), and waits for nothing. Only advice: what
            // counts is the fsync at the end.
            let _ = fadvise(&self.file, self.begun, Some(length), Advice::DontNeed);
            self.begun = self.written;
        }
        Ok(())
    }

    fn go_indirect(&mut self) -> io::Result<()> {
        set_direct(&self.file, false)?;
        self.direct = false;
        Ok(())
    }
}

impl Piece {
    /// One that can be written past the page cache.
    pub(crate) fn aligned() -> Self {
        let mut bytes: Vec<u8> =
            Vec::with_capacity(bounds::GATHERED_BYTES.saturating_add(ALIGNMENT));
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        bytes.resize(start.min(ALIGNMENT), 0);
        Self { bytes, start }
    }

    /// Takes as much as there is room for, and returns the rest.
    pub(crate) fn take<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        let room = bounds::GATHERED_BYTES.saturating_sub(self.content().len());
        let (now, rest) = content.split_at(content.len().min(room));
        self.bytes.extend_from_slice(now);
        rest
    }

    pub(crate) fn is_full(&self) -> bool {
        self.content().len() >= bounds::GATHERED_BYTES
    }

    pub(crate) fn content(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

fn stopped() -> WriteError {
    WriteError::Io {
        doing: "writing",
        source: io::Error::other("content before it could not be written"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn full(byte: u8) -> Arc<Piece> {
        let mut piece = Piece::aligned();
        assert!(piece.take(&vec![byte; bounds::GATHERED_BYTES]).is_empty());
        assert_eq!(piece.take(b"more"), b"more", "there is no room");
        Arc::new(piece)
    }

    #[test]
    fn what_the_disk_does_not_take_is_told_to_who_writes_or_ends() {
        let device = || File::options().write(true).open("/dev/full").unwrap();
        let mut waited = Destination::new(device());
        assert!(matches!(waited.write(full(1)), Err(WriteError::Full(_))));
        let mut beside = Destination::new(device());
        beside.go_beside(true).unwrap();
        let told = (0..100).find_map(|_| beside.write(full(1)).err());
        assert!(matches!(told, Some(WriteError::Full(_))), "{told:?}");
        assert!(matches!(beside.write(full(1)), Err(WriteError::Io { .. })));
        assert!(beside.finish().is_err());
        let mut beside = Destination::new(device());
        beside.go_beside(true).unwrap();
        beside.write(full(1)).unwrap();
        assert!(matches!(beside.finish(), Err(WriteError::Full(_))));
    }

    #[test]
    fn what_goes_past_the_page_cache_is_whole() {
        let mut destination = Destination::new(tempfile::tempfile().unwrap());
        destination.write(full(1)).unwrap();
        destination.go_beside(true).unwrap();
        destination.write(full(2)).unwrap();
        // Neither the place of one nor the length of the other is as a disk wants it.
        let mut odd = Piece::default();
        odd.take(&vec![3; bounds::GATHERED_BYTES]);
        destination.write(Arc::new(odd)).unwrap();
        let mut end = Piece::aligned();
        end.take(b"end");
        destination.write(Arc::new(end)).unwrap();
        let file = destination.finish().unwrap();
        let mut content = vec![0; 3 * bounds::GATHERED_BYTES + 3];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
        let pieces: Vec<&[u8]> = content.chunks(bounds::GATHERED_BYTES).collect();
        assert_eq!(pieces[3], b"end");
        for (piece, byte) in pieces.iter().zip([1, 2, 3]) {
            assert!(piece.iter().all(|b| *b == byte), "{byte}");
        }
    }
}
