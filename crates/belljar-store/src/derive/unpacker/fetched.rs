//! What a fetch brought.

use std::io;

use belljar_core::{ObjectId, Unpack};
use belljar_plan::unpack::Said;

use super::archive::{self, Counts, Style};
use super::outlet::{Outlet, Stop};
use super::zip;

/// Says what becomes of `content`.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    content: ObjectId,
    unpack: Unpack,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let named = |stop: Stop| stop.within("the archive");
    match unpack {
        Unpack::File { name, executable } => {
            // What is read to its end is known to be the object.
            io::copy(&mut outlet.need(content)?, &mut io::sink())?;
            let (path, object) = (name, content);
            Ok(outlet.say(&Said::Given {
                path,
                object,
                executable,
            })?)
        }
        Unpack::Tar { strip_components } => {
            let pipe = outlet.need(content)?;
            let style = Style::Stripped(strip_components);
            archive::unpack(outlet, pipe, content.size, style, dropped).map_err(named)
        }
        Unpack::Zip { strip_components } => {
            zip::unpack(outlet, content, strip_components, dropped).map_err(named)
        }
    }
}
