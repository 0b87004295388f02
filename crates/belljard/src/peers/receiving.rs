use belljar_core::{Digest, ObjectId, bounds};
use belljar_plan::store::{Answer, Request, Whole};

use super::store::{PutError, StoreClient, Talk, refusal};

/// Content of which only the digest is known, on its way. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub(crate) struct Receiving(Talk);

impl StoreClient {
    /// Begins to give to the store what has this digest, at most so many bytes.
    pub(crate) async fn receive(
        &self,
        digest: Option<Digest>,
        most_bytes: u64,
    ) -> Result<Receiving, PutError> {
        let request = Request::Receive { digest, most_bytes };
        let talk = self.ask(self.fetches(), &request).await?;
        match talk.hear().await? {
            Answer::Receiving {} => Ok(Receiving(talk)),
            answer => Err(refusal(answer)),
        }
    }
}

impl Receiving {
    /// Sends the next piece, of any length.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), PutError> {
        for chunk in piece.chunks(bounds::CHUNK_BYTES) {
            self.0.send(chunk).await?;
        }
        Ok(())
    }

    /// Says that it was all, and waits until it is verified and durable.
    pub(crate) async fn finish(self) -> Result<ObjectId, PutError> {
        self.0.tell(&Whole::Whole {}).await?;
        match self.0.hear().await? {
            Answer::Received { object } => {
                self.0.end();
                Ok(object)
            }
            answer => Err(refusal(answer)),
        }
    }
}
