use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, bounds};

/// The name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*` (POSIX.1-2024, 8.1, with lower case
/// allowed), and none of the names that the sandbox sets itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

/// The value of an environment variable: UTF-8 without NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvValue(String);

impl EnvName {
    /// Names whose value belongs to the sandbox, so that two builds of one specification agree.
    pub const RESERVED: &'static [&'static str] = &[
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "SOURCE_DATE_EPOCH",
    ];

    /// Takes `text` if it is a name that a specification may set.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let mut bytes = text.bytes();
        let starts = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Invalid::new(format!(
                "`{}` is not a variable name: use letters, digits and `_`, not beginning with a digit",
                text.escape_debug()
            )));
        }
        if text.len() > bounds::ENV_NAME_BYTES {
            return Err(Invalid::new(format!(
                "the variable name has more than {} bytes",
                bounds::ENV_NAME_BYTES
            )));
        }
        if Self::RESERVED.contains(&text.as_str()) {
            return Err(Invalid::new(format!(
                "`{text}` is set by the sandbox and cannot be overridden"
            )));
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EnvValue {
    /// Takes `text` if it has no NUL and is not too long.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.contains('\0') {
            return Err(Invalid::new("the value contains a NUL character"));
        }
        if text.len() > bounds::ENV_VALUE_BYTES {
            return Err(Invalid::new(format!(
                "the value has more than {} bytes",
                bounds::ENV_VALUE_BYTES
            )));
        }
        Ok(Self(text))
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EnvName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<EnvName> for String {
    fn from(name: EnvName) -> Self {
        name.0
    }
}

impl TryFrom<String> for EnvValue {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<EnvValue> for String {
    fn from(value: EnvValue) -> Self {
        value.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["A", "_", "CC", "cflags_2"] {
            assert!(EnvName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1A",
            "A-B",
            "A=B",
            "A\0",
            "Ä",
            "HOME",
            "SOURCE_DATE_EPOCH",
        ] {
            assert!(EnvName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values() {
        assert!(EnvValue::new("").is_ok());
        assert!(EnvValue::new("a\nb").is_ok());
        assert!(EnvValue::new("a\0b").is_err());
        assert!(EnvValue::new("x".repeat(bounds::ENV_VALUE_BYTES + 1)).is_err());
    }
}
