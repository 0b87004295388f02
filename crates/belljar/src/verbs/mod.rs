//! Commands about builds of a daemon, one file each where there is more to it than a question.

mod generate;
mod list;
mod logs;

pub(crate) use generate::{completions, man};
pub(crate) use list::list;
pub(crate) use logs::logs;

use belljar_core::Outcome;
use belljar_wire::{BuildRecord, build_name};

use crate::client::Client;
use crate::embedded::Purpose;
use crate::error::Error;
use crate::fetch::{self, Output};
use crate::log::Log;
use crate::report::{self, Ended};
use crate::session::{self, Session};
use crate::target::Target;
use crate::terminal::{self, Terminal};
use crate::watch::{Watch, doing};
use crate::{cli, exit, home, manifest, submission};

/// `belljar submit`
///
/// # Errors
/// Whatever keeps the build from being accepted.
pub(crate) fn submit(arguments: &cli::Submit, terminal: &mut Terminal) -> Result<u8, Error> {
    let dir = submission::directory(&arguments.dir)?;
    let manifest = manifest::load(&dir)?;
    // It need not be there.
    let output = std::path::absolute(&arguments.output).unwrap_or_default();
    let output = output.canonicalize().unwrap_or(output);
    let prepared = submission::prepare(&dir, manifest, &output, arguments.no_git, terminal)?;
    let target = Target::find(&arguments.ask.whom)?;
    submission::announce(&target, terminal);
    session::with(
        target,
        arguments.ask.whom.project.as_ref(),
        terminal,
        async |session: &mut Session<'_>| {
            let request_id = arguments.request_id.as_ref();
            let (client, terminal) = (&session.client, &mut *session.terminal);
            let (_, build) = tokio::select! {
                submitted = submission::submit(client, &prepared, request_id, terminal) => submitted?,
                () = session.signals.next() => return Err(Error::Interrupted),
            };
            let text = if arguments.ask.json {
                let socket = session.target.name();
                crate::json(&report::Submitted::new(&build, socket)?, false)?
            } else {
                build_name(&build.id)
            };
            print(&text)?;
            Ok(exit::SUCCESS)
        },
    )
}

/// `belljar watch`
///
/// # Errors
/// When the build cannot be followed to its end.
pub(crate) fn watch(arguments: &cli::Watch, terminal: &mut Terminal) -> Result<u8, Error> {
    let target = Target::find_or_start(&arguments.ask.whom, Purpose::Build)?;
    session::with(
        target,
        arguments.ask.whom.project.as_ref(),
        terminal,
        async |session: &mut Session<'_>| {
            let now = tokio::select! {
                now = session.client.get(&arguments.build) => now?,
                () = session.signals.next() => return Err(Error::Stopped),
            };
            let mut log = Log::passing();
            let Session {
                client,
                signals,
                terminal,
                ..
            } = session;
            let build = Watch::new(client, terminal, signals, &mut log, now)
                .looking_on()
                .until_ended()
                .await?;
            print(&told(&build, arguments.ask.json, &ending(&build))?)?;
            Ok(of(&build))
        },
    )
}

/// `belljar show`
///
/// # Errors
/// When the daemon does not tell.
pub(crate) fn show(arguments: &cli::Show, terminal: &mut Terminal) -> Result<u8, Error> {
    session::ask(
        &arguments.ask.whom,
        terminal,
        async |client: &Client, _: &mut Terminal| {
            let build = client.get(&arguments.build).await?;
            print(&told(&build, arguments.ask.json, &described(&build)?)?)?;
            Ok(exit::SUCCESS)
        },
    )
}

/// `belljar cancel`
///
/// # Errors
/// When the daemon does not take the wish.
pub(crate) fn cancel(arguments: &cli::Cancel, terminal: &mut Terminal) -> Result<u8, Error> {
    session::ask(
        &arguments.ask.whom,
        terminal,
        async |client: &Client, _: &mut Terminal| {
            let build = client.cancel(&arguments.build, &arguments.reason).await?;
            let said = match &build.outcome {
                Some(_) => ending(&build),
                None => format!(
                    "{}: its end was asked for; now: {}",
                    build_name(&build.id),
                    doing(build.state)
                ),
            };
            print(&told(&build, arguments.ask.json, &said)?)?;
            Ok(exit::SUCCESS)
        },
    )
}

