//! Names that nobody has used before.

use belljar_core::{Invalid, RequestId};
use ulid::Ulid;

/// A request id.
///
/// # Errors
/// Never: a ULID has the shape of a request id.
pub(crate) fn request_id() -> Result<RequestId, Invalid> {
    RequestId::new(Ulid::generate().to_string().to_lowercase())
}

/// A UUID for an upload (REAPI, `uploads/{uuid}/…`; RFC 9562, version 8: a ULID's bits).
pub(crate) fn uuid() -> String {
    let hex = format!("{:032x}", Ulid::generate().0);
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert!(request_id().is_ok());
        let uuid = uuid();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_ne!(uuid, super::uuid());
    }
}
