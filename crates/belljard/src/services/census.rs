//! Something that is counted for callers by going through all of it: never twice at once, and no more than half of
//! the time, however often it is asked for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_core::{Timestamp, bounds};
use belljar_engine::ports::Clock as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::internal;
use crate::peers::SystemClock;
use crate::tasks::{self, Task};

/// For how long a count holds at the most.
const HOLDS: Duration = Duration::from_secs(bounds::COUNT_SECONDS);

/// Counts when it is asked, unless that is under way or was done just before.
pub(crate) struct Census<T> {
    count: Arc<dyn Fn() -> Counting<T> + Send + Sync>,
    latest: Mutex<Option<Count<T>>>,
    holds: fn(Duration) -> Duration,
}

/// For how long a count holds that took so long.
fn as_long(took: Duration) -> Duration {
    took.min(HOLDS)
}

/// A count under way.
pub(crate) type Counting<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// What was counted, and when that began.
#[derive(Debug)]
pub(super) struct Counted<T> {
    pub(super) what: T,
    pub(super) since: Timestamp,
}

/// It goes on also when nobody waits for it any more: else whoever asks and hangs up would begin the next.
struct Count<T> {
    told: watch::Receiver<Option<Told<T>>>,
    _task: Task,
}

struct Told<T> {
    result: Result<Arc<Counted<T>>, Status>,
    holds_until: Instant,
}

impl<T: Send + Sync + 'static> Census<T> {
    /// Of what `count` counts.
    pub(crate) fn new(count: impl Fn() -> Counting<T> + Send + Sync + 'static) -> Self {
        Self {
            count: Arc::new(count),
            latest: Mutex::default(),
            holds: as_long,
        }
    }

    /// The latest count, or a new one where that does not hold any more: for as long as it took, and at most
    /// [`bounds::COUNT_SECONDS`].
    pub(super) async fn take(&self) -> Result<Arc<Counted<T>>, Status> {
        let mut told = self.latest();
        let lost =
            |error: watch::error::RecvError| internal("what is there was not counted", &error);
        let mut result = None;
        let told = told.wait_for(|told| {
            result = told.as_ref().map(|told| told.result.clone());
            result.is_some()
        });
        told.await.map_err(lost)?;
        result.unwrap_or_else(|| Err(Status::internal("what is there was not counted")))
    }

    fn latest(&self) -> watch::Receiver<Option<Told<T>>> {
        let latest = self.latest.lock();
        // Every change is one assignment: a panic elsewhere cannot leave half of one.
        let mut latest = latest.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = latest.as_ref().filter(|count| count.holds()) {
            return count.told.clone();
        }
        let (tell, told) = watch::channel(None);
        let (counting, holds) = ((self.count)(), self.holds);
        let task = tasks::start("count", async move {
            let (since, began) = (SystemClock.now(), Instant::now());
            let result = counting.await;
            let result = result.map(|what| Arc::new(Counted { what, since }));
            let holds_until = Instant::now() + holds(began.elapsed());
            tell.send_replace(Some(Told {
                result,
                holds_until,
            }));
        });
        *latest = Some(Count {
            told: told.clone(),
            _task: task,
        });
        told
    }
}

impl<T> Count<T> {
    fn holds(&self) -> bool {
        match &*self.told.borrow() {
            Some(told) => Instant::now() < told.holds_until,
            // Under way, unless whoever counted was lost.
            None => self.told.has_changed().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const EVER: fn(Duration) -> Duration = |_| Duration::from_secs(3600);
    const NEVER: fn(Duration) -> Duration = |_| Duration::ZERO;

    /// Counts how often it is counted, each time when the gate lets it; the third time fails.
    fn census(holds: fn(Duration) -> Duration) -> (Census<usize>, Arc<Semaphore>) {
        let (counts, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let passing = gate.clone();
        let mut census = Census::new(move || {
            let count = counts.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = passing.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                match count {
                    3 => Err(Status::unavailable("three")),
                    count => Ok(count),
                }
            })
        });
        census.holds = holds;
        (census, gate)
    }

    async fn counts(census: &Census<usize>) -> Result<usize, String> {
        let counted = census.take().await;
        counted
            .map(|one| one.what)
            .map_err(|e| e.message().to_owned())
    }

    #[tokio::test]
    async fn it_is_counted_once_at_a_time_also_for_those_who_hang_up_and_ask_again() {
        let (census, gate) = census(EVER);
        for _ in 0..20 {
            let patience = Duration::from_millis(5);
            let waited = tokio::time::timeout(patience, counts(&census)).await;
            assert!(waited.is_err());
        }
        gate.add_permits(100);
        let all = tokio::join!(counts(&census), counts(&census), counts(&census));
        assert_eq!(all, (Ok(1), Ok(1), Ok(1)));
        assert_eq!(counts(&census).await, Ok(1), "it holds");
    }

    #[tokio::test]
    async fn a_count_that_holds_no_more_is_made_anew_and_a_failure_is_not_the_last_word() {
        let (census, gate) = census(NEVER);
        gate.add_permits(100);
        assert_eq!(counts(&census).await, Ok(1));
        assert_eq!(counts(&census).await, Ok(2));
        let both = tokio::join!(counts(&census), counts(&census));
        assert_eq!(both, (Err("three".to_owned()), Err("three".to_owned())));
        assert_eq!(counts(&census).await, Ok(4));
        let second = Duration::from_secs(1);
        assert_eq!(as_long(second), second);
        assert_eq!(as_long(3600 * second), HOLDS);
    }
}
