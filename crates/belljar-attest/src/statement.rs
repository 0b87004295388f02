/// `_type` of an in-toto Statement v1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of SLSA provenance v1.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// A statement that may be signed: provenance, as proof that [`Statement::provenance`] found no objection, or about a
/// receipt ([`Statement::receipt`]). The same specification, receipt, asserted facts and configuration give the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    payload: Vec<u8>,
}

impl Statement {
    pub(crate) fn from_payload(payload: Vec<u8>) -> Self {
        Self { payload }
    }

    /// The statement as canonical JSON (RFC 8785): the bytes that are signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Statement({})", String::from_utf8_lossy(&self.payload))
    }
}
