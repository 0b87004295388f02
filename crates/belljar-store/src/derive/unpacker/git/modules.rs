//! What `.gitmodules` says of where submodules can be had (gitmodules(5)), in the syntax of git-config(1). Only paths and URLs
//! are read. What cannot be understood says nothing: the submodule has no URL then.

use std::collections::BTreeMap;

use belljar_core::bounds;

/// What one section says.
#[derive(Default)]
struct Section {
    path: Option<String>,
    url: Option<String>,
}

/// URLs by the paths of submodules.
pub(super) fn urls(content: &[u8]) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    let mut open: Option<String> = None;
    let text = str::from_utf8(content).unwrap_or_default();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            open = section(line);
            continue;
        }
        let Some(section) = open.as_ref() else {
            continue;
        };
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let value = value_of(value.trim());
        let section = sections.entry(section.clone()).or_default();
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => section.path = value,
            "url" => section.url = value,
            _ => {}
        }
    }
    let fits = |url: &String| url.len() <= bounds::FETCH_URL_BYTES;
    let both = sections.into_values().filter_map(|section| {
        let path = section.path?;
        // Git takes it with a slash at its end, too.
        let path = path.trim_end_matches('/').to_owned();
        Some((path, section.url.filter(fits)?))
    });
    both.collect()
}

/// The name in `[submodule "name"]`.
fn section(line: &str) -> Option<String> {
    let rest = line.strip_prefix('[')?.trim_start();
    let (kind, rest) = rest.split_at_checked("submodule".len())?;
    if !kind.eq_ignore_ascii_case("submodule") {
        return None;
    }
    let quoted = rest.trim_start().strip_prefix('"')?;
    let (mut name, mut escaped) = (String::new(), false);
    let mut rest = quoted.chars();
    loop {
        match (rest.next()?, escaped) {
            ('\\', false) => escaped = true,
            ('"', false) => break,
            (other, _) => {
                name.push(other);
                escaped = false;
            }
        }
    }
    rest.as_str().trim_start().starts_with(']').then_some(name)
}

/// A value without its quotes and comments; none if it goes on in the next line or has escapes that no URL has.
fn value_of(text: &str) -> Option<String> {
    let (mut value, mut quoted) = (String::new(), false);
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            '\\' => match rest.next()? {
                kept @ ('"' | '\\') => value.push(kept),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    let value = match quoted {
        true => return None,
        false => value.trim_end().to_owned(),
    };
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_git_does() {
        let text = "# all of them\n\
            [submodule \"one\"]\n\tpath = third/one\n\turl = https://a.example/one.git\n\
            [Submodule \"t\\\"wo\"] ; comment\n  PATH=\"third/two/\"\n  Url = \"../two#1\" # there\n\
            [submodule \"one\"]\n\turl = https://b.example/one.git\n\
            [core]\n\tpath = third/three\n\turl = x\n\
            [submodule \"no\"]\n\tpath = third/no\n\
            [submodule \"odd\"]\n\tpath = third/odd\n\turl = a\\tb\n\
            [submodule \"open\"]\n\tpath = third/open\n\turl = \"https://c\n";
        let found = urls(text.as_bytes());
        let due = [
            ("third/one", "https://b.example/one.git"),
            ("third/two", "../two#1"),
        ];
        let due: BTreeMap<_, _> = due
            .map(|(path, url)| (path.to_owned(), url.to_owned()))
            .into();
        assert_eq!(found, due);
        assert!(urls(b"\xff[submodule").is_empty());
        for odd in [
            "[submodule",
            "[submodule \"x",
            "[submodule]\npath=a\nurl=b",
            "[süb]\npath=a\nurl=b",
        ] {
            assert!(urls(odd.as_bytes()).is_empty(), "{odd}");
        }
    }
}
