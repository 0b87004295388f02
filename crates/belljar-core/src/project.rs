use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Names a project, to which builds, blobs and evidence belong: 1 to 63 characters of `[a-z0-9-]`, the
/// first and the last a letter or digit. Its resource name in the API is `projects/<id>`; the id alone is
/// REAPI's instance name, so the words that REAPI keeps for itself are refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(String);

/// Segments that an instance name must not have (REAPI v2, `ExecuteRequest.instance_name`).
const RESERVED: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "action-results",
    "operations",
    "capabilities",
    "compressed-blobs",
];
const LENGTH: usize = 63;

impl ProjectId {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Any other length or character, or a reserved word.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends =
            text.as_bytes().first().is_some_and(plain) && text.as_bytes().last().is_some_and(plain);
        if !ends || text.len() > LENGTH || !text.bytes().all(|b| plain(&b) || b == b'-') {
            return Err(Invalid::new(
                "a project has 1 to 63 characters out of lower-case letters, digits and `-`, the first and the last \
                 no `-`",
            ));
        }
        if RESERVED.contains(&text.as_str()) {
            return Err(Invalid::new(format!(
                "`{text}` is a word that REAPI keeps for itself; choose another"
            )));
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `default`: the project of those who are named by nothing but their user id.
impl Default for ProjectId {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProjectId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<ProjectId> for String {
    fn from(id: ProjectId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_one_plain_segment() {
        for fine in ["a", "web", "0-x-9", &"p".repeat(63), "default"] {
            assert_eq!(ProjectId::new(fine).unwrap().as_str(), fine);
        }
        assert!(ProjectId::new(ProjectId::default().to_string()).is_ok());
        for bad in [
            "",
            "-",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "..",
            "a b",
            "a\0",
            "é",
            "blobs",
            "uploads",
            &"p".repeat(64),
        ] {
            assert!(ProjectId::new(bad).is_err(), "{bad:?}");
        }
    }
}
