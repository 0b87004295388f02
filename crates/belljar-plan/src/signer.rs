//! Messages between belljard and the signer.

use belljar_core::{AttemptId, Digest, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ConfinedStep;

/// What belljard asks of the signer. Never bytes to sign: the signer computes the statement itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The public key.
    PublicKey,
    /// How the signer has confined itself.
    Confinement,
    /// Attest one successful attempt. Asked again with the same content it gives the same bundle.
    Attest {
        /// The attempt; its receipt must be there.
        attempt: AttemptId,
        /// The canonical specification, as text.
        spec: String,
        /// What only belljard can know; labelled so in the statement.
        asserted: Asserted,
    },
    /// Sign the receipt of one attempt, however that ended. Asked again it gives the same bundle.
    SignReceipt {
        /// The attempt; its receipt must be there.
        attempt: AttemptId,
    },
}

/// Facts of a statement that nobody but belljard vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asserted {
    /// The project that the build belongs to.
    pub project: ProjectId,
    /// Who submitted the build, such as `unix:uid=0`.
    pub submitter: String,
    /// How that was established, such as `SO_PEERCRED`.
    pub authenticated_by: String,
    /// When the build was accepted.
    pub accepted: Timestamp,
    /// Digest of the audit trail's bytes up to the request for attestation.
    pub audit_trail: Digest,
    /// Entries in that part of the trail.
    pub audit_entries: u64,
}

/// What the signer answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To `PublicKey`.
    PublicKey {
        /// SubjectPublicKeyInfo in PEM (RFC 7468).
        pem: String,
        /// OpenSSH fingerprint, `SHA256:<base64 without padding>`.
        key_id: String,
    },
    /// To `Confinement`.
    Confinement {
        /// What was done, in order.
        steps: Vec<ConfinedStep>,
    },
    /// To `Attest` and `SignReceipt`: the bundle is durable at `<attempt>.sigstore.json`, or
    /// `<attempt>.receipt.sigstore.json`, in the signer's evidence directory, which belljard can read.
    Attested {
        /// SHA-256 of the bundle file.
        bundle: Digest,
        /// Its length in bytes.
        size: u64,
    },
    /// Nothing was signed.
    Refused {
        /// Whether the same request may succeed later (the signer's own trouble), or never.
        retryable: bool,
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
}
