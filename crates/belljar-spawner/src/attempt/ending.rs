//! The way of every attempt from its end to its receipt.

use std::os::fd::AsFd;
use std::time::Instant;

use belljar_core::Outcome;
use belljar_plan::LogRecord;
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::store::{self, Request};
use belljar_sys::files;
use belljar_sys::poll::{Event, Interest};

use super::store::Heard;
use super::{Attempt, ENDING_TIME, Phase, in_time};
use crate::site::Site;
use crate::staging;

/// Most requests to destroy one attempt that wait for their answer.
const DESTROYERS: usize = 16;

/// Which of an attempt's descriptors something has happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The conversation with the store.
    Store,
    /// The socket to init.
    Init,
    /// Init's end, or news of its cgroup.
    Death,
    /// The end of a collector or janitor.
    Helper,
}

impl Attempt {
    /// Takes it to its receipt; answered with the digest of that.
    pub fn collect(&mut self, number: u64, site: &mut Site, out: &mut Vec<Message>) {
        if matches!(self.phase, Phase::Staged) {
            self.kill(
                Outcome::retryable("launch", "it was collected before it was launched"),
                out,
            );
        }
        self.pending = Some(number);
        match (&self.phase, self.receipt, &self.outcome) {
            (Phase::Done, Some(receipt), Some(outcome)) => {
                let outcome = outcome.clone();
                self.answer(Answer::Collected { receipt, outcome }, out);
            }
            (Phase::Ended, ..) => self.begin_ending(site, out),
            _ => {
                let outcome = Outcome::retryable("collect", "the attempt has not ended");
                self.answer(Answer::Failed { outcome }, out);
            }
        }
    }

    /// Ends it if it has not ended, takes it to its receipt, and then answers `Destroyed`.
    pub fn destroy(&mut self, number: u64, site: &mut Site, out: &mut Vec<Message>) {
        if self.destroy.len() == DESTROYERS {
            // Whoever asks so often does not wait for answers.
            self.destroy.remove(0);
        }
        self.destroy.push(number);
        match self.phase {
            Phase::Ended => self.begin_ending(site, out),
            Phase::Done => self.finish_destroy(out),
            _ => self.kill(
                Outcome::retryable("recover", "it was given up before it had ended"),
                out,
            ),
        }
    }

    /// Goes on where an ended attempt that is to be destroyed waits for nobody.
    pub fn go_on(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        if matches!(self.phase, Phase::Ended) && !self.destroy.is_empty() {
            self.begin_ending(site, out);
        }
    }

    fn finish_destroy(&mut self, out: &mut Vec<Message>) {
        for number in self.destroy.drain(..) {
            self.forgotten = true;
            let answer = Answer::Destroyed;
            out.push(Message::Answer { number, answer });
        }
    }

    /// What the event loop has to wait for.
    pub fn interests(&self) -> Vec<(Source, Interest<'_>)> {
        let readable = |descriptor| Interest {
            descriptor,
            event: Event::Readable,
        };
        let mut interests = Vec::new();
        if !self.store_lost {
            interests.push((Source::Store, readable(self.store.as_fd())));
        }
        match (&self.phase, &self.launched) {
            (Phase::Launching | Phase::Running | Phase::Stopping, Some(launched)) => {
                interests.push((Source::Init, readable(launched.socket.as_fd())));
                interests.push((Source::Death, readable(launched.init.pidfd.as_fd())));
            }
            (Phase::Dying, Some(launched)) => {
                let news = Interest {
                    descriptor: launched.group.events.as_fd(),
                    event: Event::Priority,
                };
                interests.push((Source::Death, news));
                if !self.reaped {
                    interests.push((Source::Death, readable(launched.init.pidfd.as_fd())));
                }
            }
            (Phase::Collecting(Some(child)) | Phase::Unmounting(child), _) => {
                interests.push((Source::Helper, readable(child.pidfd.as_fd())));
            }
            _ => {}
        }
        interests
    }

    /// Something has happened on one of them.
    pub fn on_event(&mut self, source: Source, site: &mut Site, out: &mut Vec<Message>) {
        match source {
            Source::Store => self.on_store(site, out),
            Source::Init => self.on_init(out),
            // What init has told before its end is heard first.
            Source::Death if !matches!(self.phase, Phase::Dying) => self.on_init(out),
            Source::Death => self.look_whether_dead(out),
            Source::Helper => self.on_helper(site, out),
        }
    }

    /// The time for its next look has come.
    pub fn on_time(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        self.look_whether_dead(out);
        if self.look.is_some_and(|look| look <= Instant::now()) {
            self.on_look(out);
        }
        if self.held_look.is_some_and(|look| look <= Instant::now()) {
            self.on_held_look(out);
        }
        if self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
        {
            self.on_deadline(site, out);
        }
    }

    fn on_deadline(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        match &self.phase {
            Phase::Collecting(Some(child)) | Phase::Unmounting(child) => {
                // Its end is told by its pidfd and goes the usual way.
                let _ = child.kill();
                self.deadline = in_time(ENDING_TIME);
                self.outcome = Some(Outcome::retryable("collect", "it took too long"));
            }
            Phase::FinishingLog | Phase::Collecting(None) | Phase::Verifying => {
                self.store_failed("it took too long", site, out);
            }
            Phase::Ended | Phase::Done | Phase::Staged => self.deadline = None,
            _ => self.on_deadline_before_end(out),
        }
    }

    fn begin_ending(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        self.deadline = in_time(ENDING_TIME);
        if self.log_asked && !self.store_lost {
            self.phase = Phase::FinishingLog;
            self.ask(&Request::FinishLog, site, out);
        } else {
            self.verify(site, out);
        }
    }

