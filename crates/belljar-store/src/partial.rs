//! Uploads that broke off, until somebody goes on with them. They live in this process alone, as files
//! without names: whatever ends it removes them, and none is ever an object.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_cas::PendingBlob;
use belljar_core::{BlobName, Digest, ObjectId, ProjectId, bounds};
use belljar_plan::store::Sender;

use crate::failed::Failed;
use crate::upload::Asked;

/// How long one who wants to go on waits for the connection before to be seen broken.
const HANDOVER: Duration = Duration::from_secs(10);
/// How long one who only asks waits for it.
const LOOK: Duration = Duration::from_secs(1);
/// How long an interrupted upload is kept.
const KEPT: Duration = Duration::from_secs(bounds::PARTIAL_SECONDS);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Of all together.
    pub(crate) all: Share,
    /// Of one project.
    pub(crate) project: Share,
    /// Of one principal in a project.
    pub(crate) principal: Share,
    pub(crate) age: Duration,
}

/// A number of uploads, and how many bytes have come of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) uploads: usize,
    pub(crate) bytes: u64,
}

impl Most {
    /// As [`bounds`] has it.
    pub(crate) const DUE: Self = Self {
        all: Share {
            uploads: bounds::PARTIAL_UPLOADS,
            bytes: bounds::PARTIAL_BYTES,
        },
        project: Share {
            uploads: bounds::PARTIAL_UPLOADS_PER_PROJECT,
            bytes: bounds::PARTIAL_BYTES_PER_PROJECT,
        },
        principal: Share {
            uploads: bounds::PARTIAL_UPLOADS_PER_PRINCIPAL,
            bytes: bounds::PARTIAL_BYTES_PER_PROJECT,
        },
        age: KEPT,
    };
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.uploads += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// What it is too much of, if it is.
    fn beyond(&self, most: Self) -> Option<Measure> {
        if self.bytes > most.bytes {
            Some(|share| share.bytes)
        } else if self.uploads > most.uploads {
            Some(|share| share.uploads as u64)
        } else {
            None
        }
    }
}

/// One of the figures of a share.
type Measure = fn(&Share) -> u64;

/// All uploads that are under way or interrupted, by their keys.
pub(crate) struct Partials {
    most: Most,
    table: Mutex<BTreeMap<Digest, Entry>>,
    /// Somebody has given an upload back.
    returned: Condvar,
}

enum Entry {
    /// Some connection has it; so much has come.
    Active(BlobName, Arc<AtomicU64>),
    Waiting(Partial),
}

/// What came of one upload.
struct Partial {
    sender: Sender,
    blob: BlobName,
    content: Box<dyn PendingBlob>,
    written: u64,
    since: Instant,
}

/// What came of asking for an upload.
pub(crate) enum Opening {
    /// It is the asker's.
    Here(Open),
    /// It does not stand at the offset that was asked for.
    Elsewhere { committed: u64 },
}

/// An upload that one connection has. Dropped before its end it waits for the next one.
pub(crate) struct Open {
    partials: Arc<Partials>,
    key: Digest,
    sender: Sender,
    blob: BlobName,
    /// None when there is nothing to keep.
    content: Option<Box<dyn PendingBlob>>,
    written: Arc<AtomicU64>,
}

