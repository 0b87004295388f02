//! Following a build to its end: states, the live log, and a person's wish to stop.

use belljar_core::{BuildId, Invalid, bounds};
use belljar_wire::v1::watch_build_response::Event;
use belljar_wire::{BuildRecord, BuildState, Problem, Reason, build_name, v1};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::{self, Client, record};
use crate::log::{self, Log};
use crate::patience::{PAUSE, RECONNECT, is_lost};
use crate::signals::Signals;
use crate::steps::{self, Told};
use crate::terminal::Terminal;

const WATCHING: &str = "following the build";

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
    /// A signal came to somebody who only looks on.
    #[error("interrupted; {} goes on", build_name(.0))]
    Left(BuildId),
}

/// One build that is being followed.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    terminal: &'a mut Terminal,
    signals: &'a mut Signals,
    log: &'a mut Log,
    latest: BuildRecord,
    told: Told,
    /// What a signal means.
    upon: Upon,
}

/// What a signal means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upon {
    /// That the build shall end.
    Cancel,
    /// That nobody waits for that end any more.
    GiveUp,
    /// That somebody who did not submit the build stops looking.
    Leave,
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
            told: Told::default(),
            upon: Upon::Cancel,
        }
    }

    /// For somebody who only looks on: a signal ends the looking, not the build.
    pub(crate) fn looking_on(mut self) -> Self {
        self.upon = Upon::Leave;
        self
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
                Ok(()) => return Ok(self.latest),
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
                    None if self.latest.state == BuildState::Ended => return Ok(()),
                    // A daemon that ends in good order closes its streams.
                    None => return Err(Stopped::By(Status::unavailable("the stream ended before the build did"))),
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
            Some(Event::StepStarted(started))
                if self.told.is_new(started.attempt, started.step) =>
            {
                let step = usize::try_from(started.step).unwrap_or(usize::MAX - 1);
                self.terminal
                    .heading(&steps::heading(&self.latest.spec, step));
            }
            Some(Event::StepStarted(_)) => {}
            // From a later version.
            None => {}
        }
        Ok(())
    }

    /// A signal has come.
    async fn stop(&mut self) -> Result<(), Error> {
        match self.upon {
            Upon::Cancel => self.upon = Upon::GiveUp,
            Upon::GiveUp => return Err(Error::GaveUp(self.latest.state)),
            Upon::Leave => return Err(Error::Left(self.latest.id.clone())),
        }
        self.terminal
            .note("cancelling; once more to give up without waiting for the end");
        cancel(self.client, &self.latest.id).await
    }

    async fn pause(&mut self) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => Ok(()),
            // The daemon is away: there is nobody to tell.
            () = self.signals.next() => match self.upon {
                Upon::Leave => Err(Error::Left(self.latest.id.clone())),
                Upon::Cancel | Upon::GiveUp => Err(Error::GaveUp(self.latest.state)),
            },
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

/// Whether a stream that failed like this is worth another try.
pub(crate) fn passing(status: &Status) -> bool {
    // A watcher that lagged behind is told to come again.
    is_lost(status) || Problem::from_status(status).reason == Reason::Exhausted
}

/// Where a build stands, in words.
fn word(build: &BuildRecord) -> String {
    let doing = match build.state {
        BuildState::Ended => match &build.outcome {
            Some(outcome) => return format!("ended: {outcome}"),
            None => "ended",
        },
        state => doing(state),
    };
    match build.attempt {
        0 | 1 => doing.to_owned(),
        attempt => format!(
            "{doing} (attempt {attempt} of at most {})",
            bounds::ATTEMPTS
        ),
    }
}

