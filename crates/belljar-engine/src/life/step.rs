use belljar_core::{AttemptId, Digest, Outcome, Timestamp, bounds};

use super::{
    Build, Collected, Effect, Event, Evidence, Fact, Fetched, Next, Progress, Publication, Stage,
    Unexpected,
};

/// One transition: what `build` becomes when `event` happens at `now`, and what is to be done then.
///
/// # Errors
/// When the event makes no sense here: a stale answer, or one that nobody asked for.
pub fn step(
    build: &Build,
    event: Event,
    now: Timestamp,
) -> Result<(Build, Vec<Effect>), Unexpected> {
    let unexpected = Unexpected {
        event: event.name(),
        stage: build.stage.name(),
    };
    let turn = Turn {
        build: build.clone(),
        effects: Vec::new(),
        now,
    };
    let after = match event {
        Event::SlotFree => turn.start(),
        Event::CancelRequested { by, reason } => Some(turn.cancel(by, reason)),
        Event::Recovered => turn.recover(),
        Event::Condemned { why } => Some(turn.condemn(why)),
        Event::Finished { outcome } => Some(turn.finished(outcome)),
        Event::Attempt { attempt, what } if build.attempt.as_ref() == Some(&attempt) => {
            turn.progress(attempt, what)
        }
        Event::Attempt { .. } => None,
    };
    let mut after = after.ok_or(unexpected)?;
    if after.build != *build {
        after.build.sequence += 1;
        after.build.updated = now;
    }
    Ok((after.build, after.effects))
}

/// A transition in the making. Methods give none for what makes no sense.
pub(super) struct Turn {
    build: Build,
    effects: Vec<Effect>,
    now: Timestamp,
}

impl Turn {
    fn start(self) -> Option<Self> {
        let number = self
            .build
            .attempt
            .as_ref()
            .map_or(1, |last| last.number() + 1);
        let attempt = AttemptId::new(self.build.id.clone(), number).ok()?;
        if self.build.stage != Stage::Queued {
            return None;
        }
        let mut turn = self.record(Fact::AttemptStarted(attempt.clone()));
        turn.build.attempt = Some(attempt.clone());
        turn.build.started = turn.build.started.or(Some(turn.now));
        Some(match turn.build.fetches {
            true => turn.enter(Stage::Fetching, Effect::Fetch(attempt)),
            false => turn.enter(Stage::Staging, Effect::Stage(attempt)),
        })
    }

    /// Makes sense always: where it is too late it changes nothing. The first who asks is remembered.
    fn cancel(mut self, by: String, reason: Option<String>) -> Self {
        if self.build.cancelled_by.is_some() || self.build.outcome().is_some() {
            return self;
        }
        self.build.cancelled_by = Some(by.clone());
        self.build.cancel_reason.clone_from(&reason);
        let outcome = Outcome::Cancelled {
            by: by.clone(),
            reason: reason.clone(),
        };
        let mut turn = self.record(Fact::CancelRequested {
            by: by.clone(),
            reason,
        });
        match (&turn.build.stage, turn.build.attempt.clone()) {
            (Stage::Queued, _) => turn.end(outcome),
            // There is no sandbox yet that would have to be ended.
            (Stage::Fetching, Some(attempt)) => turn.conclude(attempt, outcome, None),
            (Stage::Staging | Stage::Launching | Stage::Running, Some(attempt)) => {
                turn.then(Effect::Kill { attempt, by })
            }
            (
                Stage::Destroying {
                    next: Next::Requeue { .. },
                },
                _,
            ) => {
                turn.build.stage = Stage::Destroying {
                    next: Next::End { outcome },
                };
                turn
            }
            _ => turn,
        }
    }

    /// All effects that were under way are forgotten; what is to be done is given anew.
    fn recover(self) -> Option<Self> {
        let stage = self.build.stage.clone();
        if matches!(stage, Stage::Queued | Stage::Ended { .. }) {
            return Some(self);
        }
        let attempt = self.build.attempt.clone()?;
        let name = stage.name();
        let turn = self.record(Fact::Recovered {
            attempt: attempt.clone(),
            stage: name,
        });
        Some(match stage {
            Stage::Attesting { collected, .. } => turn.attest(collected, 0),
            Stage::Publishing { publication, .. } => turn.publish(attempt, publication, 0),
            Stage::Destroying { .. } => turn.then(Effect::Destroy(attempt)),
            _ => {
                let why = format!("the daemon was restarted while the build was {name}");
                turn.conclude(attempt, Outcome::retryable("recover", why), None)
            }
        })
    }