    fn ask(&mut self, request: &Request, site: &mut Site, out: &mut Vec<Message>) {
        if let Err(error) = self.store.ask(request) {
            self.store_failed(&error.to_string(), site, out);
        }
    }

    /// The store is of no use any more: what follows does without.
    pub(super) fn store_failed(&mut self, why: &str, site: &mut Site, out: &mut Vec<Message>) {
        self.store_lost = true;
        let failed = |stage| Some(Outcome::retryable(stage, format!("the store: {why}")));
        match self.phase {
            Phase::Done => {}
            // Else it has said all that is to be said of it.
            Phase::Unmounting(_) if self.verifying => self.outcome = failed("collect"),
            Phase::Unmounting(_) => {}
            Phase::Staging
            | Phase::Staged
            | Phase::Launching
            | Phase::Running
            | Phase::Stopping => {
                self.kill(Outcome::retryable("run", format!("the store: {why}")), out);
            }
            Phase::Dying => self.cause = failed("run"),
            Phase::FinishingLog | Phase::Collecting(None) => {
                self.outcome = failed("collect");
                self.unmount(site, out);
            }
            Phase::Verifying => {
                self.outcome = failed("collect");
                self.finish(site, out);
            }
            Phase::Ended | Phase::Collecting(Some(_)) => self.outcome = failed("collect"),
        }
        self.verifying = false;
    }

    fn on_store(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        let answer = match self.store.hear() {
            Ok(Heard::Answer(answer)) => answer,
            Ok(Heard::Content(piece)) => return self.on_content(&piece, site, out),
            Err(error) => return self.store_failed(&error.to_string(), site, out),
        };
        match (&self.phase, answer) {
            (
                Phase::Staging
                | Phase::Staged
                | Phase::Launching
                | Phase::Running
                | Phase::Stopping
                | Phase::Dying,
                answer,
            ) => {
                self.on_store_before_end(answer, site, out);
            }
            (Phase::Ended | Phase::FinishingLog, store::Answer::LogOpen) => {}
            (Phase::Ended | Phase::FinishingLog, store::Answer::LogMarked(mark)) => {
                self.on_mark(mark, out);
            }
            (Phase::Ended | Phase::FinishingLog, store::Answer::LogExceeded { written }) => {
                self.log_written = Some(written);
            }
            (Phase::FinishingLog, store::Answer::LogFinished { object, truncated }) => {
                self.log = Some(LogRecord { object, truncated });
                self.on_log_finished(truncated, site, out);
            }
            (Phase::Collecting(None), store::Answer::CollectReady) => {
                self.start_collector(site, out)
            }
            (Phase::Collecting(_) | Phase::Unmounting(_) | Phase::Verifying, answer)
                if self.verifying || matches!(self.phase, Phase::Collecting(_)) =>
            {
                self.on_collection(answer, site, out);
            }
            (_, store::Answer::Failed { why, .. }) => self.store_failed(&why, site, out),
            (_, other) => self.store_failed(&format!("it answered {other:?}"), site, out),
        }
    }

    fn on_log_finished(&mut self, truncated: bool, site: &mut Site, out: &mut Vec<Message>) {
        let success = self.outcome.as_ref().is_some_and(Outcome::is_success);
        if success && truncated {
            self.outcome = Some(self.log_exceeded());
        }
        if !success || truncated {
            return self.verify(site, out);
        }
        self.phase = Phase::Collecting(None);
        let request = Request::collect(&self.plan);
        self.ask(&request, site, out);
    }

    pub(super) fn unmount(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        if let Some(launched) = &self.launched {
            self.clean_room.no_process =
                launched.group.is_empty().unwrap_or(false) && launched.group.remove().is_ok();
        } else {
            self.clean_room.no_process = true;
        }
        match staging::start_janitor(&self.places, self.connections.as_ref()) {
            Ok(child) => self.phase = Phase::Unmounting(child),
            Err(error) => {
                self.outcome = Some(Outcome::retryable(
                    "collect",
                    format!("the teardown cannot start: {error}"),
                ));
                self.finish(site, out);
            }
        }
    }

    fn on_helper(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        let (Phase::Collecting(Some(child)) | Phase::Unmounting(child)) = &self.phase else {
            return;
        };
        if matches!(child.try_wait(), Ok(None)) {
            return;
        }
        // How it ended does not matter: the store tells what it got, `/proc` what is still mounted.
        match self.phase {
            Phase::Collecting(_) => self.verify(site, out),
            _ if self.verifying => self.phase = Phase::Verifying,
            _ => self.finish(site, out),
        }
    }

    /// Writes the receipt and tells of it.
    pub(super) fn finish(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        self.clean_room.no_mount = staging::is_unmounted(&self.places).unwrap_or(false);
        self.clean_room.no_file = !files::exists(&self.places.base()).unwrap_or(true);
        self.clean_room.no_connection = match self.connections.take() {
            Some(connections) => connections.are_none().unwrap_or(false),
            None => true,
        };
        // From here on its trees may be taken off, unless others use them.
        self.inputs = None;
        self.phase = Phase::Done;
        self.deadline = None;
        let outcome = self.final_outcome();
        self.outcome = Some(outcome.clone());
        match site.receipts.append(self.receipt(&outcome, site)) {
            Ok(receipt) => {
                self.receipt = Some(receipt);
                self.answer(Answer::Collected { receipt, outcome }, out);
            }
            Err(error) => {
                let outcome = Outcome::retryable(
                    "collect",
                    format!("the receipt cannot be written: {error}"),
                );
                self.outcome = Some(outcome.clone());
                self.answer(Answer::Failed { outcome }, out);
            }
        }
        self.finish_destroy(out);
    }
}
