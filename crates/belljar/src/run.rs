//! `belljar run`: from a source directory to artifacts with their evidence.

use crate::embedded::Purpose;
use crate::error::Error;
use crate::fetch::Output;
use crate::log::Log;
use crate::report::Ended;
use crate::session::{self, Session};
use crate::submission::{self, Prepared};
use crate::target::Target;
use crate::terminal::Terminal;
use crate::watch::Watch;
use crate::{cli, home, manifest};

/// Does it. Gives the exit status for how the build ended.
///
/// # Errors
/// Whatever keeps the build from ending, or its artifacts from coming home.
pub(crate) fn run(arguments: &cli::Run, terminal: &mut Terminal) -> Result<u8, Error> {
    let dir = submission::directory(&arguments.dir)?;
    let manifest = manifest::load(&dir)?;
    let output = Output::open(&arguments.output)?;
    let prepared = submission::prepare(&dir, manifest, output.path(), arguments.no_git, terminal)?;
    let target = Target::find_or_start(&arguments.ask.whom, Purpose::Build)?;
    submission::announce(&target, terminal);
    session::with(
        target,
        arguments.ask.whom.project.as_ref(),
        terminal,
        async |session: &mut Session<'_>| {
            build(&prepared, &output, arguments.ask.json, session).await
        },
    )
}

async fn build(
    prepared: &Prepared<'_>,
    output: &Output,
    json: bool,
    session: &mut Session<'_>,
) -> Result<u8, Error> {
    let Session {
        client,
        target,
        signals,
        terminal,
    } = session;
    let (server, submitted) = tokio::select! {
        submitted = submission::submit(client, prepared, None, terminal) => submitted?,
        () = signals.next() => return Err(Error::Interrupted),
    };
    let (staged_log, log_file) = output.file()?;
    let mut log = Log::new(log_file);
    let build = Watch::new(client, terminal, signals, &mut log, submitted)
        .until_ended()
        .await?;
    let log = log.finish().await?;
    let log = log.filter(|kept| build.evidence.log.is_none_or(|due| due == *kept));
    if log.is_none() {
        terminal.note("build.log is not complete: pieces of the log did not come");
    }
    home::place_log(output, staged_log)?;
    let verdict = tokio::select! {
        brought = home::bring(client, output, &build, &server, terminal) => brought?,
        () = signals.next() => return Err(Error::InterruptedAfter),
    };
    let ended = Ended {
        sources: Some((prepared.dir, &prepared.sources)),
        build: &build,
        log,
        verdict: verdict.as_ref(),
        output: output.path(),
        server: &server,
        target,
    };
    home::conclude(&ended, output, json)
}
