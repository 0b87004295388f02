//! What an attempt leaves: its outputs, and whether its trees are still what they were.

use std::os::fd::AsFd;

use belljar_core::{LimitKind, Outcome};
use belljar_plan::spawner::Message;
use belljar_plan::store::{self, Refusal, Request};

use super::{Attempt, Phase};
use crate::collector;
use crate::site::Site;

/// The largest whole number that canonical JSON (RFC 8785) does not round: a sparse file can seem larger.
const LARGEST_NUMBER: u64 = (1 << 53) - 1;

impl Attempt {
    /// What the store tells of outputs, and last whether the trees are unchanged.
    pub(super) fn on_collection(
        &mut self,
        answer: store::Answer,
        site: &mut Site,
        out: &mut Vec<Message>,
    ) {
        match answer {
            store::Answer::Output { entry } => self.outputs.push(entry),
            store::Answer::Image(image) => self.image_output = Some(*image),
            store::Answer::CollectDone => self.collected = true,
            store::Answer::OutputsRefused { why } => {
                self.outcome = Some(self.refusal(why));
                if let Phase::Collecting(Some(child)) = &self.phase {
                    let _ = child.kill();
                }
            }
            store::Answer::Inputs { unchanged } if self.verifying => {
                self.unchanged = Some(unchanged && self.images_unchanged());
                self.verifying = false;
                if matches!(self.phase, Phase::Verifying) {
                    self.finish(site, out);
                }
            }
            store::Answer::Failed { why, .. } => self.store_failed(&why, site, out),
            other => self.store_failed(&format!("it answered {other:?}"), site, out),
        }
    }

    pub(super) fn start_collector(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        let Some(launched) = &self.launched else {
            return;
        };
        let namespace = launched.user_namespace.as_fd();
        match collector::start(
            namespace,
            &self.places.merged(),
            self.store.connection(),
            &self.plan.outputs,
        ) {
            Ok(child) => self.phase = Phase::Collecting(Some(child)),
            Err(error) => {
                self.outcome = Some(Outcome::retryable(
                    "collect",
                    format!("the collector cannot start: {error}"),
                ));
                self.verify(site, out);
            }
        }
    }

    fn refusal(&self, why: Refusal) -> Outcome {
        let figures = self.plan.limits.get();
        match why {
            Refusal::Entry { why } => Outcome::OutputRejected { why },
            Refusal::TooManyBytes { bytes, path } => Outcome::LimitExceeded {
                limit: LimitKind::OutputBytes,
                figure: figures.output_bytes,
                used: bytes.min(LARGEST_NUMBER),
                output: Some(path),
            },
            Refusal::TooManyEntries { entries, path } => Outcome::LimitExceeded {
                limit: LimitKind::OutputEntries,
                figure: figures.output_entries,
                used: entries,
                output: Some(path),
            },
        }
    }

    /// Asks whether the trees are unchanged, which takes a store a while for large ones: meanwhile all is taken off.
    /// After a collection the request also tells the store that nothing more will come from the collector.
    pub(super) fn verify(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        if self.staged && !self.store_lost {
            match self.store.ask(&Request::VerifyInputs) {
                Ok(()) => self.verifying = true,
                Err(error) => {
                    self.store_lost = true;
                    self.outcome =
                        Some(Outcome::retryable("collect", format!("the store: {error}")));
                }
            }
        }
        self.unmount(site, out);
    }
}
