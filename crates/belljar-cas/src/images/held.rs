//! Files of the objects of trees that builds have used, kept open: to ask one of these how it looks takes half of the
//! time that asking for a name takes, and nothing has to be looked up. A name that leads to another file by now is
//! noticed as well, since a file that loses one has another time of change.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_core::bounds;
use rustix::process::{Resource, getrlimit};

use super::Stamp;
use crate::HeldObject;

/// All objects of one image.
#[derive(Debug)]
struct HeldTree {
    name: String,
    /// Of the image that names them.
    stamp: Stamp,
    objects: Arc<Vec<HeldObject>>,
}

/// The trees that builds used last.
#[derive(Debug)]
pub(super) struct HeldTrees {
    trees: Mutex<VecDeque<HeldTree>>,
    /// Most objects of all.
    most: usize,
}

impl HeldTrees {
    pub(super) fn new() -> Self {
        // A quarter of all descriptors is for everything else.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 4 * 3;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self::of(limit.min(bounds::HELD_OBJECTS))
    }

    fn of(most: usize) -> Self {
        Self {
            trees: Mutex::default(),
            most,
        }
    }

    /// Whether so many objects may be held at all.
    pub(super) fn takes(&self, objects: usize) -> bool {
        objects <= self.most
    }

    /// The objects of an image that has not changed since they were held.
    pub(super) fn get(&self, name: &str, stamp: Stamp) -> Option<Arc<Vec<HeldObject>>> {
        let trees = self.lock();
        let tree = trees.iter().find(|tree| tree.name == name)?;
        (tree.stamp == stamp).then(|| Arc::clone(&tree.objects))
    }

    /// Holds the objects of one more image; those that have been held the longest make room.
    pub(super) fn hold(&self, name: &str, stamp: Stamp, objects: Vec<HeldObject>) {
        if !self.takes(objects.len()) {
            return;
        }
        let mut trees = self.lock();
        trees.retain(|tree| tree.name != name);
        let held =
            |trees: &VecDeque<HeldTree>| trees.iter().map(|t| t.objects.len()).sum::<usize>();
        while held(&trees) + objects.len() > self.most {
            trees.pop_front();
        }
        trees.push_back(HeldTree {
            name: name.to_owned(),
            stamp,
            objects: Arc::new(objects),
        });
    }

    /// Lets go of one image's objects, of which some have changed.
    pub(super) fn let_go(&self, name: &str) {
        self.lock().retain(|tree| tree.name != name);
    }

    /// Lets go of all: what is removed takes room as long as somebody holds it.
    pub(super) fn let_all_go(&self) {
        self.lock().clear();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().iter().map(|tree| tree.objects.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<HeldTree>> {
        // Every change is whole before anything can panic.
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::ObjectId;

    #[test]
    fn no_more_are_held_than_there_is_room_for_and_the_last_ones_stay() {
        let stamp = |size| Stamp {
            inode: 1,
            size,
            modified: (0, 0),
            changed: (0, 0),
        };
        let object = || {
            let file = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
            let file = file.unwrap();
            let status = rustix::fs::fstat(&file).unwrap();
            HeldObject::new(ObjectId::of(b""), file, &status, (0, 0))
        };
        let some = |count: usize| (0..count).map(|_| object()).collect::<Vec<_>>();
        let held = HeldTrees::of(4);
        held.hold("one", stamp(1), some(5));
        assert!(!held.takes(5) && held.count() == 0);
        held.hold("one", stamp(1), some(2));
        held.hold("two", stamp(1), some(2));
        assert!(held.get("one", stamp(1)).is_some_and(|of| of.len() == 2));
        assert!(held.get("one", stamp(2)).is_none(), "another image");
        held.hold("three", stamp(1), some(1));
        assert!(held.get("one", stamp(1)).is_none() && held.count() == 3);
        held.hold("two", stamp(2), some(1));
        assert!(held.get("two", stamp(2)).is_some() && held.count() == 2);
        held.let_go("two");
        assert_eq!(held.count(), 1);
        held.let_all_go();
        assert_eq!(held.count(), 0);
    }
}
