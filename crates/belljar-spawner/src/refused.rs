use std::fmt::Display;
use std::time::Instant;

use belljar_plan::Refusals;

/// What was refused, in this process's own log, where who was refused cannot change it.
#[derive(Debug, Default)]
pub struct Refused(Refusals);

impl Refused {
    /// `who` was refused `what`, for a reason that may quote what came.
    pub fn note(&mut self, who: impl Display, what: impl Display, why: impl Display) {
        let Some(left_out) = self.0.one_more(Instant::now()) else {
            return;
        };
        // Given as a string, so that it is written with its control characters escaped.
        let why = Refusals::cut(why.to_string());
        tracing::warn!(target: "audit", %who, %what, why, left_out, "refused");
    }
}
