//! What a fetch brought.

use std::io;

use belljar_core::{ObjectId, Unpack};
use belljar_plan::unpack::Said;

use super::archive::{self, Counts, Style};
use super::outlet::{Outlet, Stop};

/// Says what becomes of `content`.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    content: ObjectId,
    unpack: Unpack,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let mut pipe = outlet.need(content)?;
    match unpack {
        Unpack::File { name, executable } => {
            // What is read to its end is known to be the object.
            io::copy(&mut pipe, &mut io::sink())?;
            let (path, object) = (name, content);
            Ok(outlet.say(&Said::Given {
                path,
                object,
                executable,
            })?)
        }
        Unpack::Tar { strip_components } => {
            let style = Style::Stripped(strip_components);
            archive::unpack(outlet, pipe, content.size, style, dropped)
                .map_err(|stop| stop.within("the archive"))
        }
    }
}
