//! What is being fetched: who asks for the same joins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use belljar_core::{Fetch, ProjectId};
use tokio::sync::watch;

use super::Trouble;
use super::download::Brought;
use crate::tasks::{self, Task};

/// Fetches under way. A project joins its own only: else the time that one takes would say what others fetch.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<Key, Weak<Flight>>>,
}

/// By digest and URLs: who names others must see what is there.
pub(super) type Key = (ProjectId, Fetch);

/// One fetch. When nobody waits for it any more, it ends.
struct Flight {
    result: watch::Receiver<Option<Brought>>,
    _task: Task,
}

impl Flights {
    /// What comes of `work`, or of the same that somebody else has begun.
    pub(super) async fn join<F: Future<Output = Brought> + Send + 'static>(
        &self,
        key: Key,
        work: impl FnOnce() -> F,
    ) -> Brought {
        let (flight, joined) = self.board(key, work);
        let mut result = flight.result.clone();
        let landed = result.wait_for(Option::is_some).await;
        let landed = landed.ok().and_then(|landed| landed.clone());
        let mut brought = landed.unwrap_or_else(|| Brought {
            tries: Vec::new(),
            content: Err(Trouble::passing("a defect of the daemon ended the fetch")),
        });
        for told in &mut brought.tries {
            told.shared = joined;
        }
        brought
    }

    fn board<F: Future<Output = Brought> + Send + 'static>(
        &self,
        key: Key,
        work: impl FnOnce() -> F,
    ) -> (Arc<Flight>, bool) {
        let mut under_way = self.lock();
        under_way.retain(|_, flight| flight.strong_count() > 0);
        let known = under_way.get(&key).and_then(Weak::upgrade);
        if let Some(flight) = known.filter(|flight| flight.result.borrow().is_none()) {
            return (flight, true);
        }
        let (sender, result) = watch::channel(None);
        let work = work();
        let task = tasks::start("fetch", async move {
            // They may have gone.
            let _ = sender.send(Some(work.await));
        });
        let flight = Arc::new(Flight {
            result,
            _task: task,
        });
        under_way.insert(key, Arc::downgrade(&flight));
        (flight, false)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<Flight>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
