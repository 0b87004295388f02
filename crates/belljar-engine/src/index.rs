//! The index of artifacts, for builds that ended before there was one.

use std::sync::Arc;

use belljar_core::Digest;
use belljar_plan::Receipt;

use crate::outputs::{found, left};
use crate::ports::{Clock, Signer, Spawner, Store};
use crate::queue::{Left, Listed};
use crate::report::log;
use crate::work::Shared;

/// Notes the artifacts of every build that succeeded and whose are not noted. What has no readable receipt
/// any more stays out; the log says so at each start.
pub(crate) async fn catch_up<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
) {
    let (mut after, mut count) = (0, 0_u64);
    loop {
        let listed = match shared.queue.unindexed(after).await {
            Ok(Some(listed)) => listed,
            Ok(None) => break,
            Err(error) => return log("artifacts of earlier builds cannot be noted", &error),
        };
        after = listed.position;
        let id = &listed.build.id;
        let left = match artifacts(&shared.ports.spawner, &listed).await {
            Ok(left) => left,
            Err(why) => {
                tracing::warn!(build.id = %id, why, "its artifacts cannot be noted");
                continue;
            }
        };
        match shared.queue.index(id, left).await {
            Ok(()) => count += 1,
            Err(error) => return log("artifacts of earlier builds cannot be noted", &error),
        }
    }
    if count > 0 {
        tracing::info!(count, "artifacts of earlier builds noted");
    }
}

async fn artifacts<S: Spawner>(spawner: &S, listed: &Listed) -> Result<Left, String> {
    let evidence = listed.build.evidence.as_ref();
    let published = evidence.and_then(|evidence| Some((&evidence.attempt, evidence.receipt?)));
    let (attempt, receipt) = published.ok_or("it has no receipt")?;
    let bytes = spawner.receipt(attempt).await.map_err(|e| e.to_string())?;
    if Digest::of(&bytes) != receipt.digest {
        return Err("the receipt file is not the one that was published".to_owned());
    }
    let receipt = Receipt::from_canonical(&bytes).map_err(|e| e.to_string())?;
    let trees = evidence.is_some_and(|evidence| evidence.trees);
    Ok(left(&receipt, &found(&receipt), trees))
}
