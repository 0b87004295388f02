use std::time::{Duration, Instant};

use belljar_core::bounds;

/// How much a process writes into its log about what it has refused to a peer. Peers may come as often as they
/// like; the log must not grow with them.
#[derive(Debug)]
pub struct Refusals {
    most: u32,
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Default for Refusals {
    /// With [`bounds::REFUSALS_LOGGED`] lines.
    fn default() -> Self {
        Self::of(bounds::REFUSALS_LOGGED)
    }
}

impl Refusals {
    /// In this time at most so many lines are written.
    pub const PERIOD: Duration = Duration::from_secs(10);

    /// With at most so many lines in each period.
    pub const fn of(most: u32) -> Self {
        Self {
            most,
            since: None,
            lines: 0,
            left_out: 0,
        }
    }

    /// Whether nothing of it matters any more: its time is over, and nothing was left out.
    pub fn is_over(&self, now: Instant) -> bool {
        self.left_out == 0 && self.is_fresh(now)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.since
            .is_none_or(|since| now.duration_since(since) >= Self::PERIOD)
    }

    /// Something was refused `now`. Gives how many refusals were left out since the last one that was written,
    /// or nothing if this one is to be left out, too.
    pub fn one_more(&mut self, now: Instant) -> Option<u64> {
        if self.is_fresh(now) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines >= self.most {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    /// A reason as it is recorded and told: it may quote what the peer has sent, at any length.
    pub fn cut(mut reason: String) -> String {
        reason.truncate(reason.floor_char_boundary(bounds::REASON_BYTES));
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_written_and_those_left_out_are_counted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let written = (0..1000).filter(|_| refusals.one_more(start).is_some());
        assert_eq!(written.count(), bounds::REFUSALS_LOGGED as usize);
        let left_out = 1000 - u64::from(bounds::REFUSALS_LOGGED);
        let later = start + Refusals::PERIOD;
        assert!(!refusals.is_over(later), "somebody was left out");
        assert_eq!(refusals.one_more(later), Some(left_out));
        assert!(!refusals.is_over(later) && refusals.is_over(later + Refusals::PERIOD));
        assert_eq!(refusals.one_more(later), Some(0));
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let cut = Refusals::cut("é".repeat(bounds::REASON_BYTES));
        assert_eq!(cut.len(), bounds::REASON_BYTES);
        assert_eq!(Refusals::cut("short".to_owned()), "short");
    }
}
