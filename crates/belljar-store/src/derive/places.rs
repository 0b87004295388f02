use std::sync::atomic::{AtomicUsize, Ordering};

use belljar_core::bounds;

/// Derivations under way, at most [`bounds::DERIVATIONS`].
#[derive(Default)]
pub(super) struct Places(AtomicUsize);

/// The place of one of them; given back when dropped.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl Places {
    /// A place, if there is one.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let place = Place(&self.0);
        (before < bounds::DERIVATIONS).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
