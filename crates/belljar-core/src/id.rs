use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Invalid, bounds};

/// Names one build for ever: 26 characters of lower-case Crockford base 32 (a ULID), safe as a file
/// and cgroup name. Its resource name in the API is `builds/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId(String);

/// Names one attempt at a build: `<build id>-<number>`, counted from 1 to [`bounds::ATTEMPTS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId {
    build: BuildId,
    number: u32,
}

/// A client's own name for a submission (AIP-155): 1 to 64 characters of `[A-Za-z0-9._-]`. The same
/// id with the same body gives the same build, with another body a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// Names one further input of a build, which sees it at `/deps/<name>`: 1 to 64 characters of
/// `[a-z0-9._-]`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InputName(String);

impl BuildId {
    const LENGTH: usize = 26;

    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Any other length or character.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let crockford = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
        if text.len() != Self::LENGTH || !text.bytes().all(crockford) {
            return Err(Invalid::new(
                "not a build id: 26 characters of lower-case base 32 are due",
            ));
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AttemptId {
    /// The attempt with this number at `build`.
    ///
    /// # Errors
    /// When `number` is zero or beyond [`bounds::ATTEMPTS`].
    pub fn new(build: BuildId, number: u32) -> Result<Self, Invalid> {
        if number == 0 || number > bounds::ATTEMPTS {
            return Err(Invalid::new(format!(
                "attempt {number} is not between 1 and {}",
                bounds::ATTEMPTS
            )));
        }
        Ok(Self { build, number })
    }

    /// The build that is attempted.
    pub fn build(&self) -> &BuildId {
        &self.build
    }

    /// Which attempt this is, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl RequestId {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Any other length or character.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fine) {
            return Err(Invalid::new(
                "a request id has 1 to 64 characters out of letters, digits, `.`, `_` and `-`",
            ));
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InputName {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Any other length or character.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let fine =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins_well || text.len() > 64 || !text.bytes().all(fine) {
            return Err(Invalid::new(
                "an input's name has 1 to 64 characters out of lower-case letters, digits, `.`, `_` and `-`, and begins with a letter or digit",
            ));
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.build, self.number)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BuildId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl FromStr for InputName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl FromStr for AttemptId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("not an attempt id: `<build id>-<number>` is due");
        let (build, number) = text.split_once('-').ok_or_else(refused)?;
        // One text form only: no sign, no leading zero.
        if number.starts_with(['+', '0']) {
            return Err(refused());
        }
        Self::new(BuildId::new(build)?, number.parse().map_err(|_| refused())?)
    }
}

macro_rules! as_text {
    ($($kind:ty),*) => {$(
        impl TryFrom<String> for $kind {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(id: $kind) -> Self {
                id.to_string()
            }
        }
    )*};
}

as_text!(BuildId, AttemptId, InputName);

impl TryFrom<String> for RequestId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_names_are_single_plain_components() {
        for fine in ["cargo", "a", "0.b_c-d", &"n".repeat(64)] {
            assert!(InputName::new(fine).is_ok(), "{fine}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "-a",
            "a b",
            "a\0",
            &"n".repeat(65),
        ] {
            assert!(InputName::new(bad).is_err(), "{bad}");
        }
    }

    const BUILD: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";

    #[test]
    fn attempt_text_round_trips() {
        let attempt: AttemptId = format!("{BUILD}-2").parse().unwrap();
        assert_eq!((attempt.build().as_str(), attempt.number()), (BUILD, 2));
        assert_eq!(attempt.to_string(), format!("{BUILD}-2"));
    }

    #[test]
    fn nothing_that_could_be_a_path_is_an_id() {
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            "01JD8Q6Z8R4X7J2M5T9V0W3Y6B",
            "01jd8q6z8r4x7j2m5t9v0w3y6/",
        ] {
            assert!(BuildId::new(bad).is_err(), "{bad:?}");
        }
        for bad in [
            BUILD.to_owned(),
            format!("{BUILD}-0"),
            format!("{BUILD}-01"),
            format!("{BUILD}-+1"),
            format!("{BUILD}-9"),
            format!("{BUILD}-1-1"),
        ] {
            assert!(bad.parse::<AttemptId>().is_err(), "{bad:?}");
        }
        assert!(RequestId::new("a/b").is_err());
    }
}
