use std::fmt;

/// A value that was refused while it was parsed, with the field it was meant for.
///
/// `field` is a path as a person would write it (`outputs[2]`, `env.PATH`, `limits.pids`); it is empty
/// while the innermost parser does not know yet where its value came from, see [`Invalid::within`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Where the value stood.
    pub field: String,
    /// What is wrong with it and what would be right, as a sentence without a full stop.
    pub reason: String,
}

impl Invalid {
    /// A refusal whose place is not known yet.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            field: String::new(),
            reason: reason.into(),
        }
    }

    /// A refusal of a named field.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// The same refusal, seen from one level further out.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.field = match self.field.as_str() {
            "" => outer.to_string(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

impl std::error::Error for Invalid {}
