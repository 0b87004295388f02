//! What belljard asks for so that the disk does not fill. The store believes it what nobody needs, but never
//! removes what an attempt uses, or what was given lately.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use belljar_cas::{DERIVATIONS, Finding, ReadError, Space};
use belljar_core::{AttemptId, Digest, ObjectId, bounds};
use belljar_plan::store::{Answer, Request};

use crate::failed::{Failed, chain};
use crate::lease::Removed;
use crate::session::Store;

impl Store {
    /// Answers a request of the sort.
    pub(crate) fn keep_up(&self, request: Request) -> Result<Answer, Failed> {
        match request {
            Request::Space {} => self.space(),
            Request::Evict { images } => {
                count(images.len())?;
                let evicted = self.leases.evict(&self.images, &images);
                let evicted = evicted.map_err(|e| Failed::internal("removing images", &e))?;
                Ok(Answer::Evicted {
                    images: evicted.removed,
                    bytes: evicted.bytes,
                })
            }
            Request::Remove { objects, before } => {
                count(objects.len())?;
                self.remove(&objects, before)
            }
            Request::RemoveLogs { attempts } => {
                count(attempts.len())?;
                let removed = self.remove_logs(&attempts);
                let removed = removed.map_err(|e| Failed::internal("removing logs", &e))?;
                Ok(removed.into())
            }
            Request::Examine { object } => {
                let whole = matches!(self.examine(object, &mut |_| {})?, Finding::Whole { .. });
                Ok(Answer::Examined { whole })
            }
            Request::Scrub {} => Ok(Answer::Scrub(self.scrubber.begin())),
            Request::Scrubbed {} => Ok(Answer::Scrub(self.scrubber.told())),
            _ => Err(Failed::refused("that is asked elsewhere")),
        }
    }

    /// Whether it is for belljard to ask, and not for the spawner.
    pub(crate) fn is_clients(request: &Request) -> bool {
        matches!(
            request,
            Request::Put { .. }
                | Request::PutMany { .. }
                | Request::Receive { .. }
                | Request::Upload { .. }
                | Request::Uploaded { .. }
                | Request::Derive { .. }
                | Request::Confinement {}
                | Request::Space {}
                | Request::Evict { .. }
                | Request::Remove { .. }
                | Request::RemoveLogs { .. }
                | Request::Examine { .. }
                | Request::Scrub {}
                | Request::Scrubbed {}
        )
    }

    /// Reads an object to its end; one that is damaged is put aside. `told` hears of every piece that was read.
    pub(crate) fn examine(
        &self,
        digest: Digest,
        told: &mut dyn FnMut(usize),
    ) -> Result<Finding, ReadError> {
        let finding = self.custody.examine(digest, told)?;
        match finding {
            Finding::Whole { .. } | Finding::Absent => return Ok(finding),
            Finding::Damaged { .. } => {
                tracing::error!(%digest, "an object is damaged, and was put aside");
            }
            Finding::Unread { .. } => {
                tracing::error!(%digest, "the disk does not give an object, which was put aside");
            }
        }
        // It is gone: images are looked at again before they are used.
        self.images.note_removal();
        Ok(finding)
    }

    /// Reads an image to its end; one that is damaged is put aside. `told` hears of every piece that was read.
    pub(crate) fn examine_image(
        &self,
        name: &str,
        told: &mut dyn FnMut(usize),
    ) -> io::Result<Finding> {
        let finding = self.images.examine(name, told)?;
        match finding {
            Finding::Whole { .. } | Finding::Absent => {}
            Finding::Damaged { .. } => {
                tracing::error!(image = name, "an image is damaged, and was put aside");
            }
            Finding::Unread { .. } => {
                tracing::error!(
                    image = name,
                    "the disk does not give an image, which was put aside"
                );
            }
        }
        Ok(finding)
    }

    /// How much was found damaged since this process began.
    pub(crate) fn damages(&self) -> u64 {
        self.custody.damages().saturating_add(self.images.damages())
    }

    /// Puts an object aside that somebody has found damaged, if it is so.
    pub(crate) fn put_aside(&self, object: ObjectId) {
        if let Err(error) = self.examine(object.digest, &mut |_| {}) {
            let why = chain(&error);
            tracing::error!(%object, why, "a damaged object could not be put aside");
        }
    }

    fn space(&self) -> Result<Answer, Failed> {
        let space = Space::of(&self.root);
        let space = space.map_err(|e| Failed::internal("looking how much room there is", &e))?;
        Ok(Answer::Space {
            total: space.total,
            available: space.available,
            reserve: self.reserve,
            grace: self.grace,
        })
    }

    fn remove(&self, objects: &[Digest], before: u64) -> Result<Answer, Failed> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        // What is given again is not noted each time.
        let grace = self.grace + self.grace / bounds::GIVEN_PART;
        let before = before.min(now.saturating_sub(grace));
        let failed = |e: io::Error| Failed::internal("removing objects", &e);
        let removed = self
            .leases
            .remove(&self.images, &*self.custody, objects, before)
            .map_err(failed)?;
        for digest in objects {
            // A mark says that an object is a record of the store's own. Without the object it says nothing.
            let mark = self.root.join(DERIVATIONS).join(digest.to_hex());
            if !self.has(*digest) {
                remove_file(&mark).map_err(failed)?;
            }
        }
        Ok(removed.into())
    }

    fn has(&self, digest: Digest) -> bool {
        let path = belljar_cas::path_of(&self.root, digest);
        fs::symlink_metadata(path).is_ok()
    }

    fn remove_logs(&self, attempts: &[AttemptId]) -> io::Result<Removed> {
        let mut done = Removed::default();
        done.kept = self.leases.for_unheld(attempts, |attempt| {
            for suffix in ["log", "steps"] {
                let bytes = remove_file(&self.logs.join(format!("{attempt}.{suffix}")))?;
                done.bytes += bytes.unwrap_or(0);
                done.removed += u64::from(bytes.is_some());
            }
            Ok(())
        })?;
        Ok(done)
    }
}

impl From<Removed> for Answer {
    fn from(removed: Removed) -> Self {
        Self::Removed {
            removed: removed.removed,
            bytes: removed.bytes,
            kept: removed.kept,
        }
    }
}

fn count(named: usize) -> Result<(), Failed> {
    if named > bounds::DIGESTS_PER_FRAME {
        let most = bounds::DIGESTS_PER_FRAME;
        return Err(Failed::refused(format!(
            "{named} things at once; {most} are allowed"
        )));
    }
    Ok(())
}

/// Removes a file; gives the bytes that it took on disk, if there was one.
fn remove_file(path: &std::path::Path) -> io::Result<Option<u64>> {
    use std::os::unix::fs::MetadataExt as _;
    let bytes = match fs::symlink_metadata(path) {
        Ok(status) => status.blocks() * 512,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
