//! Every bound of the program stands in one folder, each with the reason for its size.

use super::Finding;
use super::source::SourceFile;

const BOUNDS: &str = "crates/belljar-core/src/bounds/";

/// The folder exists, and each of its files holds bounds and says something about each.
pub(crate) fn check(sources: &[SourceFile]) -> Vec<Finding> {
    let mut files = sources
        .iter()
        .filter(|source| source.path.starts_with(BOUNDS))
        .peekable();
    if files.peek().is_none() {
        return vec![Finding::new(BOUNDS, "is missing")];
    }
    files.flat_map(check_file).collect()
}

fn check_file(source: &SourceFile) -> Vec<Finding> {
    let constants: Vec<_> = source
        .ast
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Const(constant) if matches!(constant.vis, syn::Visibility::Public(_)) => {
                Some(constant)
            }
            _ => None,
        })
        .collect();
    if constants.is_empty() {
        return vec![Finding::new(&source.path, "holds no `pub const`")];
    }
    let silent = constants.iter().filter(|constant| {
        !constant
            .attrs
            .iter()
            .any(|attr| attr.path().is_ident("doc"))
    });
    silent
        .map(|constant| {
            let line = constant.ident.span().start().line;
            Finding::at(
                &source.path,
                line,
                format!("{} has no doc comment", constant.ident),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "crates/belljar-core/src/bounds/store.rs";

    fn check_text(text: &str) -> Vec<Finding> {
        check(&[SourceFile::parse(STORE, text).unwrap()])
    }

    #[test]
    fn a_bound_without_a_word_is_found() {
        assert_eq!(
            check_text(
                "/// Enough for any name.\npub const NAME: usize = 255;\nconst OWN: u8 = 1;"
            ),
            []
        );
        assert_eq!(
            check_text("/// Said.\npub const A: u8 = 1;\npub const B: u8 = 2;"),
            [Finding::at(STORE, 3, "B has no doc comment")]
        );
    }

    #[test]
    fn no_bounds_at_all_are_found() {
        assert_eq!(check_text("const A: u8 = 1;").len(), 1);
        assert_eq!(check(&[]).len(), 1);
    }
}
