//! A directory that an earlier build has left.

use std::collections::BTreeSet;
use std::io;

use belljar_core::{ObjectId, RelPath, bounds};
use belljar_plan::unpack::Said;
use belljar_plan::{OutputKind, Receipt};

use super::outlet::{Outlet, Stop};

/// Says what stands in the directory `output` by a receipt.
pub(super) fn unpack(outlet: &Outlet<'_>, receipt: ObjectId, output: &RelPath) -> Result<(), Stop> {
    let bytes = outlet.document(receipt, bounds::RECEIPT_BYTES as u64)?;
    let receipt = Receipt::from_canonical(&bytes)
        .map_err(|e| Stop::Refused(format!("cannot be read: {e}")))?;
    let is_there = receipt
        .outputs
        .iter()
        .any(|entry| entry.path == *output && entry.kind == OutputKind::Directory);
    if !is_there {
        let why = format!("has no directory `{output}` among its outputs");
        return Err(Stop::Refused(why));
    }
    let mut read = BTreeSet::new();
    for entry in receipt.outputs {
        let Some(below) = entry.path.below(output) else {
            continue;
        };
        match entry.kind {
            OutputKind::File {
                object, executable, ..
            } => {
                // What is read to its end is known to be the object; once is enough.
                if read.insert(object) {
                    io::copy(&mut outlet.need(object)?, &mut io::sink())?;
                }
                outlet.say(&Said::Given {
                    path: below,
                    object,
                    executable,
                })?;
            }
            OutputKind::Symlink { target } => outlet.say(&Said::Symlink {
                path: below,
                target,
            })?,
            OutputKind::Directory => outlet.say(&Said::Directory { path: below })?,
        }
    }
    Ok(())
}
