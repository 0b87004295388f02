use std::fmt;

use belljar_core::{Invalid, RelPath, bounds};

/// The name of an entry of a directory: one good component of a [`RelPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Where a symbolic link points, uninterpreted: not empty, without NUL, at most
/// [`bounds::SYMLINK_BYTES`] long (symlink(7)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SymlinkTarget(String);

impl Name {
    /// Takes `text` if it is a single name: UTF-8 without `/` and control characters, not `.` or `..`,
    /// at most [`bounds::NAME_BYTES`] long.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() {
            return Err(Invalid::new("the name is empty"));
        }
        if text.len() > bounds::NAME_BYTES {
            return Err(Invalid::new(format!(
                "the name has {} bytes; {} are allowed",
                text.len(),
                bounds::NAME_BYTES
            )));
        }
        if text.contains('/') {
            return Err(Invalid::new(format!(
                "`{}` is not a single name",
                text.escape_debug()
            )));
        }
        RelPath::new(text).map(|path| Self(path.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SymlinkTarget {
    /// Takes `text` if it has the shape above.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        if text.is_empty() {
            return Err(Invalid::new("the symbolic link has an empty target"));
        }
        if text.contains('\0') {
            return Err(Invalid::new(
                "the target of the symbolic link contains a NUL character",
            ));
        }
        if text.len() > bounds::SYMLINK_BYTES {
            return Err(Invalid::new(format!(
                "the target of the symbolic link has {} bytes; {} are allowed",
                text.len(),
                bounds::SYMLINK_BYTES
            )));
        }
        Ok(Self(text))
    }

    /// The target as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl From<SymlinkTarget> for String {
    fn from(target: SymlinkTarget) -> Self {
        target.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_names_are_names() {
        let long = "a".repeat(bounds::NAME_BYTES + 1);
        for bad in [
            "", ".", "..", "/", "a/b", "a/", "/a", "a\0", "a\n", "\u{7f}", &long,
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "...", "-rf", "ü", "a b", &long[1..]] {
            assert_eq!(Name::new(good).map(String::from), Ok(good.to_owned()));
        }
    }

    #[test]
    fn targets_are_bounded_and_otherwise_free() {
        let long = "a".repeat(bounds::SYMLINK_BYTES + 1);
        for bad in ["", "a\0b", &long] {
            assert!(SymlinkTarget::new(bad).is_err(), "{bad:?}");
        }
        for good in ["/usr/bin/cc", "../a", ".", "a\nb", &long[1..]] {
            assert!(SymlinkTarget::new(good).is_ok(), "{good:?}");
        }
    }
}
