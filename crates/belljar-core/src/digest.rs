use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::Invalid;

/// A SHA-256 digest (FIPS 180-4). Written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A SHA-512 digest: the second digest that provenance gives for each subject.
/// Written `sha512:` and 128 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha512Digest([u8; 64]);

/// Computes a [`Digest`] over bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

/// Computes a [`Sha512Digest`] over bytes that come piece by piece.
#[derive(Clone, Default)]
pub struct Sha512Hasher(sha2::Sha512);

/// What names one object of the store: its digest and its size in bytes, as in REAPI's `Digest`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectId {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
}

impl ObjectId {
    /// The id that `content` has.
    pub fn of(content: &[u8]) -> Self {
        Self {
            digest: Digest::of(content),
            size: content.len() as u64,
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest, self.size)
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl Sha512Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken so far.
    pub fn finish(self) -> Sha512Digest {
        Sha512Digest(self.0.finalize().into())
    }
}

impl Digest {
    const PREFIX: &'static str = "sha256:";

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha256::digest(content).into())
    }

    /// From 64 lower-case hexadecimal digits, as REAPI and the object layout write it.
    ///
    /// # Errors
    /// Any other length or character.
    pub fn from_hex(hex: &str) -> Result<Self, Invalid> {
        decode_hex(hex).map(Self)
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// The same digits, in a place that the caller has: for who names thousands of objects at once.
    pub fn hex_in(self, place: &mut [u8; 64]) -> &str {
        // Twice as many digits as bytes: they always fit.
        base16ct::lower::encode_str(&self.0, place).unwrap_or_default()
    }

    /// The digest that these 32 bytes are.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Sha512Digest {
    const PREFIX: &'static str = "sha512:";

    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(sha2::Sha512::digest(content).into())
    }

    /// From a digest's 64 raw bytes.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// 128 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let hex = text.strip_prefix(Self::PREFIX).ok_or_else(|| {
            Invalid::new(format!(
                "`{}` is not a digest: write `sha256:` and 64 hexadecimal digits",
                excerpt(text)
            ))
        })?;
        Self::from_hex(hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Sha512Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.to_hex())
    }
}

impl fmt::Debug for Sha512Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Sha512Digest {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        let hex = text.strip_prefix(Self::PREFIX).ok_or_else(|| {
            Invalid::new("not a digest: write `sha512:` and 128 hexadecimal digits")
        })?;
        decode_hex(hex).map(Self)
    }
}

impl From<Sha512Digest> for String {
    fn from(digest: Sha512Digest) -> Self {
        digest.to_string()
    }
}

pub(crate) fn decode_hex<const N: usize>(hex: &str) -> Result<[u8; N], Invalid> {
    let mut bytes = [0; N];
    match base16ct::lower::decode(hex, &mut bytes) {
        Ok(decoded) if decoded.len() == N => Ok(bytes),
        _ => Err(Invalid::new(format!(
            "`{}` is not {} lower-case hexadecimal digits",
            excerpt(hex),
            2 * N
        ))),
    }
}

/// The beginning of a refused text, safe to print.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.hex_in(&mut [0; 64]), digest.to_hex());
    }

    #[test]
    fn other_forms_are_refused() {
        let hex = Digest::of(b"").to_hex();
        for bad in [
            hex.clone(),
            format!("sha512:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}é", &hex[2..]),
            String::new(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Digest::of(b"abc"));
        let mut hasher = Sha512Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Sha512Digest::of(b"abc"));
    }
}
