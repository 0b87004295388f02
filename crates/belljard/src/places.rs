//! Places that are few: so many in all, and so many for each who takes them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Counted places. Cheap to clone; all clones are the same places.
#[derive(Clone, Debug)]
pub(crate) struct Places<K: Clone + Eq + Hash>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    most: usize,
    each: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// Only who has some: at most as many as there are places.
    of: HashMap<K, usize>,
}

/// Places of one who takes them; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Clone + Eq + Hash> {
    places: Places<K>,
    key: K,
    count: usize,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All are taken.
    #[error("all {0} are taken")]
    All(usize),
    /// Whoever asks has as many as one may have.
    #[error("one may have {0}")]
    Own(usize),
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// `most` in all, `each` for one.
    pub(crate) fn new(most: usize, each: usize) -> Self {
        let (all, of) = (0, HashMap::new());
        let taken = Mutex::new(Taken { all, of });
        Self(Arc::new(Inner { most, each, taken }))
    }

    /// A place for `key`, if there is one.
    pub(crate) fn take(&self, key: K) -> Result<Place<K>, Full> {
        let mut place = self.none(key);
        place.more(1)?;
        Ok(place)
    }

    /// No place yet, but somebody who may take some.
    pub(crate) fn none(&self, key: K) -> Place<K> {
        let (places, count) = (self.clone(), 0);
        Place { places, key, count }
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        // Nothing can panic while it is held.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// How many it is.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// So many more places for the same one, all or none.
    pub(crate) fn more(&mut self, count: usize) -> Result<(), Full> {
        let (most, each) = (self.places.0.most, self.places.0.each);
        let mut taken = self.places.lock();
        // In this order: who has too many is told so, whatever others do.
        let own = taken.of.get(&self.key).copied().unwrap_or(0);
        if each.saturating_sub(own) < count {
            return Err(Full::Own(each));
        }
        if most.saturating_sub(taken.all) < count {
            return Err(Full::All(most));
        }
        if count > 0 {
            taken.all += count;
            taken.of.insert(self.key.clone(), own + count);
        }
        drop(taken);
        self.count += count;
        Ok(())
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(self.count);
        match taken.of.get_mut(&self.key) {
            Some(own) if *own > self.count => *own -= self.count,
            _ => {
                taken.of.remove(&self.key);
            }
        }
    }
}

/// Places for which one waits, first come, first served: so many in all, and so many for each, who waits for its own
/// first. So nobody keeps all of them, however many wait. Cheap to clone; all clones are the same places.
#[derive(Clone, Debug)]
pub(crate) struct Turns<K: Eq + Hash> {
    all: Arc<Semaphore>,
    each: usize,
    /// Only of who has some or waits.
    own: Arc<Mutex<HashMap<K, Weak<Semaphore>>>>,
}

/// One such place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl<K: Eq + Hash> Turns<K> {
    /// `most` in all, `each` for one.
    pub(crate) fn new(most: usize, each: usize) -> Self {
        let (all, own) = (Arc::new(Semaphore::new(most)), Arc::default());
        Self { all, each, own }
    }

    /// A place for `key`, when its turn comes.
    ///
    /// # Errors
    /// Never: nobody closes them.
    pub(crate) async fn wait(&self, key: K) -> Result<Turn, AcquireError> {
        let own = self.of(key).acquire_owned().await?;
        let all = self.all.clone().acquire_owned().await?;
        let (_all, _own) = (all, own);
        Ok(Turn { _all, _own })
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = all.get(&key).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(self.each));
        all.insert(key, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_and_what_is_given_back_is_free() {
        let places = Places::new(5, 3);
        let a: Vec<_> = (0..3).map(|_| places.take("a").unwrap()).collect();
        assert_eq!(places.take("a").unwrap_err(), Full::Own(3));
        let b: Vec<_> = (0..2).map(|_| places.take("b").unwrap()).collect();
        assert_eq!(places.take("c").unwrap_err(), Full::All(5));
        assert_eq!(places.take("a").unwrap_err(), Full::Own(3));
        drop(a);
        assert!(places.take("c").is_ok());
        drop(b);
        let taken = places.lock();
        assert!(taken.all == 0 && taken.of.is_empty());
    }

    #[test]
    fn several_are_taken_all_or_none() {
        let places = Places::new(10, 6);
        let mut a = places.none("a");
        assert_eq!(a.more(7), Err(Full::Own(6)));
        assert_eq!(
            (a.more(4), a.more(3), a.more(2)),
            (Ok(()), Err(Full::Own(6)), Ok(()))
        );
        let mut b = places.none("b");
        assert_eq!((b.more(5), b.more(4)), (Err(Full::All(10)), Ok(())));
        assert_eq!(b.more(usize::MAX), Err(Full::Own(6)));
        drop((a, b));
        let taken = places.lock();
        assert!(taken.all == 0 && taken.of.is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_its_own_turn_keeps_nobody_else_waiting() {
        let turns = Turns::new(3, 2);
        let a = [
            turns.wait("a").await.unwrap(),
            turns.wait("a").await.unwrap(),
        ];
        let third = turns.wait("a");
        tokio::pin!(third);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut third).await.is_err());
        drop(turns.wait("b").await.unwrap());
        drop(a);
        drop(third.await.unwrap());
        drop(turns.of("c"));
        assert_eq!(
            turns.own.lock().unwrap().len(),
            1,
            "nobody is remembered for ever"
        );
    }
}
