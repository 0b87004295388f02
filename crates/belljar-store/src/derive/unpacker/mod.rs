//! The unpacker: a process made for one derivation, which reads hostile archives. It is confined before it
//! reads the first byte: no file can be opened, no program started, memory and CPU time are bounded, and
//! it has one socket. The store believes nothing that it says; the worst that it can do is to lie about
//! what the archive holds, which whoever wrote the archive could do as well.

mod archive;
mod fetched;
mod git;
mod oci;
mod outlet;
mod outputs;
mod packages;
mod stream;
mod zip;
mod zip_directory;

use std::io;
use std::os::fd::AsFd;

use belljar_core::{Recipe, bounds};
use belljar_plan::unpack::{Said, Told};
use belljar_sys::landlock;
use belljar_sys::process;
use belljar_sys::program::{self, Limited};
use belljar_sys::seccomp::{Program, UNPACKER};
use belljar_sys::seqpacket::Connection;

use outlet::{Outlet, Stop};

pub(super) use stream::most_from;

/// Address space of an unpacker, in bytes: decompression and its buffers.
const ADDRESS_SPACE: u64 = 1 << 30;
/// Descriptors of an unpacker: its socket, standard error, one pipe.
const DESCRIPTORS: u64 = 16;

/// The whole life of an unpacker; gives its exit status.
pub(super) fn main(connection: &Connection) -> u8 {
    match confine(connection).and_then(|()| work(connection)) {
        Ok(()) => 0,
        Err(error) => {
            tracing::warn!(%error, "an unpacker failed");
            1
        }
    }
}

fn confine(connection: &Connection) -> io::Result<()> {
    process::die_with_parent()?;
    let error = io::stderr();
    program::close_others(&[error.as_fd(), connection.as_fd()])?;
    // One byte, and not none: a core that is piped to a program is made whatever the limit, but for 1.
    program::lower_limit(Limited::Core, 1)?;
    program::lower_limit(Limited::AddressSpace, ADDRESS_SPACE)?;
    program::lower_limit(Limited::OpenFiles, DESCRIPTORS)?;
    program::lower_limit(Limited::CpuSeconds, bounds::DERIVATION_SECONDS)?;
    landlock::restrict(&[])?;
    Program::compile(&UNPACKER)?.install()
}

/// Takes its order and carries it out.
///
/// # Errors
/// When the store is gone, or the machine in trouble. That nothing can be made of an archive is said.
pub(crate) fn work(connection: &Connection) -> io::Result<()> {
    let outlet = Outlet::new(connection);
    let done = match outlet.told()? {
        (Told::Unpack { recipe }, None) => unpack(&outlet, recipe),
        _ => return Err(io::Error::other("an order was due")),
    };
    match done {
        Ok(()) => Ok(outlet.say(&Said::End {})?),
        Err(Stop::Refused(mut why)) => {
            // Names in it are as long as an archive likes; a message is not.
            why.truncate(why.floor_char_boundary(bounds::REASON_BYTES));
            Ok(outlet.say(&Said::Refused { why })?)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn unpack(outlet: &Outlet<'_>, recipe: Recipe) -> Result<(), Stop> {
    let mut dropped = archive::Counts::default();
    match recipe {
        Recipe::Tar { archive } => {
            let content = outlet.need(archive)?;
            let style = archive::Style::Plain;
            archive::unpack(outlet, content, archive.size, style, &mut dropped)
                .map_err(|stop| stop.within("the archive"))?;
        }
        Recipe::Fetched { content, unpack }
        | Recipe::Artifact {
            content, unpack, ..
        } => {
            fetched::unpack(outlet, content, unpack, &mut dropped)?;
        }
        Recipe::OutputDirectory {
            receipt, output, ..
        } => {
            outputs::unpack(outlet, receipt, &output).map_err(|stop| stop.within("the receipt"))?
        }
        Recipe::Oci { index, platform } => {
            oci::unpack(outlet, index, platform, &mut dropped)
                .map_err(|stop| stop.within("the image"))?;
        }
        Recipe::Pulled {
            image, platform, ..
        } => {
            oci::unpack_named(outlet, image, platform, &mut dropped)
                .map_err(|stop| stop.within("the image"))?;
        }
        Recipe::Git {
            commit,
            pack,
            submodules,
        } => git::unpack(outlet, commit, pack, &submodules)?,
        Recipe::CargoLock { lock, packages } => {
            packages::of_cargo(outlet, lock, packages, &mut dropped)?;
        }
        Recipe::NpmLock { lock, packages } => packages::of_npm(outlet, lock, packages)?,
    }
    for (what, count) in dropped.0 {
        outlet.say(&Said::Dropped { what, count })?;
    }
    Ok(())
}
