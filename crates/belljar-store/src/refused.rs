use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use belljar_plan::Refusals;

/// What was refused, in this process's own log, where who was refused cannot change it.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<Refusals>);

impl Refused {
    /// `who` was refused `what`, for a reason that may quote what came.
    pub(crate) fn note(&self, who: impl Display, what: impl Display, why: impl Into<String>) {
        // Every change is whole: a panic elsewhere cannot leave half of one.
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = refusals.one_more(Instant::now()) else {
            return;
        };
        // Given as a string, so that it is written with its control characters escaped.
        let why = Refusals::cut(why.into());
        tracing::warn!(target: "audit", %who, %what, why, left_out, "refused");
    }
}
