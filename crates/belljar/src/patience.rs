//! How long a daemon that was lost is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belljar_wire::{Problem, Reason};
use tokio::time::{Instant, sleep};
use tonic::{Code, Response, Status};

use crate::client::Error;
use crate::terminal::Terminal;

/// How long a lost daemon may be away: it continues its builds when it comes back.
pub(crate) const RECONNECT: Duration = Duration::from_secs(30);
/// Before the first new attempt to reach it. Each later pause is twice as long as the one before, up to
/// [`LONGEST`].
pub(crate) const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(4);

/// How much of it is left.
#[derive(Debug)]
pub(crate) struct Patience {
    lost: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// All of it.
    pub(crate) fn new() -> Self {
        Self {
            lost: None,
            pause: PAUSE,
        }
    }

    /// Something came, or was taken: all of it again.
    pub(crate) fn renew(&mut self) {
        *self = Self::new();
    }

    /// Waits before another try after a call that failed so.
    ///
    /// # Errors
    /// The status again, when it will not pass, or none of the patience is left.
    pub(crate) async fn wait(&mut self, status: Status) -> Result<(), Status> {
        if !is_lost(&status) {
            return Err(status);
        }
        if self.lost.is_none() {
            Terminal::new().note("the daemon does not answer; trying again");
        }
        self.spend(status).await
    }

    /// The same, for a failure that the caller knows to pass.
    ///
    /// # Errors
    /// The status again, when none of the patience is left.
    pub(crate) async fn spend(&mut self, status: Status) -> Result<(), Status> {
        match self.next(Instant::now()) {
            Some(pause) => {
                sleep(pause).await;
                Ok(())
            }
            None => Err(status),
        }
    }

    /// How long to wait now; none if there is no patience left.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.lost.get_or_insert(now);
        let pause = self.pause;
        self.pause = (2 * self.pause).min(LONGEST);
        (now.duration_since(since) <= RECONNECT).then_some(pause)
    }
}

/// Asks again as long as the connection is lost, and there is patience: for calls that may well be made twice. Who
/// has never answered is not waited for.
///
/// # Errors
/// What the daemon says.
pub(crate) async fn answered<T, F>(
    heard: &AtomicBool,
    doing: &'static str,
    mut ask: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut patience = Patience::new();
    loop {
        match ask().await {
            Ok(answer) => {
                heard.store(true, Ordering::Relaxed);
                return Ok(answer.into_inner());
            }
            Err(status) if !heard.load(Ordering::Relaxed) || !is_broken(&status) => {
                return Err(Error::call(doing, &status));
            }
            Err(status) => {
                let waited = patience.wait(status).await;
                waited.map_err(|status| Error::call(doing, &status))?;
            }
        }
    }
}

/// Whether a stream that failed like this may well be gone on with.
pub(crate) fn is_lost(status: &Status) -> bool {
    is_broken(status) || Problem::from_status(status).reason == Reason::Unavailable
}

/// Whether it was the connection that failed, and not the daemon who said so: one that breaks in the middle shows as
/// one of these codes.
fn is_broken(status: &Status) -> bool {
    matches!(
        Problem::from_status(status).reason,
        Reason::Foreign(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    #[test]
    fn pauses_grow_and_end() {
        let (began, mut patience) = (Instant::now(), Patience::new());
        let (mut waited, mut at) = (Vec::new(), Duration::ZERO);
        while let Some(pause) = patience.next(began + at) {
            waited.push(pause.as_millis());
            at += pause;
        }
        assert_eq!(waited[..6], [250, 500, 1000, 2000, 4000, 4000]);
        assert_eq!(at.as_millis(), 31_750);
        // Progress renews it.
        patience.renew();
        assert_eq!(patience.next(began + at), Some(PAUSE));
        assert!(patience.next(began + at + RECONNECT).is_some());
        assert!(patience.next(began + at + 2 * RECONNECT).is_none());
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_an_answer_is_taken() {
        let heard = AtomicBool::new(true);
        let mut asked = 0;
        let refused = answered(&heard, "trying", || {
            asked += 1;
            ready(Err::<Response<()>, _>(
                Problem::not_found("builds/x").into(),
            ))
        });
        assert!(refused.await.is_err());
        assert_eq!(asked, 1);
        let mut asked = 0;
        let found = answered(&heard, "trying", || {
            asked += 1;
            ready(match asked {
                3 => Ok(Response::new(7)),
                _ => Err(Status::unknown("transport error")),
            })
        });
        assert_eq!(found.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn who_has_never_answered_is_not_waited_for() {
        let heard = AtomicBool::new(false);
        let lost = answered(&heard, "trying", || {
            ready(Err::<Response<()>, _>(Status::unavailable("gone")))
        });
        assert!(lost.await.is_err());
        // A refusal is not the answer that is waited for, either: it may be somebody else's.
        assert!(!heard.load(Ordering::Relaxed));
        let found = answered(&heard, "trying", || ready(Ok(Response::new(()))));
        assert!(found.await.is_ok() && heard.load(Ordering::Relaxed));
    }
}