    fn condemn(self, why: String) -> Self {
        let outcome = Outcome::permanent("recover", why);
        match (&self.build.stage, self.build.attempt.clone()) {
            (Stage::Ended { .. }, _) => self,
            (Stage::Queued, _) | (_, None) => self.end(outcome),
            (_, Some(attempt)) => self.destroy(attempt, Next::End { outcome }),
        }
    }

    fn finished(mut self, outcome: Outcome) -> Self {
        if self.build.outcome().is_none() {
            self.build.ended = Some(self.now);
            self.build.stage = Stage::Ended { outcome };
        }
        self
    }

    fn progress(self, attempt: AttemptId, what: Progress) -> Option<Self> {
        Some(match (self.build.stage.clone(), what) {
            (Stage::Fetching, Progress::Fetched(all)) => self.fetched(attempt, all),
            (Stage::Staging, Progress::Staged) => self.staged(attempt),
            (Stage::Launching, Progress::Launched) => self.launched(attempt),
            (Stage::Running, Progress::Exited { outcome }) => self.ran(attempt, outcome),
            (stage @ (Stage::Staging | Stage::Launching), Progress::Failed { outcome }) => {
                let outcome = never_success(stage.name(), outcome);
                self.ran(attempt, outcome)
            }
            (
                Stage::Collecting { cause },
                Progress::Collected {
                    receipt,
                    outcome,
                    outputs,
                },
            ) => {
                let turn = self.record(Fact::Collected {
                    attempt: attempt.clone(),
                    receipt,
                    outcome: outcome.clone(),
                    outputs,
                });
                turn.collected(attempt, cause, receipt, outcome)
            }
            (Stage::Collecting { cause }, Progress::Failed { outcome }) => {
                let outcome = never_success("collect", outcome);
                self.not_collected(attempt, cause, outcome)
            }
            (Stage::Collecting { cause }, Progress::SpawnerLost { why }) => {
                self.not_collected(attempt, cause, Outcome::retryable("collect", why))
            }
            (
                stage @ (Stage::Staging | Stage::Launching | Stage::Running),
                Progress::SpawnerLost { why },
            ) => self.conclude(attempt, Outcome::retryable(phase(&stage), why), None),
            (Stage::Attesting { collected, .. }, Progress::Attested { bundle }) => {
                self.attested(collected, bundle)
            }
            (
                Stage::Attesting { collected, tries },
                Progress::AttestRefused {
                    retryable,
                    reasons,
                    tries: more,
                },
            ) => self.not_attested(collected, tries.saturating_add(more), retryable, reasons),
            (Stage::Publishing { publication, .. }, Progress::Published { evidence }) => {
                self.published(attempt, publication, evidence)
            }
            (
                Stage::Publishing { publication, tries },
                Progress::PublishFailed { why, tries: more },
            ) => self.not_published(attempt, publication, tries.saturating_add(more), why),
            (Stage::Destroying { next }, Progress::Destroyed) => self.destroyed(attempt, next),
            _ => return None,
        })
    }

    fn published(
        mut self,
        attempt: AttemptId,
        publication: Publication,
        evidence: Box<Evidence>,
    ) -> Self {
        self.build.evidence = Some(*evidence);
        let outcome = publication.outcome;
        self.destroy(attempt, Next::End { outcome })
    }

    fn fetched(mut self, attempt: AttemptId, Fetched { reports, result }: Fetched) -> Self {
        for report in reports {
            self = self.record(Fact::Fetched(attempt.clone(), report));
        }
        match result {
            Ok(fetched) => {
                self.build.fetched = fetched;
                self.enter(Stage::Staging, Effect::Stage(attempt))
            }
            Err(outcome) => {
                let outcome = never_success("fetch", outcome);
                self.conclude(attempt, outcome, None)
            }
        }
    }

    fn staged(self, attempt: AttemptId) -> Self {
        let turn = self.record(Fact::Staged(attempt.clone()));
        match turn.cancelled() {
            Some(cancelled) => turn.ran(attempt, cancelled),
            None => turn.enter(Stage::Launching, Effect::Launch(attempt)),
        }
    }

