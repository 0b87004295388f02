//! `belljar run`: from a source directory to artifacts with their evidence.

mod evidence;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belljar_attest::Verdict;
use belljar_core::{Invalid, Outcome, RelPath};
use belljar_wire::{BuildRecord, Layer, LayerVerdict, ServerInfo};

use crate::cli;
use crate::client::{self, Client};
use crate::error::Error;
use crate::evidence::{LOG, RECORD};
use crate::exit;
use crate::fetch::{self, Output};
use crate::log::Log;
use crate::manifest::Manifest;
use crate::random;
use crate::report::{self, Ended};
use crate::signals::Signals;
use crate::source::{ListedBy, Selection, Sources};
use crate::steps;
use crate::target::Target;
use crate::terminal::{self, Terminal};
use crate::upload;
use crate::watch::Watch;

/// Between two looks at whether other runs still use our processes.
const OTHERS: Duration = Duration::from_millis(100);

/// What is needed before a daemon is.
struct Prepared<'a> {
    dir: &'a Path,
    manifest: Manifest,
    output: Output,
    sources: Arc<Sources>,
}

/// A build that has ended, with what it left brought home.
struct Home {
    build: BuildRecord,
    log: Option<belljar_core::ObjectId>,
    verdict: Option<Verdict>,
    server: ServerInfo,
}

/// Does it. Gives the exit status for how the build ended.
///
/// # Errors
/// Whatever keeps the build from ending, or its artifacts from coming home.
pub(crate) fn run(arguments: &cli::Run, terminal: &mut Terminal) -> Result<u8, Error> {
    let dir = arguments.dir.canonicalize().map_err(|e| {
        Error::Usage(format!(
            "cannot open the source directory {}: {e}",
            arguments.dir.display()
        ))
    })?;
    let prepared = prepare(arguments, &dir, terminal)?;
    let target = Target::find_or_start(&arguments.whom)?;
    announce(&target, terminal);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Error::Process("start the runtime", e))?;
    let (done, alone) = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|e| Error::Process("listen for signals", e))?;
        let done = build(prepared, &target, arguments.json, &mut signals, terminal).await;
        Ok::<_, Error>((done, alone(&target, &mut signals, terminal).await))
    })?;
    // In this order: no other run can begin to use what is just ending.
    drop(target);
    drop(alone);
    done
}

