use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_core::{Invalid, bounds};
use serde::{Deserialize, Serialize};

use crate::PublicKey;
use crate::dsse::{PAYLOAD_TYPE, pae};

/// Media type of a Sigstore bundle v0.3.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A Sigstore bundle v0.3 around a DSSE envelope with one signature by a bare key. Reading one checks its
/// shape, never its signature: for that there is [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    payload: Vec<u8>,
    signature: Vec<u8>,
    key_id: String,
}

/// The file's own shape.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    public_key: PublicKeyHint,
    /// No log yet: written empty, since other writers of keyed bundles do. One that is there could not be verified,
    /// and whoever reads it beside a verdict would take it for verified.
    #[serde(default)]
    tlog_entries: [(); 0],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyHint {
    hint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    keyid: String,
}

impl Bundle {
    pub(crate) fn new(payload: Vec<u8>, signature: Vec<u8>, key_id: String) -> Self {
        Self {
            payload,
            signature,
            key_id,
        }
    }

    /// Reads a bundle file. Base64 has one form only: standard alphabet, padded, no stray bits.
    ///
    /// # Errors
    /// Names the field that is not as it must be.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::BUNDLE_BYTES {
            return Err(Invalid::new(format!(
                "more than {} bytes",
                bounds::BUNDLE_BYTES
            )));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))?;
        due("mediaType", &file.media_type, MEDIA_TYPE)?;
        let envelope = file.dsse_envelope;
        due(
            "dsseEnvelope.payloadType",
            &envelope.payload_type,
            PAYLOAD_TYPE,
        )?;
        let count = envelope.signatures.len();
        let [signature] = <[Signature; 1]>::try_from(envelope.signatures).map_err(|_| {
            Invalid::field(
                "dsseEnvelope.signatures",
                format!("{count} signatures; exactly one is due"),
            )
        })?;
        due(
            "dsseEnvelope.signatures[0].keyid",
            &signature.keyid,
            &file.verification_material.public_key.hint,
        )?;
        key_id_form(&signature.keyid).map_err(|e| e.within("dsseEnvelope.signatures[0].keyid"))?;
        Ok(Self {
            payload: decode("dsseEnvelope.payload", &envelope.payload)?,
            signature: decode("dsseEnvelope.signatures[0].sig", &signature.sig)?,
            key_id: signature.keyid,
        })
    }

    /// The file: one line of JSON with a line feed.
    ///
    /// # Errors
    /// When it would be larger than [`bounds::BUNDLE_BYTES`].
    pub fn to_json(&self) -> Result<Vec<u8>, Invalid> {
        let file = File {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material {
                public_key: PublicKeyHint {
                    hint: self.key_id.clone(),
                },
                tlog_entries: [],
            },
            dsse_envelope: Envelope {
                payload: STANDARD.encode(&self.payload),
                payload_type: PAYLOAD_TYPE.to_owned(),
                signatures: vec![Signature {
                    sig: STANDARD.encode(&self.signature),
                    keyid: self.key_id.clone(),
                }],
            },
        };
        let mut bytes = serde_json::to_vec(&file).map_err(|e| Invalid::new(e.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() > bounds::BUNDLE_BYTES {
            return Err(Invalid::new(format!(
                "the bundle has {} bytes; {} are allowed. Declare fewer output files",
                bytes.len(),
                bounds::BUNDLE_BYTES
            )));
        }
        Ok(bytes)
    }

    /// Whether the signature is `key`'s over the payload. Says nothing about what the payload states.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        self.key_id == key.key_id()
            && key.verifies(&pae(PAYLOAD_TYPE, &self.payload), &self.signature)
    }

    /// The statement's exact bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature, DER.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The signing key's OpenSSH fingerprint, as the bundle names it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

fn due(field: &str, found: &str, due: &str) -> Result<(), Invalid> {
    if found == due {
        return Ok(());
    }
    let excerpt: String = found.chars().take(100).collect();
    Err(Invalid::field(
        field,
        format!(
            "`{}`; `{}` is due",
            excerpt.escape_debug(),
            due.escape_debug()
        ),
    ))
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, Invalid> {
    STANDARD
        .decode(text)
        .map_err(|_| Invalid::field(field, "not standard base64 (RFC 4648, 4) with padding"))
}

/// `SHA256:` and 43 characters of base64: 32 bytes without padding.
fn key_id_form(text: &str) -> Result<(), Invalid> {
    let digits = text.strip_prefix("SHA256:").unwrap_or_default();
    let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    if digits.len() != 43 || !digits.bytes().all(base64) {
        return Err(Invalid::new(
            "not an OpenSSH fingerprint, `SHA256:<base64 without padding>`",
        ));
    }
    Ok(())
}
