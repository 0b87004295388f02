//! What an earlier build has left, as something that a later one is given.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, BuildId, Digest, Invalid, Unpack, bounds};

/// Something that an earlier build has left, by its digest: the build sees that, with provenance that holds, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArtifactFetch {
    /// Of a file the SHA-256 of its content; of a directory that of its root `Directory` message (REAPI v2).
    pub artifact: Digest,
    /// What it is, and which tree becomes of it.
    pub form: ArtifactForm,
    /// The build that has left it; of several the one that was accepted first, if none is named.
    pub build: Option<BuildId>,
    /// By which builder; by any of the signer's own, if none is named.
    pub builder: Option<BuilderId>,
}

/// Which tree becomes of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ArtifactForm {
    /// It is a file.
    File(Unpack),
    /// It is a directory: that.
    Directory,
}

/// A `builder.id` of provenance (SLSA v1): 1 to [`bounds::BUILDER_ID_BYTES`] visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuilderId(String);

/// Who has left an artifact, by the provenance that says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// The attempt.
    pub attempt: AttemptId,
    /// SHA-256 of the bundle file with its provenance.
    pub provenance: Digest,
}

impl BuilderId {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() || text.len() > bounds::BUILDER_ID_BYTES {
            let most = bounds::BUILDER_ID_BYTES;
            return Err(Invalid::new(format!("a builder.id has 1 to {most} bytes")));
        }
        match text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text)),
            false => Err(Invalid::new(format!(
                "`{}` is no builder.id, such as `https://builds.example.org/builders/hermetic/v1`",
                text.escape_debug()
            ))),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BuilderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BuilderId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<BuilderId> for String {
    fn from(id: BuilderId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_have_visible_names() {
        for good in ["urn:belljar:embedded/builders/dev/v1", "x"] {
            assert!(BuilderId::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(bounds::BUILDER_ID_BYTES + 1);
        for bad in ["", "a b", "a\n", "ü", &long] {
            assert!(BuilderId::new(bad).is_err(), "{bad:?}");
        }
    }
}
