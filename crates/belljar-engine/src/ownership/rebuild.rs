use belljar_core::Digest;
use belljar_plan::Receipt;

use super::{Ownership, OwnershipError};
use crate::life::Evidence;
use crate::outputs::objects;
use crate::ports::{Spawner, Trouble};
use crate::queue::{Queue, QueueError, Record};

/// Why what builds left could not be given to their projects.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The queue.
    #[error("the builds cannot be read")]
    Queue(#[from] QueueError),
    /// The index.
    #[error("what earlier builds left cannot be given to their projects")]
    Ownership(#[from] OwnershipError),
}

/// Gives each project what its builds left, by their records and receipts: for an index that was just
/// made. Gives how many builds there were. A build whose receipt cannot be read keeps its evidence, and
/// its artifacts are not to be had; the log says so.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild<S: Spawner>(
    queue: &Queue,
    ownership: &Ownership,
    spawner: &S,
) -> Result<u64, RebuildError> {
    let (mut after, mut count) = (None, 0);
    while let Some((position, record)) = queue.next_published(after).await? {
        after = Some(position);
        count += 1;
        let objects = left_by(&record, spawner).await;
        let project = &record.submission.project;
        ownership.grant(project, objects).await?;
    }
    Ok(count)
}

async fn left_by<S: Spawner>(record: &Record, spawner: &S) -> Vec<Digest> {
    let Some(evidence) = &record.build.evidence else {
        return Vec::new();
    };
    let mut objects = published(evidence);
    match outputs(evidence, spawner).await {
        Ok(outputs) => objects.extend(outputs),
        Err(Trouble(why)) => {
            tracing::warn!(build.id = %record.build.id, why, "its artifacts are not given to its project");
        }
    }
    objects
}

async fn outputs<S: Spawner>(evidence: &Evidence, spawner: &S) -> Result<Vec<Digest>, Trouble> {
    let Some(due) = evidence.receipt else {
        return Ok(Vec::new());
    };
    let bytes = spawner.receipt(&evidence.attempt).await?;
    if Digest::of(&bytes) != due.digest {
        return Err(Trouble(
            "the receipt is not the one that was published".to_owned(),
        ));
    }
    let receipt = Receipt::from_canonical(&bytes)
        .map_err(|e| Trouble(format!("the receipt is malformed: {e}")))?;
    Ok(objects(&receipt, Some(evidence)))
}

/// Everything that was published about a build.
pub(crate) fn published(evidence: &Evidence) -> Vec<Digest> {
    let Evidence {
        attempt: _,
        spec,
        plan,
        audit_trail,
        receipt,
        receipt_bundle,
        log,
        bundle,
        // Those are of what it left.
        trees: _,
    } = evidence;
    let always = [spec.digest, plan.digest, audit_trail.digest];
    let sometimes = [
        receipt.map(|object| object.digest),
        receipt_bundle.map(|object| object.digest),
        log.as_ref().map(|log| log.object.digest),
        bundle.as_ref().map(|bundle| bundle.object.digest),
    ];
    always
        .into_iter()
        .chain(sometimes.into_iter().flatten())
        .collect()
}
