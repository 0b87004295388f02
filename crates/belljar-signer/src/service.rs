use std::sync::{Mutex, PoisonError};

use belljar_attest::{BuilderConfig, Bundle, Key, Producers, Proven, Statement};
use belljar_core::{AttemptId, BuildSpec, Digest, bounds};
use belljar_plan::ConfinedStep;
use belljar_plan::signer::{Answer, Asserted, Request};
use belljar_plan::{Receipt, Refusals};

use crate::evidence::{About, Evidence};
use crate::receipts::Receipts;
use crate::refused::Refused;
use crate::seen::Seen;

/// Everything that an answer depends on.
pub(crate) struct Service {
    key: Key,
    builder: BuilderConfig,
    receipts: Receipts,
    /// Those of them that it knows to be the chain's.
    seen: Seen,
    evidence: Evidence,
    /// How this process has confined itself.
    confined: Vec<ConfinedStep>,
    /// One attestation at a time: looking for an earlier bundle and keeping a new one are one step.
    turn: Mutex<()>,
    /// What it has not signed.
    pub(crate) refused: Refused,
}

/// A refusal that fits a frame, whatever its reasons quote.
pub(crate) fn refused(retryable: bool, reasons: Vec<String>) -> Answer {
    let first = reasons.into_iter().take(bounds::REASONS);
    let reasons = first.map(Refusals::cut).collect();
    Answer::Refused { retryable, reasons }
}

/// Why nothing was signed.
struct Refusal {
    retryable: bool,
    reasons: Vec<String>,
}

impl Refusal {
    fn never(reason: impl std::fmt::Display) -> Self {
        Self {
            retryable: false,
            reasons: vec![reason.to_string()],
        }
    }

    fn perhaps_later(retryable: bool, reason: impl std::fmt::Display) -> Self {
        Self {
            retryable,
            reasons: vec![reason.to_string()],
        }
    }
}

impl Service {
    /// A service that signs with `key` as `builder` what `receipts` vouch for, and remembers in `evidence`.
    pub(crate) fn new(
        key: Key,
        builder: BuilderConfig,
        (receipts, seen): (Receipts, Seen),
        evidence: Evidence,
        confined: Vec<ConfinedStep>,
    ) -> Self {
        Self {
            key,
            builder,
            receipts,
            seen,
            evidence,
            confined,
            turn: Mutex::new(()),
            refused: Refused::default(),
        }
    }