impl Partials {
    pub(crate) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self {
            most,
            table: Mutex::default(),
            returned: Condvar::new(),
        })
    }

    /// Takes the upload `asked.key` where it stands, or begins it. From offset 0 it begins anew, whatever
    /// came before.
    pub(crate) fn open(
        self: &Arc<Self>,
        asked: Asked,
        begin: impl FnOnce() -> Result<Box<dyn PendingBlob>, Failed>,
    ) -> Result<Opening, Failed> {
        let mut table = self.free(asked.key, HANDOVER);
        self.expire(&mut table);
        let kept = match table.remove(&asked.key) {
            Some(Entry::Active(blob, written)) => {
                table.insert(asked.key, Entry::Active(blob, written));
                return Err(Failed::busy("another connection is sending this upload"));
            }
            Some(Entry::Waiting(partial)) if partial.blob == asked.blob => Some(partial),
            Some(Entry::Waiting(_)) | None => None,
        };
        let committed = kept.as_ref().map_or(0, |partial| partial.written);
        let (content, written) = match kept {
            Some(partial) if asked.offset == committed => (partial.content, committed),
            _ if asked.offset == 0 => (begin()?, 0),
            kept => {
                if let Some(partial) = kept {
                    table.insert(asked.key, Entry::Waiting(partial));
                }
                return Ok(Opening::Elsewhere { committed });
            }
        };
        let written = Arc::new(AtomicU64::new(written));
        table.insert(asked.key, Entry::Active(asked.blob, Arc::clone(&written)));
        Ok(Opening::Here(Open {
            partials: Arc::clone(self),
            key: asked.key,
            sender: asked.sender,
            blob: asked.blob,
            content: Some(content),
            written,
        }))
    }

    /// How much of an upload has come.
    pub(crate) fn committed(&self, key: Digest, blob: BlobName) -> u64 {
        let mut table = self.free(key, LOOK);
        self.expire(&mut table);
        match table.get(&key) {
            Some(Entry::Active(of, written)) if *of == blob => written.load(Ordering::Acquire),
            Some(Entry::Waiting(partial)) if partial.blob == blob => partial.written,
            _ => 0,
        }
    }

    /// Returns when the table can be had: where somebody hangs who has it, that is never.
    pub(crate) fn lives(&self) {
        drop(self.lock());
    }

    /// Drops what nobody has gone on with in time.
    pub(crate) fn sweep(&self) {
        self.expire(&mut self.lock());
    }

    /// The table, when no connection has the upload, or after waiting for that.
    fn free(&self, key: Digest, patience: Duration) -> MutexGuard<'_, BTreeMap<Digest, Entry>> {
        let active = |table: &mut BTreeMap<Digest, Entry>| {
            matches!(table.get(&key), Some(Entry::Active(..)))
        };
        let waited = self
            .returned
            .wait_timeout_while(self.lock(), patience, active);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn expire(&self, table: &mut BTreeMap<Digest, Entry>) {
        table.retain(|_, entry| match entry {
            Entry::Active(..) => true,
            Entry::Waiting(partial) => partial.since.elapsed() < self.most.age,
        });
    }

    /// Keeps what came of an upload, and lets go of some where that is too much.
    fn give_back(&self, key: Digest, partial: Option<Partial>) {
        let mut table = self.lock();
        table.remove(&key);
        if let Some(partial) = partial.filter(|partial| partial.written > 0) {
            table.insert(key, Entry::Waiting(partial));
        }
        self.expire(&mut table);
        while let Some(oldest) = self.one_too_many(&table) {
            table.remove(&oldest);
        }
        drop(table);
        self.returned.notify_all();
    }

    /// What has to go, if anything does. Whoever has too much of its own makes room itself; else who has most, in
    /// the project that has most: so nobody's uploads go for somebody's who keeps more.
    fn one_too_many(&self, table: &BTreeMap<Digest, Entry>) -> Option<Digest> {
        let waiting = || {
            table.iter().filter_map(|(key, entry)| match entry {
                Entry::Waiting(partial) => Some((key, partial)),
                Entry::Active(..) => None,
            })
        };
        let mut all = Share::default();
        let mut projects: BTreeMap<&ProjectId, Share> = BTreeMap::new();
        let mut senders: BTreeMap<&Sender, Share> = BTreeMap::new();
        for (
            _,
            Partial {
                sender, written, ..
            },
        ) in waiting()
        {
            all.add(*written);
            projects.entry(&sender.project).or_default().add(*written);
            senders.entry(sender).or_default().add(*written);
        }
        let of_principal = senders
            .iter()
            .find(|(_, share)| share.beyond(self.most.principal).is_some());
        let who = match of_principal {
            Some((sender, _)) => sender,
            None => {
                let of_project = projects
                    .iter()
                    .find_map(|(project, share)| Some((project, share.beyond(self.most.project)?)));
                let of_all = || {
                    let measure = all.beyond(self.most.all)?;
                    let most = projects.iter().max_by_key(|(_, share)| measure(share));
                    most.map(|(project, _)| (project, measure))
                };
                let (project, measure) = of_project.or_else(of_all)?;
                let members = senders.iter().filter(|(who, _)| who.project == **project);
                members.max_by_key(|(_, share)| measure(share))?.0
            }
        };
        let theirs = waiting().filter(|(_, partial)| partial.sender == **who);
        let oldest = theirs.min_by_key(|(_, partial)| partial.since);
        oldest.map(|(key, _)| *key)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Entry>> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// How much has come.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Takes the next piece. After an error nothing is kept.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), Failed> {
        let gone = || Failed::refused("this upload is over");
        let content = self.content.as_mut().ok_or_else(gone)?;
        if let Err(error) = content.write(piece) {
            self.content = None;
            return Err(error.into());
        }
        self.written
            .fetch_add(piece.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Verifies all of it and makes it an object; nothing is kept of what is refused.
    pub(crate) fn finish(mut self) -> Result<ObjectId, Failed> {
        match self.content.take() {
            Some(content) => Ok(content.finish()?),
            None => Err(Failed::refused("this upload is over")),
        }
    }

    /// Keeps nothing.
    pub(crate) fn forget(&mut self) {
        self.content = None;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let partial = self.content.take().map(|content| Partial {
            sender: self.sender.clone(),
            blob: self.blob,
            content,
            written: self.written(),
            since: Instant::now(),
        });
        self.partials.give_back(self.key, partial);
    }
}
