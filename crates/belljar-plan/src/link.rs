use belljar_core::{AttemptId, Digest, Invalid, bounds};
use serde::Deserialize;

/// What puts a receipt into its place in the spawner's chain. Of a receipt whose digest is known this is enough to
/// go from it to the one before, whatever else a version of Belljar writes into it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// Position in the chain, from 1.
    pub sequence: u64,
    /// Digest of the receipt before; none for the first.
    pub previous: Option<Digest>,
    /// The attempt that the receipt before is about; none for the first.
    pub previous_attempt: Option<AttemptId>,
    /// The attempt that this receipt is about.
    pub attempt: AttemptId,
}

impl Link {
    /// Reads a receipt file for its place only.
    ///
    /// # Errors
    /// When `bytes` are too many, or no receipt at all.
    pub fn of_receipt(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::RECEIPT_BYTES {
            return Err(Invalid::new("the receipt is too large"));
        }
        serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))
    }
}
