//! Subresource integrity (W3C): hashes apart by blanks, each `ALGORITHM-BASE64` with options after a `?`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_core::{Digest, Invalid, Sha512Digest};

/// The one SHA-256 that `text` is.
///
/// # Errors
/// When it is anything else, also beside others: nobody would look at these.
pub fn sha256(text: &str) -> Result<Digest, Invalid> {
    let encoded = text.strip_prefix("sha256-").ok_or_else(|| {
        Invalid::new(format!(
            "`{}` is no SHA-256; write `sha256-` and the digest in base 64, and no other hash beside it",
            crate::excerpt(text)
        ))
    })?;
    let decoded = STANDARD.decode(encoded).ok();
    let bytes: Option<[u8; 32]> = decoded.and_then(|bytes| bytes.try_into().ok());
    let hex: Option<String> =
        bytes.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    let hex = hex.ok_or_else(|| {
        Invalid::new("after `sha256-` 44 characters of base 64 are due, for 32 bytes")
    })?;
    Digest::from_hex(&hex)
}

/// The SHA-512 among the hashes of `text`.
///
/// # Errors
/// When there is none, when there is more than one, or when it is none.
pub(crate) fn sha512(text: &str) -> Result<Sha512Digest, Invalid> {
    let mut found: Option<Sha512Digest> = None;
    let mut others: Vec<&str> = Vec::new();
    for hash in text.split_ascii_whitespace() {
        let hash = hash.split('?').next().unwrap_or(hash);
        let Some(encoded) = hash.strip_prefix("sha512-") else {
            others.push(hash.split('-').next().unwrap_or(hash));
            continue;
        };
        let decoded = STANDARD.decode(encoded).ok();
        let bytes = decoded.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let digest = Sha512Digest::from_bytes(bytes.ok_or_else(|| {
            Invalid::new(format!(
                "its integrity `{}` is no SHA-512 in base 64",
                crate::excerpt(hash)
            ))
        })?);
        if found.is_some_and(|before| before != digest) {
            return Err(Invalid::new(
                "its integrity names two SHA-512 digests; which one holds is not clear",
            ));
        }
        found = Some(digest);
    }
    found.ok_or_else(|| match others.first() {
        Some(only) => Invalid::new(format!(
            "its integrity is {} only, and SHA-512 is needed. Take a release that the registry has a SHA-512 of, \
             or make the entry anew with `npm install`",
            crate::excerpt(only)
        )),
        None => Invalid::new("its integrity is empty"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8]) -> String {
        let hex = Sha512Digest::of(content).to_hex();
        let bytes: Vec<u8> = (0..64)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        format!("sha512-{}", STANDARD.encode(bytes))
    }

    #[test]
    fn one_sha256_is_read_and_nothing_else() {
        let empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(sha256(empty), Ok(Digest::of(b"")));
        for bad in [
            "",
            "sha256-",
            "sha256-AAAA",
            "sha512-AAAA",
            "47DEQ",
            &format!("{empty} {empty}"),
            &format!("{empty}?x"),
        ] {
            assert!(sha256(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_strong_hash_is_found_among_others() {
        let (one, digest) = (of(b"a"), Sha512Digest::of(b"a"));
        for text in [
            one.clone(),
            format!("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= {one}"),
            format!(" {one}?opt\t{one} "),
        ] {
            assert_eq!(sha512(&text), Ok(digest), "{text}");
        }
    }

    #[test]
    fn weak_ambiguous_and_broken_ones_are_refused() {
        let two = format!("{} {}", of(b"a"), of(b"b"));
        let cases = [
            ("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "sha1 only"),
            ("sha384-AAAA", "sha384 only"),
            (two.as_str(), "two SHA-512"),
            ("sha512-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "no SHA-512"),
            ("sha512-%", "no SHA-512"),
            ("", "empty"),
        ];
        for (text, due) in cases {
            let reason = sha512(text).unwrap_err().reason;
            assert!(reason.contains(due), "{reason}");
        }
    }
}
