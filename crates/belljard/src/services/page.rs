//! Pages of lists (AIP-158).

use belljar_core::{Digest, Invalid};
use belljar_policy::Identity;

/// How many entries a page has at the most: `asked`, which `default` stands in for where it is zero.
pub(super) fn size(asked: i32, default: usize, most: usize) -> Result<usize, Invalid> {
    match usize::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(most)),
        Err(_) => Err(Invalid::field("page_size", "it is negative")),
    }
}

/// What a list is, for its tokens: whose, and of what.
pub(super) fn list(whose: &Identity, of: &str) -> String {
    format!("{whose}\n{of}")
}

/// The token for what comes before `position` in the list that `what` describes: both in hexadecimal digits,
/// the latter shortened.
pub(super) fn token(position: u64, what: &str) -> String {
    format!("{position:016x}{}", fingerprint(what))
}

/// The position in a token, if there is one. It counts only for the list that it was made for.
pub(super) fn position(token: &str, what: &str) -> Result<Option<u64>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    let refused = |why: &str| Invalid::field("page_token", why);
    let no_token = || refused("not a token that this server has given");
    let (position, list) = token.split_at_checked(16).ok_or_else(no_token)?;
    let plain = position.bytes().all(|b| b.is_ascii_hexdigit());
    let position = u64::from_str_radix(position, 16).ok().filter(|_| plain);
    let position = position.ok_or_else(no_token)?;
    if list != fingerprint(what) {
        return Err(refused(
            "it belongs to a list of somebody else's or with another filter; begin that one without a token",
        ));
    }
    Ok(Some(position))
}

fn fingerprint(what: &str) -> String {
    let mut hex = Digest::of(what.as_bytes()).to_hex();
    hex.truncate(16);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let token = token(17, "state = RUNNING");
        assert_eq!(position(&token, "state = RUNNING"), Ok(Some(17)));
        assert_eq!(position("", "anything"), Ok(None));
        for (bad, what) in [
            (token.as_str(), "state = QUEUED"),
            ("17", ""),
            ("+00000000000001f", ""),
            (&token[1..], "state = RUNNING"),
            (&format!("{token}0"), "state = RUNNING"),
            ("zzzzzzzzzzzzzzzzzz", ""),
            ("üüüüüüüüüüüüüüüüüü", ""),
        ] {
            let invalid = position(bad, what).unwrap_err();
            assert_eq!(invalid.field, "page_token", "{bad}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size(0, 50, 100), Ok(50));
        assert_eq!(size(7, 50, 100), Ok(7));
        assert_eq!(size(i32::MAX, 50, 100), Ok(100));
        assert_eq!(size(-1, 50, 100).unwrap_err().field, "page_size");
    }
}
