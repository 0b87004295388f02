use belljar_core::{AttemptId, Digest};
use belljar_engine::ports::{Gone, Room, Trouble, Upkeep};
use belljar_plan::store::{Answer, Request, Scrub};

use super::store::{PutError, StoreClient};

impl StoreClient {
    /// Asks one thing about what is there.
    async fn keep_up(&self, request: Request) -> Result<Answer, Trouble> {
        let answer = self.ask_once(&request).await;
        answer.map_err(|error: PutError| Trouble(error.to_string()))
    }

    /// Has an object looked at that was found damaged. Gives whether it is there, and whole.
    pub(super) async fn examine(&self, object: Digest) -> Result<bool, Trouble> {
        match self.keep_up(Request::Examine { object }).await? {
            Answer::Examined { whole } => Ok(whole),
            other => Err(unfit(&other)),
        }
    }

    /// Has all objects read, or tells how that fares.
    pub(crate) async fn scrub(&self, begin: bool) -> Result<Scrub, Trouble> {
        let request = if begin {
            Request::Scrub {}
        } else {
            Request::Scrubbed {}
        };
        match self.keep_up(request).await? {
            Answer::Scrub(scrub) => Ok(scrub),
            other => Err(unfit(&other)),
        }
    }

    async fn gone(&self, request: Request) -> Result<Gone, Trouble> {
        match self.keep_up(request).await? {
            Answer::Removed { removed, bytes, .. }
            | Answer::Evicted {
                images: removed,
                bytes,
            } => Ok(Gone { removed, bytes }),
            other => Err(unfit(&other)),
        }
    }
}

impl Upkeep for StoreClient {
    async fn room(&self) -> Result<Room, Trouble> {
        match self.keep_up(Request::Space {}).await? {
            Answer::Space {
                total,
                available,
                reserve,
                grace,
            } => Ok(Room {
                total,
                available,
                reserve,
                grace,
            }),
            other => Err(unfit(&other)),
        }
    }

    async fn evict(&self, images: Vec<String>) -> Result<Gone, Trouble> {
        self.gone(Request::Evict { images }).await
    }

    async fn remove(&self, objects: Vec<Digest>, before: u64) -> Result<Gone, Trouble> {
        self.gone(Request::Remove { objects, before }).await
    }

    async fn remove_logs(&self, attempts: Vec<AttemptId>) -> Result<Gone, Trouble> {
        self.gone(Request::RemoveLogs { attempts }).await
    }
}

fn unfit(answer: &Answer) -> Trouble {
    Trouble(match answer {
        Answer::Failed { why, .. } => format!("the store: {why}"),
        other => format!("the store: an answer that does not fit: {other:?}"),
    })
}
