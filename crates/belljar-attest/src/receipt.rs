//! Receipts as statements of their own.

use belljar_core::{
    AttemptId, CanonicalError, Digest, Outcome, Sha512Digest, Timestamp, canonical_json,
};
use belljar_plan::Receipt;
use serde::Serialize;
use serde_json::json;

use crate::provenance::RECEIPT;
use crate::statement::STATEMENT_TYPE;
use crate::{BuilderConfig, Statement};

impl Statement {
    /// The statement that `receipt` is what the spawner of `builder` has written. Its subject is the receipt file, its
    /// predicate the receipt itself: of a failure, too, since it says what was seen, and not that it is good.
    ///
    /// # Errors
    /// Never for a receipt that was read or built through its types.
    pub fn receipt(receipt: &Receipt, builder: &BuilderConfig) -> Result<Self, CanonicalError> {
        let file = receipt.canonical()?;
        let statement = json!({
            "_type": STATEMENT_TYPE,
            "subject": [{
                "name": RECEIPT,
                "digest": {
                    "sha256": Digest::of(&file).to_hex(),
                    "sha512": Sha512Digest::of(&file).to_hex(),
                },
            }],
            "predicateType": builder.receipt_type(),
            "predicate": receipt,
        });
        Ok(Self::from_payload(canonical_json(&statement)?))
    }
}

/// What a verified statement says about a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptVerdict {
    /// Digest of the receipt file.
    pub receipt: Digest,
    /// `predicateType`. What comes before `/predicates/` is whose builder it is.
    pub predicate_type: String,
    /// The attempt that it is about.
    pub attempt: AttemptId,
    /// Its place in the spawner's chain, from 1.
    pub sequence: u64,
    /// Digest of the receipt before; none for the first.
    pub previous: Option<Digest>,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// Digest of the canonical specification, as belljard named it.
    pub spec: Digest,
    /// When the spawner accepted the attempt.
    pub started: Timestamp,
    /// When everything of it was gone.
    pub finished: Timestamp,
    /// OpenSSH fingerprint of the key that signed.
    pub key_id: String,
}

impl std::fmt::Display for ReceiptVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "receipt        {}", self.receipt)?;
        writeln!(f, "               {}", self.predicate_type.escape_debug())?;
        writeln!(f, "attempt        {}", self.attempt)?;
        match self.previous {
            Some(previous) => writeln!(f, "in the chain   {}, after {previous}", self.sequence)?,
            None => writeln!(f, "in the chain   {}, the first", self.sequence)?,
        }
        writeln!(
            f,
            "outcome        {}",
            self.outcome.to_string().escape_debug()
        )?;
        writeln!(f, "when           {} to {}", self.started, self.finished)?;
        writeln!(f, "specification  {}", self.spec)?;
        write!(f, "signed by      {}", self.key_id)
    }
}
