use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{decode_hex, excerpt};
use crate::{Digest, Invalid, ObjectId};

/// A BLAKE3 digest of 32 bytes (the BLAKE3 specification, "hash" mode). Written `blake3:` and 64 lower-case hexadecimal
/// digits. REAPI clients may name blobs by it; nothing of Belljar's own is named so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Blake3Digest([u8; 32]);

/// A digest by one of the functions that callers may name blobs by. Written with the name of the function before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BlobDigest {
    /// As objects are named.
    Sha256(Digest),
    /// As some clients name what they send and ask for.
    Blake3(Blake3Digest),
}

/// What a caller names one blob by. By SHA-256 it is an [`ObjectId`], and has the same encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobName {
    /// Of the content.
    pub digest: BlobDigest,
    /// Length of the content in bytes.
    pub size: u64,
}

impl Blake3Digest {
    const PREFIX: &'static str = "blake3:";

    /// Of no bytes.
    pub const EMPTY: Self = Self([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9,
        0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f,
        0x32, 0x62,
    ]);

    /// From 64 lower-case hexadecimal digits, as REAPI writes it.
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

    /// The digest that these 32 bytes are.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.to_hex())
    }
}

impl fmt::Debug for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BlobDigest {
    /// 64 lower-case hexadecimal digits, which do not tell the function.
    pub fn to_hex(self) -> String {
        match self {
            Self::Sha256(digest) => digest.to_hex(),
            Self::Blake3(digest) => digest.to_hex(),
        }
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => fmt::Display::fmt(digest, f),
            Self::Blake3(digest) => fmt::Display::fmt(digest, f),
        }
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobDigest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(hex) = text.strip_prefix(Blake3Digest::PREFIX) {
            return Blake3Digest::from_hex(hex).map(Self::Blake3);
        }
        if text.starts_with("sha256:") {
            return text.parse().map(Self::Sha256);
        }
        Err(Invalid::new(format!(
            "`{}` is not a digest: write `sha256:` or `blake3:` and 64 hexadecimal digits",
            excerpt(text)
        )))
    }
}

impl TryFrom<String> for BlobDigest {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<BlobDigest> for String {
    fn from(digest: BlobDigest) -> Self {
        digest.to_string()
    }
}

impl BlobName {
    /// The object, if it is named as objects are.
    pub fn object(self) -> Option<ObjectId> {
        match self.digest {
            BlobDigest::Sha256(digest) => Some(ObjectId {
                digest,
                size: self.size,
            }),
            BlobDigest::Blake3(_) => None,
        }
    }
}

impl From<ObjectId> for BlobName {
    fn from(object: ObjectId) -> Self {
        Self {
            digest: BlobDigest::Sha256(object.digest),
            size: object.size,
        }
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_by_which_function() {
        let hex = Digest::of(b"x").to_hex();
        let sha256: BlobDigest = format!("sha256:{hex}").parse().unwrap();
        let blake3: BlobDigest = format!("blake3:{hex}").parse().unwrap();
        assert_eq!(sha256, BlobDigest::Sha256(Digest::of(b"x")));
        assert_ne!(sha256, blake3);
        assert_eq!(sha256.to_hex(), blake3.to_hex());
        for digest in [sha256, blake3] {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        for bad in [
            hex.clone(),
            format!("blake3:{}", &hex[1..]),
            format!("blake3:{}", hex.to_uppercase()),
            format!("sha256:blake3:{hex}"),
            format!("sha512:{hex}"),
            String::new(),
        ] {
            assert!(bad.parse::<BlobDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_object_is_encoded_as_ever() {
        let object = ObjectId::of(b"x");
        let name = BlobName::from(object);
        assert_eq!(name.object(), Some(object));
        let encoded = serde_json::to_string(&name).unwrap();
        assert_eq!(encoded, serde_json::to_string(&object).unwrap());
        let other = encoded.replace("sha256:", "blake3:");
        let other: BlobName = serde_json::from_str(&other).unwrap();
        assert_eq!(other.object(), None);
        assert_eq!(
            other.to_string(),
            name.to_string().replace("sha256", "blake3")
        );
    }
}
