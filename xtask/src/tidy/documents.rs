//! Lists that stand in a document and in the code are the same list.

use syn::visit::Visit;

use super::markdown;
use super::source::SourceFile;
use super::{Finding, file};

const CONTAINMENT: &str = "crates/belljar-spawner/src/containment/mod.rs";
const CONFINEMENT: &str = "crates/belljar-sys/src/confine/mod.rs";
const EXIT_CODES: &str = "crates/belljar/src/exit.rs";

/// SECURITY.md's numbered list between `<!-- containment:begin -->` and `<!-- containment:end -->`,
/// items `1. **name** – why`, equals `STEPS` in name, reason and order.
pub(crate) fn check_containment(sources: &[SourceFile], security: &str) -> Vec<Finding> {
    check_steps(sources, security, CONTAINMENT, "containment")
}

/// The same of what belljard, store and signer take from themselves, between `<!-- confinement:begin -->` and its
/// end.
pub(crate) fn check_confinement(sources: &[SourceFile], security: &str) -> Vec<Finding> {
    check_steps(sources, security, CONFINEMENT, "confinement")
}

fn check_steps(sources: &[SourceFile], security: &str, place: &str, marker: &str) -> Vec<Finding> {
    let code = match steps(sources, place) {
        Ok(code) => code,
        Err(finding) => return vec![finding],
    };
    let Some(lines) = markdown::between(security, marker) else {
        return vec![Finding::new(
            "SECURITY.md",
            format!("lacks the markers {marker}:begin and {marker}:end"),
        )];
    };
    let mut findings = Vec::new();
    let mut written = Vec::new();
    for (index, item) in markdown::items(security, lines).into_iter().enumerate() {
        if item.number != index + 1 {
            findings.push(Finding::at(
                "SECURITY.md",
                item.line,
                format!("number {} should be {}", item.number, index + 1),
            ));
        }
        match item
            .text
            .strip_prefix("**")
            .and_then(|text| text.split_once("** – "))
        {
            Some((name, why)) => written.push((item.line, name.to_owned(), words(why))),
            None => findings.push(Finding::at(
                "SECURITY.md",
                item.line,
                "a step is written `1. **name** – why`",
            )),
        }
    }
    findings.extend(compare("SECURITY.md", &code, &written));
    findings
}

/// README's table between `<!-- exit-codes:begin -->` and `<!-- exit-codes:end -->`, rows `| 2 | meaning |`,
/// equals `EXIT_CODES`.
pub(crate) fn check_exit_codes(sources: &[SourceFile], readme: &str) -> Vec<Finding> {
    let code = match exit_codes(sources) {
        Ok(code) => code,
        Err(finding) => return vec![finding],
    };
    let Some(lines) = markdown::between(readme, "exit-codes") else {
        return vec![Finding::new(
            "README.md",
            "lacks the markers exit-codes:begin and exit-codes:end",
        )];
    };
    let rows = markdown::rows(readme, lines).into_iter();
    let written: Vec<_> = rows
        .map(|row| {
            let cell = |index: usize| row.cells.get(index).cloned().unwrap_or_default();
            (row.line, cell(0).replace('`', ""), words(&cell(1)))
        })
        .collect();
    compare("README.md", &code, &written)
}