    fn launched(self, attempt: AttemptId) -> Self {
        let turn = self
            .record(Fact::Launched(attempt.clone()))
            .enter(Stage::Running, Effect::AwaitExit(attempt.clone()));
        // Whether the first request overtook the launch nobody knows; killing twice does no harm.
        match turn.build.cancelled_by.clone() {
            Some(by) => turn.then(Effect::Kill { attempt, by }),
            None => turn,
        }
    }

    /// The attempt has ended before its outputs were looked at.
    fn ran(self, attempt: AttemptId, outcome: Outcome) -> Self {
        let turn = self.record(Fact::Exited(attempt.clone(), outcome.clone()));
        let cause = turn.settle(outcome);
        if turn.may_retry(&attempt, &cause) {
            return turn.destroy(attempt, Next::Requeue { why: cause });
        }
        turn.enter(Stage::Collecting { cause }, Effect::Collect(attempt))
    }

    fn collected(
        self,
        attempt: AttemptId,
        cause: Outcome,
        receipt: Digest,
        outcome: Outcome,
    ) -> Self {
        let outcome = self.settle(outcome);
        match (outcome.is_success(), cause.is_success()) {
            (true, true) => self.attest(Collected { attempt, receipt }, 0),
            (true, false) => {
                let why = format!(
                    "the receipt tells of a success, but the attempt ended otherwise: {cause}"
                );
                self.conclude(attempt, Outcome::permanent("collect", why), Some(receipt))
            }
            (false, _) => self.conclude(attempt, outcome, Some(receipt)),
        }
    }

    /// Without a receipt: how a build failed stays known, that it succeeded does not.
    fn not_collected(self, attempt: AttemptId, cause: Outcome, outcome: Outcome) -> Self {
        let outcome = if cause.is_success() { outcome } else { cause };
        self.conclude(attempt, outcome, None)
    }

    fn destroyed(self, attempt: AttemptId, next: Next) -> Self {
        let mut turn = self.record(Fact::Destroyed(attempt));
        match next {
            Next::Requeue { .. } => {
                turn.build.stage = Stage::Queued;
                turn
            }
            Next::End { outcome } => turn.end(outcome),
        }
    }

    /// The attempt has come to nothing that could be attested: another one, or the end.
    fn conclude(self, attempt: AttemptId, outcome: Outcome, receipt: Option<Digest>) -> Self {
        let outcome = self.settle(outcome);
        if self.may_retry(&attempt, &outcome) {
            return self.destroy(attempt, Next::Requeue { why: outcome });
        }
        let publication = Publication {
            outcome,
            receipt,
            bundle: None,
        };
        self.publish(attempt, publication, 0)
    }

    /// Who asked for the end gets it: neither a success that came too late nor another attempt. A failure
    /// of the build's own stays what it was.
    fn settle(&self, outcome: Outcome) -> Outcome {
        let ended_by_it = outcome.is_success()
            || outcome.is_retryable()
            || matches!(outcome, Outcome::Cancelled { .. });
        self.cancelled().filter(|_| ended_by_it).unwrap_or(outcome)
    }

    /// The end that was asked for, if it was.
    fn cancelled(&self) -> Option<Outcome> {
        let by = self.build.cancelled_by.clone()?;
        let reason = self.build.cancel_reason.clone();
        Some(Outcome::Cancelled { by, reason })
    }

    fn may_retry(&self, attempt: &AttemptId, outcome: &Outcome) -> bool {
        outcome.is_retryable() && attempt.number() < bounds::ATTEMPTS
    }

    pub(super) fn destroy(self, attempt: AttemptId, next: Next) -> Self {
        self.enter(Stage::Destroying { next }, Effect::Destroy(attempt))
    }

    fn end(mut self, outcome: Outcome) -> Self {
        self.build.ended = Some(self.now);
        self.build.stage = Stage::Ended {
            outcome: outcome.clone(),
        };
        self.record(Fact::Finished(outcome))
    }

    pub(super) fn enter(mut self, stage: Stage, effect: Effect) -> Self {
        self.build.stage = stage;
        self.then(effect)
    }

    pub(super) fn record(self, fact: Fact) -> Self {
        self.then(Effect::Record(fact))
    }

    fn then(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

/// The word that outcomes use for what was being done.
fn phase(stage: &Stage) -> &'static str {
    match stage {
        Stage::Staging => "stage",
        Stage::Launching => "launch",
        _ => "run",
    }
}

/// A failure that calls itself a success is the spawner's mistake, never a success.
fn never_success(stage: &str, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Succeeded => Outcome::permanent(stage, "the answer is a failure that is none"),
        other => other,
    }
}
