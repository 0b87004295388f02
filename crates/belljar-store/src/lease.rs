use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belljar_cas::{Custody, Images, Removal};
use belljar_core::{AttemptId, Digest};

/// What attempts use as long as their connections are open: it stays, whatever anybody asks. Images, and so the
/// objects that these name, and logs.
#[derive(Default)]
pub(crate) struct Leases(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// How often each image is held.
    images: BTreeMap<String, usize>,
    attempts: HashSet<AttemptId>,
    /// The objects of those images, by halves of their digests: read when something is first to be removed.
    objects: HashMap<String, HashSet<u64>>,
}

/// The images and the log of one attempt, held until this is dropped.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    attempt: AttemptId,
    images: Vec<String>,
}

/// What came of a request to remove things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) removed: u64,
    pub(crate) bytes: u64,
    pub(crate) kept: u64,
}

impl Leases {
    /// Holds images, whether they are there or not. To be done before it is looked whether the objects of one are
    /// there: since nothing is removed meanwhile, what is found then stays.
    pub(crate) fn hold(self: &Arc<Self>, attempt: &AttemptId, images: Vec<String>) -> Lease {
        let mut held = self.lock();
        for image in &images {
            *held.images.entry(image.clone()).or_default() += 1;
        }
        held.attempts.insert(attempt.clone());
        Lease {
            leases: Arc::clone(self),
            attempt: attempt.clone(),
            images,
        }
    }

    /// Waits until all is gone that is being removed.
    pub(crate) fn settle(&self) {
        drop(self.lock());
    }

    /// Removes images that nobody holds.
    pub(crate) fn evict(&self, images: &Images, names: &[String]) -> io::Result<Removed> {
        let held = self.lock();
        let mut done = Removed::default();
        for name in names {
            if held.images.contains_key(name) {
                done.kept += 1;
            } else if let Some(bytes) = images.evict(name)? {
                done.removed += 1;
                done.bytes += bytes;
            }
        }
        Ok(done)
    }

    /// Removes objects that no held image names, and that were given before `before`.
    pub(crate) fn remove(
        &self,
        images: &Images,
        custody: &dyn Custody,
        objects: &[Digest],
        before: u64,
    ) -> io::Result<Removed> {
        let mut held = self.lock();
        held.read(images)?;
        let mut done = Removed::default();
        // Before the first is gone: an image that is held from now on is looked at anew.
        images.note_removal();
        let nothing = Digest::of(b"");
        for digest in objects {
            let used = held.objects.values().any(|of| of.contains(&half(*digest)));
            if used || *digest == nothing {
                done.kept += 1;
                continue;
            }
            match custody.remove(*digest, before)? {
                Removal::Removed { bytes } => {
                    done.removed += 1;
                    done.bytes += bytes;
                }
                Removal::Given => done.kept += 1,
                Removal::Absent => {}
            }
        }
        Ok(done)
    }

    /// Does something for each attempt that nobody holds; gives how many are held.
    pub(crate) fn for_unheld(
        &self,
        attempts: &[AttemptId],
        mut act: impl FnMut(&AttemptId) -> io::Result<()>,
    ) -> io::Result<u64> {
        let held = self.lock();
        let mut kept = 0;
        for attempt in attempts {
            if held.attempts.contains(attempt) {
                kept += 1;
            } else {
                act(attempt)?;
            }
        }
        Ok(kept)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Reads what the held images name. One that is still being made names nothing yet, and looks again at its
    /// objects once it is there.
    fn read(&mut self, images: &Images) -> io::Result<()> {
        for name in self.images.keys() {
            if !self.objects.contains_key(name)
                && let Some(objects) = images.objects_of(name)?
            {
                let halves = objects.iter().map(|object| half(object.digest)).collect();
                self.objects.insert(name.clone(), halves);
            }
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        held.attempts.remove(&self.attempt);
        for image in &self.images {
            let left = held.images.get(image).map_or(0, |count| count - 1);
            if left == 0 {
                held.images.remove(image);
                held.objects.remove(image);
            } else {
                held.images.insert(image.clone(), left);
            }
        }
    }
}

/// Two objects of which these are equal are held together.
fn half(digest: Digest) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}
