use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// A moment in UTC, in whole milliseconds since 1970-01-01. Written as RFC 3339 with `Z` and three
/// decimals: `2026-11-22T00:30:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last moment of the year 9999, beyond which RFC 3339 has no text form.
    const LAST: u64 = 253_402_300_799_999;

    /// The moment `millis` milliseconds after 1970-01-01T00:00:00Z; at the most the end of 9999.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(Self::LAST))
    }

    /// The moment that a clock showed. Before 1970 counts as 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(Self::LAST))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        humantime::parse_rfc3339(&text)
            .map(Self::from_system)
            .map_err(|_| {
                Invalid::new("not a time: RFC 3339 in UTC is due, as in 2026-11-22T00:30:00.000Z")
            })
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let time = Timestamp::from_millis(1_763_771_400_000);
        assert_eq!(time.to_string(), "2025-11-22T00:30:00.000Z");
        assert_eq!(Timestamp::try_from(time.to_string()), Ok(time));
        assert_eq!(
            Timestamp::from_millis(u64::MAX).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert!(Timestamp::try_from("yesterday".to_owned()).is_err());
    }
}
