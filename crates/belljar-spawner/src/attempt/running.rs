//! The way of an attempt to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::time::{Duration, Instant};

use belljar_core::{AttemptId, Digest, Image, LimitKind, Limits, Outcome};
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::store::{self, Request};
use belljar_plan::{CleanRoom, Plan, StepRecord, Usage};
use belljar_sys::files;

use super::store::Session;
use super::{Attempt, DYING_LOOK, DYING_TIME, LAUNCH_TIME, Phase, STAGING_TIME, in_time, now};
use crate::containment::{Given, Launch, Launched};
use crate::init::EXPLANATION_BYTES;
use crate::record::Record;
use crate::site::Site;
use crate::staging::{self, Places};

impl Attempt {
    /// Begins an attempt: asks the store to verify and lay out its sources.
    ///
    /// # Errors
    /// How the attempt ends by what was refused; nothing of it is there then.
    pub fn stage(
        number: u64,
        id: AttemptId,
        spec: Digest,
        plan: Plan,
        slot: usize,
        site: &Site,
    ) -> Result<Self, Outcome> {
        let refused = |reason: String| Outcome::Refused {
            reasons: vec![reason],
        };
        check(&plan, &site.config.caps).map_err(refused)?;
        let plan_digest = plan.digest().map_err(|e| refused(e.to_string()))?;
        let broken = |e: io::Error| Outcome::retryable("stage", format!("the store: {e}"));
        let store =
            Session::connect(&site.config.store_socket, site.config.store_uid).map_err(broken)?;
        let request = Request::Stage {
            attempt: id.clone(),
            tree: plan.source,
            mtime: plan.source_date_epoch,
        };
        store.ask(&request).map_err(broken)?;
        let number_of_slot = u32::try_from(slot).unwrap_or(u32::MAX);
        Ok(Self {
            id,
            spec,
            plan,
            plan_digest,
            slot,
            ids: site.ids.pair(number_of_slot),
            places: Places::new(&site.mounts, slot),
            phase: Phase::Staging,
            pending: Some(number),
            destroy: Vec::new(),
            store,
            started: now(),
            deadline: in_time(STAGING_TIME),
            launched: None,
            staged: false,
            store_lost: false,
            log_asked: false,
            announced: false,
            steps_done: false,
            steps: Vec::new(),
            cause: None,
            outcome: None,
            usage: Usage::default(),
            log: None,
            outputs: Vec::new(),
            collected: false,
            unchanged: None,
            clean_room: CleanRoom::default(),
            receipt: None,
            forgotten: false,
        })
    }

    /// Launches it; answered at the barrier.
    pub fn launch(&mut self, number: u64, site: &mut Site, out: &mut Vec<Message>) {
        self.pending = Some(number);
        match self.phase {
            Phase::Staged => {}
            _ => {
                let outcome = self.outcome.clone();
                let outcome = outcome
                    .unwrap_or_else(|| Outcome::permanent("launch", "the attempt is not staged"));
                return self.answer(Answer::Failed { outcome }, out);
            }
        }
        match self.start(site) {
            Ok(launched) => {
                self.launched = Some(launched);
                self.phase = Phase::Launching;
                self.deadline = in_time(LAUNCH_TIME);
            }
            Err(error) => {
                self.cause = Some(Outcome::retryable("launch", error));
                self.end(out);
            }
        }
    }

    fn start(&mut self, site: &mut Site) -> io::Result<Launched> {
        let (reading, writing) = io::pipe()?;
        let log = OwnedFd::from(writing);
        // A build opens /dev/stdout again by name, which asks for the permissions of the pipe: for writing by
        // its group, and not as the owner, who could change them. By reading, a step could take out of the log
        // what others have written.
        fchown(&log, Some(self.ids.image), Some(self.ids.build))?;
        files::set_mode(log.as_fd(), 0o020)?;
        let limit_bytes = self.plan.limits.get().log_bytes;
        self.store
            .ask_with(&Request::OpenLog { limit_bytes }, reading.as_fd())?;
        self.log_asked = true;
        let tree = site.config.stage.join(self.id.to_string()).join("tree");
        staging::mount_all(
            &self.places,
            &tree,
            site.config.store_uid,
            self.ids,
            self.plan.limits.get(),
        )?;
        let network = site.take_network()?;
        Launch::new(Given {
            steps: site.steps,
            attempt: &self.id,
            plan: &self.plan,
            slot: self.slot,
            ids: self.ids,
            cgroups: &site.cgroups,
            places: &self.places,
            rootfs: &site.rootfs,
            filter: &site.filter,
            network,
            log,
        })
        .start()
    }

