//! What is mounted of an attempt once the store has images of its trees.

use std::io;

use belljar_core::Outcome;
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::store::Request;

use super::{Attempt, Phase};
use crate::rootfs::TreeRootFs;
use crate::site::Site;
use crate::staging::{self, Order};
use crate::trees::Inputs;

impl Attempt {
    /// Asks for the next record of how a tree was made; it is mounted when there are all.
    pub(super) fn go_on_staging(&mut self, site: &mut Site, out: &mut Vec<Message>) {
        if let Some(record) = self.records.next() {
            if let Err(error) = self.store.ask(&Request::Derivation { record }) {
                let why = format!("the store: {error}");
                self.kill(Outcome::retryable("stage", why), out);
            }
            return;
        }
        self.on_staged(site, out);
    }

    /// The store has sent a piece of a record.
    pub(super) fn on_content(&mut self, piece: &[u8], site: &mut Site, out: &mut Vec<Message>) {
        let taken = match self.phase {
            Phase::Staging if self.staged => self.records.take(piece),
            // It was on its way when the attempt was ended.
            Phase::Ended | Phase::Done => return,
            _ => Err("content came that nobody asked for".to_owned()),
        };
        match taken {
            Ok(false) => {}
            Ok(true) => self.go_on_staging(site, out),
            Err(why) => {
                let why = format!("the store: {why}");
                self.kill(Outcome::retryable("stage", why), out);
            }
        }
    }

    /// The store has images of its trees, and their records are here.
    fn on_staged(&mut self, site: &mut Site, out: &mut Vec<Message>) {
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
