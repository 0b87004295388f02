//! The task of one build: writes down what happened, makes the transition that follows from it durable, then does
//! what that asks for, and hands what came of it to the next. So a crash can leave in the trail what the queue does
//! not know yet, which is told again if it happens again; what the queue knows the trail never lacks.

use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use belljar_audit::AuditEvent;
use belljar_core::{AttemptId, BuildId, Outcome};
use belljar_plan::signer::Asserted;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tracing::Instrument as _;

use crate::driver::RETRY;
use crate::engine::{CancelRequest, Notices};
use crate::life::{Effect, Event, Progress, Stage, step};
use crate::ownership::Ownership;
use crate::ports::{Clock, Ports, Signer, Spawner, Store};
use crate::queue::{Queue, QueueError, Record};
use crate::report::{audit_event, chain, log, trouble};
use crate::trail::{Requested, TrailError, TrailFile};
use crate::{perform, publish};

/// What all tasks share.
pub(crate) struct Shared<S, T, G, C> {
    pub(crate) queue: Queue,
    pub(crate) ownership: Ownership,
    pub(crate) ports: Ports<S, T, G, C>,
    pub(crate) notices: Notices,
    pub(crate) audit: PathBuf,
}

/// One build and its trail.
pub(crate) struct Work<S, T, G, C> {
    shared: Arc<Shared<S, T, G, C>>,
    record: Record,
    /// None before it is opened, and once it turned out to be damaged: then the build can only end.
    trail: Option<TrailFile>,
    kills: JoinSet<()>,
}

/// An effect under way; gives what came of it.
type Pending = Pin<Box<dyn Future<Output = Progress> + Send>>;

/// Why the trail cannot be continued, in a sentence; the build must end.
struct Broken(String);

/// Why there was no transition.
enum Stopped {
    /// The trail.
    Trail(Broken),
    /// The queue refuses it for good.
    Queue(QueueError),
}

impl<S: Spawner, T: Store, G: Signer, C: Clock> Work<S, T, G, C> {
    pub(crate) async fn load(
        shared: Arc<Shared<S, T, G, C>>,
        id: &BuildId,
    ) -> Result<Option<Self>, QueueError> {
        let record = shared.queue.get(id).await?;
        Ok(record.map(|record| Self {
            shared,
            record,
            trail: None,
            kills: JoinSet::new(),
        }))
    }

    /// Goes on with `event` until the build waits again or has ended.
    ///
    /// # Errors
    /// When the queue refuses a transition for good; nothing was done after it.
    pub(crate) async fn run(
        mut self,
        event: Event,
        mut requests: mpsc::Receiver<CancelRequest>,
    ) -> Result<(), QueueError> {
        let mut event = match self.open_trail().await {
            Ok(finished) => finished.map_or(event, |outcome| Event::Finished { outcome }),
            Err(Broken(why)) => Event::Condemned { why },
        };
        let mut pending: Option<Pending> = None;
        let mut reply: Option<oneshot::Sender<Record>> = None;
        loop {
            let effects = match self.advance(event).await {
                Ok(effects) => effects,
                Err(Stopped::Queue(error)) => return Err(error),
                Err(Stopped::Trail(Broken(why))) => {
                    event = Event::Condemned { why };
                    continue;
                }
            };
            match self.begin(effects).await {
                Ok(begun) => pending = begun.or(pending),
                Err(Broken(why)) => {
                    event = Event::Condemned { why };
                    continue;
                }
            }
            if let Some(reply) = reply.take() {
                // Whoever asked may have gone.
                let _ = reply.send(self.record.clone());
            }
            if matches!(self.record.build.stage, Stage::Queued | Stage::Ended { .. }) {
                return Ok(());
            }
            (event, reply) = self.wait(&mut pending, &mut requests).await;
        }
    }

    /// What happens next: the effect under way comes to something, or somebody asks for the end.
    async fn wait(
        &self,
        pending: &mut Option<Pending>,
        requests: &mut mpsc::Receiver<CancelRequest>,
    ) -> (Event, Option<oneshot::Sender<Record>>) {
        let (Some(effect), Some(attempt)) = (pending.as_mut(), self.record.build.attempt.clone())
        else {
            let why = "a defect of the daemon left the build with nothing to wait for".to_owned();
            return (Event::Condemned { why }, None);
        };
        tokio::select! {
            // The effect first: it must have begun before anything can overtake it.
            biased;
            what = effect => {
                *pending = None;
                trouble(&what);
                (Event::Attempt { attempt, what }, None)
            }
            Some(CancelRequest { by, reason, reply }) = requests.recv() => {
                (Event::CancelRequested { by, reason }, Some(reply))
            }
        }
    }

