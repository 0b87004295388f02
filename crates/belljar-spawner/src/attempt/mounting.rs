//! What is mounted of an attempt once the store has images of its trees.

use std::io;

use belljar_core::Outcome;
use belljar_plan::spawner::{Answer, Message};

use super::{Attempt, Phase};
use crate::rootfs::TreeRootFs;
use crate::site::Site;
use crate::staging::{self, Order};
use crate::trees::Inputs;

impl Attempt {
    /// The store has images of its trees.
    pub(super) fn on_staged(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        self.staged = true;
        match self.mount(site) {
            Ok(()) => {
                self.phase = Phase::Staged;
                self.deadline = None;
                self.answer(Answer::Staged, out);
            }
            Err(cause) => self.kill(cause, out),
        }
    }

    /// Mounts its trees, of which the store has images by now, and its scratch space.
    fn mount(&mut self, site: &mut Site) -> Result<(), Outcome> {
        let failed = |e: io::Error| Outcome::retryable("stage", e);
        let inputs = Inputs::mount(&mut site.trees, &self.plan).map_err(failed)?;
        if let Some(image) = &inputs.image {
            let looked = TreeRootFs::look(image.place());
            let refused = |reason| Outcome::Refused {
                reasons: vec![reason],
            };
            self.image = Some(looked.map_err(refused)?);
        }
        let owners = site.owners(self.slot, self.ids).map_err(failed)?;
        let order = Order {
            inputs: &inputs,
            owners: &owners,
            ids: self.ids,
            limits: self.plan.limits.get(),
        };
        let mounted = staging::mount_all(&self.places, order).map_err(failed);
        self.inputs = Some(inputs);
        mounted
    }

    /// Whether the images that the kernel has read from are the ones that were mounted.
    pub(super) fn images_unchanged(&self) -> bool {
        let inputs = self.inputs.as_ref();
        inputs.is_some_and(|inputs| inputs.are_unchanged().unwrap_or(false))
    }
}
