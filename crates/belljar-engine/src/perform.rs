//! The effects of a build's life that take time: each asks a port and gives what came of it.

use std::sync::Arc;
use std::time::Duration;

use belljar_core::{AttemptId, Digest, Inputs, Outcome};
use belljar_plan::signer::Asserted;
use belljar_plan::{Plan, Receipt};
use tokio::time::{sleep, timeout};

use crate::driver::RETRY;
use crate::life::{Collected, Progress};
use crate::ports::{Clock, Refusal, Signer, Spawner, SpawnerError, Store, Taken, Trouble};
use crate::queue::Submission;
use crate::work::Shared;

/// How long a peer may take before it counts as lost. Generous: these end hangs, not work.
pub(crate) mod patience {
    use super::Duration;

    /// Verifying and copying the largest tree.
    pub(super) const STAGE: Duration = Duration::from_secs(30 * 60);
    /// Making a sandbox.
    pub(super) const LAUNCH: Duration = Duration::from_secs(60);
    /// Beyond the wall-clock limit and the grace, which the spawner enforces.
    pub(super) const EXIT: Duration = Duration::from_secs(120);
    /// Asking for an end.
    pub(super) const KILL: Duration = Duration::from_secs(10);
    /// Hashing and copying the largest outputs.
    pub(super) const COLLECT: Duration = Duration::from_secs(60 * 60);
    /// A teardown.
    pub(crate) const DESTROY: Duration = Duration::from_secs(120);
    /// A list.
    pub(crate) const LIST: Duration = Duration::from_secs(10);
    /// A signature.
    pub(super) const ATTEST: Duration = Duration::from_secs(60);
    /// How many tries there could have been in that time.
    pub(super) const ATTEST_TRIES: u32 = 12;
    const _: () = assert!(ATTEST.as_secs() == 12 * crate::life::LONGEST_PAUSE.as_secs());
    /// Putting a few small objects into the store.
    pub(crate) const PUBLISH: Duration = Duration::from_secs(300);
    /// How many tries there could have been in that time.
    pub(crate) const PUBLISH_TRIES: u32 = 60;
    const _: () = assert!(PUBLISH.as_secs() == 60 * crate::life::LONGEST_PAUSE.as_secs());

    /// Between two attempts. The engine's own tests let attempts fail by the hundred.
    const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

    /// Before evidence is published again, which the engine's own tests see fail until there are no more tries.
    pub(crate) fn before_publishing(pause: Duration) -> Duration {
        if cfg!(test) { pause / 1000 } else { pause }
    }

    /// Before an attempt begins. The slot is kept meanwhile: whatever ended the last attempt, such as a store
    /// that is being restarted, would else use up the attempts of every build that waits.
    pub(super) fn before(attempt: u32) -> Duration {
        match attempt {
            0 | 1 => Duration::ZERO,
            2 => PAUSE,
            _ => 10 * PAUSE,
        }
    }
}

pub(crate) async fn fetch<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    attempt: AttemptId,
) -> Progress {
    sleep(patience::before(attempt.number())).await;
    let (project, fetches) = (submission.project.clone(), submission.spec.fetches.clone());
    Progress::Fetched(shared.ports.fetcher.fetch(project, fetches).await)
}

pub(crate) async fn stage<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    attempt: AttemptId,
    fetched: Inputs,
) -> Progress {
    if submission.spec.fetches.is_empty() {
        sleep(patience::before(attempt.number())).await;
    }
    let plan = match Plan::with_fetched(&submission.spec, &fetched) {
        Ok(plan) => plan,
        Err(invalid) => {
            let outcome = Outcome::permanent("stage", invalid.to_string());
            return Progress::Failed { outcome };
        }
    };
    let staged = shared
        .ports
        .spawner
        .stage(&attempt, submission.spec_digest(), plan);
    progress(within(patience::STAGE, staged).await, |()| Progress::Staged)
}

pub(crate) async fn launch<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    attempt: AttemptId,
) -> Progress {
    let launched = shared.ports.spawner.launch(&attempt);
    progress(within(patience::LAUNCH, launched).await, |()| {
        Progress::Launched
    })
}

pub(crate) async fn await_exit<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    attempt: AttemptId,
) -> Progress {
    let figures = submission.spec.limits.get();
    let limit = Duration::from_secs(figures.wall_seconds + figures.grace_seconds) + patience::EXIT;
    match within(limit, shared.ports.spawner.exited(&attempt)).await {
        Ok(outcome) | Err(SpawnerError::Failed(outcome)) => Progress::Exited { outcome },
        Err(SpawnerError::Lost(why)) => Progress::SpawnerLost { why },
    }
}

