//! The event loop: one thread that serves belljard and watches all attempts, and never waits for one of
//! them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use belljar_core::{AttemptId, Digest, Outcome, bounds};
use belljar_plan::frame;
use belljar_plan::spawner::{Answer, Message, Operation, Request};
use belljar_plan::{HostReport, Plan};
use belljar_sys::poll::{self, Event, Interest};
use belljar_sys::seqpacket::Listener;
use belljar_sys::systemd::Manager;

use crate::attempt::{Attempt, Source};
use crate::client::{Client, Heard};
use crate::refused::Refused;
use crate::site::Site;

/// How often the loop looks up when nothing happens.
const IDLE: Duration = Duration::from_secs(60);

/// The spawner at work.
pub struct Supervisor {
    site: Site,
    host: HostReport,
    listener: Listener,
    signals: OwnedFd,
    client: Option<Client>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Slots whose last user was not seen to be gone entirely: never used again.
    poisoned: Vec<usize>,
    refused: Refused,
}

/// Whose requests come over the one connection.
const BELLJARD: &str = "belljard";

/// What happened on which descriptor.
enum Happened {
    Signal,
    Connection,
    Client,
    Attempt(AttemptId, Source),
}

impl Supervisor {
    /// A supervisor without attempts.
    pub fn new(site: Site, host: HostReport, listener: Listener, signals: OwnedFd) -> Self {
        Self {
            site,
            host,
            listener,
            signals,
            client: None,
            attempts: BTreeMap::new(),
            poisoned: Vec::new(),
            refused: Refused::default(),
        }
    }

    /// Serves until a termination signal comes; then every sandbox is killed.
    ///
    /// # Errors
    /// When waiting itself fails, or `manager` cannot be told that the loop goes round.
    pub fn serve(mut self, mut manager: Manager) -> io::Result<()> {
        manager.ready()?;
        let idle = manager
            .interval()
            .map_or(IDLE, |interval| interval.min(IDLE));
        loop {
            manager.alive()?;
            let stocking = self.attempts.is_empty() && self.site.stock_network().unwrap_or(false);
            for happened in self.wait(stocking, idle)? {
                match happened {
                    Happened::Signal => {
                        tracing::info!(attempts = self.attempts.len(), "ending by signal");
                        self.site.cgroups.clear()?;
                        return self.site.ids.note(&[]);
                    }
                    Happened::Connection => self.accept(),
                    Happened::Client => self.on_client(),
                    Happened::Attempt(id, source) => {
                        self.with(&id, |attempt, site, out| {
                            attempt.on_event(source, site, out)
                        });
                    }
                }
            }
            self.look_at_the_clock();
        }
    }

    fn wait(&self, stocking: bool, idle: Duration) -> io::Result<Vec<Happened>> {
        let mut happened = vec![Happened::Signal, Happened::Connection];
        let mut interests = vec![
            readable(self.signals.as_fd()),
            readable(self.listener.as_fd()),
        ];
        if let Some(client) = &self.client {
            happened.push(Happened::Client);
            interests.push(Interest {
                descriptor: client.connection.as_fd(),
                event: if client.is_behind() {
                    Event::ReadableOrWritable
                } else {
                    Event::Readable
                },
            });
        }
        for (id, attempt) in &self.attempts {
            for (source, interest) in attempt.interests() {
                happened.push(Happened::Attempt(id.clone(), source));
                interests.push(interest);
            }
        }
        let next = self.attempts.values().filter_map(Attempt::next_look).min();
        let until = next.map_or(idle, |next| next.saturating_duration_since(Instant::now()));
        let until = until.min(idle);
        let ready = poll::wait(
            &interests,
            Some(if stocking { Duration::ZERO } else { until }),
        )?;
        Ok(happened
            .into_iter()
            .zip(ready)
            .filter(|(_, ready)| *ready)
            .map(|(happened, _)| happened)
            .collect())
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        let due: Vec<_> = self
            .attempts
            .values()
            .filter(|a| a.is_due(now))
            .map(|a| a.id().clone())
            .collect();
        for id in due {
            self.with(&id, |attempt, site, out| attempt.on_time(site, out));
        }
    }

    fn accept(&mut self) {
        let connection = match self.listener.accept() {
            Ok(connection) => connection,
            Err(error) => return tracing::warn!(%error, "a connection could not be accepted"),
        };
        match connection.peer() {
            Ok(peer) if peer.uid == self.site.config.client_uid => {
                if let Ok(client) = Client::new(connection) {
                    // A restarted belljard connects anew; the old connection is of no use to anybody.
                    self.client = Some(client);
                }
            }
            Ok(peer) => self.refused.note(
                format_args!("uid {} (pid {})", peer.uid, peer.pid),
                "connection",
                "not belljard's user",
            ),
            Err(error) => tracing::warn!(%error, "refused a connection: its peer is unknown"),
        }
    }

    fn on_client(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        if client.flush().is_err() {
            self.client = None;
            return;
        }
        match client.hear() {
            Heard::Request(request) => self.on_request(request),
            Heard::Nothing => {}
            Heard::Over(why) => {
                self.client = None;
                if let Some(why) = why {
                    self.refused.note(BELLJARD, "connection", why);
                }
            }
        }
    }