/// The same entries in the same order, or a finding for the first place where they part.
fn compare(
    document: &str,
    code: &[(String, String)],
    written: &[(usize, String, String)],
) -> Vec<Finding> {
    for (index, (name, why)) in code.iter().enumerate() {
        let Some((line, said_name, said_why)) = written.get(index) else {
            return vec![Finding::new(
                document,
                format!("lacks \"{name}\", number {} of the code's list", index + 1),
            )];
        };
        if said_name != name {
            return vec![Finding::at(
                document,
                *line,
                format!("says \"{said_name}\" where the code says \"{name}\""),
            )];
        }
        if said_why != why {
            return vec![Finding::at(
                document,
                *line,
                format!("{name}: says \"{said_why}\", the code says \"{why}\""),
            )];
        }
    }
    match written.get(code.len()) {
        Some((line, name, _)) => vec![Finding::at(
            document,
            *line,
            format!("\"{name}\" is not in the code's list"),
        )],
        None => Vec::new(),
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn steps(sources: &[SourceFile], place: &str) -> Result<Vec<(String, String)>, Finding> {
    let (array, source) = constant_array(sources, place, "STEPS")?;
    let broken = || {
        Finding::new(
            &source.path,
            "STEPS: each element is `Step { name: \"…\", why: \"…\", … }`",
        )
    };
    array
        .elems
        .iter()
        .map(|element| {
            let syn::Expr::Struct(step) = element else {
                return Err(broken());
            };
            let field = |name: &str| {
                let field = step.fields.iter().find(
                    |field| matches!(&field.member, syn::Member::Named(ident) if ident == name),
                )?;
                text_of(&field.expr)
            };
            Ok((
                field("name").ok_or_else(broken)?,
                words(&field("why").ok_or_else(broken)?),
            ))
        })
        .collect()
}

fn exit_codes(sources: &[SourceFile]) -> Result<Vec<(String, String)>, Finding> {
    let (array, source) = constant_array(sources, EXIT_CODES, "EXIT_CODES")?;
    let broken = || {
        Finding::new(
            &source.path,
            "EXIT_CODES: each element is `(number or constant of this file, \"…\")`",
        )
    };
    array
        .elems
        .iter()
        .map(|element| {
            let syn::Expr::Tuple(pair) = element else {
                return Err(broken());
            };
            let (Some(number), Some(text)) = (pair.elems.first(), pair.elems.get(1)) else {
                return Err(broken());
            };
            let number = number_of(number, source).ok_or_else(broken)?;
            Ok((number, words(&text_of(text).ok_or_else(broken)?)))
        })
        .collect()
}

fn text_of(expr: &syn::Expr) -> Option<String> {
    match expr {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

/// A number, or the constant of this file that a path ends in.
fn number_of(expr: &syn::Expr, source: &SourceFile) -> Option<String> {
    match expr {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Int(number),
            ..
        }) => Some(number.base10_digits().to_owned()),
        syn::Expr::Path(path) => {
            let name = path.path.segments.last()?.ident.to_string();
            let value = constant(source, &name)?;
            matches!(value, syn::Expr::Lit(_)).then(|| number_of(value, source))?
        }
        _ => None,
    }
}

fn constant_array<'a>(
    sources: &'a [SourceFile],
    path: &str,
    name: &str,
) -> Result<(&'a syn::ExprArray, &'a SourceFile), Finding> {
    let source = file(sources, path).ok_or_else(|| Finding::new(path, "is missing"))?;
    let value = constant(source, name)
        .ok_or_else(|| Finding::new(path, format!("has no constant {name}")))?;
    let value = if let syn::Expr::Reference(reference) = value {
        &*reference.expr
    } else {
        value
    };
    match value {
        syn::Expr::Array(array) if !array.elems.is_empty() => Ok((array, source)),
        _ => Err(Finding::new(
            path,
            format!("{name} is not a list with something in it"),
        )),
    }
}

fn constant<'a>(source: &'a SourceFile, name: &str) -> Option<&'a syn::Expr> {
    struct Search<'n, 'a>(&'n str, Option<&'a syn::Expr>);
    impl<'a> Visit<'a> for Search<'_, 'a> {
        fn visit_item_const(&mut self, item: &'a syn::ItemConst) {
            if item.ident == self.0 {
                self.1 = Some(&item.expr);
            }
        }
        fn visit_impl_item_const(&mut self, item: &'a syn::ImplItemConst) {
            if item.ident == self.0 {
                self.1 = Some(&item.expr);
            }
        }
    }
    let mut search = Search(name, None);
    search.visit_file(&source.ast);
    search.1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "\
pub const STEPS: &[Step] = &[
    Step { name: \"signals\", why: \"an inherited mask \\
        hides them\", run: signals },
    Step { name: \"landlock\", why: \"files\", run: landlock },
];
";
    const SECURITY: &str = "\
<!-- containment:begin -->
1. **signals** – an inherited
   mask hides them
2. **landlock** – files
<!-- containment:end -->
";
    const EXITS: &str = "\
pub const OK: u8 = 0;
pub const EXIT_CODES: &[(u8, &str)] = &[(OK, \"it worked\"), (2, \"the command line was wrong\")];
";
    const README: &str = "\
<!-- exit-codes:begin -->
| code | meaning |
|---|---|
| 0 | it worked |
| 2 | the command line was wrong |
<!-- exit-codes:end -->
";

    fn containment(code: &str, security: &str) -> Vec<Finding> {
        check_containment(&[SourceFile::parse(CONTAINMENT, code).unwrap()], security)
    }

    fn exits(code: &str, readme: &str) -> Vec<Finding> {
        check_exit_codes(&[SourceFile::parse(EXIT_CODES, code).unwrap()], readme)
    }

    #[test]
    fn equal_lists_are_equal() {
        assert_eq!(containment(CODE, SECURITY), []);
        assert_eq!(exits(EXITS, README), []);
    }

    #[test]
    fn every_difference_in_the_containment_list_is_found() {
        let cases = [
            (
                SECURITY.replace("**landlock**", "**seccomp**"),
                "says \"seccomp\" where the code says \"landlock\"",
            ),
            (
                SECURITY.replace("– files", "– all files"),
                "the code says \"files\"",
            ),
            (
                SECURITY.replace("2. **landlock** – files\n", ""),
                "lacks \"landlock\"",
            ),
            (
                SECURITY.replace("files\n", "files\n3. **more** – x\n"),
                "\"more\" is not in the code's list",
            ),
            (SECURITY.replace("2. ", "3. "), "number 3 should be 2"),
            (
                SECURITY.replace("2. **landlock** – files", "2. landlock"),
                "a step is written",
            ),
            (String::new(), "lacks the markers"),
        ];
        for (security, expected) in cases {
            let found = containment(CODE, &security);
            assert!(
                found.iter().any(|finding| finding.what.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }

    #[test]
    fn code_that_cannot_be_compared_is_found() {
        assert_eq!(check_containment(&[], SECURITY).len(), 1);
        assert_eq!(
            containment("const STEPS: &[Step] = &[];", SECURITY).len(),
            1
        );
        assert_eq!(containment("const OTHER: u8 = 1;", SECURITY).len(), 1);
        assert_eq!(
            containment(
                "const STEPS: &[Step] = &[Step { name: NAME, why: \"\" }];",
                SECURITY
            )
            .len(),
            1
        );
        assert_eq!(check_exit_codes(&[], README).len(), 1);
        assert_eq!(
            exits(
                "const EXIT_CODES: &[(u8, &str)] = &[(other::OK, \"\")];",
                README
            )
            .len(),
            1
        );
    }

    #[test]
    fn every_difference_in_the_exit_codes_is_found() {
        let cases = [
            (
                README.replace("| 2 |", "| 3 |"),
                "says \"3\" where the code says \"2\"",
            ),
            (README.replace("| it worked |", "| fine |"), "says \"fine\""),
            (
                README.replace("| 0 | it worked |\n", ""),
                "says \"2\" where the code says \"0\"",
            ),
            (String::new(), "lacks the markers"),
        ];
        for (readme, expected) in cases {
            let found = exits(EXITS, &readme);
            assert!(
                found.iter().any(|finding| finding.what.contains(expected)),
                "{expected}: {found:?}"
            );
        }
    }
}
