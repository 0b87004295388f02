//! What is removed while images are looked at.

use std::sync::atomic::Ordering;

use super::Images;

impl Images {
    /// Objects are about to be removed: before an image is used again, it is looked whether its own are there.
    pub fn note_removal(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        self.held.let_all_go();
    }

    /// So many objects were found damaged by now, each counted before it is put aside or replaced.
    pub fn note_damages(&self, damages: u64) {
        if self.noted.load(Ordering::SeqCst) < damages {
            // In this order: whoever finds it noted finds the removal.
            self.note_removal();
            self.noted.fetch_max(damages, Ordering::SeqCst);
        }
    }

    /// How often objects were removed, or are being so.
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }
}