    fn on_request(&mut self, Request { number, operation }: Request) {
        let what = operation.name();
        let answer = match operation {
            Operation::Probe => Answer::Host(self.host.clone()),
            Operation::List => {
                // Whoever has removed images asks this.
                self.site.trees.let_go();
                Answer::Attempts {
                    attempts: self.attempts.keys().cloned().collect(),
                }
            }
            Operation::Stage {
                attempt,
                spec,
                plan,
            } => match self.stage(number, attempt, spec, *plan) {
                Ok(()) => return,
                Err(outcome) => Answer::Failed { outcome },
            },
            Operation::Launch { attempt } => {
                match self.with(&attempt, |attempt, site, out| {
                    attempt.launch(number, site, out)
                }) {
                    Some(()) => return,
                    None => unknown(&attempt),
                }
            }
            Operation::Kill { by, .. } if !is_principal(&by) => refused(NO_PRINCIPAL),
            Operation::Kill { attempt, by } => {
                return self.cancel(number, &attempt, by);
            }
            Operation::Usage { attempt } => match self.attempts.get(&attempt).map(Attempt::usage) {
                Some(Ok(usage)) => Answer::Used(usage),
                Some(Err(error)) => Answer::Failed {
                    outcome: Outcome::permanent("run", error),
                },
                None => unknown(&attempt),
            },
            Operation::Collect { attempt } => {
                match self.with(&attempt, |attempt, site, out| {
                    attempt.collect(number, site, out)
                }) {
                    Some(()) => return,
                    None => unknown(&attempt),
                }
            }
            Operation::Destroy { attempt } => {
                match self.with(&attempt, |attempt, site, out| {
                    attempt.destroy(number, site, out)
                }) {
                    Some(()) => return,
                    None => Answer::Destroyed,
                }
            }
        };
        if let Answer::Failed { outcome } = &answer {
            self.refused.note(BELLJARD, what, outcome);
        }
        self.send(&Message::Answer { number, answer });
    }

    fn cancel(&mut self, number: u64, id: &AttemptId, by: String) {
        let cause = Outcome::Cancelled { by, reason: None };
        // Answered before what it leads to.
        let answer = Answer::Killing;
        self.send(&Message::Answer { number, answer });
        self.with(id, |attempt, _, out| attempt.stop(cause, out));
    }

    fn stage(
        &mut self,
        number: u64,
        id: AttemptId,
        spec: Digest,
        plan: Plan,
    ) -> Result<(), Outcome> {
        let refused = |reason: &str| Outcome::Refused {
            reasons: vec![reason.to_owned()],
        };
        if !self.host.suffices() {
            let missing = self
                .host
                .layers
                .iter()
                .filter(|l| l.verdict == belljar_plan::Verdict::Missing);
            let reasons = missing
                .map(|l| format!("{}: {}; {}", l.name, l.found, l.hint))
                .collect();
            return Err(Outcome::Refused { reasons });
        }
        let used = self
            .site
            .receipts
            .find(&id)
            .map(|receipt| receipt.is_some());
        if self.attempts.contains_key(&id) || used.unwrap_or(true) {
            return Err(refused("the attempt is known already; each runs once"));
        }
        let free = (0..self.site.config.slots).find(|slot| {
            !self.poisoned.contains(slot) && self.attempts.values().all(|a| a.slot != *slot)
        });
        let slot = free.ok_or_else(|| Outcome::retryable("stage", "every slot is taken"))?;
        let attempt = Attempt::stage(number, id.clone(), spec, plan, slot, &self.site)?;
        tracing::info!(attempt = %id, slot, "staging");
        self.attempts.insert(id, attempt);
        Ok(())
    }

    /// Lets something happen to one attempt, sends what it says, and forgets it when it is over.
    fn with(
        &mut self,
        id: &AttemptId,
        happen: impl FnOnce(&mut Attempt, &mut Site, &mut Vec<Message>),
    ) -> Option<()> {
        let mut out = Vec::new();
        let attempt = self.attempts.get_mut(id)?;
        happen(attempt, &mut self.site, &mut out);
        attempt.go_on(&mut self.site, &mut out);
        if attempt.is_forgotten() {
            if !attempt.is_clean() {
                tracing::error!(attempt = %id, slot = attempt.slot, "not seen to be gone; its slot is not used again");
                self.poisoned.push(attempt.slot);
            }
            self.attempts.remove(id);
        }
        for message in out {
            if let Message::Answer {
                answer: Answer::Failed { outcome },
                ..
            } = &message
            {
                self.refused.note(BELLJARD, id, outcome);
            }
            tracing::debug!(attempt = %id, ?message, "tells belljard");
            self.send(&message);
        }
        Some(())
    }

    fn send(&mut self, message: &Message) {
        let Some(client) = &mut self.client else {
            return;
        };
        let sent = frame::encode(message)
            .map_err(io::Error::other)
            .and_then(|bytes| client.send(bytes));
        if let Err(error) = sent {
            tracing::warn!(%error, "the connection to belljard is closed");
            self.client = None;
        }
    }
}

fn readable(descriptor: std::os::fd::BorrowedFd<'_>) -> Interest<'_> {
    Interest {
        descriptor,
        event: Event::Readable,
    }
}

/// Why a name is refused that would stand in a receipt.
const NO_PRINCIPAL: &str = "by: a name of a principal is due, without control characters";

fn is_principal(by: &str) -> bool {
    (1..=bounds::PRINCIPAL_BYTES).contains(&by.len()) && !by.chars().any(char::is_control)
}

fn refused(reason: &str) -> Answer {
    let reasons = vec![reason.to_owned()];
    Answer::Failed {
        outcome: Outcome::Refused { reasons },
    }
}

fn unknown(attempt: &AttemptId) -> Answer {
    Answer::Failed {
        outcome: Outcome::retryable("recover", format!("the attempt {attempt} is not known")),
    }
}
