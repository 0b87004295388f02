use std::time::{Duration, Instant};

use belljar_core::bounds;

/// Time, as it goes by while the scrubber reads.
pub(crate) trait Clock: Send + Sync {
    /// Since some moment that stays the same.
    fn now(&self) -> Duration;

    /// Lets so much go by.
    fn pause(&self, time: Duration);
}

/// The time of the machine. Nobody waits for who pauses: the process ends by a signal's default disposition.
pub(crate) struct System {
    began: Instant,
}

impl System {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }
}

impl Clock for System {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Keeps whoever reads to a rate, within an object as well: no more is ever read ahead of it than
/// [`bounds::SCRUB_BURST_BYTES`], and the last piece.
pub(super) struct Pace<'a> {
    clock: &'a dyn Clock,
    /// Bytes a second.
    rate: u64,
    /// The moment at which the rate allows for all that was read.
    due: Duration,
}

impl<'a> Pace<'a> {
    pub(super) fn new(rate: u64, clock: &'a dyn Clock) -> Self {
        let due = clock.now();
        Self { clock, rate, due }
    }

    /// So many bytes were read just now: pauses when too much was.
    pub(super) fn read(&mut self, bytes: usize) {
        let now = self.clock.now();
        // Time in which nothing was read is not made up for.
        let from = self.due.max(now);
        self.due = from.saturating_add(self.time_for(bytes as u64));
        let ahead = self.due.saturating_sub(now);
        if ahead > self.time_for(bounds::SCRUB_BURST_BYTES) {
            self.clock.pause(ahead);
        }
    }

    /// How long that many bytes take at the rate, rounded up.
    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.rate.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;

    /// Goes on by pauses, and as it is told.
    #[derive(Default)]
    struct Told(Mutex<Duration>);

    impl Clock for Told {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn pause(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    proptest! {
        #[test]
        fn within_any_time_no_more_is_read_than_the_rate_allows_and_a_burst(
            rate in 1..1_u64 << 40,
            pieces in proptest::collection::vec((1..=bounds::CHUNK_BYTES, 0..100_000_u64), 1..200),
        ) {
            let clock = Told::default();
            let mut pace = Pace::new(rate, &clock);
            // When each piece was read.
            let mut read = Vec::new();
            for (bytes, micros) in pieces {
                clock.pause(Duration::from_micros(micros));
                read.push((clock.now(), bytes as u128));
                pace.read(bytes);
            }
            for first in 0..read.len() {
                let mut bytes = 0;
                for (at, piece) in &read[first..] {
                    bytes += piece;
                    let nanos = (*at - read[first].0).as_nanos();
                    let allowed = nanos * u128::from(rate) / 1_000_000_000;
                    let burst = u128::from(bounds::SCRUB_BURST_BYTES) + bounds::CHUNK_BYTES as u128;
                    // Each time is a whole number of nanoseconds.
                    let rounded = u128::from(rate.div_ceil(1_000_000_000));
                    prop_assert!(bytes <= allowed + burst + rounded, "{bytes} in {nanos} ns");
                }
            }
        }
    }

    #[test]
    fn a_reader_that_is_slower_than_the_rate_never_pauses() {
        let clock = Told::default();
        let mut pace = Pace::new(1 << 20, &clock);
        for number in 1..=100 {
            clock.pause(Duration::from_millis(100));
            pace.read(100_000);
            assert_eq!(clock.now(), Duration::from_millis(100) * number);
        }
    }
}
