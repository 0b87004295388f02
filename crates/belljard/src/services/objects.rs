use std::io::Read;
use std::time::Duration;

use belljar_cas::{BlobSource as _, ReadError};
use belljar_core::{BlobDigest, BlobName, Digest, ObjectId, ProjectId, bounds};
use belljar_plan::store::Sender;
use belljar_policy::Identity;
use belljar_wire::Problem;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;

use super::blobs::{absent, unreadable};
use super::vault::{Share, Vault};
use super::{Caller, internal};
use crate::peers::StoreClient;
use crate::places::{Turn, Turns};

/// How long to wait for a place to give something.
const PATIENCE: Duration = Duration::from_secs(30);

/// Objects, as callers find and give them. Cheap to clone; all clones share their bounds.
#[derive(Clone)]
pub(crate) struct Objects {
    vault: Vault,
    /// Where what is given goes.
    store: StoreClient,
    uploads: Turns<Identity>,
    downloads: Turns<Identity>,
    zstd: Turns<Identity>,
}

/// The objects of one project: the one place where one is looked up for somebody.
#[derive(Clone)]
pub(super) struct Shelf {
    objects: Objects,
    share: Share,
}

/// An object being read, not yet verified.
pub(super) type Content = Box<dyn Read + Send>;

impl Objects {
    pub(crate) fn new(vault: Vault, store: StoreClient) -> Self {
        Self {
            vault,
            store,
            uploads: Turns::new(bounds::UPLOADS, bounds::UPLOADS_PER_PRINCIPAL),
            downloads: Turns::new(bounds::DOWNLOADS, bounds::DOWNLOADS_PER_PRINCIPAL),
            zstd: Turns::new(bounds::ZSTD_STREAMS, bounds::ZSTD_STREAMS_PER_PRINCIPAL),
        }
    }

    /// What belongs to this project, for a caller who may ask about it.
    pub(super) fn of(&self, caller: &Caller, project: ProjectId) -> Shelf {
        Shelf {
            share: self.vault.of(caller, project),
            objects: self.clone(),
        }
    }
}

impl Shelf {
    pub(super) fn project(&self) -> &ProjectId {
        self.share.project()
    }

    /// Where what is given goes.
    pub(super) fn store(&self) -> &StoreClient {
        &self.objects.store
    }

    /// Gives the project what it has sent, by the names by which it has, see [`Share::take`].
    pub(super) async fn take(&self, sent: &[(BlobName, ObjectId)]) -> Result<(), Status> {
        let (mut objects, mut named) = (Vec::new(), Vec::new());
        for (blob, object) in sent {
            match blob.digest {
                BlobDigest::Sha256(_) => objects.push(*object),
                BlobDigest::Blake3(digest) => named.push((digest, object.digest)),
            }
        }
        self.share.take(&objects).await?;
        self.share.take_named(named).await
    }

    /// Those that are not there. The others stay for a lease, so that who asks can build on them.
    pub(super) async fn missing(&self, asked: Vec<BlobName>) -> Result<Vec<BlobName>, Status> {
        let _held = self.share.hold().await;
        let found = self.with(move |share| {
            let meant = share.meant(&asked)?;
            let known: Vec<ObjectId> = meant.iter().copied().flatten().collect();
            let mut has = share.has(&known)?.into_iter();
            let (mut there, mut missing) = (Vec::new(), Vec::new());
            for (blob, meant) in asked.into_iter().zip(meant) {
                match meant.filter(|_| has.next() == Some(true)) {
                    Some(object) => there.push(object.digest),
                    None => missing.push(blob),
                }
            }
            Ok((there, missing))
        });
        let found: Result<_, ReadError> = found.await?;
        let (there, missing) = found.map_err(|e| internal("the store could not be read", &e))?;
        self.share.touch(there).await?;
        Ok(missing)
    }

    /// Whether it is there.
    pub(super) async fn contains(&self, blob: BlobName) -> Result<bool, Status> {
        Ok(self.missing(vec![blob]).await?.is_empty())
    }

    /// Opens what is named so, and tells which object that is.
    pub(super) async fn open(&self, blob: BlobName) -> Result<(ObjectId, Content), Status> {
        let opened = self.with(move |share| {
            let meant = share.meant(&[blob])?.into_iter().flatten().next();
            let read = |object| Ok((object, share.read_verified(object)?));
            meant.map(read).transpose()
        });
        match opened.await? {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => Err(absent(blob)),
            Err(error) => Err(unreadable(error, blob)),
        }
    }

    /// Does something with the objects, on a thread that may block.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Share) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let share = self.share.clone();
        let done = spawn_blocking(move || work(&share)).await;
        done.map_err(|e| internal("the store could not be read", &e))
    }

    /// What the project has, for a thread that may block for longer.
    pub(super) fn share(&self) -> Share {
        self.share.clone()
    }

    /// Whose uploads are, for the store.
    pub(super) fn sender(&self) -> Sender {
        let principal = self.share.caller().identity().to_string();
        Sender {
            project: self.project().clone(),
            principal: Digest::of(principal.as_bytes()),
        }
    }

    /// A place among those that give something; not for ever, since it may be for want of others' goodwill. Whoever
    /// packs, too, has a place for that before.
    pub(super) async fn upload(&self) -> Result<Turn, Status> {
        let turn = timeout(PATIENCE, self.turn(&self.objects.uploads)).await;
        turn.unwrap_or_else(|_| {
            let why = "too many uploads are under way; try again later";
            Err(Problem::unavailable(why).into())
        })
    }

    /// A place among those that receive a stream.
    pub(super) async fn download(&self) -> Result<Turn, Status> {
        self.turn(&self.objects.downloads).await
    }

    /// A place among those whose content is packed or unpacked.
    pub(super) async fn zstd(&self) -> Result<Turn, Status> {
        self.turn(&self.objects.zstd).await
    }

    async fn turn(&self, turns: &Turns<Identity>) -> Result<Turn, Status> {
        let turn = turns.wait(self.share.caller().identity().clone()).await;
        turn.map_err(|e| internal("shutting down", &e))
    }
}

/// What an upload is known by in the store: nobody else's upload has it.
pub(super) fn upload_key(
    caller: &Identity,
    project: &ProjectId,
    uuid: &str,
    blob: BlobName,
) -> Digest {
    let BlobName { digest, size } = blob;
    Digest::of(format!("{caller}\n{project}\n{uuid}\n{digest}/{size}").as_bytes())
}
