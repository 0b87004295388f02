use std::fmt;

use belljar_core::{Invalid, bounds};

use crate::Place;
use crate::values::Refusal;

/// What is wrong in a file of the project's own, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where in it.
    pub place: Place,
    /// The field, such as `outputs[2]`, and the reason; each at most [`bounds::REASON_BYTES`] long, but for a mark
    /// of what was cut off.
    pub invalid: Invalid,
}

impl Wrong {
    /// What is wrong in the text of a file.
    pub(crate) fn in_text(text: &str, (offset, invalid): Refusal) -> Self {
        Self {
            place: Place::at(text, offset),
            invalid: Invalid::field(cut(invalid.field), cut(invalid.reason)),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.invalid)
    }
}

/// The text of a file, if it is small enough and UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Wrong> {
    if bytes.len() > bounds::CONFIG_BYTES {
        let reason = format!("the file is larger than {} bytes", bounds::CONFIG_BYTES);
        return Err(Wrong::in_text("", (0, Invalid::new(reason))));
    }
    str::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let invalid = Invalid::new("not UTF-8, which TOML has to be");
        Wrong::in_text(&good, (good.len(), invalid))
    })
}

/// What is told of a refusal: it may quote the file, at any length.
fn cut(mut text: String) -> String {
    if text.len() > bounds::REASON_BYTES {
        text.truncate(text.floor_char_boundary(bounds::REASON_BYTES));
        text.push('…');
    }
    text
}