/// What is done in a state, in words.
pub(crate) fn doing(state: BuildState) -> &'static str {
    match state {
        BuildState::Queued => "waits for a free slot",
        BuildState::Fetching => "what it declares by digest is fetched",
        BuildState::Staging => "inputs are verified and mounted",
        BuildState::Launching => "the sandbox is made and read back",
        BuildState::Running => "runs",
        BuildState::Collecting => "outputs are collected",
        BuildState::Attesting => "provenance is signed",
        BuildState::Publishing => "evidence is published",
        BuildState::Destroying => "the sandbox is destroyed",
        BuildState::Ended => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Daemon, Script};
    use belljar_core::{
        BuildSpec, Image, Inputs, Limits, Network, ObjectId, Outcome, Outputs, RelPath, RequestId,
        Script as Step, Steps, Timestamp,
    };
    use belljar_wire::Evidence;
    use std::collections::BTreeMap;

    fn build(state: BuildState, sequence: u64, attempt: u32) -> BuildRecord {
        BuildRecord {
            id: BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap(),
            request_id: RequestId::new("r").unwrap(),
            spec: BuildSpec {
                image: Image::Host,
                source: ObjectId::of(b""),
                inputs: Inputs::default(),
                fetches: Default::default(),
                image_output: None,
                working_directory: None,
                run: Steps::new(vec![Step::new("make").unwrap()]).unwrap(),
                env: BTreeMap::new(),
                outputs: Outputs::new([RelPath::new("app").unwrap()].into()).unwrap(),
                limits: Limits::DEFAULT,
                network: Network::None,
                source_date_epoch: 0,
            },
            state,
            sequence,
            attempt,
            outcome: (state == BuildState::Ended).then_some(Outcome::Failed {
                step: 0,
                exit_code: 3,
            }),
            artifacts: Vec::new(),
            evidence: Evidence::default(),
            created: Timestamp::from_millis(0),
            started: None,
            ended: None,
            submitter: "unix:uid=0".to_owned(),
            steps: Vec::new(),
            project: Default::default(),
            image: None,
        }
    }

    fn at(state: BuildState, sequence: u64) -> Result<Event, Status> {
        Ok(Event::Build((&build(state, sequence, 1)).into()))
    }

    fn log(offset: i64, data: &str) -> Result<Event, Status> {
        Ok(Event::LogChunk(v1::LogChunk {
            attempt: 1,
            offset,
            data: data.into(),
        }))
    }

    /// Follows a build through these streams. Gives how that ends, the log, and what was asked.
    async fn follow(
        scripts: Vec<Script>,
    ) -> (
        Result<BuildRecord, Error>,
        Option<ObjectId>,
        Vec<v1::WatchBuildRequest>,
    ) {
        let daemon = Daemon::start().await;
        daemon.state.lock().unwrap().scripts = scripts.into();
        let mut kept = Log::new(tempfile::tempfile().unwrap());
        let (mut terminal, mut signals) = (Terminal::new(), Signals::listen().unwrap());
        let submitted = build(BuildState::Queued, 1, 0);
        let watch = Watch::new(
            &daemon.client,
            &mut terminal,
            &mut signals,
            &mut kept,
            submitted,
        );
        let done = watch.until_ended().await;
        let asked = daemon.state.lock().unwrap().watched.clone();
        (done, kept.finish().await.unwrap(), asked)
    }

    #[tokio::test]
    async fn a_broken_stream_is_taken_up_where_it_broke() {
        let lost = || Err(Status::unavailable("gone"));
        let (done, kept, asked) = follow(vec![
            vec![at(BuildState::Running, 4), log(0, "one "), lost()],
            // In good order, and too early all the same.
            vec![],
            vec![log(0, "one "), log(4, "two"), at(BuildState::Ended, 9)],
        ])
        .await;
        assert_eq!(
            done.unwrap().outcome,
            Some(Outcome::Failed {
                step: 0,
                exit_code: 3
            })
        );
        assert_eq!(kept, Some(ObjectId::of(b"one two")));
        assert_eq!(
            asked
                .iter()
                .map(|request| request.after_sequence)
                .collect::<Vec<_>>(),
            [1, 4, 4]
        );
        let places: Vec<_> = asked
            .iter()
            .map(|request| request.log_position.map(|p| (p.attempt, p.offset)))
            .collect();
        assert_eq!(places, [None, Some((1, 4)), Some((1, 4))]);
    }

    #[tokio::test]
    async fn the_log_may_come_after_the_end() {
        let (done, kept, _) = follow(vec![vec![at(BuildState::Ended, 9), log(0, "late")]]).await;
        assert!(done.is_ok());
        assert_eq!(kept, Some(ObjectId::of(b"late")));
    }

    #[tokio::test]
    async fn a_refusal_is_not_asked_again() {
        let (done, _, asked) = follow(vec![vec![Err(Problem::not_found("builds/x").into())]]).await;
        let Err(Error::Daemon(client::Error::Call { problem, .. })) = done else {
            panic!("{done:?}")
        };
        assert_eq!(problem.reason, Reason::NotFound);
        assert_eq!(asked.len(), 1);
    }

    #[tokio::test]
    async fn another_build_is_not_taken_for_ours() {
        let mut other = build(BuildState::Running, 4, 1);
        other.id = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6c").unwrap();
        let (done, ..) = follow(vec![vec![Ok(Event::Build((&other).into()))]]).await;
        assert!(
            matches!(done, Err(Error::Daemon(client::Error::Answer { .. }))),
            "{done:?}"
        );
    }
}
