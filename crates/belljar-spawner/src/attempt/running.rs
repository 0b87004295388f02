//! The way of an attempt to its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::time::{Duration, Instant};

use belljar_core::{AttemptId, Digest, Outcome};
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::store::{self, Request};
use belljar_plan::{CleanRoom, ImageRule, Plan, Usage};
use belljar_sys::files;

use super::records::Records;
use super::store::Session;
use super::{
    Attempt, DYING_LOOK, DYING_TIME, LAUNCH_TIME, Phase, STAGING_TIME, Step, in_time, now,
};
use crate::containment::{Given, Launch, Launched};
use crate::held::Watch;
use crate::record::Record;
use crate::rootfs::RootFs;
use crate::site::Site;
use crate::staging::Places;

impl Attempt {
    /// Begins an attempt: asks the store for images of its trees.
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
        let image_rule = admit(&plan, site).map_err(refused)?;
        let plan_digest = plan.digest().map_err(|e| refused(e.to_string()))?;
        let records = Records::of(&plan).map_err(refused)?;
        let store = ask_for_trees(&id, &plan, site)
            .map_err(|e| Outcome::retryable("stage", format!("the store: {e}")))?;
        Ok(Self {
            id,
            spec,
            records,
            plan,
            plan_digest,
            image_rule,
            slot,
            ids: site.ids.pair(u32::try_from(slot).unwrap_or(u32::MAX)),
            places: Places::new(&site.mounts, slot),
            phase: Phase::Staging,
            pending: Some(number),
            destroy: Vec::new(),
            store,
            started: now(),
            deadline: in_time(STAGING_TIME),
            launched: None,
            inputs: None,
            image: None,
            staged: false,
            store_lost: false,
            log_asked: false,
            announced: false,
            steps_done: false,
            steps: Vec::new(),
            step: Step::default(),
            look: None,
            held_look: None,
            held: Watch::new(site.files),
            reaped: false,
            log_written: None,
            cause: None,
            outcome: None,
            usage: Usage::default(),
            log: None,
            outputs: Vec::new(),
            image_output: None,
            collected: false,
            unchanged: None,
            verifying: false,
            connections: None,
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
                let failed = self.outcome.clone().filter(|ended| !ended.is_success());
                let outcome = failed
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
        let network = site.take_network()?;
        self.connections = Some(network.connections);
        let owners = site.owners(self.slot, self.ids)?;
        let rootfs = match &self.image {
            Some(image) => RootFs::Tree(image),
            None => RootFs::Host(&site.rootfs),
        };
        Launch::new(Given {
            steps: site.steps,
            attempt: &self.id,
            plan: &self.plan,
            slot: self.slot,
            ids: self.ids,
            cgroups: &site.cgroups,
            places: &self.places,
            rootfs,
            image_owner: owners.image.as_fd(),
            filter: &site.filter,
            network: network.namespace,
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
            Phase::Launching | Phase::Running | Phase::Stopping => {
                self.cause.get_or_insert(cause);
                self.put_down(out);
            }
            _ => {}
        }
    }

    /// As [`Attempt::kill`], but what runs is asked first, and has its grace to end by itself.
    pub fn stop(&mut self, cause: Outcome, out: &mut Vec<Message>) {
        match (&self.phase, &self.launched) {
            (Phase::Running, Some(launched)) => {
                let asked = Record::Terminate.send(&launched.socket);
                if asked.is_err() {
                    return self.kill(cause, out);
                }
                self.cause.get_or_insert(cause);
                self.phase = Phase::Stopping;
                let grace = self.plan.limits.get().grace_seconds;
                self.deadline = in_time(Duration::from_secs(grace));
            }
            // It was asked already; its grace is not a new one.
            (Phase::Stopping, _) => {}
            _ => self.kill(cause, out),
        }
    }

    /// Kills its cgroup and waits for that to be empty.
    pub(super) fn put_down(&mut self, out: &mut Vec<Message>) {
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

    /// Asks whether the last process is gone; goes on to the end if so.
    pub fn look_whether_dead(&mut self, out: &mut Vec<Message>) {
        let (Phase::Dying, Some(launched)) = (&self.phase, &self.launched) else {
            return;
        };
        if !self.reaped {
            let ended = launched.init.try_wait().map(|ended| ended.is_some());
            self.reaped = ended.unwrap_or(true);
        }
        match launched.group.is_empty() {
            Ok(true) if self.reaped => {}
            Ok(_) => return,
            Err(error) => {
                self.cause = Some(unreadable(&error));
                return self.end(out);
            }
        }
        if let Err(error) = self.look_at_usage() {
            self.cause = Some(unreadable(&error));
        }
        self.note_interrupted_step();
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
    pub(super) fn on_store_before_end(
        &mut self,
        answer: store::Answer,
        site: &mut Site,
        out: &mut Vec<Message>,
    ) {
        match (&self.phase, answer) {
            (Phase::Staging, store::Answer::Staged { .. }) => {
                self.staged = true;
                self.go_on_staging(site, out);
            }
            (Phase::Staging, store::Answer::Derivation {}) => {}
            (_, store::Answer::LogOpen) if self.launched.is_some() => {}
            (_, store::Answer::LogMarked(mark)) if self.launched.is_some() => {
                self.on_mark(mark, out);
            }
            (_, store::Answer::LogExceeded { written }) if self.launched.is_some() => {
                self.log_written = Some(written);
                self.kill(self.log_exceeded(), out);
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
                self.stop(Outcome::TimedOut { wall_seconds }, out);
            }
            // The grace is over; why it had to end is known.
            Phase::Stopping => self.put_down(out),
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
            Phase::Running | Phase::Stopping => {
                let looks = self.look.into_iter().chain(self.held_look);
                looks.chain(self.deadline).min()
            }
            _ => self.deadline,
        }
    }

    /// Whether it has to be looked at whenever the loop comes round: always while it dies.
    pub fn is_due(&self, now: Instant) -> bool {
        let over = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let looks = over(self.look) || over(self.held_look);
        let looks = matches!(self.phase, Phase::Running | Phase::Stopping) && looks;
        matches!(self.phase, Phase::Dying) || looks || over(self.deadline)
    }
}

/// Looks at a plan by this spawner's own configuration. Returns by which rule its root file system is admitted.
fn admit(plan: &Plan, site: &Site) -> Result<ImageRule, String> {
    let within = plan.limits.within(&site.config.caps);
    within.map_err(|e| e.within("limits").to_string())?;
    site.config.allowed_images.admit(&plan.image)
}

fn ask_for_trees(attempt: &AttemptId, plan: &Plan, site: &Site) -> io::Result<Session> {
    let store = Session::connect(&site.config.store_socket, site.config.store_uid)?;
    store.ask(&Request::Stage {
        attempt: attempt.clone(),
        trees: plan.staged_trees(),
    })?;
    Ok(store)
}

pub(super) fn unreadable(error: &io::Error) -> Outcome {
    Outcome::retryable("run", format!("the cgroup cannot be read: {error}"))
}

/// The end of an attempt that may not be.
fn refused(reason: String) -> Outcome {
    let reasons = vec![reason];
    Outcome::Refused { reasons }
}