/// `belljar fetch`
///
/// # Errors
/// Whatever keeps artifacts and evidence from coming home.
pub(crate) fn fetch(arguments: &cli::Fetch, terminal: &mut Terminal) -> Result<u8, Error> {
    let target = Target::find_or_start(&arguments.ask.whom, Purpose::Ask)?;
    session::with(
        target,
        arguments.ask.whom.project.as_ref(),
        terminal,
        async |session: &mut Session<'_>| {
            let Session {
                client,
                target,
                signals,
                terminal,
            } = session;
            tokio::select! {
                fetched = bring(arguments, client, target, terminal) => fetched,
                () = signals.next() => Err(Error::InterruptedAfter),
            }
        },
    )
}

async fn bring(
    arguments: &cli::Fetch,
    client: &Client,
    target: &Target,
    terminal: &mut Terminal,
) -> Result<u8, Error> {
    let build = client.get(&arguments.build).await?;
    if build.outcome.is_none() {
        return Err(Error::NotEnded(build.id, build.state));
    }
    let server = client.server_info().await?;
    let output = Output::open(&arguments.output)?;
    let client = &client.of(&build.project);
    let log = home::log(client, &output, build.evidence.log).await?;
    let verdict = home::bring(client, &output, &build, &server, terminal).await?;
    let ended = Ended {
        sources: None,
        build: &build,
        log,
        verdict: verdict.as_ref(),
        output: output.path(),
        server: &server,
        target,
    };
    home::conclude(&ended, &output, arguments.ask.json)
}

/// The exit status for how a build ended.
fn of(build: &BuildRecord) -> u8 {
    build
        .outcome
        .as_ref()
        .map_or(exit::INFRASTRUCTURE, exit::of_outcome)
}

/// One build as JSON, or in these words.
fn told(build: &BuildRecord, json: bool, words: &str) -> Result<String, Error> {
    match json {
        true => crate::json(&report::Build::new(build), false),
        false => Ok(words.to_owned()),
    }
}

/// How a build ended, in words.
fn ending(build: &BuildRecord) -> String {
    let outcome = build.outcome.as_ref().map(Outcome::to_string);
    format!(
        "{} {}",
        build_name(&build.id),
        terminal::line(outcome.as_deref().unwrap_or(doing(build.state)))
    )
}

/// Everything about a build, in words.
fn described(build: &BuildRecord) -> Result<String, Error> {
    let time = |time: Option<belljar_core::Timestamp>| {
        time.map_or_else(|| "not yet".to_owned(), |time| time.to_string())
    };
    let spec = build.spec.digest();
    let spec = spec.map_err(|e| crate::client::Error::answer("reading the build", e))?;
    let mut rows = vec![
        ("state", build.state.name().to_ascii_lowercase()),
        ("attempt", build.attempt.to_string()),
        ("submitter", build.submitter.clone()),
        ("request id", build.request_id.to_string()),
        ("created", build.created.to_string()),
        ("started", time(build.started)),
        ("ended", time(build.ended)),
        ("specification", spec.to_string()),
        ("source tree", build.spec.source.digest.to_string()),
    ];
    if let Some(outcome) = &build.outcome {
        rows.insert(1, ("outcome", outcome.to_string()));
    }
    for step in build.spec.run.iter() {
        rows.push(("step", step.as_str().to_owned()));
    }
    for (path, object) in fetch::files(&build.artifacts) {
        let said = format!("{path}  {}  {} bytes", object.digest, object.size);
        rows.push(("artifact", said));
    }
    for (path, tree) in report::directories(&build.artifacts) {
        rows.push((
            "artifact",
            format!("{path}/  {}  a directory", tree.root.digest),
        ));
    }
    let evidence = &build.evidence;
    let objects = [
        ("bundle", evidence.bundle),
        ("receipt", evidence.receipt),
        ("its bundle", evidence.receipt_bundle),
        ("plan", evidence.plan),
        ("audit trail", evidence.audit_trail),
        ("log", evidence.log),
    ];
    for (what, object) in objects {
        rows.extend(object.map(|object| (what, object.digest.to_string())));
    }
    rows.extend(evidence.key_id.clone().map(|key| ("signed by", key)));
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(what, said)| format!("{what:14} {}", said.replace('\n', "\n               ")))
        .collect();
    Ok(format!("{}\n{}", build_name(&build.id), rows.join("\n")))
}

/// Writes a command's result.
fn print(text: &str) -> Result<(), Error> {
    terminal::result(text).map_err(|e| Error::Process("write to standard output", e))
}