    /// Returns when it is the turn of the next attestation: where one hangs, that is never.
    pub(crate) fn lives(&self) {
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The answer to one request of belljard's.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::PublicKey => Answer::PublicKey {
                pem: self.key.public().to_pem(),
                key_id: self.key.public().key_id(),
            },
            Request::Confinement => Answer::Confinement {
                steps: self.confined.clone(),
            },
            Request::Attest {
                attempt,
                spec,
                asserted,
            } => {
                let signed = self.attest(attempt, spec, asserted);
                if signed.is_ok() {
                    tracing::info!(%attempt, submitter = ?asserted.submitter, "attested");
                }
                self.told(format_args!("attest {attempt}"), signed)
            }
            Request::SignReceipt { attempt } => self.told(
                format_args!("sign the receipt of {attempt}"),
                self.sign_receipt(attempt),
            ),
        }
    }

    fn told(&self, what: std::fmt::Arguments<'_>, signed: Result<Vec<u8>, Refusal>) -> Answer {
        match signed {
            Ok(file) => Answer::Attested {
                bundle: Digest::of(&file),
                size: file.len() as u64,
            },
            Err(Refusal { retryable, reasons }) => {
                self.refused.note("belljard", what, reasons.join("; "));
                refused(retryable, reasons)
            }
        }
    }

    /// The bundle about the receipt of `attempt`, durable, however the attempt ended.
    fn sign_receipt(&self, attempt: &AttemptId) -> Result<Vec<u8>, Refusal> {
        let receipt = self.receipt(attempt)?;
        let statement = Statement::receipt(&receipt, &self.builder).map_err(Refusal::never)?;
        self.bundle(attempt, About::Receipt, &statement)
    }

    /// The bundle of `attempt`, durable. Made at the first request; afterwards the same file, as long as what
    /// is asked for is the same statement.
    fn attest(
        &self,
        attempt: &AttemptId,
        spec: &str,
        asserted: &Asserted,
    ) -> Result<Vec<u8>, Refusal> {
        let spec = BuildSpec::from_canonical(spec.as_bytes())
            .map_err(|e| Refusal::never(e.within("spec")))?;
        let receipt = self.receipt(attempt)?;
        let producers = self.producers(&receipt)?;
        let statement = Statement::provenance(&spec, &receipt, asserted, &producers, &self.builder);
        let statement = statement.map_err(|reasons| Refusal {
            retryable: false,
            reasons,
        })?;
        self.bundle(attempt, About::Artifacts, &statement)
    }

    /// The earlier attempts that have left something the build was given, each by the provenance that was signed here
    /// about it: belljard only says which ones they are.
    fn producers(&self, receipt: &Receipt) -> Result<Producers, Refusal> {
        let mut producers = Producers::default();
        for attempt in Producers::due(receipt) {
            let bundle = self
                .evidence
                .load(&attempt, About::Artifacts)
                .map_err(|e| Refusal::perhaps_later(e.retryable(), e))?;
            let bundle = bundle.ok_or_else(|| {
                Refusal::never(format!("no provenance of {attempt} was signed here"))
            })?;
            let proven = Proven::verify(&bundle, &self.key.public().to_pem())
                .map_err(|e| Refusal::never(format!("the provenance of {attempt}: {e}")))?;
            producers.add(attempt, proven);
        }
        Ok(producers)
    }

    /// The bundle of `statement`: made at the first request; afterwards the same file, as long as the statement is.
    fn bundle(
        &self,
        attempt: &AttemptId,
        about: About,
        statement: &Statement,
    ) -> Result<Vec<u8>, Refusal> {
        // A panic while it was held cannot have left anything half done: the link is the one step that counts.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self
            .evidence
            .load(attempt, about)
            .map_err(|e| Refusal::perhaps_later(e.retryable(), e))?;
        if let Some(file) = before {
            return self.same(statement, file);
        }
        let bundle = self
            .key
            .attest(statement)
            .map_err(|e| Refusal::perhaps_later(true, e))?;
        let file = bundle.to_json().map_err(Refusal::never)?;
        self.evidence.keep(attempt, about, &file).map_err(|e| {
            Refusal::perhaps_later(e.retryable(), format!("the bundle could not be kept: {e}"))
        })?;
        Ok(file)
    }

    /// The receipt of `attempt`, which is known to be the chain's from now on.
    fn receipt(&self, attempt: &AttemptId) -> Result<Receipt, Refusal> {
        let (receipt, bytes) = self
            .receipts
            .read(attempt)
            .map_err(|e| Refusal::perhaps_later(e.retryable(), e))?;
        self.seen
            .follow(receipt.link(), Digest::of(&bytes), &self.receipts)
            .map_err(|e| Refusal::perhaps_later(e.retryable(), e))?;
        Ok(receipt)
    }

    /// `file`, if it is the bundle of exactly this statement. Signatures are randomised, so it is the payload
    /// that is compared.
    fn same(&self, statement: &Statement, file: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let bundle = Bundle::from_json(&file)
            .map_err(|e| Refusal::never(format!("the bundle of this attempt: {e}")))?;
        if bundle.payload() != statement.payload() {
            return Err(Refusal::never(
                "another statement was already signed for this attempt",
            ));
        }
        if !bundle.is_signed_by(self.key.public()) {
            let reason = "the bundle of this attempt was changed, or signed with another key";
            return Err(Refusal::never(reason));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests;
