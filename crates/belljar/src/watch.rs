//! Following a build to its end: states, the live log, and a person's wish to stop.

use std::time::Duration;

use belljar_core::{BuildId, Invalid, bounds};
use belljar_wire::v1::watch_build_response::Event;
use belljar_wire::{BuildRecord, BuildState, Problem, Reason, build_name, v1};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::{self, Client, record};
use crate::log::{self, Log};
use crate::signals::Signals;
use crate::terminal::Terminal;

const WATCHING: &str = "following the build";
/// How long a lost daemon may be away: it continues its builds when it comes back.
const RECONNECT: Duration = Duration::from_secs(30);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a build could not be followed to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon said no, or was lost for too long.
    #[error(transparent)]
    Daemon(#[from] client::Error),
    /// The log could not be kept.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A second signal came before the build had ended.
    #[error("gave up before the build had ended; its last state was {0:?}")]
    GaveUp(BuildState),
}

/// One build that is being followed.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    terminal: &'a mut Terminal,
    signals: &'a mut Signals,
    log: &'a mut Log,
    latest: BuildRecord,
    /// Whether the end was asked for.
    cancelling: bool,
}

impl<'a> Watch<'a> {
    /// Begins with the build as it was submitted.
    pub(crate) fn new(
        client: &'a Client,
        terminal: &'a mut Terminal,
        signals: &'a mut Signals,
        log: &'a mut Log,
        submitted: BuildRecord,
    ) -> Self {
        Self {
            client,
            terminal,
            signals,
            log,
            latest: submitted,
            cancelling: false,
        }
    }

    /// Follows the build until it has ended and its log is complete. The first signal cancels it; the second
    /// gives up.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn until_ended(mut self) -> Result<BuildRecord, Error> {
        self.terminal.phase(&format!(
            "{} {}",
            build_name(&self.latest.id),
            word(&self.latest)
        ));
        let mut lost: Option<Instant> = None;
        loop {
            let before = self.progress();
            match self.follow().await {
                Ok(()) if self.latest.state == BuildState::Ended => return Ok(self.latest),
                Ok(()) => {
                    let invalid = Invalid::new("the stream ended before the build did");
                    return Err(client::Error::answer(WATCHING, invalid).into());
                }
                Err(Stopped::For(error)) => return Err(error),
                Err(Stopped::By(status)) => {
                    if self.progress() != before {
                        lost = None;
                    }
                    let since = *lost.get_or_insert_with(Instant::now);
                    if !passing(&status) || since.elapsed() > RECONNECT {
                        return Err(client::Error::call(WATCHING, &status).into());
                    }
                    if since.elapsed() < PAUSE {
                        self.terminal
                            .note("the daemon does not answer; trying again");
                    }
                    self.pause().await?;
                }
            }
        }
    }

    /// What tells whether anything has come since.
    fn progress(&self) -> (u64, u64) {
        (self.latest.sequence, self.log.bytes())
    }

    /// Follows one stream until it ends.
    async fn follow(&mut self) -> Result<(), Stopped> {
        let request = v1::WatchBuildRequest {
            name: build_name(&self.latest.id),
            after_sequence: i64::try_from(self.latest.sequence).unwrap_or(i64::MAX),
            log_position: self.log.position(),
        };
        let mut stream = self.client.watch(request).await.map_err(Stopped::By)?;
        loop {
            tokio::select! {
                message = stream.message() => match message.map_err(Stopped::By)?.map(|message| message.event) {
                    None => return Ok(()),
                    Some(event) => self.take(event).await?,
                },
                () = self.signals.next() => self.stop().await?,
            }
        }
    }

    async fn take(&mut self, event: Option<Event>) -> Result<(), Error> {
        match event {
            Some(Event::Build(build)) => {
                let build = record(WATCHING, build)?;
                if build.id != self.latest.id {
                    return Err(client::Error::answer(
                        WATCHING,
                        Invalid::field("name", "another build"),
                    )
                    .into());
                }
                if (build.state, build.attempt) != (self.latest.state, self.latest.attempt) {
                    self.terminal.phase(&word(&build));
                }
                self.latest = build;
            }
            Some(Event::LogChunk(chunk)) => {
                let new = self.log.take(&chunk, &self.latest.spec.limits).await?;
                self.terminal.log(if new { &chunk.data } else { &[] });
            }
            // From a later version.
            None => {}
        }
        Ok(())
    }

    /// A signal has come.
    async fn stop(&mut self) -> Result<(), Error> {
        if self.cancelling {
            return Err(Error::GaveUp(self.latest.state));
        }
        self.cancelling = true;
        self.terminal
            .note("cancelling; once more to give up without waiting for the end");
        cancel(self.client, &self.latest.id).await
    }

    async fn pause(&mut self) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => Ok(()),
            // The daemon is away: there is nobody to tell.
            () = self.signals.next() => Err(Error::GaveUp(self.latest.state)),
        }
    }
}

/// Why a stream was left.
enum Stopped {
    /// It failed.
    By(Status),
    /// Something else did.
    For(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::For(error)
    }
}

async fn cancel(client: &Client, build: &BuildId) -> Result<(), Error> {
    match client
        .cancel(build, "interrupted at the command line")
        .await
    {
        // It may just have ended, or the daemon just be away: the stream says what is the case.
        Ok(_) => Ok(()),
        Err(client::Error::Call { problem, .. }) if problem.reason.code() == Code::Unavailable => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a stream that failed like this is worth another try. A connection that breaks in the middle shows
/// as one of these codes.
fn passing(status: &Status) -> bool {
    match Problem::from_status(status).reason {
        Reason::Unavailable => true,
        Reason::Foreign(code) => matches!(
            code,
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        ),
        // A watcher that lagged behind is told to come again.
        Reason::Exhausted => true,
        _ => false,
    }
}

/// Where a build stands, in words.
fn word(build: &BuildRecord) -> String {
    let doing = match build.state {
        BuildState::Queued => "waits for a free slot",
        BuildState::Staging => "inputs are verified and laid out",
        BuildState::Launching => "the sandbox is made and read back",
        BuildState::Running => "runs",
        BuildState::Collecting => "outputs are collected",
        BuildState::Attesting => "provenance is signed",
        BuildState::Publishing => "evidence is published",
        BuildState::Destroying => "the sandbox is destroyed",
        BuildState::Ended => match &build.outcome {
            Some(outcome) => return format!("ended: {outcome}"),
            None => "ended",
        },
    };
    match build.attempt {
        0 | 1 => doing.to_owned(),
        attempt => format!(
            "{doing} (attempt {attempt} of at most {})",
            bounds::ATTEMPTS
        ),
    }
}
