//! Files of at most 400 lines without their tests, functions of at most 60.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

/// Something that is too long for a reason.
pub(crate) struct Allowance {
    /// File, relative to the root.
    path: &'static str,
    /// Name of the function, or nothing for the file.
    function: Option<&'static str>,
    /// Why it may.
    why: &'static str,
}

/// The exceptions. An entry that is no longer needed is a finding.
pub(crate) const ALLOWED: &[Allowance] = &[];

struct TooLong {
    path: String,
    function: Option<String>,
    finding: Finding,
}

/// Whatever is too long, but for the exceptions; and the exceptions that are none.
pub(crate) fn check(allowed: &[Allowance], sources: &[SourceFile]) -> Vec<Finding> {
    let too_long: Vec<TooLong> = sources
        .iter()
        .filter(|source| !source.is_test && !source.is_generated())
        .flat_map(measure)
        .collect();
    let covers = |allowance: &Allowance, long: &TooLong| {
        allowance.path == long.path
            && allowance.function == long.function.as_deref()
            && !allowance.why.is_empty()
    };
    let stale = allowed
        .iter()
        .filter(|allowance| !too_long.iter().any(|long| covers(allowance, long)));
    let stale = stale.map(|allowance| {
        let function = allowance
            .function
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        Finding::new(
            allowance.path,
            format!("the exception for its size{function} is not needed, or has no reason"),
        )
    });
    let over = too_long
        .iter()
        .filter(|long| !allowed.iter().any(|allowance| covers(allowance, long)));
    over.map(|long| long.finding.clone()).chain(stale).collect()
}

fn measure(source: &SourceFile) -> Vec<TooLong> {
    let total = source.text.lines().count();
    let lines = (1..=total)
        .filter(|&line| !source.is_test_line(line))
        .count();
    let mut long = Functions {
        source,
        found: Vec::new(),
    };
    long.visit_file(&source.ast);
    if lines > FILE_LINES {
        let what = format!("{lines} lines without tests, at most {FILE_LINES}");
        let finding = Finding::at(&source.path, 1, what);
        long.found.push(TooLong {
            path: source.path.clone(),
            function: None,
            finding,
        });
    }
    long.found
}

struct Functions<'a> {
    source: &'a SourceFile,
    found: Vec<TooLong>,
}

impl Functions<'_> {
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (
            signature.fn_token.span.start().line,
            block.span().end().line,
        );
        let lines = last - first + 1;
        if lines > FUNCTION_LINES && !self.source.is_test_line(first) {
            let name = signature.ident.to_string();
            let what = format!("fn {name}: {lines} lines, at most {FUNCTION_LINES}");
            let finding = Finding::at(&self.source.path, first, what);
            self.found.push(TooLong {
                path: self.source.path.clone(),
                function: Some(name),
                finding,
            });
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}() {{\n{}}}\n", "    g();\n".repeat(lines - 2))
    }

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile::parse(path, text).unwrap()]
    }

    #[test]
    fn a_function_may_have_sixty_lines_and_not_one_more() {
        assert_eq!(check(&[], &file("a.rs", &function("f", 60))), []);
        let found = check(&[], &file("a.rs", &format!("// x\n{}", function("f", 61))));
        assert_eq!(
            found,
            [Finding::at("a.rs", 2, "fn f: 61 lines, at most 60")]
        );
        let methods = format!(
            "impl S {{\n{}}}\ntrait T {{\n{}}}\n",
            function("m", 70),
            function("n", 70)
        );
        assert_eq!(check(&[], &file("a.rs", &methods)).len(), 2);
    }

    #[test]
    fn a_file_may_have_four_hundred_lines_without_its_tests() {
        let full = "// x\n".repeat(400);
        assert_eq!(check(&[], &file("a.rs", &full)), []);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("long", 100));
        assert_eq!(check(&[], &file("a.rs", &format!("{full}{tests}"))), []);
        let found = check(&[], &file("a.rs", &format!("{full}fn f() {{}}\n{tests}")));
        assert_eq!(
            found,
            [Finding::at(
                "a.rs",
                1,
                "401 lines without tests, at most 400"
            )]
        );
    }

    #[test]
    fn tests_and_generated_files_are_exempt() {
        let long = function("f", 500);
        assert_eq!(check(&[], &file("tests/src/lib.rs", &long)), []);
        assert_eq!(
            check(&[], &file("a.rs", &format!("// @generated\n{long}"))),
            []
        );
        assert_eq!(check(&[], &file("a.rs", &long)).len(), 2);
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_cause() {
        let allowed = |why| {
            [Allowance {
                path: "a.rs",
                function: Some("f"),
                why,
            }]
        };
        let long = file("a.rs", &function("f", 61));
        assert_eq!(check(&allowed("one table"), &long), []);
        assert_eq!(check(&allowed(""), &long).len(), 2);
        assert_eq!(
            check(&allowed("one table"), &file("a.rs", &function("f", 60))).len(),
            1
        );
        assert_eq!(check(&allowed("one table"), &[]).len(), 1);
    }
}