    /// Ends it by `cause`, wherever it is on its way to its end. After that nothing changes any more.
    pub fn kill(&mut self, cause: Outcome, out: &mut Vec<Message>) {
        match self.phase {
            Phase::Staging | Phase::Staged => {
                self.cause.get_or_insert(cause);
                self.end(out);
            }
            Phase::Launching | Phase::Running => {
                self.cause.get_or_insert(cause);
                self.put_down(out);
            }
            _ => {}
        }
    }

    /// Kills its cgroup and waits for that to be empty.
    fn put_down(&mut self, out: &mut Vec<Message>) {
        if let Some(launched) = &self.launched
            && let Err(error) = launched.group.kill()
        {
            self.cause = Some(Outcome::retryable(
                "run",
                format!("the cgroup cannot be killed: {error}"),
            ));
        }
        self.phase = Phase::Dying;
        self.deadline = in_time(DYING_TIME);
        self.look_whether_dead(out);
    }

    /// Init has something to say, or is gone.
    pub fn on_init(&mut self, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        if !matches!(self.phase, Phase::Launching | Phase::Running) {
            return;
        }
        match Record::receive(&launched.socket) {
            Ok(Some(record)) => self.on_record(record, out),
            // Its end is told by its pidfd too, but not always first.
            Ok(None) => self.put_down(out),
            Err(error) => self.kill(Outcome::retryable("run", format!("init: {error}")), out),
        }
    }

    fn on_record(&mut self, record: Record, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        match record {
            Record::Probed { attempt, errno } => launched.note_probe(attempt, errno),
            Record::StepFailed { step, errno } => {
                let why = failed_step(launched, step, errno);
                self.kill(Outcome::permanent("launch", why), out);
            }
            Record::AtBarrier => self.pass_barrier(out),
            Record::StepEnded {
                signalled,
                code,
                micros,
            } => {
                self.usage.wall_micros += micros;
                self.steps.push(StepRecord {
                    exit_code: (!signalled).then_some(code),
                    signal: signalled.then_some(code),
                    wall_micros: micros,
                });
            }
            Record::StartFailed { errno } => {
                let why = format!(
                    "/bin/sh cannot be started: {}",
                    io::Error::from_raw_os_error(errno)
                );
                self.kill(Outcome::permanent("launch", why), out);
            }
            Record::Done => {
                self.steps_done = true;
                self.put_down(out);
            }
            Record::Placed | Record::Go => {
                self.kill(
                    Outcome::retryable("run", "init sent what only the spawner sends"),
                    out,
                );
            }
        }
    }

    fn pass_barrier(&mut self, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        match launched.pass_barrier() {
            Ok(()) => {
                self.phase = Phase::Running;
                self.deadline = in_time(Duration::from_secs(self.plan.limits.get().wall_seconds));
                self.announced = true;
                self.answer(Answer::Launched, out);
            }
            Err(error) => self.kill(Outcome::permanent("launch", error), out),
        }
    }

    /// Asks whether the last process is gone; goes on to the end if so.
    pub fn look_whether_dead(&mut self, out: &mut Vec<Message>) {
        let (Phase::Dying, Some(launched)) = (&self.phase, &self.launched) else {
            return;
        };
        let reaped = launched
            .init
            .try_wait()
            .map(|ended| ended.is_some())
            .unwrap_or(true);
        match launched.group.is_empty() {
            Ok(true) if reaped => {}
            Ok(_) => return,
            Err(error) => {
                self.cause = Some(Outcome::retryable(
                    "run",
                    format!("the cgroup cannot be read: {error}"),
                ));
                return self.end(out);
            }
        }
        match launched.group.usage() {
            Ok(usage) => {
                self.usage = Usage {
                    wall_micros: self.usage.wall_micros,
                    ..usage
                };
            }
            Err(error) => {
                self.cause = Some(Outcome::retryable(
                    "run",
                    format!("the cgroup cannot be read: {error}"),
                ))
            }
        }
        self.end(out);
    }

