//! `belljar image`: root file systems by digest, under names in a `belljar.lock`; and images that became of builds.

mod debian;
mod files;
mod pull;
mod push;
mod report;
mod send;

use std::path::Path;

use belljar_core::{Input, InputName, Platform};
use belljar_manifest::lock::{self, Image, Origin, Source};
use belljar_manifest::{Lock, Named};
use belljar_wire::DerivedTree;

use crate::cli;
use crate::client::Client;
use crate::embedded::Purpose;
use crate::error::Error;
use crate::session::{self, Session};
use crate::submission;
use crate::target::Target;
use crate::terminal::{self, Terminal, line};
use crate::{exit, manifest};

use files::Parcel;

pub(crate) use pull::pull;
pub(crate) use push::push;
pub(crate) use report::{Images, Imported};

/// What a build of this program can run.
const PLATFORM: Platform = if cfg!(target_arch = "aarch64") {
    Platform::LinuxArm64
} else {
    Platform::LinuxAmd64
};

/// `belljar image import`: sends what is missing, has the tree made, and writes the lock.
///
/// # Errors
/// Whatever keeps it from that; the lock is then as it was.
pub(crate) fn import(arguments: &cli::Import, terminal: &mut Terminal) -> Result<u8, Error> {
    // First what can be seen at once: nobody wants to hear of a bad name after a long upload.
    let name = name(&arguments.to.name)?;
    let file = arguments.file.to_string_lossy();
    belljar_manifest::no_dockerfile(&file).map_err(|e| Error::Usage(format!("{file}: {e}")))?;
    let lock = manifest::load_lock(&arguments.to.lock)?;
    let parcel = Parcel::open(&arguments.file, PLATFORM)?;
    let file = arguments
        .file
        .file_name()
        .unwrap_or(arguments.file.as_os_str());
    let source = Source {
        origin: Origin::File(file.to_string_lossy().into_owned()),
        object: parcel.object(),
    };
    take_in(&arguments.to, name, lock, &parcel, source, terminal)
}

/// `belljar image build-debian`: has mmdebstrap make a root file system, and imports it.
///
/// # Errors
/// As [`import`], and when mmdebstrap is missing or fails.
pub(crate) fn build_debian(
    arguments: &cli::BuildDebian,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let name = name(&arguments.to.name)?;
    let lock = manifest::load_lock(&arguments.to.lock)?;
    let made = debian::build(arguments, terminal)?;
    let parcel = Parcel::open(made.path(), PLATFORM)?;
    let source = Source {
        origin: Origin::File(format!("mmdebstrap {}", made.described())),
        object: parcel.object(),
    };
    take_in(&arguments.to, name, lock, &parcel, source, terminal)
}

/// `belljar image list`: what a lock names.
///
/// # Errors
/// When the lock is not there or cannot be used.
pub(crate) fn list(arguments: &cli::ImageList) -> Result<u8, Error> {
    let path = &arguments.lock;
    // One that is missing is told apart from one that names nothing.
    let lock = manifest::existing_lock(path)?;
    let text = if arguments.json {
        crate::json(&Images::new(path, &lock), false)?
    } else {
        let lines = lock.images().map(|(name, image)| {
            format!(
                "{name}  {}  from {}",
                image.input.tree.digest,
                line(&image.source.origin.to_string())
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

/// Says that an image is not at the daemon, if it is not.
///
/// # Errors
/// That, and what the daemon says.
pub(crate) async fn is_there(client: &Client, input: Input, named: &Named) -> Result<(), Error> {
    let due: Vec<_> = [Some(input.tree), input.derivation]
        .into_iter()
        .flatten()
        .collect();
    if send::missing(client, &due).await?.is_empty() {
        return Ok(());
    }
    Err(Error::NoImage {
        name: named.name.to_string(),
        tree: input.tree.digest,
        from: Box::new(named.origin.clone()),
    })
}

fn name(text: &str) -> Result<InputName, Error> {
    lock::image_name(text).map_err(|invalid| Error::Usage(format!("--name: {invalid}")))
}

fn take_in(
    to: &cli::ImportTo,
    name: InputName,
    lock: Lock,
    parcel: &Parcel,
    source: Source,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let work = async |client: &Client, terminal: &mut Terminal| {
        let derived = derive(client, parcel, terminal).await?;
        Ok((derived, source))
    };
    take(to, name, lock, terminal, work)
}

/// Has the daemon do `work`, and writes what came of it into the lock.
fn take(
    to: &cli::ImportTo,
    name: InputName,
    mut lock: Lock,
    terminal: &mut Terminal,
    work: impl AsyncFnOnce(&Client, &mut Terminal) -> Result<(DerivedTree, Source), Error>,
) -> Result<u8, Error> {
    let target = Target::find_or_start(&to.ask.whom, Purpose::Ask)?;
    submission::announce(&target, terminal);
    let project = to.ask.whom.project.as_ref();
    let work = async |session: &mut Session<'_>| {
        let (client, terminal) = (session.client.clone(), &mut *session.terminal);
        tokio::select! {
            taken = work(&client, terminal) => taken,
            () = session.signals.next() => Err(Error::InterruptedImport),
        }
    };
    let (derived, source) = session::with(target, project, terminal, work)?;
    let image = Image {
        input: derived.input,
        source,
    };
    lock.set(name.clone(), image.clone());
    manifest::save_lock(&to.lock, &lock).map_err(|source| Error::File {
        what: "write",
        path: to.lock.clone(),
        source,
    })?;
    for (what, count) in &derived.dropped {
        terminal.note(&format!("left out: {what} ({count})"));
    }
    let text = if to.ask.json {
        crate::json(&Imported::new(&name, &image, &derived, &to.lock), false)?
    } else {
        summary(&name, &derived, &to.lock)
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(exit::SUCCESS)
}

async fn derive(
    client: &Client,
    parcel: &Parcel,
    terminal: &mut Terminal,
) -> Result<DerivedTree, Error> {
    let sent = send::send(client, &parcel.spans).await?;
    terminal.phase(&format!(
        "{}: uploaded {} of {} blobs ({} bytes)",
        parcel.what,
        sent.blobs,
        parcel.spans.len(),
        sent.bytes
    ));
    let derived = client.derive(&parcel.recipe).await?;
    terminal.phase(&described(&derived));
    Ok(derived)
}

fn described(derived: &DerivedTree) -> String {
    let DerivedTree { entries, bytes, .. } = derived;
    format!("a tree of {entries} entries, {bytes} bytes")
}

fn summary(name: &InputName, derived: &DerivedTree, lock: &Path) -> String {
    let mut lines = vec![format!("tree {}", derived.input.tree.digest)];
    if let Some(derivation) = derived.input.derivation {
        lines.push(format!("derivation {}", derivation.digest));
    }
    lines.push(format!("{} names it: image = \"{name}\"", lock.display()));
    lines.join("\n")
}
