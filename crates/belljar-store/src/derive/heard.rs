use belljar_core::{Dropped, Fact, Invalid, ObjectId, bounds};
use belljar_plan::unpack::Said;

use super::stopped::{Stopped, foreign, untrue};
use super::{Work, unpacker};

/// What an unpacker says of content.
impl Work<'_> {
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<(), Stopped> {
        if let Some(names) = &mut self.names
            && names.piece(piece).map_err(untrue)?
        {
            return Ok(());
        }
        if !self.assembly.is_open() {
            return Err(foreign(Invalid::new("content came outside a file")));
        }
        self.unpacked = self.unpacked.saturating_add(piece.len() as u64);
        let most = unpacker::most_from(self.packed).min(bounds::TREE_BYTES);
        if self.unpacked > most {
            return Err(Stopped::Refused(format!(
                "more than {most} bytes come out of {}: too much for a tree, or made to fill disks",
                self.packed
            )));
        }
        if self.spool.write(piece)? > bounds::BLOB_BYTES {
            return Err(Stopped::Refused(format!(
                "a file is larger than the {} bytes that one object may have",
                bounds::BLOB_BYTES
            )));
        }
        Ok(())
    }

    pub(super) fn left_out(&mut self, what: Dropped, count: u64) -> Result<(), Stopped> {
        if self.names.is_some() {
            let why = "something was left out of a commit, which has to come whole";
            return Err(untrue(why.to_owned()));
        }
        let sum = self.dropped.entry(what).or_default();
        *sum = sum.saturating_add(count);
        Ok(())
    }

    pub(super) fn fact(&mut self, fact: Fact, bytes: usize) -> Result<(), Stopped> {
        self.fact_bytes = self.fact_bytes.saturating_add(bytes);
        if self.fact_bytes > bounds::FACT_BYTES {
            return Err(Stopped::Refused(
                "there is more to record than a record may hold".to_owned(),
            ));
        }
        if !fact.read_from().iter().all(|one| self.from.contains(one)) {
            return Err(foreign(Invalid::new("a fact about what was not given")));
        }
        if let Some(names) = &mut self.names {
            names.fact(&fact).map_err(untrue)?;
        }
        self.facts.push(fact);
        Ok(())
    }

    /// An object that was fed before is what its name says, unless the derivation fails for it.
    fn given(&mut self, object: ObjectId) -> Result<(), Stopped> {
        if !self.from.contains(&object) {
            return Err(foreign(Invalid::new("a file that was not given")));
        }
        self.unpacked = self.unpacked.saturating_add(object.size);
        if self.unpacked > bounds::TREE_BYTES {
            let why = "more bytes come together than a tree may have";
            return Err(Stopped::Refused(why.to_owned()));
        }
        Ok(())
    }

    pub(super) fn entry(&mut self, said: Said) -> Result<(), Stopped> {
        if let Some(names) = &mut self.names {
            names.hear(&said).map_err(untrue)?;
        }
        let done = match said {
            Said::Layer {} => self.assembly.begin_layer(),
            Said::Directory { path } => self.assembly.directory(path),
            Said::File { path, executable } => {
                self.spool.begin();
                self.assembly.begin_file(path, executable)
            }
            Said::FileEnd {} => return self.end(),
            Said::Commit { .. } if self.names.is_some() => Ok(()),
            Said::Commit { .. } => return Err(foreign(Invalid::new("a commit that is not due"))),
            Said::Given {
                path,
                object,
                executable,
            } => {
                self.given(object)?;
                let begun = self.assembly.begin_file(path, executable);
                begun.and_then(|()| self.assembly.end_file(object))
            }
            Said::Symlink { path, target } => self.assembly.symlink(path, target),
            Said::HardLink { path, target } => self.assembly.hard_link(path, &target),
            Said::Whiteout { path } => self.assembly.whiteout(&path),
            Said::Opaque { path } => self.assembly.opaque(path.as_ref()),
            // Taken by the caller.
            Said::Need { .. }
            | Said::Dropped { .. }
            | Said::Fact { .. }
            | Said::Refused { .. }
            | Said::End {} => Ok(()),
        };
        done.map_err(Stopped::Refused)
    }

    /// The file that was begun is complete, or the commit.
    fn end(&mut self) -> Result<(), Stopped> {
        if let Some(names) = &mut self.names
            && names.end_commit().map_err(untrue)?
        {
            return Ok(());
        }
        let object = self.spool.finish()?;
        if let Some(names) = &mut self.names {
            names.end_file(object, &self.spool)?;
        }
        let ended = self.assembly.end_file(object);
        ended.map_err(Stopped::Refused)
    }
}