    /// It has ended: whoever waits for that is told.
    fn end(&mut self, out: &mut Vec<Message>) {
        let outcome = self.judge();
        self.phase = Phase::Ended;
        self.deadline = None;
        self.outcome = Some(outcome.clone());
        if self.announced {
            out.push(Message::Exited {
                attempt: self.id.clone(),
                outcome,
            });
        } else {
            self.answer(Answer::Failed { outcome }, out);
        }
    }

    /// The store has answered while the attempt is on its way to its end.
    pub(super) fn on_store_before_end(&mut self, answer: store::Answer, out: &mut Vec<Message>) {
        match (&self.phase, answer) {
            (Phase::Staging, store::Answer::Staged { .. }) => {
                self.phase = Phase::Staged;
                self.staged = true;
                self.deadline = None;
                self.answer(Answer::Staged, out);
            }
            (Phase::Launching | Phase::Running | Phase::Dying, store::Answer::LogOpen) => {}
            (Phase::Launching | Phase::Running | Phase::Dying, store::Answer::LogExceeded) => {
                let cause = Outcome::LimitExceeded {
                    limit: LimitKind::Log,
                    figure: self.plan.limits.get().log_bytes,
                };
                self.kill(cause, out);
            }
            (_, store::Answer::Failed { class, why }) => {
                let cause = match class {
                    store::Failure::Content | store::Failure::Missing => {
                        Outcome::Refused { reasons: vec![why] }
                    }
                    store::Failure::Refused
                    | store::Failure::Full
                    | store::Failure::Busy
                    | store::Failure::Internal => Outcome::retryable("stage", why),
                };
                self.kill(cause, out);
            }
            (_, other) => self.kill(
                Outcome::retryable("run", format!("the store answered {other:?}")),
                out,
            ),
        }
    }

    /// Time has passed.
    pub(super) fn on_deadline_before_end(&mut self, out: &mut Vec<Message>) {
        match self.phase {
            Phase::Running => {
                let wall_seconds = self.plan.limits.get().wall_seconds;
                self.kill(Outcome::TimedOut { wall_seconds }, out);
            }
            Phase::Dying => {
                self.cause = Some(Outcome::retryable(
                    "run",
                    "killed processes did not go away",
                ));
                self.end(out);
            }
            _ => self.kill(Outcome::retryable("launch", "it took too long"), out),
        }
    }

    /// When the event loop has to look at it again at the latest.
    pub fn next_look(&self) -> Option<Instant> {
        match self.phase {
            Phase::Dying => in_time(DYING_LOOK).min(self.deadline),
            _ => self.deadline,
        }
    }

    /// Whether it has to be looked at whenever the loop comes round: always while it dies.
    pub fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Dying) || self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// Whether a plan is within the spawner's own caps, and asks for nothing that it cannot do yet.
fn check(plan: &Plan, caps: &Limits) -> Result<(), String> {
    plan.limits
        .within(caps)
        .map_err(|e| e.within("limits").to_string())?;
    let later = |field: &str| Err(format!("{field}: not supported yet by this spawner"));
    match plan.image {
        Image::Host if !plan.inputs.is_empty() => later("inputs"),
        Image::Host if plan.working_directory.is_some() => later("working_directory"),
        Image::Host => Ok(()),
        Image::Tree(_) => later("image"),
    }
}

/// What init says about a step that failed: the name from the list, and its own words.
fn failed_step(launched: &Launched, step: u32, errno: i32) -> String {
    let mut explanation = [0; EXPLANATION_BYTES];
    let text = match launched.socket.receive(&mut explanation) {
        Ok(Some(received)) => String::from_utf8_lossy(&explanation[..received.length]).into_owned(),
        _ => io::Error::from_raw_os_error(errno).to_string(),
    };
    match usize::try_from(step)
        .ok()
        .and_then(|index| launched.steps.get(index))
    {
        Some(step) => step.failed(&text),
        None => format!("containment step {step}: {text}"),
    }
}
