use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use belljar_cas::{BlobSource, ReadError};
use belljar_core::{Blake3Digest, BlobDigest, BlobName, Digest, ObjectId, ProjectId};
use belljar_engine::garbage::Hold;
use belljar_engine::ownership::{Ownership, OwnershipError};
use tokio::sync::OwnedRwLockReadGuard;
use tonic::Status;

use super::{Caller, internal};

/// The store's objects, each to be had by its own projects only. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Vault {
    source: Arc<dyn BlobSource>,
    ownership: Ownership,
    hold: Hold,
    /// How long a project that is told to have something need not be noted to have been told again, in seconds.
    noted: u64,
}

/// The objects of one project, for one call: as a source of objects it has no others.
#[derive(Clone)]
pub(crate) struct Share {
    vault: Vault,
    project: ProjectId,
    caller: Caller,
    /// Whether it was noted that the call is about what others have.
    noted: Arc<AtomicBool>,
}

impl Vault {
    /// Objects stay for `lease` seconds after a project was told that it has them.
    pub(crate) fn new(
        source: Arc<dyn BlobSource>,
        ownership: Ownership,
        hold: Hold,
        lease: u64,
    ) -> Self {
        Self {
            source,
            ownership,
            hold,
            noted: lease / 4,
        }
    }

    /// Nothing goes as long as the guard lives.
    pub(super) async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        self.hold.take().await
    }

    /// What belongs to this project, for a caller who may ask about it.
    pub(super) fn of(&self, caller: &Caller, project: ProjectId) -> Share {
        Share {
            vault: self.clone(),
            project,
            caller: caller.clone(),
            noted: Arc::default(),
        }
    }
}

impl Share {
    pub(super) fn project(&self) -> &ProjectId {
        &self.project
    }

    /// Nothing goes as long as the guard lives.
    pub(super) async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        self.vault.hold().await
    }

    /// Notes that the project is told to have these, so that they stay for a lease. The caller holds.
    pub(super) async fn touch(&self, objects: Vec<Digest>) -> Result<(), Status> {
        let noted = self.vault.noted;
        let touched = self.vault.ownership.touch(&self.project, objects, noted);
        let touched = touched.await;
        touched.map_err(|e| internal("what the project has could not be noted", &e))
    }

    /// Who calls.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// For each of these objects, whether the project has it and it is there. Blocks on the disk.
    pub(super) fn has(&self, objects: &[ObjectId]) -> Result<Vec<bool>, ReadError> {
        let owned = self.owns(objects)?;
        let there = objects.iter().zip(owned);
        there
            .map(|(object, owned)| Ok(owned && self.vault.source.contains(*object)?))
            .collect()
    }

    /// For each of these objects, whether the project has it. Blocks on the disk.
    pub(super) fn owns(&self, objects: &[ObjectId]) -> Result<Vec<bool>, ReadError> {
        let digests: Vec<Digest> = objects.iter().map(|object| object.digest).collect();
        let owned = self.vault.ownership.owns(&self.project, &digests);
        let mut owned = owned.map_err(|error| unknown(objects.first().copied(), error))?;
        // Everybody has the blob of no bytes (REAPI, "the empty blob").
        let nothing = Digest::of(b"");
        for (digest, owned) in digests.iter().zip(&mut owned) {
            *owned |= *digest == nothing;
        }
        Ok(owned)
    }

    /// That the project has this object: else there is none for it, and it is noted if others have it.
    fn own(&self, object: ObjectId) -> Result<(), ReadError> {
        if self.owns(&[object])? == [true] {
            return Ok(());
        }
        self.note(object);
        Err(ReadError::Missing(object))
    }

    /// For each of these names the object that the project means by it; none where it has sent nothing by that name. By
    /// SHA-256 a name is the object, whether the project has it or not. Blocks on the disk.
    pub(super) fn meant(&self, blobs: &[BlobName]) -> Result<Vec<Option<ObjectId>>, ReadError> {
        let by_blake3 = |blob: &BlobName| match blob.digest {
            BlobDigest::Sha256(_) => None,
            BlobDigest::Blake3(digest) => Some(digest),
        };
        let asked: Vec<Blake3Digest> = blobs.iter().filter_map(by_blake3).collect();
        let found = self.vault.ownership.by_blake3(&self.project, &asked);
        let found = found.map_err(|error| unknown(None, error))?;
        let mut found = asked.into_iter().zip(found);
        let meant = blobs.iter().map(|blob| {
            blob.object().or_else(|| {
                let (asked, found) = found.next()?;
                let nothing = (asked == Blake3Digest::EMPTY).then(|| Digest::of(b""));
                let (digest, size) = (nothing.or(found)?, blob.size);
                Some(ObjectId { digest, size })
            })
        });
        Ok(meant.collect())
    }

    /// Whether the whole tree with this root was given to the project. Blocks on the disk.
    pub(super) fn owns_tree(&self, root: ObjectId) -> Result<bool, ReadError> {
        let owned = self.vault.ownership.owns_tree(&self.project, root.digest);
        owned.map_err(|error| unknown(Some(root), error))
    }

    /// Notes that the call is about an object that the project does not have, if the store has it: once for a
    /// call, however many it names. The caller cannot tell whether there was something to note. Blocks on the
    /// disk.
    pub(super) fn note(&self, object: ObjectId) {
        if !self.noted.load(Ordering::Relaxed)
            && self.vault.source.contains(object).unwrap_or(false)
            && !self.noted.swap(true, Ordering::Relaxed)
        {
            self.caller.withheld(&self.project, object);
        }
    }

    /// Gives the project a tree that was made for it of what it has, and the record of that: it may build on
    /// all of the tree, and see what its root is. Durable when this returns.
    pub(super) async fn take_tree(&self, tree: ObjectId, record: ObjectId) -> Result<(), Status> {
        self.take(&[record, tree]).await?;
        let granted = self.vault.ownership.grant_tree(&self.project, tree.digest);
        let granted = granted.await;
        granted.map_err(|e| {
            internal(
                "the tree that was made could not be noted for the project",
                &e,
            )
        })
    }

    /// Gives the project what it has sent: to send it is to have it. Durable when this returns.
    pub(super) async fn take(&self, objects: &[ObjectId]) -> Result<(), Status> {
        let digests = objects.iter().map(|object| object.digest).collect();
        let granted = self.vault.ownership.grant(&self.project, digests).await;
        granted.map_err(|e| internal("what came could not be noted for the project", &e))
    }

    /// The same of what it has sent by BLAKE3, by which it finds it from then on.
    pub(super) async fn take_named(
        &self,
        objects: Vec<(Blake3Digest, Digest)>,
    ) -> Result<(), Status> {
        let granted = self.vault.ownership.grant_named(&self.project, objects);
        let granted = granted.await;
        granted.map_err(|e| internal("what came could not be noted for the project", &e))
    }
}

impl BlobSource for Share {
    fn read(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        self.own(object)?;
        self.vault.source.read(object)
    }

    fn read_verified(&self, object: ObjectId) -> Result<Box<dyn Read + Send>, ReadError> {
        self.own(object)?;
        self.vault.source.read_verified(object)
    }

    fn contains(&self, object: ObjectId) -> Result<bool, ReadError> {
        Ok(self.has(&[object])? == [true])
    }
}

fn unknown(object: Option<ObjectId>, error: OwnershipError) -> ReadError {
    ReadError::Io {
        object: object.unwrap_or_else(|| ObjectId::of(b"")),
        source: io::Error::other(error),
    }
}
