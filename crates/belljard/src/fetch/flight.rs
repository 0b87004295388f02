//! What is being fetched: who asks for the same joins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use belljar_audit::FetchTry;
use belljar_core::{Digest, FetchUrl, GitId, Mirrors, ObjectId, ProjectId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Trouble;
use crate::tasks::{self, Task};

/// Fetches under way. A project joins its own only: else the time that one takes would say what others fetch.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<Key, Weak<Flight>>>,
}

/// By digest or commit, and URLs: who names others must see what is there.
pub(super) type Key = (ProjectId, Wanted);

/// What is brought from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// Content, by its digest, from one of these. What is made of it is no matter.
    Url(Mirrors, Digest),
    /// A pack with a commit, from this repository.
    Commit(FetchUrl, GitId),
}

/// What is tried, as it is tried.
#[derive(Clone, Default)]
pub(super) struct Tries(Arc<Mutex<Vec<FetchTry>>>);

/// What came of all URLs of one fetch.
#[derive(Clone, Debug)]
pub(super) struct Brought {
    pub(super) tries: Vec<FetchTry>,
    pub(super) content: Result<ObjectId, Trouble>,
}

/// One fetch. When nobody waits for it any more, it ends.
struct Flight {
    tries: Tries,
    result: watch::Receiver<Option<Result<ObjectId, Trouble>>>,
    _task: Task,
}

impl Flights {
    /// What comes of `work`, or of the same that somebody else has begun; until `deadline`, when it is `late`.
    pub(super) async fn join<F: Future<Output = Result<ObjectId, Trouble>> + Send + 'static>(
        &self,
        key: Key,
        deadline: Instant,
        late: impl FnOnce() -> Trouble,
        work: impl FnOnce(Tries) -> F,
    ) -> Brought {
        let (flight, joined) = self.board(key, work);
        let mut result = flight.result.clone();
        let landed = match timeout_at(deadline, result.wait_for(Option::is_some)).await {
            Ok(landed) => landed.ok().and_then(|landed| landed.clone()),
            Err(_) => Some(Err(late())),
        };
        let defect = || Err(Trouble::passing("a defect of the daemon ended the fetch"));
        let content = landed.unwrap_or_else(defect);
        let mut tries = flight.tries.told();
        for told in &mut tries {
            told.shared = joined;
        }
        if let (Some(last), Err(trouble)) = (tries.last_mut(), &content)
            && last.refused.is_none()
        {
            last.refused = Some(trouble.why.clone());
        }
        Brought { tries, content }
    }

    fn board<F: Future<Output = Result<ObjectId, Trouble>> + Send + 'static>(
        &self,
        key: Key,
        work: impl FnOnce(Tries) -> F,
    ) -> (Arc<Flight>, bool) {
        let mut under_way = self.lock();
        under_way.retain(|_, flight| flight.strong_count() > 0);
        let known = under_way.get(&key).and_then(Weak::upgrade);
        if let Some(flight) = known.filter(|flight| flight.result.borrow().is_none()) {
            return (flight, true);
        }
        let (sender, result) = watch::channel(None);
        let tries = Tries::default();
        let work = work(tries.clone());
        let task = tasks::start("fetch", async move {
            // They may have gone.
            let _ = sender.send(Some(work.await));
        });
        let flight = Arc::new(Flight {
            tries,
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

impl Tries {
    /// One more is tried.
    pub(super) fn begin(&self, told: &FetchTry) {
        self.lock().push(told.clone());
    }

    /// The last one that was begun has come to this.
    pub(super) fn end(&self, told: FetchTry) {
        let mut tries = self.lock();
        tries.pop();
        tries.push(told);
    }

    /// All so far.
    pub(super) fn told(&self) -> Vec<FetchTry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FetchTry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
