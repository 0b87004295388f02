//! Samples and what is read from them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Times of one contender, sorted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    /// At least one time.
    pub(super) fn new(mut times: Vec<Duration>) -> Result<Self> {
        anyhow::ensure!(!times.is_empty(), "nothing was measured");
        times.sort();
        Ok(Self(times))
    }

    /// The nearest-rank percentile in milliseconds: the smallest sample that at least `percent` of all
    /// are not above. Always a time that was really seen.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent.min(100)).div_ceil(100).max(1);
        self.0[rank - 1].as_secs_f64() * 1000.0
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// One run of a contender; its result is how long it took.
pub(super) type Lap<'a> = Box<dyn FnMut() -> Result<Duration> + 'a>;

/// Run the contenders in turn, so that a slow minute of the machine hits all of them. One lap of each
/// before the first counted one fills the caches.
pub(super) fn interleave(laps: u16, contenders: &mut [(&str, Lap)]) -> Result<Vec<Samples>> {
    let mut times = vec![Vec::new(); contenders.len()];
    for lap in 0..=laps {
        for ((name, run), times) in contenders.iter_mut().zip(&mut times) {
            let time = run().with_context(|| (*name).to_owned())?;
            if lap > 0 {
                times.push(time);
            }
        }
    }
    times.into_iter().map(Samples::new).collect()
}

/// How long something takes that must succeed.
pub(super) fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: impl IntoIterator<Item = u64>) -> Samples {
        Samples::new(millis.into_iter().map(Duration::from_millis).collect()).unwrap()
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let hundred = samples((1..=100).rev());
        assert_eq!(
            [1, 50, 99, 100].map(|percent| hundred.percentile(percent)),
            [1.0, 50.0, 99.0, 100.0]
        );
        let five = samples([15, 20, 35, 40, 50]);
        assert_eq!(
            [5, 30, 40, 50, 100].map(|percent| five.percentile(percent)),
            [15.0, 20.0, 20.0, 35.0, 50.0]
        );
        assert_eq!(
            [0, 50, 99].map(|percent| samples([7]).percentile(percent)),
            [7.0, 7.0, 7.0]
        );
        assert!(Samples::new(Vec::new()).is_err());
    }

    #[test]
    fn contenders_take_turns_and_the_first_lap_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let lap = |name: char, millis: u64| -> Lap {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                Ok(Duration::from_millis(millis))
            })
        };
        let samples = interleave(2, &mut [("a", lap('a', 1)), ("b", lap('b', 2))]).unwrap();
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!(
            samples.iter().map(Samples::count).collect::<Vec<_>>(),
            [2, 2]
        );
        assert_eq!(samples[1].percentile(50), 2.0);
    }

    #[test]
    fn a_contender_that_fails_ends_the_measurement_by_name() {
        let mut contenders: [(&str, Lap); 1] =
            [("peer", Box::new(|| timed(|| anyhow::bail!("broken"))))];
        assert_eq!(
            interleave(1, &mut contenders).unwrap_err().to_string(),
            "peer"
        );
    }
}
