//! What is on record about a build becomes objects of the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use belljar_core::{AttemptId, Digest, Inputs, ObjectId, bounds};
use belljar_plan::{Plan, Receipt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::life::{Bundle, Evidence, Progress, Publication};
use crate::outputs::{directories, left, trees};
use crate::ownership;
use crate::perform::{checked, patience};
use crate::ports::{Clock, Refusal, Signer, Spawner, Store, Trouble};
use crate::queue::Submission;
use crate::report::chain;
use crate::work::Shared;

/// What is published of a build that nobody but the engine has.
pub(crate) struct Written {
    /// Its audit trail.
    pub(crate) trail: Vec<u8>,
    /// What was fetched for it.
    pub(crate) fetched: Inputs,
}

pub(crate) async fn publish<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    attempt: AttemptId,
    publication: Publication,
    written: Written,
    delay: Duration,
) -> Progress {
    sleep(patience::before_publishing(delay)).await;
    let evidence = evidence(&shared, &submission, attempt, &publication, written);
    match timeout(patience::PUBLISH, evidence).await {
        Ok(Ok(evidence)) => Progress::Published {
            evidence: Box::new(evidence),
        },
        Ok(Err(Trouble(why))) => Progress::PublishFailed { why, tries: 1 },
        Err(_) => Progress::PublishFailed {
            why: format!(
                "the store has not taken the evidence in {} s",
                patience::PUBLISH.as_secs()
            ),
            tries: patience::PUBLISH_TRIES,
        },
    }
}

/// Puts everything into the store that a publication names.
async fn evidence<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: &Arc<Shared<S, T, G, C>>,
    submission: &Submission,
    attempt: AttemptId,
    publication: &Publication,
    Written { trail, fetched }: Written,
) -> Result<Evidence, Trouble> {
    let (spawner, store, signer) = (
        &shared.ports.spawner,
        &shared.ports.store,
        &shared.ports.signer,
    );
    let invalid = |error: belljar_core::Invalid| Trouble(error.to_string());
    let spec = store
        .put(submission.spec.canonical().map_err(invalid)?)
        .await?;
    // Where the fetches came to nothing there was no plan with them.
    let plan = Plan::with_fetched(&submission.spec, &fetched)
        .unwrap_or_else(|_| Plan::compile(&submission.spec));
    let plan = store.put(plan.canonical().map_err(invalid)?).await?;
    let audit_trail = store.put(trail).await?;
    let (mut receipt, mut receipt_bundle) = (None, None);
    let (mut log, mut artifacts, mut taken) = (None, Vec::new(), None);
    if let Some(digest) = publication.receipt {
        let bytes = spawner.receipt(&attempt).await?;
        let read = checked(&bytes, digest, &attempt, submission)?;
        artifacts = read.artifacts();
        log = read.log.clone();
        taken = Some(read);
        if let Some(log) = &log {
            store.keep_log(&attempt, log.object).await?;
        }
        receipt = Some(store.put(bytes).await?);
        let must = publication.bundle.is_some();
        receipt_bundle = publish_signed_receipt(store, signer, &attempt, must).await?;
    }
    let mut trees = false;
    if let Some(signed) = &publication.bundle {
        let messages = publish_success(shared, &attempt, signed, taken).await?;
        trees = !messages.is_empty();
        artifacts.extend(messages);
    }
    let evidence = Evidence {
        attempt,
        spec,
        plan,
        audit_trail,
        receipt,
        receipt_bundle,
        log,
        bundle: publication.bundle.clone(),
        trees,
    };
    // Before anybody is told: whoever sees the build can read what it left.
    artifacts.extend(ownership::published(&evidence));
    let granted = shared.ownership.grant(&submission.project, artifacts).await;
    granted.map_err(|e| Trouble(chain(&e)))?;
    Ok(evidence)
}

/// Puts what there is of a success alone into the store: the signed bundle, and the `Tree` messages of the directories that
/// it left. Notes by what all that it left is found. Gives these messages.
async fn publish_success<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: &Arc<Shared<S, T, G, C>>,
    attempt: &AttemptId,
    signed: &Bundle,
    receipt: Option<Receipt>,
) -> Result<Vec<Digest>, Trouble> {
    let (store, signer) = (&shared.ports.store, &shared.ports.signer);
    let bytes = as_named(signer.bundle(attempt).await?, signed.object)?;
    store.put(bytes).await?;
    let receipt = receipt.ok_or_else(|| Trouble("what it left is not known".to_owned()))?;
    let invalid = |error: belljar_core::Invalid| Trouble(error.to_string());
    let directories = directories(&receipt).map_err(invalid)?;
    put_all(shared, trees(&directories).map_err(invalid)?).await?;
    let left = left(&receipt, &directories, true);
    let messages = left.trees.clone();
    let indexed = shared.queue.index(attempt.build(), left).await;
    indexed.map_err(|e| Trouble(format!("its artifacts cannot be found again: {e}")))?;
    Ok(messages)
}

/// Puts each of these into the store.
async fn put_all<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: &Arc<Shared<S, T, G, C>>,
    trees: BTreeMap<ObjectId, Vec<u8>>,
) -> Result<(), Trouble> {
    let ended = |_| Trouble("a directory that it left was not put into the store".to_owned());
    // Most builds have one. A pattern may match thousands, which one after the other would keep the slot for long.
    let mut putting = JoinSet::new();
    for tree in trees.into_values() {
        if putting.len() == bounds::OUTPUT_TREES_AT_ONCE
            && let Some(put) = putting.join_next().await
        {
            put.map_err(ended)??;
        }
        let shared = Arc::clone(shared);
        putting.spawn(async move { shared.ports.store.put(tree).await });
    }
    while let Some(put) = putting.join_next().await {
        put.map_err(ended)??;
    }
    Ok(())
}

/// Puts the bundle about a receipt into the store. Where there need be none, as with a failure, what is on record is
/// not held back for the signer.
async fn publish_signed_receipt(
    store: &impl Store,
    signer: &impl Signer,
    attempt: &AttemptId,
    must: bool,
) -> Result<Option<ObjectId>, Trouble> {
    match signed_receipt(signer, attempt).await {
        Ok(bytes) => store.put(bytes).await.map(Some),
        Err(Trouble(why)) if !must => {
            tracing::warn!(%attempt, why, "the receipt is published without a signature");
            Ok(None)
        }
        Err(trouble) => Err(trouble),
    }
}

/// The bundle about a receipt.
async fn signed_receipt(signer: &impl Signer, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
    let signed = signer.sign_receipt(attempt).await;
    let object = signed.map_err(|Refusal { reasons, .. }| Trouble(reasons.join("; ")))?;
    as_named(signer.receipt_bundle(attempt).await?, object)
}

/// A bundle file, if it is the one that the signer named.
fn as_named(bytes: Vec<u8>, object: ObjectId) -> Result<Vec<u8>, Trouble> {
    match ObjectId::of(&bytes) == object {
        true => Ok(bytes),
        false => Err(Trouble(
            "the bundle file is not the one that the signer named".to_owned(),
        )),
    }
}
