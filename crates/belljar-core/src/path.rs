use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, bounds};

/// A path below some root: UTF-8, `/`-separated, never absolute, without empty, `.` or `..`
/// components and without NUL or other control characters; within [`bounds::PATH_BYTES`],
/// [`bounds::NAME_BYTES`] and [`bounds::PATH_DEPTH`].
///
/// The empty path does not exist: what means the root itself says so in another way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

impl RelPath {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let refused = |why: &str| Err(Invalid::new(format!("`{}` {why}", text.escape_debug())));
        if text.is_empty() {
            return Err(Invalid::new("the path is empty"));
        }
        if text.len() > bounds::PATH_BYTES {
            return Err(Invalid::new(format!(
                "the path has {} bytes; {} are allowed",
                text.len(),
                bounds::PATH_BYTES
            )));
        }
        if text.starts_with('/') {
            return refused("is absolute; write it relative to the source directory");
        }
        if text.chars().any(char::is_control) {
            return refused("contains a control character");
        }
        if text.split('/').count() > bounds::PATH_DEPTH {
            return Err(Invalid::new(format!(
                "the path has more than {} components",
                bounds::PATH_DEPTH
            )));
        }
        for name in text.split('/') {
            match name {
                "" => return refused("has an empty component (`//` or a trailing `/`)"),
                "." | ".." => return refused("has a `.` or `..` component"),
                _ if name.len() > bounds::NAME_BYTES => {
                    return refused("has a component of more than 255 bytes");
                }
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, outermost first; there is at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Its beginnings of whole components, the shortest first; the last is the path itself.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(end, _)| end);
        ends.chain([self.0.len()]).map(|end| &self.0[..end])
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// This path with one component added.
    ///
    /// # Errors
    /// When `name` is not a single good component or the result is too long or too deep.
    pub fn join(&self, name: &str) -> Result<Self, Invalid> {
        if name.contains('/') {
            return Err(Invalid::new(format!(
                "`{}` is not a single name",
                name.escape_debug()
            )));
        }
        Self::new(format!("{}/{name}", self.0))
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        self.0
            .strip_prefix(&ancestor.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What of this path lies below `ancestor`; none if it does not.
    pub fn below(&self, ancestor: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&ancestor.0)?.strip_prefix('/')?;
        Some(Self(rest.to_owned()))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RelPath {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_are_whole_components() {
        let prefixes = |text| {
            let path = RelPath::new(text).unwrap();
            path.prefixes().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(prefixes("ab"), ["ab"]);
        assert_eq!(prefixes("a/bc/d"), ["a", "a/bc", "a/bc/d"]);
    }

    #[test]
    fn below_is_by_whole_components() {
        let below = |path: &str, ancestor: &str| {
            let path = RelPath::new(path).unwrap();
            let below = path.below(&RelPath::new(ancestor).unwrap());
            below.map(String::from)
        };
        assert_eq!(below("a/b/c", "a").as_deref(), Some("b/c"));
        assert_eq!(below("a/b", "a/b"), None);
        assert_eq!(below("ab/c", "a"), None);
        assert_eq!(below("b/a/c", "a"), None);
    }

    #[test]
    fn bad_shapes_are_refused() {
        let long_name = "a".repeat(256);
        let deep = vec!["d"; 129].join("/");
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            &long_name,
            &deep,
        ] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_only_look_odd_are_fine() {
        for good in [
            "a",
            "..a",
            "a..",
            "...",
            "target/release/app",
            "ü/ß",
            "a b",
            "-rf",
        ] {
            assert!(RelPath::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn prefix_means_whole_components() {
        let path = |text: &str| RelPath::new(text).unwrap();
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
    }

    proptest! {
        #[test]
        fn an_accepted_path_never_leaves_its_root(text in "\\PC{0,40}|[./a]{0,20}") {
            if let Ok(path) = RelPath::new(text) {
                prop_assert!(path.components().all(|name| !name.is_empty() && name != "." && name != ".."));
                prop_assert_eq!(RelPath::new(path.as_str()), Ok(path.clone()));
            }
        }
    }
}
