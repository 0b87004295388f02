use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use belljar_cas::{BlobSource, DERIVATIONS};
use belljar_core::{ObjectId, bounds};
use belljar_plan::store::Failure;
use belljar_sys::durable;

use crate::failed::Failed;

/// Mode of a mark: who belongs to the group may see it.
const MARK_MODE: u32 = 0o440;

/// Which records of derivations are the store's own: anybody can upload something that looks like one.
/// Each of its own has a mark, an empty file with the record's digest as its name.
pub(crate) struct Records(File);

impl Records {
    /// Those of the store at `root`.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        durable::open_directory(&root.join(DERIVATIONS)).map(Self)
    }

    /// Marks a record, which is durable, as the store's own; durable itself when this returns.
    pub(crate) fn mark(&self, record: ObjectId) -> io::Result<()> {
        match durable::create_new(&self.0, &record.digest.to_hex(), MARK_MODE) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // Also where it was there before: who made it may not have come to this point yet.
            _ => self.0.sync_all(),
        }
    }

    /// The encoding of a record of the store's own, verified.
    pub(crate) fn read(
        &self,
        source: &dyn BlobSource,
        record: ObjectId,
    ) -> Result<Vec<u8>, Failed> {
        let failed = |doing: &str, error: &io::Error| Failed::internal(doing, error);
        match durable::open_regular(&self.0, &record.digest.to_hex()) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failed {
                    class: Failure::Missing,
                    why: format!("{record} is no record of a derivation that this store made"),
                });
            }
            Err(error) => return Err(failed("looking for the mark of a record", &error)),
        }
        if record.size > bounds::DERIVATION_BYTES as u64 {
            return Err(Failed::refused(format!(
                "{record} is too large for a record"
            )));
        }
        let mut bytes = Vec::new();
        source
            .read_verified(record)?
            .read_to_end(&mut bytes)
            .map_err(|e| failed("reading the record of a derivation", &e))?;
        Ok(bytes)
    }
}
