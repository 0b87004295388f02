use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use belljar_plan::Refusals as Spoken;
use belljar_wire::Refusals;

/// Why somebody was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No TLS 1.3, or no certificate of a client CA.
    Handshake,
    /// A certificate that is about nobody.
    Identity,
    /// As many connections as there may be.
    Busy,
    /// Known, but a member of no project.
    Stranger,
    /// A member without the right.
    Right,
    /// What belongs to a project that the caller is no member of.
    OtherProject,
    /// A blob that is there, but not for the caller's project.
    Blob,
}

/// Counts who is turned away, and says so in the daemon's log. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: [AtomicU64; Refusal::ALL.len()],
    /// What was logged about callers that nobody knows.
    spoken: Mutex<Spoken>,
}

impl Refusal {
    const ALL: [Self; 7] = [
        Self::Handshake,
        Self::Identity,
        Self::Busy,
        Self::Stranger,
        Self::Right,
        Self::OtherProject,
        Self::Blob,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Handshake => "HANDSHAKE",
            Self::Identity => "IDENTITY",
            Self::Busy => "BUSY",
            Self::Stranger => "STRANGER",
            Self::Right => "RIGHT",
            Self::OtherProject => "OTHER_PROJECT",
            Self::Blob => "BLOB",
        }
    }

    /// Whether it is about somebody whom no certificate vouches for.
    fn is_anonymous(self) -> bool {
        matches!(self, Self::Handshake | Self::Identity | Self::Busy)
    }
}

impl Door {
    /// `who` was turned away; `what` says over what.
    pub(crate) fn refused(&self, why: Refusal, who: &dyn Display, what: &dyn Display) {
        self.0.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        let left_out = if why.is_anonymous() {
            match self.speak(Instant::now()) {
                Some(left_out) => left_out,
                None => return,
            }
        } else {
            0
        };
        tracing::warn!(
            target: "audit",
            reason = why.word(),
            %who,
            %what,
            left_out,
            "turned away"
        );
    }

    /// Whether one more line may be written, and how many were not since the last.
    fn speak(&self, now: Instant) -> Option<u64> {
        let mut spoken = self.0.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        spoken.one_more(now)
    }

    /// How often for each reason, since the start.
    pub(crate) fn refusals(&self) -> Vec<Refusals> {
        let count = |why: Refusal| Refusals {
            reason: why.word().to_owned(),
            count: self.0.counts[why as usize].load(Ordering::Relaxed),
        };
        Refusal::ALL.into_iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::bounds;

    #[test]
    fn every_refusal_counts_and_few_of_nobodys_are_logged() {
        let door = Door::default();
        for (at, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
            (0..=at).for_each(|_| door.refused(why, &"somebody", &"something"));
        }
        let counts: Vec<u64> = door.refusals().iter().map(|one| one.count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7]);
        let (door, start) = (Door::default(), Instant::now());
        let spoken = (0..1000).filter(|_| door.speak(start).is_some()).count();
        assert_eq!(spoken, bounds::REFUSALS_LOGGED as usize);
        let left_out = 1000 - u64::from(bounds::REFUSALS_LOGGED);
        assert_eq!(door.speak(start + Spoken::PERIOD), Some(left_out));
    }
}
