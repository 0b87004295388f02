//! A Sigstore bundle as plain JSON: nothing of Belljar's own code reads it here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A bundle, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Bundle(pub(crate) Value);

impl Bundle {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self(serde_json::from_slice(bytes).unwrap())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap()
    }

    fn base64(&self, pointer: &str) -> Vec<u8> {
        STANDARD
            .decode(self.0.pointer(pointer).unwrap().as_str().unwrap())
            .unwrap()
    }

    /// What was signed.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.base64("/dsseEnvelope/payload")
    }

    pub(crate) fn signature(&self) -> Vec<u8> {
        self.base64("/dsseEnvelope/signatures/0/sig")
    }

    pub(crate) fn statement(&self) -> Value {
        serde_json::from_slice(&self.payload()).unwrap()
    }

    pub(crate) fn with_payload(&self, payload: &[u8]) -> Self {
        let mut other = self.clone();
        other.0["dsseEnvelope"]["payload"] = STANDARD.encode(payload).into();
        other
    }

    pub(crate) fn with_signature(&self, signature: &[u8]) -> Self {
        let mut other = self.clone();
        other.0["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode(signature).into();
        other
    }

    /// DSSE's pre-authentication encoding (the protocol's own words, v1.0.2).
    pub(crate) fn pae(&self) -> Vec<u8> {
        let kind = self.0["dsseEnvelope"]["payloadType"].as_str().unwrap();
        let payload = self.payload();
        let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
        [head.as_bytes(), &payload].concat()
    }
}
