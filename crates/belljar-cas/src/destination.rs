use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use belljar_core::bounds;
use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};

use crate::WriteError;
use crate::beside::Beside;
use crate::writer::failed;

/// What memory and lengths have to be multiples of for `O_DIRECT` (open(2)) nearly everywhere; where it is more, the
/// page cache does.
const ALIGNMENT: usize = 4096;
/// How much of a large object is written before the disk begins with it: so that the disk works while the
/// rest comes, and not only at the end.
const AHEAD_BYTES: u64 = 8 << 20;
/// What is this large, or was announced to be, goes past the page cache: that would cost more than the disk does, and
/// push out what builds are using.
const DIRECT_BYTES: u64 = 64 << 20;

/// Where content goes, piece by piece.
pub(crate) enum Destination {
    /// Written while who brings it waits.
    Here(Target),
    /// Written on a thread of its own: the disk takes one piece while the next comes and is hashed.
    Beside(Beside<io::Result<Target>>),
    /// It could not be written.
    Failed,
}

/// A file that grows.
pub(crate) struct Target {
    file: File,
    /// How much of it there is: content, and holes for what is nothing but zeros.
    length: u64,
    /// Whether a hole is at its end, of which the file system does not know yet.
    hole: bool,
    /// Up to where the disk was told to begin.
    begun: u64,
    cache: Cache,
}

/// Whether content goes through the page cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    /// As long as it is not large.
    Used,
    Passed,
    /// The file system wants it so.
    Needed,
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
            length: 0,
            hole: false,
            begun: 0,
            cache: Cache::Used,
        })
    }

    /// Writes on a thread of its own from here on, what is [`Piece::aligned`]. `announced`: how much there will be in
    /// all, if anybody knows.
    pub(crate) fn go_beside(&mut self, announced: Option<u64>) -> Result<(), WriteError> {
        *self = match std::mem::replace(self, Self::Failed) {
            Self::Here(target) => target.go_beside(announced)?,
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
            Self::Beside(beside) => beside.end().ok_or_else(stopped)?,
            Self::Failed => return Err(stopped()),
        };
        let file = target.and_then(Target::finish);
        file.map_err(|e| failed("writing", e))
    }
}

impl Target {
    fn go_beside(mut self, announced: Option<u64>) -> Result<Destination, WriteError> {
        if announced.is_some_and(|bytes| bytes >= DIRECT_BYTES) {
            self.pass_cache();
        }
        let beside = Beside::start("disk", move |pieces| {
            for piece in pieces {
                if self.length >= DIRECT_BYTES {
                    self.pass_cache();
                }
                self.write(piece.content())?;
            }
            Ok(self)
        });
        let beside = beside.map_err(|e| failed("starting a thread", e))?;
        Ok(Destination::Beside(beside))
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        self.hole = is_zeros(piece);
        if !self.hole {
            self.write_content(piece)?;
        }
        self.length += piece.len() as u64;
        if let Some(length) = NonZeroU64::new(self.length - self.begun)
            && length.get() >= AHEAD_BYTES
            && self.cache != Cache::Passed
        {
            // Begins to write out what is dirty (posix_fadvise(2)), and waits for nothing. Only advice: what
            // counts is the fsync at the end.
            let _ = fadvise(&self.file, self.begun, Some(length), Advice::DontNeed);
            self.begun = self.length;
        }
        Ok(())
    }

    fn write_content(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.cache == Cache::Passed && !piece.len().is_multiple_of(ALIGNMENT) {
            self.use_cache()?;
        }
        match self.file.write_all_at(piece, self.length) {
            // It wants more than `ALIGNMENT`, or has taken part of the piece only.
            Err(error)
                if self.cache == Cache::Passed && error.kind() == io::ErrorKind::InvalidInput =>
            {
                self.use_cache()?;
                self.file.write_all_at(piece, self.length)
            }
            other => other,
        }
    }

    /// Goes past the page cache from here on, if the file system can.
    fn pass_cache(&mut self) {
        if self.cache == Cache::Used {
            self.cache = match set_direct(&self.file, true) {
                Ok(()) => Cache::Passed,
                Err(_) => Cache::Needed,
            };
        }
    }

    fn use_cache(&mut self) -> io::Result<()> {
        set_direct(&self.file, false)?;
        self.cache = Cache::Needed;
        Ok(())
    }

    /// The file, as long as it is, to be read by anybody.
    fn finish(mut self) -> io::Result<File> {
        if self.cache == Cache::Passed {
            self.use_cache()?;
        }
        if self.hole {
            self.file.set_len(self.length)?;
        }
        Ok(self.file)
    }
}

/// Whether content can be left out of a file: there, it is read as zeros, and takes no room.
fn is_zeros(piece: &[u8]) -> bool {
    const ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];
    let mut blocks = piece.chunks(ALIGNMENT);
    blocks.all(|block| ZEROS.starts_with(block))
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
mod tests;
