/// How much of a URL is shown, in characters.
const CHARS: usize = 120;

/// The beginning of a text that should be a URL, safe to print: without what stands before an `@` or behind a `?`, where URLs
/// have passwords and tokens.
pub fn shown_url(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + 3);
    // A password may have any character in it.
    let without_user = match text.rfind('@') {
        Some(at) if at >= begin => format!("{}…{}", &text[..begin], &text[at..]),
        Some(at) => format!("…{}", &text[at..]),
        None => text.to_owned(),
    };
    let shown = match without_user.split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => without_user,
    };
    let shown: String = shown.chars().take(CHARS).collect();
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (text, due) in [
            ("https://a.example/x.git", "https://a.example/x.git"),
            ("https://u:p@a.example/x", "https://…@a.example/x"),
            ("https://u:p?q@a.example/x", "https://…@a.example/x"),
            ("https://u:p@q@a.example/x?t=s", "https://…@a.example/x?…"),
            ("https://u:p/q@a.example", "https://…@a.example"),
            ("git+ssh://t@a.example/x#y", "git+ssh://…@a.example/x#y"),
            ("git@a.example:x", "…@a.example:x"),
            ("https://a.example/x?token=s", "https://a.example/x?…"),
            ("a@://b", "…@://b"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            assert_eq!(shown_url(text), due);
        }
        assert_eq!(shown_url(&"é".repeat(200)), "é".repeat(120));
    }
}
