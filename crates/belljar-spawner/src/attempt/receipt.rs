//! What an attempt comes to: its final outcome and its receipt.

use belljar_core::{Image, Input, Outcome};
use belljar_plan::{InputRecord, Receipt, RootFsRecord};

use super::{Attempt, now};
use crate::site::Site;

impl Attempt {
    pub(super) fn final_outcome(&self) -> Outcome {
        let outcome = self.outcome.clone().unwrap_or_else(|| self.judge());
        if !outcome.is_success() {
            return outcome;
        }
        if !self.collected {
            return Outcome::retryable("collect", "the outputs were not taken to the end");
        }
        if self.plan.image_output.is_some() && self.image_output.is_none() {
            return Outcome::retryable("collect", "no image was made of the outputs");
        }
        if self.unchanged != Some(true) {
            return Outcome::permanent("collect", "a staged tree was changed while the build ran");
        }
        if !self.clean_room.is_clean() {
            return Outcome::permanent(
                "collect",
                format!(
                    "something was left after the teardown: {:?}",
                    self.clean_room
                ),
            );
        }
        outcome
    }

    pub(super) fn receipt(&self, outcome: &Outcome, site: &Site) -> Receipt {
        let launched = self.launched.as_ref();
        Receipt {
            sequence: 0,
            previous: None,
            previous_attempt: None,
            run_nonce: site.run_nonce.clone(),
            boot_id: site.boot_id.clone(),
            attempt: self.id.clone(),
            spec: self.spec,
            plan: self.plan_digest,
            binaries: site.binaries.clone(),
            rootfs: match self.plan.image {
                Image::Host => site.rootfs.record(),
                Image::Tree(Input { tree, derivation }) => RootFsRecord::Tree { tree, derivation },
            },
            image_rule: Some(self.image_rule),
            input: InputRecord {
                tree: self.plan.source,
                unchanged: self.unchanged,
            },
            inputs: self.plan.inputs.clone(),
            derivations: self.records.complete.clone(),
            enforcement: launched.and_then(|launched| launched.enforcement.clone()),
            self_probes: launched
                .map(|launched| launched.self_probes.clone())
                .unwrap_or_default(),
            steps: self.steps_with_log(),
            outcome: outcome.clone(),
            usage: self.usage.clone(),
            log: self.log.clone(),
            outputs: if outcome.is_success() {
                self.outputs.clone()
            } else {
                Vec::new()
            },
            image_output: self.image_output.clone().filter(|_| outcome.is_success()),
            clean_room: self.clean_room,
            started: self.started,
            finished: now(),
        }
    }
}
