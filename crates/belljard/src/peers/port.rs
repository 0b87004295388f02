use belljar_core::{AttemptId, ObjectId, bounds};
use belljar_engine::ports::{Store, Trouble};

use super::StoreClient;

impl Store for StoreClient {
    async fn put(&self, content: Vec<u8>) -> Result<ObjectId, Trouble> {
        let object = ObjectId::of(&content);
        let put = self.put_bytes(object, &content).await;
        put.map(|()| object).map_err(|e| Trouble(e.to_string()))
    }

    async fn keep_log(&self, attempt: &AttemptId, object: ObjectId) -> Result<(), Trouble> {
        let trouble = |why: String| Trouble(format!("the log of {attempt}: {why}"));
        let log = self
            .logs
            .open(attempt)
            .await
            .map_err(|e| trouble(e.to_string()))?;
        let log = log.ok_or_else(|| trouble("it is not there".to_owned()))?;
        let mut put = self
            .begin(object)
            .await
            .map_err(|e| trouble(e.to_string()))?;
        let mut offset = 0;
        while offset < object.size {
            let piece = log
                .read(offset, bounds::CHUNK_BYTES)
                .await
                .map_err(|e| trouble(e.to_string()))?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            put.write(&piece)
                .await
                .map_err(|e| trouble(e.to_string()))?;
        }
        put.finish().await.map_err(|e| trouble(e.to_string()))
    }

    async fn is_there(&self) -> bool {
        self.answers().await
    }
}
