//! Nothing unfinished, and no test that is switched off without a word.

use super::Finding;
use super::source::SourceFile;

/// The words that must not be there. Each is put together here, so that this file passes its own check.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (
        concat!("#[", "ignore]"),
        "an ignored test must say why: `#[ignore = \"reason\"]`",
    ),
];

/// Look at every line, comments and test code included.
pub(crate) fn check(sources: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                findings.push(Finding::at(
                    &source.path,
                    number + 1,
                    format!("{word}: {why}"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forbidden_word_is_found_where_it_stands() {
        for (word, _) in FORBIDDEN {
            let text = format!("fn f() {{}}\n// {word}\n");
            let found = check(&[SourceFile::parse("a.rs", &text).unwrap()]);
            assert_eq!(found.len(), 1, "{word}");
            assert_eq!(found[0].place, "a.rs:2");
        }
    }

    #[test]
    fn an_ignored_test_with_a_reason_is_fine() {
        let text = "#[test]\n#[ignore = \"needs a second machine\"]\nfn f() {}\n";
        assert_eq!(check(&[SourceFile::parse("a.rs", text).unwrap()]), []);
    }
}