/// Reads and hashes what is to be built.
fn prepare<'a>(
    arguments: &cli::Run,
    dir: &'a Path,
    terminal: &mut Terminal,
) -> Result<Prepared<'a>, Error> {
    let manifest = Manifest::load(dir)?;
    let output = Output::open(&arguments.output)?;
    let below = place_of(output.path(), dir)?;
    let sources = Sources::collect(Selection {
        dir,
        output: below.as_ref(),
        ask_git: !arguments.no_git,
    })?;
    let how = match sources.listed_by {
        ListedBy::Git => "as git lists them",
        ListedBy::Walk => "everything that is there",
    };
    terminal.phase(&format!(
        "source files: {} ({how}), tree {}",
        sources.files.len(),
        sources.tree.digest
    ));
    Ok(Prepared {
        dir,
        manifest,
        output,
        sources: Arc::new(sources),
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

fn announce(target: &Target, terminal: &mut Terminal) {
    match target.floor() {
        None => terminal.phase(&format!(
            "asking the daemon at {}",
            target.socket().display()
        )),
        Some(floor) => terminal.phase(&format!(
            "started Belljar's processes, with the cgroup floor `{floor}`"
        )),
    }
}

/// Waits until no other run uses processes of our own, or a signal comes. What is given keeps others out.
async fn alone(
    target: &Target,
    signals: &mut Signals,
    terminal: &mut Terminal,
) -> Option<std::fs::File> {
    let Target::Own(embedded) = target else {
        return None;
    };
    let mut told = false;
    loop {
        // Without the lock the processes end all the same: somebody else's build is then found again at the next start.
        if let Some(lock) = embedded.is_alone().ok()? {
            return Some(lock);
        }
        if !std::mem::replace(&mut told, true) {
            terminal.note("another `belljar run` uses these processes; waiting for it to end (interrupt not to)");
        }
        tokio::select! {
            () = tokio::time::sleep(OTHERS) => {}
            () = signals.next() => return None,
        }
    }
}

async fn build(
    prepared: Prepared<'_>,
    target: &Target,
    json: bool,
    signals: &mut Signals,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let client = Client::connect(target.socket()).await?;
    let (server, submitted) = tokio::select! {
        submitted = submit(&client, &prepared, terminal) => submitted?,
        () = signals.next() => return Err(Error::Interrupted),
    };
    let (staged_log, log_file) = prepared.output.file()?;
    let mut log = Log::new(log_file);
    let build = Watch::new(&client, terminal, signals, &mut log, submitted)
        .until_ended()
        .await?;
    let (_, log) = log.finish().await?;
    let log = log.filter(|kept| build.evidence.log.is_none_or(|due| due == *kept));
    if log.is_none() {
        terminal.note("build.log is not complete: pieces of the log did not come");
    }
    let (output, dir) = (&prepared.output, prepared.dir);
    output.place(staged_log, &name(LOG)?)?;
    let home = tokio::select! {
        home = bring_home(&client, output, Home { build, log, verdict: None, server }, terminal) => home?,
        () = signals.next() => return Err(Error::InterruptedAfter),
    };
    let ended = Ended {
        dir,
        sources: &prepared.sources,
        build: &home.build,
        log: home.log,
        verdict: home.verdict.as_ref(),
        output: output.path(),
        server: &home.server,
        target,
    };
    conclude(&ended, output, json)
}

/// Looks at the daemon, sends what it lacks, and submits.
async fn submit(
    client: &Client,
    prepared: &Prepared<'_>,
    terminal: &mut Terminal,
) -> Result<(ServerInfo, BuildRecord), Error> {
    let server = client.server_info().await?;
    if !server.can_build {
        return Err(Error::HostLacks(server.layers));
    }
    let lowered = |layer: &&Layer| layer.verdict == LayerVerdict::Lowered;
    for layer in server.layers.iter().filter(lowered) {
        let builders = server.builder_ids.join(" or ");
        terminal.note(&format!(
            "{} is lowered ({}): provenance names the builder {builders}",
            layer.name, layer.found
        ));
    }
    let uploaded = upload::upload(client, &prepared.sources).await?;
    terminal.phase(&format!(
        "uploaded {} of {} blobs ({} bytes); the rest was there",
        uploaded.blobs, uploaded.of, uploaded.bytes
    ));
    let manifest = prepared.manifest.clone();
    let spec = manifest
        .spec(prepared.sources.tree, &server.default_limits)
        .map_err(|e| client::Error::answer("reading the server's limits", e))?;
    let request_id =
        random::request_id().map_err(|e| client::Error::answer("choosing a request id", e))?;
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

/// Fetches artifacts and evidence of a build that succeeded, and verifies one against the other.
async fn bring_home(
    client: &Client,
    output: &Output,
    mut home: Home,
    terminal: &mut Terminal,
) -> Result<Home, Error> {
    let build = &home.build;
    if build.outcome.as_ref().is_some_and(Outcome::is_success) {
        let roots = fetch::roots(&build.spec.outputs, &build.artifacts)?;
        fetch::artifacts(client, output, &roots, &build.artifacts).await?;
        terminal.phase(&format!(
            "artifacts: {}, in {}",
            build.artifacts.len(),
            output.path().display()
        ));
        let verdict = evidence::bring_home(client, output, build, &home.server, &roots).await?;
        terminal.phase("the provenance was verified against them");
        home.verdict = Some(verdict);
    }
    Ok(home)
}

/// Writes the record, and tells how it ended.
fn conclude(ended: &Ended<'_>, output: &Output, json: bool) -> Result<u8, Error> {
    let report = report::Run::new(ended);
    let mut record = crate::json(&report, true)?;
    record.push('\n');
    output.write(&name(RECORD)?, record.as_bytes())?;
    let outcome = ended.build.outcome.as_ref();
    let text = if json {
        crate::json(&report, false)?
    } else {
        summary(ended)
    };
    terminal::result(&text).map_err(|e| Error::Process("write to standard output", e))?;
    Ok(outcome.map_or(exit::INFRASTRUCTURE, exit::of_outcome))
}

/// The end of a build, for people.
fn summary(ended: &Ended<'_>) -> String {
    let build = ended.build;
    let outcome = build
        .outcome
        .as_ref()
        .map_or_else(String::new, Outcome::to_string);
    let mut lines = vec![format!("{} {outcome}", belljar_wire::build_name(&build.id))];
    lines.extend(steps::lines(&build.spec, &build.steps));
    let out = ended.output.display();
    for (path, object) in fetch::files(&build.artifacts) {
        lines.push(format!(
            "  {path}  {}  {} bytes",
            object.digest, object.size
        ));
    }
    match ended.verdict {
        Some(verdict) => {
            lines.push(format!(
                "built by {}, signed by {}",
                verdict.builder, verdict.key_id
            ));
            lines.push(format!(
                "artifacts, evidence, {LOG} and {RECORD} are in {out}"
            ));
        }
        None => lines.push(format!("{LOG} and {RECORD} are in {out}")),
    }
    terminal::tame(&lines.join("\n"))
}

fn name(text: &str) -> Result<RelPath, Error> {
    RelPath::new(text).map_err(|invalid| Error::Usage(invalid.to_string()))
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
