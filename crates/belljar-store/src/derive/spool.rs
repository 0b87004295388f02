use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use belljar_cas::{PendingBlob, Room};
use belljar_core::{Hasher, ObjectId, bounds};

use crate::failed::Failed;

/// Content that came, in one file without a name, until it is known to be wanted: of an archive that is
/// refused in the end nothing is left.
pub(crate) struct Spool {
    file: File,
    room: Room,
    end: u64,
    open: Option<(Hasher, u64)>,
    /// Where the content of each object begins.
    kept: BTreeMap<ObjectId, u64>,
}

impl Spool {
    /// An empty one in `directory`, which leaves `room` to builds that run.
    pub(crate) fn new(directory: &Path, room: Room) -> Result<Self, Failed> {
        let file = tempfile::tempfile_in(directory).map_err(failed)?;
        Ok(Self {
            file,
            room,
            end: 0,
            open: None,
            kept: BTreeMap::new(),
        })
    }

    /// Content begins.
    pub(crate) fn begin(&mut self) {
        self.open = Some((Hasher::new(), self.end));
    }

    /// A piece of what was begun. Gives how many bytes of it came so far.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<u64, Failed> {
        let Some((hasher, begin)) = &mut self.open else {
            return Err(Failed::refused("content came that nobody announced"));
        };
        self.room.before(piece.len() as u64)?;
        self.file.write_all(piece).map_err(failed)?;
        hasher.update(piece);
        self.end += piece.len() as u64;
        Ok(self.end - *begin)
    }

    /// What was begun is complete.
    pub(crate) fn finish(&mut self) -> Result<ObjectId, Failed> {
        let Some((hasher, begin)) = self.open.take() else {
            return Err(Failed::refused("content ended that was not begun"));
        };
        let object = ObjectId {
            digest: hasher.finish(),
            size: self.end - begin,
        };
        self.kept.entry(object).or_insert(begin);
        Ok(object)
    }

    /// Writes the content of `object` out.
    pub(crate) fn copy(&self, object: ObjectId, to: &mut dyn PendingBlob) -> Result<(), Failed> {
        self.each(object, |piece| Ok(to.write(piece)?))
    }

    /// Gives the content of `object`, piece by piece.
    pub(crate) fn each(
        &self,
        object: ObjectId,
        mut take: impl FnMut(&[u8]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let begin = self.kept.get(&object);
        let mut at = *begin.ok_or_else(|| Failed::refused("content that never came"))?;
        let end = at + object.size;
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = &mut buffer[..most.min(bounds::CHUNK_BYTES)];
            self.file.read_exact_at(piece, at).map_err(failed)?;
            take(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failed::full(&error),
        _ => Failed::internal("keeping what was unpacked", &error),
    }
}
