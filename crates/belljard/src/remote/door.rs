use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use belljar_core::bounds;
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
    spoken: Mutex<Log>,
}

/// What was logged about whom.
#[derive(Debug, Default)]
struct Log {
    /// About callers that nobody knows, all together; and about those who came when there were too many others.
    nobody: Spoken,
    /// About each other one, of late.
    of: HashMap<String, Spoken>,
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
        let name = (!why.is_anonymous()).then(|| who.to_string());
        let Some(left_out) = self.speak(name, Instant::now()) else {
            return;
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

    /// Whether one more line may be written about somebody, and how many were not since the last.
    fn speak(&self, name: Option<String>, now: Instant) -> Option<u64> {
        let mut spoken = self.0.spoken.lock().unwrap_or_else(PoisonError::into_inner);
        let Log { nobody, of } = &mut *spoken;
        let Some(name) = name else {
            return nobody.one_more(now);
        };
        if of.len() >= bounds::REFUSALS_OF && !of.contains_key(&name) {
            of.retain(|_, spoken| !spoken.is_over(now));
            if of.len() >= bounds::REFUSALS_OF {
                return nobody.one_more(now);
            }
        }
        of.entry(name)
            .or_insert_with(|| Spoken::of(bounds::REFUSALS_LOGGED_OF_PRINCIPAL))
            .one_more(now)
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
        let spoken = (0..1000).filter(|_| door.speak(None, start).is_some());
        assert_eq!(spoken.count(), bounds::REFUSALS_LOGGED as usize);
        let left_out = 1000 - u64::from(bounds::REFUSALS_LOGGED);
        assert_eq!(door.speak(None, start + Spoken::PERIOD), Some(left_out));
    }

    #[test]
    fn who_is_refused_all_the_time_neither_fills_the_log_nor_hides_others() {
        let (door, start) = (Door::default(), Instant::now());
        let of = |name: &str, now| door.speak(Some(name.to_owned()), now);
        let spoken = (0..10_000).filter(|_| of("loud", start).is_some());
        let most = bounds::REFUSALS_LOGGED_OF_PRINCIPAL;
        assert_eq!(spoken.count(), most as usize);
        assert_eq!(of("quiet", start), Some(0));
        // However many names come, few are remembered, and those that are over make room.
        for number in 0..10 * bounds::REFUSALS_OF {
            of(&number.to_string(), start);
        }
        assert_eq!(door.0.spoken.lock().unwrap().of.len(), bounds::REFUSALS_OF);
        let later = start + Spoken::PERIOD;
        assert_eq!(of("new", later), Some(0));
        assert_eq!(of("loud", later), Some(10_000 - u64::from(most)));
    }
}