    /// Writes down what has happened, and makes the transition durable and known; gives what is to be done.
    async fn advance(&mut self, event: Event) -> Result<Vec<Effect>, Stopped> {
        let now = self.shared.ports.clock.now();
        let (after, effects) = match step(&self.record.build, event, now) {
            Ok(taken) => taken,
            Err(unexpected) => {
                tracing::warn!(%unexpected, "ignored");
                return Ok(Vec::new());
            }
        };
        if after == self.record.build {
            return Ok(effects);
        }
        let mut asked = Vec::new();
        for effect in effects {
            match effect {
                Effect::Record(fact) => {
                    let event = audit_event(fact, &self.record.submission);
                    self.append(event).await.map_err(Stopped::Trail)?;
                }
                other => asked.push(other),
            }
        }
        let before = &self.record.build;
        while let Err(error) = self.shared.queue.advance(before.sequence, &after).await {
            // A full disk passes; until then nothing happens that is not written down.
            log("a transition cannot be written", &error);
            if !matches!(error, QueueError::Database(_)) {
                return Err(Stopped::Queue(error));
            }
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!(
            build.stage = after.stage.name(),
            sequence = after.sequence,
            "transition"
        );
        self.record.build = after;
        self.shared.notices.tell(&self.record);
        Ok(asked)
    }

    /// Begins what is to be done, in order. At most one effect is waited for; a transition never asks for more.
    async fn begin(&mut self, effects: Vec<Effect>) -> Result<Option<Pending>, Broken> {
        let mut pending: Option<Pending> = None;
        let span = tracing::info_span!("stage", build.stage = self.record.build.stage.name());
        for effect in effects {
            let shared = self.shared.clone();
            let submission = self.record.submission.clone();
            let begun: Pending = match effect {
                // Written down before the transition.
                Effect::Record(_) => continue,
                Effect::Kill { attempt, by } => {
                    self.kills
                        .spawn(perform::kill(shared, attempt, by).instrument(span.clone()));
                    continue;
                }
                Effect::Fetch(attempt) => Box::pin(perform::fetch(shared, submission, attempt)),
                Effect::Stage(attempt) => {
                    let fetched = self.record.build.fetched.clone();
                    Box::pin(perform::stage(shared, submission, attempt, fetched))
                }
                Effect::Launch(attempt) => Box::pin(perform::launch(shared, attempt)),
                Effect::AwaitExit(attempt) => {
                    Box::pin(perform::await_exit(shared, submission, attempt))
                }
                Effect::Collect(attempt) => Box::pin(perform::collect(shared, submission, attempt)),
                Effect::Attest { collected, delay } => {
                    let asserted = self.request_attestation(collected.attempt()).await?;
                    Box::pin(perform::attest(
                        shared, submission, collected, asserted, delay,
                    ))
                }
                Effect::Publish {
                    attempt,
                    publication,
                    delay,
                } => {
                    let trail = self
                        .published_trail(&attempt, publication.bundle.is_some())
                        .await?;
                    let fetched = self.record.build.fetched.clone();
                    Box::pin(publish::publish(
                        shared,
                        submission,
                        attempt,
                        publication,
                        publish::Written { trail, fetched },
                        delay,
                    ))
                }
                Effect::Destroy(attempt) => Box::pin(perform::destroy(shared, attempt)),
            };
            pending = Some(Box::pin(begun.instrument(span.clone())));
        }
        Ok(pending)
    }

    /// Opens the trail; a new one begins with what was decided when the build was accepted. Gives how the build
    /// has ended, if that stands there and the daemon died before it was the build's state.
    async fn open_trail(&mut self) -> Result<Option<Outcome>, Broken> {
        let (directory, id) = (self.shared.audit.clone(), self.record.build.id.clone());
        let trail = loop {
            let (directory, id) = (directory.clone(), id.clone());
            match finished(spawn_blocking(move || TrailFile::open(&directory, &id))).await {
                Ok(Ok(trail)) => break trail,
                Ok(Err(error @ TrailError::Io { .. })) => {
                    log("the audit trail cannot be opened", &error)
                }
                Ok(Err(error)) => return Err(broken(&error)),
                Err(error) => return Err(broken(&error)),
            }
            tokio::time::sleep(RETRY).await;
        };
        // The daemon may have died between the two.
        let (entries, finished) = (trail.entries(), trail.finished().cloned());
        self.trail = Some(trail);
        if entries == 0 {
            let submission = self.record.submission.clone();
            self.append(AuditEvent::Submitted {
                project: Some(submission.project.clone()),
                by: submission.submitter.clone(),
                authenticated_by: submission.authenticated_by.clone(),
                request_id: Some(submission.request_id.clone()),
                spec: submission.spec_digest(),
            })
            .await?;
        }
        if entries <= 1 {
            let event = AuditEvent::Decided {
                admitted: true,
                reasons: Vec::new(),
            };
            self.append(event).await?;
        }
        Ok(finished)
    }

    /// Appends to the trail. Without one the build is about to end because of that; then only the log
    /// tells.
    async fn append(&mut self, event: AuditEvent) -> Result<(), Broken> {
        if self.trail.is_none() {
            tracing::error!(?event, "not in the audit trail");
            return Ok(());
        }
        let now = self.shared.ports.clock.now();
        self.on_trail(move |trail| trail.append(now, event.clone()))
            .await
    }

    /// The trail's digest up to the request for attestation of `attempt`. That is written once: the signer
    /// is asked the same again after a restart, and gives the same answer.
    async fn request_attestation(&mut self, attempt: &AttemptId) -> Result<Asserted, Broken> {
        let (now, attempt) = (self.shared.ports.clock.now(), attempt.clone());
        let requested = self
            .on_trail(move |trail| {
                if let Some(requested) = trail.requested(&attempt) {
                    return Ok(Some(requested.clone()));
                }
                let event = AuditEvent::AttestationRequested {
                    attempt: attempt.clone(),
                };
                trail.append(now, event)?;
                Ok(trail.requested(&attempt).cloned())
            })
            .await?;
        let Some(Requested {
            digest, entries, ..
        }) = requested
        else {
            return Err(Broken(
                "the audit trail does not keep what was appended".to_owned(),
            ));
        };
        let submission = &self.record.submission;
        Ok(Asserted {
            project: submission.project.clone(),
            submitter: submission.submitter.clone(),
            authenticated_by: submission.authenticated_by.clone(),
            accepted: submission.accepted,
            audit_trail: digest,
            audit_entries: entries,
        })
    }

    /// What is published of the trail: of a signed build the part that the statement names, else all so far.
    async fn published_trail(
        &mut self,
        attempt: &AttemptId,
        signed: bool,
    ) -> Result<Vec<u8>, Broken> {
        let attempt = attempt.clone();
        self.on_trail(move |trail| {
            let requested = trail.requested(&attempt).filter(|_| signed).cloned();
            trail.bytes(requested.as_ref())
        })
        .await
    }

    /// Does something with the trail, on a thread that may block, until the disk lets it.
    async fn on_trail<R: Send + 'static>(
        &mut self,
        action: impl Fn(&mut TrailFile) -> Result<R, TrailError> + Send + Sync + 'static,
    ) -> Result<R, Broken> {
        let action = Arc::new(action);
        loop {
            let Some(mut trail) = self.trail.take() else {
                return Err(Broken("the audit trail is gone".to_owned()));
            };
            let again = action.clone();
            let done = spawn_blocking(move || {
                let result = again(&mut trail);
                (trail, result)
            });
            let (trail, result) = finished(done).await.map_err(|e| broken(&e))?;
            match result {
                Ok(result) => {
                    self.trail = Some(trail);
                    return Ok(result);
                }
                Err(error @ TrailError::Io { .. }) => {
                    log("the audit trail cannot be written", &error);
                    self.trail = Some(trail);
                }
                Err(error) => return Err(broken(&error)),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What work on a thread that may block came to. Such work is cancelled only while the daemon ends: that is
/// no outcome of a build, and whoever waits for it ends with the daemon.
async fn finished<T>(work: JoinHandle<T>) -> Result<T, JoinError> {
    match work.await {
        Err(error) if error.is_cancelled() => std::future::pending().await,
        done => done,
    }
}

fn broken(error: &(dyn Error + 'static)) -> Broken {
    log("the audit trail cannot be continued", error);
    Broken(format!(
        "the audit trail cannot be continued: {}",
        chain(error)
    ))
}
