use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How long, and how often, it is waited for a moment in which nobody holds, before others wait for it.
const TRY: Duration = Duration::from_millis(5);
const TRIES: u32 = 400;

/// Held while builds are let in, and while it is told which objects are there.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<RwLock<()>>);

impl Hold {
    /// Nothing is removed as long as the guard lives. Waits for one portion at the most.
    pub async fn take(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0).read_owned().await
    }

    /// Waits until nobody holds. Whoever queues here keeps others from holding: so at first it is only tried.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        for _ in 0..TRIES {
            if let Ok(guard) = Arc::clone(&self.0).try_write_owned() {
                return guard;
            }
            tokio::time::sleep(TRY).await;
        }
        Arc::clone(&self.0).write_owned().await
    }
}
