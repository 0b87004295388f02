//! What is the same for statements of every kind.

use belljar_core::{Invalid, canonical_json};
use serde::Deserialize;
use serde_json::Value;

use super::VerifyError;
use crate::statement::STATEMENT_TYPE;
use crate::{Bundle, PublicKey};

/// What tells whether the rest can be read at all.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
}

/// The bundle, if it is signed by this key, and the key's id.
pub(super) fn signed(bundle: &[u8], public_key: &str) -> Result<(Bundle, String), VerifyError> {
    let key = PublicKey::from_pem(public_key).map_err(VerifyError::Key)?;
    let bundle = Bundle::from_json(bundle).map_err(VerifyError::Malformed)?;
    let given = key.key_id();
    if bundle.key_id() != given {
        return Err(VerifyError::WrongKey {
            signed_with: bundle.key_id().to_owned(),
            given,
        });
    }
    if !bundle.is_signed_by(&key) {
        return Err(VerifyError::BadSignature);
    }
    Ok((bundle, given))
}

pub(super) fn unreadable(error: serde_json::Error) -> Invalid {
    Invalid::new(error.to_string())
}

/// The statement in a payload, and its `predicateType`.
pub(super) fn head(payload: &[u8]) -> Result<(Value, String), Invalid> {
    // One encoding only: else two readers of one signature could see two statements (a key given twice).
    let value: Value = serde_json::from_slice(payload).map_err(unreadable)?;
    if canonical_json(&value).ok().as_deref() != Some(payload) {
        return Err(Invalid::new("not in canonical form (RFC 8785)"));
    }
    let head = Head::deserialize(&value).map_err(unreadable)?;
    due("_type", &head.kind, STATEMENT_TYPE)?;
    Ok((value, head.predicate_type))
}

pub(super) fn due(field: &str, found: &str, due: &str) -> Result<(), Invalid> {
    if found == due {
        return Ok(());
    }
    let why = format!("`{}`; `{due}` is due", found.escape_debug());
    Err(Invalid::field(field, why))
}
