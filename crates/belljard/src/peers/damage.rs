//! What belljard does with objects that turn out damaged when it reads them: the store is asked to look, and puts them
//! aside, so that who has their content is asked for it again, and builds are told of.

use belljar_core::{ObjectId, bounds};
use tokio::sync::mpsc;

use super::StoreClient;
use crate::tasks::{self, Task};

/// Whom to tell of a damaged object, from any thread: as long as this is there, the store is asked to look at one after the
/// other. Where too many wait already, one is left to whoever reads it next, or to the scrub.
pub(super) fn reporting(store: StoreClient) -> impl Fn(ObjectId) + Send + Sync {
    let (sender, mut waiting) = mpsc::channel::<ObjectId>(bounds::DAMAGED_WAITING);
    let looking = tasks::start("damaged objects", async move {
        while let Some(object) = waiting.recv().await {
            match store.examine(object.digest).await {
                Ok(true) => {
                    tracing::warn!(%object, "an object was damaged when it was read, and is whole");
                }
                Ok(false) => {
                    tracing::error!(%object, "an object was damaged when it was read: the store has looked at it");
                }
                Err(trouble) => {
                    let cause = tasks::chain(&trouble);
                    tracing::error!(%object, cause, "an object is damaged, and the store cannot be asked to look at it");
                }
            }
        }
    });
    move |object| {
        // It goes on as long as somebody reads.
        let _looking: &Task = &looking;
        // See above.
        let _ = sender.try_send(object);
    }
}
