use belljar_core::{BlobName, Digest, ObjectId, bounds};
use belljar_plan::store::{Answer, Failure, Request, Sender};

use super::store::{PutError, StoreClient, Talk, refusal};

/// One object on its way. Dropped before its end it leaves nothing that can be read; what came of an
/// upload that can be gone on with stays in the store for a while.
#[derive(Debug)]
pub(crate) struct Put {
    talk: Talk,
    left: u64,
}

impl StoreClient {
    /// Begins to give `object` to the store.
    pub(super) async fn begin(&self, object: ObjectId) -> Result<Put, PutError> {
        let talk = self.ask(self.slots(), &Request::Put { object }).await?;
        let left = object.size;
        Ok(Put { talk, left })
    }

    /// Goes on with an upload at `offset`, or begins it there. If it stands elsewhere, tells where.
    pub(crate) async fn resume(
        &self,
        key: Digest,
        sender: Sender,
        blob: BlobName,
        offset: u64,
    ) -> Result<Result<Put, u64>, PutError> {
        let request = Request::Upload {
            key,
            sender,
            blob,
            offset,
        };
        let talk = self.ask(self.uploads(), &request).await?;
        match talk.hear().await? {
            Answer::Upload {
                committed,
                open: true,
            } => {
                let left = blob.size.saturating_sub(committed);
                Ok(Ok(Put { talk, left }))
            }
            Answer::Upload { committed, .. } => {
                talk.end();
                Ok(Err(committed))
            }
            answer => Err(refusal(answer)),
        }
    }

    /// How much of an upload has come.
    pub(crate) async fn committed(&self, key: Digest, blob: BlobName) -> Result<u64, PutError> {
        let request = Request::Uploaded { key, blob };
        let talk = self.ask(self.uploads(), &request).await?;
        match talk.hear().await? {
            Answer::Upload { committed, .. } => {
                talk.end();
                Ok(committed)
            }
            answer => Err(refusal(answer)),
        }
    }

    /// Gives content that is in memory to the store.
    pub(super) async fn put_bytes(&self, object: ObjectId, content: &[u8]) -> Result<(), PutError> {
        let mut put = self.begin(object).await?;
        put.write(content).await?;
        put.finish().await
    }

    /// Gives many small blobs to the store, which makes them durable together. Each is as long as its name
    /// says. Tells of each what it is as an object, or whose doing it was that it was refused.
    pub(crate) async fn put_many(
        &self,
        blobs: &[(BlobName, Vec<u8>)],
    ) -> Result<Vec<Result<ObjectId, Failure>>, PutError> {
        let mut kept = Vec::new();
        for portion in blobs.chunks(bounds::DIGESTS_PER_FRAME) {
            let names: Vec<BlobName> = portion.iter().map(|(blob, _)| *blob).collect();
            let request = Request::PutMany {
                blobs: names.clone(),
            };
            let talk = self.ask(self.uploads(), &request).await?;
            let contents: Vec<&[u8]> = portion.iter().map(|(_, content)| &content[..]).collect();
            // Bounded: a batch fits one message of gRPC.
            for piece in contents.concat().chunks(bounds::CHUNK_BYTES) {
                talk.send(piece).await?;
            }
            let answer = talk.hear().await?;
            let Answer::Kept { refused, named } = answer else {
                return Err(refusal(answer));
            };
            talk.end();
            // What the store should have named, and has not, is not there for anybody.
            let objects = names.iter().map(|blob| blob.object());
            let mut verdicts: Vec<_> = objects.map(|o| o.ok_or(Failure::Internal)).collect();
            for one in named {
                if let (Some(blob), Some(verdict)) =
                    (names.get(one.index), verdicts.get_mut(one.index))
                {
                    let (digest, size) = (one.digest, blob.size);
                    *verdict = Ok(ObjectId { digest, size });
                }
            }
            for one in refused {
                if let Some(verdict) = verdicts.get_mut(one.index) {
                    *verdict = Err(one.class);
                }
            }
            kept.extend(verdicts);
        }
        Ok(kept)
    }
}

impl Put {
    /// Bytes that have not been sent yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Sends the next piece, of any length.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), PutError> {
        let Some(left) = self.left.checked_sub(piece.len() as u64) else {
            return Err(PutError::Content(
                "more content came than was announced".to_owned(),
            ));
        };
        self.left = left;
        for chunk in piece.chunks(bounds::CHUNK_BYTES) {
            self.talk.send(chunk).await?;
        }
        Ok(())
    }

    /// Ends it so that nothing stays to be gone on with: a request in the middle of content says that
    /// there will be no more of it.
    pub(crate) async fn forget(self) {
        let object = ObjectId::of(b"");
        // When the store is gone, so is what came.
        let _ = self.talk.tell(&Request::Put { object }).await;
    }

    /// Waits until the content is verified and durable.
    pub(crate) async fn finish(self) -> Result<(), PutError> {
        match self.whole().await? {
            (talk, Answer::Stored) => {
                talk.end();
                Ok(())
            }
            (_, answer) => Err(refusal(answer)),
        }
    }

    /// The same of an upload; tells what it is as an object.
    pub(crate) async fn received(self) -> Result<ObjectId, PutError> {
        match self.whole().await? {
            (talk, Answer::Received { object }) => {
                talk.end();
                Ok(object)
            }
            (_, answer) => Err(refusal(answer)),
        }
    }

    async fn whole(self) -> Result<(Talk, Answer), PutError> {
        if self.left > 0 {
            return Err(PutError::Content(format!(
                "{} bytes less came than were announced",
                self.left
            )));
        }
        let answer = self.talk.hear().await?;
        Ok((self.talk, answer))
    }
}
