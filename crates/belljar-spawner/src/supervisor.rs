//! The event loop: one thread that serves belljard and watches all attempts, and never waits for one of
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use belljar_core::{AttemptId, Digest, Outcome, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::spawner::{Answer, Message, Operation, Request};
use belljar_plan::{HostReport, Plan};
use belljar_sys::poll::{self, Event, Interest};
use belljar_sys::seqpacket::{Connection, Listener};

use crate::attempt::{Attempt, Source};
use crate::site::Site;

/// Messages that wait for belljard to read; one more, and the connection is given up.
const OUTBOX: usize = 4096;
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
}

/// The one connection from belljard.
struct Client {
    connection: Connection,
    outbox: VecDeque<Vec<u8>>,
}

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
        }
    }

    /// Serves until a termination signal comes; then every sandbox is killed.
    ///
    /// # Errors
    /// When waiting itself fails.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            let stocking = self.attempts.is_empty() && self.site.stock_network().unwrap_or(false);
            for happened in self.wait(stocking)? {
                match happened {
                    Happened::Signal => {
                        tracing::info!(attempts = self.attempts.len(), "ending by signal");
                        return self.site.cgroups.clear();
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

    fn wait(&self, stocking: bool) -> io::Result<Vec<Happened>> {
        let mut happened = vec![Happened::Signal, Happened::Connection];
        let mut interests = vec![
            readable(self.signals.as_fd()),
            readable(self.listener.as_fd()),
        ];
        if let Some(client) = &self.client {
            happened.push(Happened::Client);
            interests.push(Interest {
                descriptor: client.connection.as_fd(),
                event: if client.outbox.is_empty() {
                    Event::Readable
                } else {
                    Event::ReadableOrWritable
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
        let until = next.map_or(IDLE, |next| next.saturating_duration_since(Instant::now()));
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
                if connection.set_nonblocking(true).is_ok() {
                    // A restarted belljard connects anew; the old connection is of no use to anybody.
                    self.client = Some(Client {
                        connection,
                        outbox: VecDeque::new(),
                    });
                }
            }
            Ok(peer) => tracing::warn!(
                uid = peer.uid,
                pid = peer.pid,
                "refused a connection: not belljard's user"
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
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        match client.connection.receive(&mut buffer) {
            Ok(Some(received)) => match read(&buffer[..received.length]) {
                Ok(request) => self.on_request(request),
                Err(why) => {
                    tracing::warn!(
                        why,
                        "belljard sent what is not a request; the connection is closed"
                    );
                    self.client = None;
                }
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) => self.client = None,
            Err(error) => {
                tracing::warn!(%error, "the connection to belljard is closed");
                self.client = None;
            }
        }
    }

    fn on_request(&mut self, Request { number, operation }: Request) {
        let answer = match operation {
            Operation::Probe => Answer::Host(self.host.clone()),
            Operation::List => Answer::Attempts {
                attempts: self.attempts.keys().cloned().collect(),
            },
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
            Operation::Kill { attempt, by } => {
                let cause = Outcome::Cancelled { by, reason: None };
                // Answered before what it leads to.
                self.send(&Message::Answer {
                    number,
                    answer: Answer::Killing,
                });
                self.with(&attempt, |attempt, _, out| attempt.stop(cause, out));
                return;
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
        self.send(&Message::Answer { number, answer });
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

impl Client {
    fn send(&mut self, message: Vec<u8>) -> io::Result<()> {
        if self.outbox.len() == OUTBOX {
            return Err(io::Error::other("belljard does not read"));
        }
        self.outbox.push_back(message);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(message) = self.outbox.front() {
            match self.connection.send(message) {
                Ok(()) => self.outbox.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

fn readable(descriptor: std::os::fd::BorrowedFd<'_>) -> Interest<'_> {
    Interest {
        descriptor,
        event: Event::Readable,
    }
}

fn read(bytes: &[u8]) -> Result<Request, String> {
    match frame::parse(bytes).map_err(|e| e.to_string())? {
        Frame::Control(control) => frame::decode(control).map_err(|e| e.to_string()),
        Frame::Data(_) => Err("content".to_owned()),
    }
}

fn unknown(attempt: &AttemptId) -> Answer {
    Answer::Failed {
        outcome: Outcome::retryable("recover", format!("the attempt {attempt} is not known")),
    }
}
