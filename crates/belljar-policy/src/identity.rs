use std::fmt;
use std::str::FromStr;

use belljar_core::{Invalid, bounds};

/// Who asks, and how that was established. The text form, which the queue, audit entries, provenance and
/// the configuration use, is one line: `unix:uid=0`, `spiffe://example.org/ci`, `x509:CN=ci,O=Example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// A process of this machine, by the effective user id that the kernel noted when it connected.
    Unix {
        /// The user id.
        uid: u32,
    },
    /// Who holds the key of a client certificate with this SPIFFE id.
    Spiffe(SpiffeId),
    /// Who holds the key of a client certificate without a URI, by its subject.
    Subject(Subject),
}

/// A SPIFFE id with a path (SPIFFE-ID 1.0, section 2): `spiffe://<trust domain>/<path>`, the trust domain
/// out of `[a-z0-9._-]`, each segment of the path out of `[A-Za-z0-9._-]`, none `.`, `..` or empty. At most
/// [`bounds::PRINCIPAL_BYTES`] long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(String);

/// The subject of a certificate as text (RFC 4514), without control characters; with `x509:` before it at
/// most [`bounds::PRINCIPAL_BYTES`] long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(String);

const UNIX: &str = "unix:uid=";
const SPIFFE: &str = "spiffe://";
const X509: &str = "x509:";
/// Longest name of a trust domain (SPIFFE-ID 1.0, section 2.3).
const TRUST_DOMAIN: usize = 255;

impl Identity {
    /// How the identity was established, as audit entries and provenance name it.
    pub fn authenticated_by(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "SO_PEERCRED",
            Self::Spiffe(_) | Self::Subject(_) => "mTLS",
        }
    }
}

impl SpiffeId {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let path = path_of(&text)?;
        if path.is_empty() {
            return Err(Invalid::new(
                "a SPIFFE id without a path names a trust domain, not a principal",
            ));
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What follows the trust domain of a well-formed id: nothing, or `/` and segments.
pub(crate) fn path_of(text: &str) -> Result<&str, Invalid> {
    let refused = |why: &str| Invalid::new(format!("not a SPIFFE id: {why}"));
    if text.len() > bounds::PRINCIPAL_BYTES {
        return Err(refused(&format!(
            "{} bytes; {} are allowed",
            text.len(),
            bounds::PRINCIPAL_BYTES
        )));
    }
    let rest = text
        .strip_prefix(SPIFFE)
        .ok_or_else(|| refused("it does not begin with `spiffe://`"))?;
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let in_domain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if domain.is_empty() || domain.len() > TRUST_DOMAIN || !domain.bytes().all(in_domain) {
        return Err(refused(
            "its trust domain is not 1 to 255 characters out of lower-case letters, digits, `.`, `_` and `-`",
        ));
    }
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fine =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(in_segment);
    if !path.is_empty() && !path[1..].split('/').all(fine) {
        return Err(refused(
            "a segment of its path is empty, `.`, `..`, or has other characters than letters, digits, `.`, `_`, `-`",
        ));
    }
    Ok(path)
}

impl Subject {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// When it is empty, too long, or has a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() {
            return Err(Invalid::new("the subject is empty"));
        }
        if X509.len() + text.len() > bounds::PRINCIPAL_BYTES {
            return Err(Invalid::new(format!(
                "the subject has {} bytes; {} are allowed",
                text.len(),
                bounds::PRINCIPAL_BYTES - X509.len()
            )));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid::new("the subject has a control character"));
        }
        Ok(Self(text))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid } => write!(f, "{UNIX}{uid}"),
            Self::Spiffe(id) => f.write_str(&id.0),
            Self::Subject(subject) => write!(f, "{X509}{}", subject.0),
        }
    }
}

impl FromStr for Identity {
    type Err = Invalid;

    /// Reads the text form, and no other way to write it.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let identity = if let Some(uid) = text.strip_prefix(UNIX) {
            let uid = uid.parse().ok();
            uid.map(|uid| Self::Unix { uid })
                .ok_or_else(|| Invalid::new("`unix:uid=` and a user id in figures is due"))?
        } else if text.starts_with(SPIFFE) {
            Self::Spiffe(SpiffeId::new(text)?)
        } else if let Some(subject) = text.strip_prefix(X509) {
            Self::Subject(Subject::new(subject)?)
        } else {
            return Err(Invalid::new(
                "not a principal: `unix:uid=N`, `spiffe://domain/path` or `x509:SUBJECT` (RFC 4514) is due",
            ));
        };
        if identity.to_string() == text {
            Ok(identity)
        } else {
            Err(Invalid::new(format!("write it as `{identity}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in [
            "unix:uid=0",
            "unix:uid=4294967295",
            "spiffe://example.org/ci",
            "spiffe://td_1.x/a/B/c-9",
            "x509:CN=ci,O=Example",
            "x509:CN=a\\,b",
            "x509:CN=Jürgen",
        ] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn forged_texts_are_nobody() {
        let long = "a".repeat(bounds::PRINCIPAL_BYTES);
        for bad in [
            "",
            "root",
            "unix:uid=",
            "unix:uid=-1",
            "unix:uid=+1",
            "unix:uid=01",
            "unix:uid=4294967296",
            "unix:gid=0",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///ci",
            "spiffe://Example.org/ci",
            "SPIFFE://example.org/ci",
            "spiffe://example.org:443/ci",
            "spiffe://user@example.org/ci",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/./b",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org/ci?x",
            "spiffe://example.org/ci#x",
            "spiffe://example.org/ci\0",
            "spiffe://example.org/ci\n",
            "spiffe://exämple.org/ci",
            "https://example.org/ci",
            "x509:",
            "x509:CN=a\0b",
            "x509:CN=a\nunix:uid=0",
            &format!("spiffe://example.org/{long}"),
            &format!("spiffe://{}/ci", "d".repeat(256)),
            &format!("x509:CN={long}"),
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }
}
