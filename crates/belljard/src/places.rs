//! Places that are few: so many in all, and so many for each who takes them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// One place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Clone + Eq + Hash> {
    places: Places<K>,
    key: K,
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
        let (most, each) = (self.0.most, self.0.each);
        let mut taken = self.lock();
        // In this order: who has too many is told so, whatever others do.
        let own = taken.of.get(&key).copied().unwrap_or(0);
        if own >= each {
            return Err(Full::Own(each));
        }
        if taken.all >= most {
            return Err(Full::All(most));
        }
        taken.all += 1;
        taken.of.insert(key.clone(), own + 1);
        drop(taken);
        let places = self.clone();
        Ok(Place { places, key })
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        // Nothing can panic while it is held.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        match taken.of.get_mut(&self.key) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                taken.of.remove(&self.key);
            }
        }
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
}
