use serde::Serialize;

/// Why a value has no canonical encoding.
#[derive(Debug, thiserror::Error)]
#[error("the value cannot be written as canonical JSON (RFC 8785)")]
pub struct CanonicalError(#[source] serde_json::Error);

/// The JSON Canonicalization Scheme (RFC 8785): one value, one sequence of bytes, hence one digest.
/// Anyone can recompute it from the plain JSON with any JCS implementation.
///
/// # Errors
/// When the value holds something that JSON cannot (a map whose keys are not text).
pub fn canonical_json<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json_canonicalizer::to_vec(value).map_err(CanonicalError)
}
