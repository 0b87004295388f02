//! From a source directory to a build that a daemon has accepted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use belljar_core::{Inputs, Invalid, RelPath, RequestId};
use belljar_manifest::Manifest;
use belljar_wire::{BuildRecord, Layer, LayerVerdict, ServerInfo};

use crate::client::{self, Client};
use crate::deps::{self, Supply};
use crate::error::Error;
use crate::image;
use crate::random;
use crate::source::{self, ListedBy, Memory, Selection, Sources};
use crate::target::Target;
use crate::terminal::Terminal;
use crate::upload;

/// What is to be built, read and hashed: all that can be done before a daemon is needed.
pub(crate) struct Prepared<'a> {
    /// The source directory.
    pub(crate) dir: &'a Path,
    manifest: Manifest,
    /// What is in it.
    pub(crate) sources: Arc<Sources>,
    supplies: Vec<Supply>,
}

/// Reads and hashes what is to be built; `output` is no source.
///
/// # Errors
/// When belljar.toml or the sources cannot be used.
pub(crate) fn prepare<'a>(
    dir: &'a Path,
    manifest: Manifest,
    output: &Path,
    no_git: bool,
    terminal: &mut Terminal,
) -> Result<Prepared<'a>, Error> {
    let below = place_of(output, dir)?;
    let caches = source::caches();
    let memory = caches.as_deref().map(|home| Memory {
        home,
        now: SystemTime::now(),
    });
    let sources = Sources::collect(Selection {
        dir,
        output: below.as_ref(),
        ask_git: !no_git,
        memory,
    })?;
    let how = match sources.listed_by {
        ListedBy::Git => "as git lists them",
        ListedBy::Walk => "everything that is there",
        ListedBy::Lock => "as a lock file names them",
    };
    terminal.phase(&format!(
        "source files: {} ({how}; {} of them read), tree {}",
        sources.files.len(),
        sources.read(),
        sources.tree.digest
    ));
    let supplies = deps::supply(dir, manifest.deps(), &sources, terminal)?;
    Ok(Prepared {
        dir,
        manifest,
        supplies,
        sources: Arc::new(sources),
    })
}

/// The source directory, by its one name.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn directory(dir: &Path) -> Result<std::path::PathBuf, Error> {
    dir.canonicalize().map_err(|e| {
        Error::Usage(format!(
            "cannot open the source directory {}: {e}",
            dir.display()
        ))
    })
}

/// Where the output directory lies below the source directory, if it does.
fn place_of(output: &Path, dir: &Path) -> Result<Option<RelPath>, Error> {
    if dir.starts_with(output) {
        return Err(Error::Usage(format!(
            "--output {} holds the source directory; choose a directory of its own",
            output.display()
        )));
    }
    let Ok(below) = output.strip_prefix(dir) else {
        return Ok(None);
    };
    let place = below
        .to_str()
        .ok_or_else(|| Invalid::new("the path is not UTF-8"))
        .and_then(RelPath::new);
    place
        .map(Some)
        .map_err(|invalid| Error::Usage(format!("--output: {invalid}")))
}

/// Tells a person who will be asked.
pub(crate) fn announce(target: &Target, terminal: &mut Terminal) {
    match target.floor() {
        None => terminal.phase(&format!("asking the daemon at {}", target.name().display())),
        Some(floor) => terminal.phase(&format!(
            "started Belljar's processes, with the cgroup floor `{floor}`"
        )),
    }
}

/// Looks at the daemon, sends what it lacks, and submits: under `request_id`, or a new name.
///
/// # Errors
/// When the daemon refuses, or accepts another build than this one.
pub(crate) async fn submit(
    client: &Client,
    prepared: &Prepared<'_>,
    request_id: Option<&RequestId>,
    terminal: &mut Terminal,
) -> Result<(ServerInfo, BuildRecord), Error> {
    let server = client.server_info().await?;
    if !server.can_build {
        return Err(Error::HostLacks(server.layers));
    }
    let lowered = |layer: &&Layer| layer.verdict == LayerVerdict::Lowered;
    for layer in server.layers.iter().filter(lowered) {
        terminal.note(&format!(
            "{} is lowered ({}): provenance names the development builder, whose id ends in `/builders/dev/v1`",
            layer.name, layer.found
        ));
    }
    for layer in server
        .layers
        .iter()
        .filter(|layer| layer.verdict == LayerVerdict::Missing)
    {
        terminal.note(&format!(
            "{} is missing ({}): the build waits for it",
            layer.name, layer.found
        ));
    }
    let named = [prepared.manifest.image(), prepared.manifest.base()];
    for (input, named) in named.into_iter().flatten() {
        image::is_there(client, input, named).await?;
    }
    let uploaded = upload::upload(client, &prepared.sources).await?;
    terminal.phase(&format!(
        "uploaded {} of {} blobs ({} bytes); the rest was there",
        uploaded.blobs, uploaded.of, uploaded.bytes
    ));
    let inputs = inputs(client, &prepared.supplies, terminal).await?;
    let manifest = prepared.manifest.clone();
    let spec = manifest
        .spec(prepared.sources.tree, inputs, &server.default_limits)
        .map_err(|e| client::Error::answer("reading the server's limits", e))?;
    let request_id = match request_id {
        Some(given) => given.clone(),
        None => {
            random::request_id().map_err(|e| client::Error::answer("choosing a request id", e))?
        }
    };
    let submitted = client.submit(&request_id, &spec).await?;
    if submitted.spec != spec || submitted.request_id != request_id {
        let invalid = Invalid::field(
            "spec",
            "another build was accepted than the one that was submitted",
        );
        return Err(client::Error::answer("submitting the build", invalid).into());
    }
    Ok((server, submitted))
}

/// Sends what the daemon lacks of the packages of lock files, and has inputs made of them.
async fn inputs(
    client: &Client,
    supplies: &[Supply],
    terminal: &mut Terminal,
) -> Result<Inputs, Error> {
    let unusable = |invalid| client::Error::answer("making a tree", invalid);
    let mut inputs = BTreeMap::new();
    for supply in supplies {
        let uploaded = upload::upload(client, &supply.packages).await?;
        terminal.phase(&format!(
            "{}: uploaded {} of {} blobs ({} bytes); having its packages laid out",
            supply.file.path, uploaded.blobs, uploaded.of, uploaded.bytes
        ));
        let made = client.derive(&supply.recipe()).await?;
        let name = supply.file.input().map_err(unusable)?;
        terminal.phase(&format!(
            "{}: {} entries for {}/{name}, tree {}",
            supply.file.path,
            made.entries,
            Inputs::DIR,
            made.input.tree.digest
        ));
        inputs.insert(name, made.input);
    }
    Ok(Inputs::new(inputs).map_err(unusable)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_directory_is_apart_from_the_sources() {
        let place = |output: &str, dir: &str| {
            place_of(Path::new(output), Path::new(dir)).map(|p| p.map(String::from))
        };
        assert_eq!(place("/out", "/src").unwrap(), None);
        assert_eq!(
            place("/src/a/out", "/src").unwrap().as_deref(),
            Some("a/out")
        );
        assert_eq!(place("/srcs", "/src").unwrap(), None);
        assert!(place("/src", "/src").is_err());
        assert!(place("/", "/src").is_err());
    }
}
