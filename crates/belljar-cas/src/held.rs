use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use belljar_core::bounds;
use rustix::process::{Resource, getrlimit};

use crate::stamps::Key;

/// Files of objects that builds have used, kept open: to ask one of these how it looks costs half of asking for a
/// name. A name that leads to another file by now is noticed as well, since a file that loses one has another time of
/// change.
#[derive(Debug)]
pub(crate) struct Held {
    /// Opened by their paths only (`O_PATH`, open(2)): nobody can read or write through them.
    files: RwLock<HashMap<Key, OwnedFd>>,
    most: usize,
    /// When all were last let go for others.
    emptied: Mutex<Option<Instant>>,
}

impl Held {
    pub(crate) fn new() -> Self {
        // Half of all descriptors is for everything else.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
        Self::of(
            usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(bounds::HELD_OBJECTS),
        )
    }

    fn of(most: usize) -> Self {
        Self {
            files: RwLock::default(),
            most,
            emptied: Mutex::default(),
        }
    }

    /// What is held while the answer is.
    pub(crate) fn files(&self) -> RwLockReadGuard<'_, HashMap<Key, OwnedFd>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `more` find room, for which all others may be let go: not again and again, where builds in turns
    /// use more than there is room for.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        if self.files().len() + more <= self.most {
            return true;
        }
        let mut emptied = self.emptied.lock().unwrap_or_else(PoisonError::into_inner);
        let again = emptied.is_some_and(|at| at.elapsed() < EMPTIED_AGAIN);
        if more > self.most || again {
            return false;
        }
        *emptied = Some(Instant::now());
        self.change().clear();
        true
    }

    /// Holds these, as far as there is room.
    pub(crate) fn hold(&self, files: Vec<(Key, OwnedFd)>) {
        let mut held = self.change();
        for (key, file) in files {
            if held.len() < self.most || held.contains_key(&key) {
                held.insert(key, file);
            }
        }
    }

    /// Lets go of one, so that its blocks are free when it is removed.
    pub(crate) fn let_go(&self, key: Key) {
        self.change().remove(&key);
    }

    fn change(&self) -> RwLockWriteGuard<'_, HashMap<Key, OwnedFd>> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of one.
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long those are held at least for which others were let go.
const EMPTIED_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};

    #[test]
    fn no_more_are_held_than_there_is_room_for_and_others_come_in_their_place_once_in_a_while() {
        let held = Held::of(4);
        let some = |keys: std::ops::Range<Key>| {
            let file = || open("/", OFlags::PATH, Mode::empty()).unwrap();
            keys.map(|key| (key, file())).collect::<Vec<_>>()
        };
        assert!(!held.has_room(5));
        assert!(held.has_room(3));
        held.hold(some(0..3));
        held.hold(some(2..9));
        assert_eq!(held.files().len(), 4);
        assert!(held.has_room(2), "all others are let go");
        assert!(held.files().is_empty());
        held.hold(some(0..4));
        assert!(!held.has_room(2), "not again at once");
        held.let_go(3);
        assert_eq!(held.files().len(), 3);
        assert!(held.has_room(1));
    }
}
