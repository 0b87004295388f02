//! The part of a build's life in which its evidence is made: attestation and publication.

use std::time::Duration;

use belljar_core::{AttemptId, Outcome, bounds};

use super::step::Turn;
use super::{Bundle, Collected, Effect, Fact, Next, Publication, Stage};

impl Turn {
    pub(super) fn attested(self, collected: Collected, bundle: Bundle) -> Self {
        let Collected { attempt, receipt } = collected;
        let turn = self.record(Fact::Signed {
            attempt: attempt.clone(),
            bundle: bundle.clone(),
        });
        let publication = Publication {
            outcome: Outcome::Succeeded,
            receipt: Some(receipt),
            bundle: Some(bundle),
        };
        turn.publish(attempt, publication, 0)
    }

    /// After so many tries. Never another attempt: what was asked of the signer may have been done without its answer
    /// arriving. The slot is kept meanwhile, so they have an end whatever it is that fails.
    pub(super) fn not_attested(
        self,
        collected: Collected,
        tries: u32,
        retryable: bool,
        reasons: Vec<String>,
    ) -> Self {
        if retryable && tries < bounds::EVIDENCE_TRIES {
            return self.attest(collected, tries);
        }
        let Collected { attempt, receipt } = collected;
        let outcome = Outcome::permanent("attest", reasons.join("; "));
        let turn = self.record(Fact::SigningRefused {
            attempt: attempt.clone(),
            reasons,
        });
        let publication = Publication {
            outcome,
            receipt: Some(receipt),
            bundle: None,
        };
        turn.publish(attempt, publication, 0)
    }

    /// After so many tries. The slot is kept meanwhile, so they have an end whatever it is that fails.
    pub(super) fn not_published(
        self,
        attempt: AttemptId,
        publication: Publication,
        tries: u32,
        why: String,
    ) -> Self {
        if tries < bounds::EVIDENCE_TRIES {
            return self.publish(attempt, publication, tries);
        }
        // A success whose evidence nobody can fetch is none.
        let outcome = match publication.outcome {
            Outcome::Succeeded => Outcome::permanent("publish", why),
            other => other,
        };
        self.destroy(attempt, Next::End { outcome })
    }

    pub(super) fn attest(self, collected: Collected, tries: u32) -> Self {
        let delay = backoff(tries);
        let stage = Stage::Attesting {
            collected: collected.clone(),
            tries,
        };
        self.enter(stage, Effect::Attest { collected, delay })
    }

    pub(super) fn publish(self, attempt: AttemptId, publication: Publication, tries: u32) -> Self {
        let delay = backoff(tries);
        let stage = Stage::Publishing {
            publication: publication.clone(),
            tries,
        };
        let effect = Effect::Publish {
            attempt,
            publication,
            delay,
        };
        self.enter(stage, effect)
    }
}

/// The longest pause between two tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A tenth of a second, doubled each time, at most [`LONGEST_PAUSE`].
fn backoff(tries: u32) -> Duration {
    match tries {
        0 => Duration::ZERO,
        _ => Duration::from_millis(100 << (tries - 1).min(6)).min(LONGEST_PAUSE),
    }
}
