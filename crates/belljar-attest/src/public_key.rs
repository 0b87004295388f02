use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use belljar_core::{Digest, Invalid};

/// An ECDSA P-256 public key.
#[derive(Clone, Debug)]
pub struct PublicKey {
    parsed: ParsedPublicKey,
    point: [u8; POINT],
}

/// Length of an uncompressed point: `04`, X, Y (SEC 1, 2.3.3).
const POINT: usize = 65;

/// What stands before the point in a SubjectPublicKeyInfo (RFC 5480): the sequence, the identifiers of
/// `id-ecPublicKey` and `prime256v1`, and the head of the bit string. DER leaves no choice in it.
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Longest text that is looked at for a public key, in bytes; a P-256 key has 178.
const PEM_BYTES: usize = 1024;

impl PublicKey {
    /// From an uncompressed point.
    ///
    /// # Errors
    /// When it is not on the curve.
    pub(crate) fn from_point(point: &[u8]) -> Result<Self, Invalid> {
        let refused = || Invalid::new("not a point of the curve P-256");
        let point: [u8; POINT] = point.try_into().map_err(|_| refused())?;
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| refused())?;
        Ok(Self { parsed, point })
    }

    /// From a SubjectPublicKeyInfo in PEM (RFC 7468), with nothing before or behind it but white space.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn from_pem(text: &str) -> Result<Self, Invalid> {
        if text.len() > PEM_BYTES {
            return Err(Invalid::new(
                "too long for the public key of one ECDSA P-256 key",
            ));
        }
        let body = text
            .trim()
            .strip_prefix(BEGIN)
            .and_then(|rest| rest.strip_suffix(END))
            .ok_or_else(|| Invalid::new(format!("not a public key in PEM: `{BEGIN}` is due")))?;
        let digits: String = body.split_ascii_whitespace().collect();
        let der = STANDARD
            .decode(digits)
            .map_err(|_| Invalid::new("the text between BEGIN and END is not base64"))?;
        let point = der
            .strip_prefix(&SPKI_HEAD)
            .ok_or_else(|| Invalid::new("not an ECDSA P-256 key; other kinds are not used here"))?;
        Self::from_point(point)
    }

    /// As a SubjectPublicKeyInfo in PEM, with a line feed at its end.
    pub fn to_pem(&self) -> String {
        let body = STANDARD.encode([&SPKI_HEAD[..], &self.point[..]].concat());
        let mut text = format!("{BEGIN}\n");
        // Base64 is ASCII: every split is between characters (RFC 7468: lines of 64).
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    /// The OpenSSH fingerprint, `SHA256:` and base64 without padding: of the key as `ssh-keygen -l` prints
    /// it (RFC 5656, 3.1 for the encoding). The one form of key id that all stock verifiers accept.
    pub fn key_id(&self) -> String {
        let mut wire = Vec::new();
        for part in [b"ecdsa-sha2-nistp256".as_slice(), b"nistp256", &self.point] {
            // All three are shorter than 256 bytes.
            wire.extend([0, 0, 0, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            wire.extend_from_slice(part);
        }
        format!(
            "SHA256:{}",
            STANDARD_NO_PAD.encode(Digest::of(&wire).as_bytes())
        )
    }

    /// Whether `signature` (DER) is this key's over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.point == other.point
    }
}

impl Eq for PublicKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with `openssl ecparam -genkey -name prime256v1 | openssl ec -pubout`; the fingerprint is what
    /// `ssh-keygen -l` says to the same key, written by `ssh-keygen -i -m PKCS8`.
    const PEM: &str = include_str!("../tests/data/openssl.pub");
    const FINGERPRINT: &str = include_str!("../tests/data/openssl.fingerprint");

    #[test]
    fn the_fingerprint_is_what_openssh_says() {
        let key = PublicKey::from_pem(PEM).unwrap();
        assert_eq!(key.key_id(), FINGERPRINT.trim());
        assert_eq!(key.to_pem(), PEM);
    }

    #[test]
    fn line_ends_do_not_matter_but_everything_else_does() {
        assert!(PublicKey::from_pem(&PEM.replace('\n', "\r\n")).is_ok());
        let joined = format!("{PEM}{PEM}");
        let private = PEM.replace("PUBLIC", "PRIVATE");
        let cut = PEM.replacen('M', "", 1);
        let elsewhere = PublicKey::from_pem(PEM).unwrap();
        let mut der = [&SPKI_HEAD[..], &elsewhere.point[..]].concat();
        der[60] ^= 1;
        let off_curve = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der));
        for bad in [
            "",
            "x",
            &joined,
            &private,
            &cut,
            &off_curve,
            &" ".repeat(2000),
        ] {
            assert!(PublicKey::from_pem(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC{0,200}") {
            prop_assert!(PublicKey::from_pem(&text).is_err());
            let framed = format!("{BEGIN}\n{text}\n{END}");
            prop_assert!(PublicKey::from_pem(&framed).is_err());
        }
    }
}
