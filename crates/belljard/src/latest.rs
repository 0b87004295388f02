//! What another process has told last, for all who want to know.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// For how long it counts that a process did not tell: so long nobody else waits for it in vain.
pub(crate) const FAILED: Duration = Duration::from_secs(1);

/// One question at a time, however many ask; who waited for it meanwhile is told the same.
#[derive(Debug)]
pub(crate) struct Latest<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Latest<T> {
    /// What was told last, if that still counts; else what comes of asking.
    pub(crate) async fn get(
        &self,
        counts: impl FnOnce(&T) -> Duration,
        ask: impl Future<Output = T>,
    ) -> T {
        let mut last = self.0.lock().await;
        if let Some((when, told)) = &*last
            && when.elapsed() < counts(told)
        {
            return told.clone();
        }
        let told = ask.await;
        *last = Some((Instant::now(), told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_one_answer_also_where_there_is_none() {
        let (latest, asked) = (Latest::<Result<usize, ()>>::default(), AtomicUsize::new(0));
        let ask = || async {
            let count = asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if count == 0 { Err(()) } else { Ok(count) }
        };
        let (ever, never) = (Duration::MAX, Duration::ZERO);
        let none = tokio::join!(
            latest.get(|_| ever, ask()),
            latest.get(|_| ever, ask()),
            latest.get(|_| ever, ask())
        );
        assert_eq!(none, (Err(()), Err(()), Err(())), "asked once");
        assert_eq!(latest.get(|_| never, ask()).await, Ok(1), "that is over");
        assert_eq!(latest.get(|_| ever, ask()).await, Ok(1));
        assert_eq!(latest.get(|_| never, ask()).await, Ok(2));
        // Who gives up asks for nobody else.
        let patience = Duration::from_millis(10);
        let silent = latest.get(|_| never, std::future::pending());
        assert!(tokio::time::timeout(patience, silent).await.is_err());
        assert_eq!(latest.get(|_| ever, ask()).await, Ok(2));
    }
}
