//! Files of the objects of trees that builds have used, kept open: to ask one of these how it looks takes half of the
//! time that asking for a name takes, and nothing has to be looked up. A name that leads to another file by now is
//! noticed as well, since a file that loses one has another time of change.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    objects: Arc<Held>,
}

/// Objects that are held, also by who looks at them while they make room for others.
#[derive(Debug)]
pub(super) struct Held {
    objects: Vec<HeldObject>,
    /// Given back after they were closed.
    _room: Room,
}

impl Deref for Held {
    type Target = [HeldObject];

    fn deref(&self) -> &[HeldObject] {
        &self.objects
    }
}

/// Room for so many objects, until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    objects: usize,
    taken: Arc<AtomicUsize>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.objects, Ordering::SeqCst);
    }
}

/// The trees that builds used last.
#[derive(Debug)]
pub(super) struct HeldTrees {
    trees: Mutex<VecDeque<HeldTree>>,
    /// For how many objects there is no room: those that are held, and those that are about to be.
    taken: Arc<AtomicUsize>,
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
            taken: Arc::default(),
            most,
        }
    }

    /// Makes room for so many objects, before the first of them is opened; those that have been held the longest go
    /// for it. None where there is too little even so.
    pub(super) fn make_room(&self, objects: usize) -> Option<Room> {
        if objects > self.most {
            return None;
        }
        let mut trees = self.lock();
        loop {
            // Nobody else adds to it while the lock is held.
            if self.taken.load(Ordering::SeqCst) + objects <= self.most {
                break;
            }
            trees.pop_front()?;
        }
        self.taken.fetch_add(objects, Ordering::SeqCst);
        let taken = Arc::clone(&self.taken);
        Some(Room { objects, taken })
    }

    /// The objects of an image that has not changed since they were held.
    pub(super) fn get(&self, name: &str, stamp: Stamp) -> Option<Arc<Held>> {
        let trees = self.lock();
        let tree = trees.iter().find(|tree| tree.name == name)?;
        (tree.stamp == stamp).then(|| Arc::clone(&tree.objects))
    }

    /// Holds the objects of one more image, for which room was made.
    pub(super) fn hold(&self, name: &str, stamp: Stamp, objects: Vec<HeldObject>, room: Room) {
        let mut trees = self.lock();
        trees.retain(|tree| tree.name != name);
        trees.push_back(HeldTree {
            name: name.to_owned(),
            stamp,
            objects: Arc::new(Held {
                objects,
                _room: room,
            }),
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
    fn no_more_are_open_than_there_is_room_for_and_the_last_ones_stay() {
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
        let held = HeldTrees::of(4);
        let hold = |name: &str, size, count: usize| {
            let room = held.make_room(count).unwrap();
            held.hold(
                name,
                stamp(size),
                (0..count).map(|_| object()).collect(),
                room,
            );
        };
        assert!(held.make_room(5).is_none() && held.count() == 0);
        hold("one", 1, 2);
        hold("two", 1, 2);
        assert!(held.get("one", stamp(1)).is_some_and(|of| of.len() == 2));
        assert!(held.get("one", stamp(2)).is_none(), "another image");
        hold("three", 1, 1);
        assert!(held.get("one", stamp(1)).is_none() && held.count() == 3);
        hold("two", 2, 1);
        assert!(held.get("two", stamp(2)).is_some() && held.count() == 2);
        // What is about to be held has its room before it is opened, and what somebody looks at keeps it.
        let looked_at = held.get("two", stamp(2));
        let room = held.make_room(3);
        assert!(room.is_some() && held.make_room(1).is_none() && held.count() == 0);
        drop(looked_at);
        assert!(held.make_room(1).is_some());
        drop(room);
        hold("two", 3, 1);
        assert_eq!(held.count(), 1);
        held.let_go("two");
        assert_eq!(held.count(), 0);
        hold("two", 3, 4);
        held.let_all_go();
        assert!(held.count() == 0 && held.make_room(4).is_some());
    }
}
