use std::fmt;

use belljar_core::Invalid;

/// One thing that a principal may do with a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Submit builds and upload what they need.
    Submit,
    /// End builds, whoever submitted them.
    Cancel,
    /// See builds, logs, artifacts, evidence and blobs.
    Read,
    /// See how the daemon fares: its certificate, and how often it refused whom. Not the project's builds.
    Administer,
}

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Right {
    /// Every right.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Cancel, Self::Read, Self::Administer];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Cancel => "cancel",
            Self::Read => "read",
            Self::Administer => "administer",
        }
    }

    /// The right of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|right| right.name() == name);
        found.ok_or_else(|| {
            Invalid::new(format!(
                "`{}` is no right: `submit`, `cancel`, `read` and `administer` are",
                name.escape_debug()
            ))
        })
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(0b1111);

    /// Whether the right is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |set, right| set | right.bit()))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Right::ALL.into_iter().filter(|right| self.has(*right));
        f.debug_set().entries(held.map(Right::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_it_was_made_of() {
        assert_eq!(Right::ALL.into_iter().collect::<Rights>(), Rights::ALL);
        for right in Right::ALL {
            let one: Rights = [right].into_iter().collect();
            assert!(
                Right::ALL
                    .into_iter()
                    .all(|other| one.has(other) == (other == right))
            );
            assert_eq!(Right::named(right.name()), Ok(right));
            assert!(!Rights::NONE.has(right));
        }
        assert!(Right::named("Read").is_err() && Right::named("*").is_err());
    }
}
