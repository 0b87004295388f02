//! `unsafe` stands only in belljar-sys, and each use says why it must and why it may.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

const HOME: &str = "crates/belljar-sys/";

/// One `unsafe`: its line, and the first line of the statement or item that it stands in.
struct Use {
    line: usize,
    statement: usize,
    /// `unsafe fn` and `unsafe trait` put a duty on others; their `# Safety` section is clippy's to ask for.
    declares: bool,
}

/// Outside belljar-sys none; inside, two comments directly above each.
pub(crate) fn check(sources: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let mut uses = Uses::default();
        uses.visit_file(&source.ast);
        if source.path.starts_with(HOME) {
            findings.extend(check_comments(source, &uses.found));
        } else {
            findings.extend(uses.found.iter().map(|found| {
                Finding::at(&source.path, found.line, "unsafe code outside belljar-sys")
            }));
        }
    }
    findings
}

fn check_comments(source: &SourceFile, uses: &[Use]) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut taken = BTreeSet::new();
    let mut findings = Vec::new();
    for found in uses.iter().filter(|found| !found.declares) {
        // A comment stands above the word itself or above its statement, and speaks for one use only.
        let block = [found.line, found.statement]
            .into_iter()
            .map(|line| comment_above(&lines, line))
            .find(|block| !block.is_empty() && !taken.contains(block));
        let Some(block) = block else {
            findings.push(Finding::at(
                &source.path,
                found.line,
                "unsafe without comments of its own directly above",
            ));
            continue;
        };
        let says = |word: &str| {
            let start = format!("// {word}:");
            block.iter().any(|&line| {
                lines[line]
                    .trim()
                    .strip_prefix(&start)
                    .is_some_and(|text| !text.trim().is_empty())
            })
        };
        for (word, meaning) in [
            ("WHY", "why nothing safe would do"),
            ("SAFETY", "which invariants hold, and because of what"),
        ] {
            if !says(word) {
                let what =
                    format!("unsafe without a `// {word}:` comment directly above ({meaning})");
                findings.push(Finding::at(&source.path, found.line, what));
            }
        }
        taken.insert(block);
    }
    findings
}

/// The line numbers (from 0) of the comment directly above a line (from 1); attributes may stand between.
fn comment_above(lines: &[&str], line: usize) -> Vec<usize> {
    let mut block: Vec<usize> = (0..line.saturating_sub(1))
        .rev()
        .skip_while(|&above| lines[above].trim().starts_with("#["))
        .take_while(|&above| lines[above].trim().starts_with("//"))
        .collect();
    block.reverse();
    block
}

#[derive(Default)]
struct Uses {
    found: Vec<Use>,
    statements: Vec<usize>,
}

impl Uses {
    fn note(&mut self, line: usize) {
        let statement = self.statements.last().copied().unwrap_or(line);
        self.found.push(Use {
            line,
            statement,
            declares: false,
        });
    }

    fn note_declaration(&mut self, token: Option<syn::token::Unsafe>) {
        if let Some(token) = token {
            let line = token.span.start().line;
            self.found.push(Use {
                line,
                statement: line,
                declares: true,
            });
        }
    }

    fn within(&mut self, node: &impl Spanned, visit: impl FnOnce(&mut Self)) {
        self.statements.push(node.span().start().line);
        visit(self);
        self.statements.pop();
    }

    /// The body of a macro is not parsed: each word `unsafe` in it counts.
    fn note_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    self.note(ident.span().start().line)
                }
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_stmt(&mut self, stmt: &'ast syn::Stmt) {
        self.within(stmt, |this| visit::visit_stmt(this, stmt));
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.within(arm, |this| visit::visit_arm(this, arm));
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.within(item, |this| visit::visit_item(this, item));
    }

    fn visit_expr_unsafe(&mut self, expr: &'ast syn::ExprUnsafe) {
        self.note(expr.unsafe_token.span.start().line);
        visit::visit_expr_unsafe(self, expr);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = item.unsafety {
            self.note(token.span.start().line);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.note_declaration(item.unsafety);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.note(item.span().start().line);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.note_declaration(signature.unsafety);
        visit::visit_signature(self, signature);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("unsafe") {
            self.note(attribute.span().start().line);
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.note_tokens(mac.tokens.clone());
        visit::visit_macro(self, mac);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_in(path: &str, text: &str) -> Vec<Finding> {
        check(&[SourceFile::parse(path, text).unwrap()])
    }

    fn sys(text: &str) -> Vec<Finding> {
        check_in("crates/belljar-sys/src/lib.rs", text)
    }

    const FINE: &str = "\
fn f(p: *const u8) -> u8 {
    // WHY: the kernel hands a pointer.
    // SAFETY: `p` was checked above.
    let a =
        unsafe { *p };
    match a {
        // SAFETY: as above,
        // over two lines.
        // WHY: still a pointer.
        0 => unsafe { *p },
        _ => a,
    }
}
struct S;
// WHY: the handle crosses threads.
// SAFETY: it has no interior state.
#[allow(dead_code)]
unsafe impl Send for S {}
";

    #[test]
    fn two_comments_directly_above_are_enough() {
        assert_eq!(sys(FINE), []);
    }

    #[test]
    fn a_missing_comment_is_found_by_name() {
        for word in ["WHY", "SAFETY"] {
            let found = sys(&FINE.replace(&format!("// {word}: "), "// "));
            assert_eq!(found.len(), 3, "{word}: {found:?}");
            assert!(
                found
                    .iter()
                    .all(|finding| finding.what.contains(&format!("`// {word}:`")))
            );
        }
        assert_eq!(sys("fn f() {\n    unsafe { g() };\n}\n").len(), 1);
    }

    #[test]
    fn an_empty_line_or_an_empty_comment_does_not_count() {
        assert_eq!(
            sys(&FINE.replace("// SAFETY: `p`", "// SAFETY: `p`\n\n    //")).len(),
            2
        );
        assert_eq!(
            sys(&FINE.replace("// SAFETY: `p` was checked above.", "// SAFETY:")).len(),
            1
        );
    }

    #[test]
    fn one_comment_speaks_for_one_use() {
        let text = "\
fn f() {
    // WHY: a
    // SAFETY: b
    g(unsafe { 1 }, unsafe { 2 });
}
";
        assert_eq!(sys(text).len(), 1);
    }

    #[test]
    fn a_declaration_is_left_to_clippy_but_its_body_is_not() {
        assert_eq!(sys("unsafe fn f() {}\nunsafe trait T {}\n"), []);
        assert_eq!(sys("unsafe fn f() {\n    unsafe { g() };\n}\n").len(), 1);
    }

    #[test]
    fn outside_belljar_sys_nothing_is_allowed() {
        for text in [
            FINE,
            "unsafe fn f() {}",
            "unsafe extern \"C\" {}",
            "#[unsafe(no_mangle)] fn f() {}",
            "fn f() { assert!(unsafe { g() }); }",
            "unsafe trait T {}",
        ] {
            assert!(
                !check_in("crates/belljar-cas/src/lib.rs", text).is_empty(),
                "{text}"
            );
        }
        assert_eq!(
            check_in(
                "crates/belljar-cas/src/lib.rs",
                "fn f() { \"unsafe\"; } // unsafe"
            ),
            []
        );
    }
}