/// Nobody waits for this: what matters is how the attempt ends.
pub(crate) async fn kill<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    attempt: AttemptId,
    by: String,
) {
    if let Err(error) = within(patience::KILL, shared.ports.spawner.kill(&attempt, &by)).await {
        tracing::warn!(%attempt, %error, "the attempt could not be killed");
    }
}

/// The spawner's answer is checked against the receipt that it left.
pub(crate) async fn collect<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    attempt: AttemptId,
) -> Progress {
    let Taken { receipt, outcome } =
        match within(patience::COLLECT, shared.ports.spawner.collect(&attempt)).await {
            Ok(taken) => taken,
            Err(SpawnerError::Failed(outcome)) => return Progress::Failed { outcome },
            Err(SpawnerError::Lost(why)) => return Progress::SpawnerLost { why },
        };
    let bytes = match shared.ports.spawner.receipt(&attempt).await {
        Ok(bytes) => bytes,
        Err(Trouble(why)) => {
            let outcome =
                Outcome::retryable("collect", format!("the receipt cannot be read: {why}"));
            return Progress::Failed { outcome };
        }
    };
    match checked(&bytes, receipt, &attempt, &submission) {
        Ok(read) if read.outcome == outcome => Progress::Collected {
            receipt,
            outcome,
            outputs: read.outputs.len() as u64,
        },
        Ok(_) => Progress::Failed {
            outcome: Outcome::permanent(
                "collect",
                "the receipt tells of another outcome than the spawner",
            ),
        },
        Err(Trouble(why)) => Progress::Failed {
            outcome: Outcome::permanent("collect", why),
        },
    }
}

pub(crate) async fn attest<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    submission: Arc<Submission>,
    collected: Collected,
    asserted: Asserted,
    delay: Duration,
) -> Progress {
    sleep(delay).await;
    let refused = |retryable, reason: String| Progress::AttestRefused {
        retryable,
        reasons: vec![reason],
        tries: if retryable { patience::ATTEST_TRIES } else { 1 },
    };
    let spec = match submission.spec.canonical().map(String::from_utf8) {
        Ok(Ok(spec)) => spec,
        Ok(Err(error)) => return refused(false, error.to_string()),
        Err(invalid) => return refused(false, invalid.to_string()),
    };
    match timeout(
        patience::ATTEST,
        shared.ports.signer.attest(collected, spec, asserted),
    )
    .await
    {
        Ok(Ok(bundle)) => Progress::Attested { bundle },
        Ok(Err(Refusal { retryable, reasons })) => Progress::AttestRefused {
            retryable,
            reasons,
            tries: 1,
        },
        Err(_) => refused(
            true,
            format!(
                "the signer has not answered in {} s",
                patience::ATTEST.as_secs()
            ),
        ),
    }
}

/// Tries until it is done: a slot whose sandbox may still be there is not free.
pub(crate) async fn destroy<S: Spawner, T: Store, G: Signer, C: Clock>(
    shared: Arc<Shared<S, T, G, C>>,
    attempt: AttemptId,
) -> Progress {
    loop {
        match within(patience::DESTROY, shared.ports.spawner.destroy(&attempt)).await {
            Ok(()) => return Progress::Destroyed,
            Err(error) => tracing::warn!(%attempt, %error, "the attempt is not destroyed yet"),
        }
        sleep(RETRY).await;
    }
}

/// Reads a receipt file that must be the named one, and about this attempt at this specification.
pub(crate) fn checked(
    bytes: &[u8],
    digest: Digest,
    attempt: &AttemptId,
    submission: &Submission,
) -> Result<Receipt, Trouble> {
    if Digest::of(bytes) != digest {
        return Err(Trouble(
            "the receipt file is not the one that the spawner named".to_owned(),
        ));
    }
    let receipt = Receipt::from_canonical(bytes)
        .map_err(|e| Trouble(format!("the receipt is malformed: {e}")))?;
    if receipt.attempt != *attempt || receipt.spec != submission.spec_digest() {
        return Err(Trouble(
            "the receipt is about another attempt or specification".to_owned(),
        ));
    }
    Ok(receipt)
}

pub(crate) async fn within<R>(
    patience: Duration,
    answer: impl Future<Output = Result<R, SpawnerError>>,
) -> Result<R, SpawnerError> {
    match timeout(patience, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(SpawnerError::Lost(format!(
            "the spawner has not answered in {} s",
            patience.as_secs()
        ))),
    }
}

fn progress<R>(answer: Result<R, SpawnerError>, done: impl FnOnce(R) -> Progress) -> Progress {
    match answer {
        Ok(result) => done(result),
        Err(SpawnerError::Failed(outcome)) => Progress::Failed { outcome },
        Err(SpawnerError::Lost(why)) => Progress::SpawnerLost { why },
    }
}
