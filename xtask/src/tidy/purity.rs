//! The pure crates do no I/O and read no clock, environment or randomness: what they are told is all
//! that their answers depend on.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;
use super::source::SourceFile;

/// Crates that are pure as a whole. (Of the engine and of attest only parts are.)
const PURE: &[&str] = &[
    "crates/belljar-core/",
    "crates/belljar-tree/",
    "crates/belljar-oci/",
    "crates/belljar-lock/",
    "crates/belljar-manifest/",
    "crates/belljar-plan/",
    "crates/belljar-policy/",
];

/// Modules of the standard library that reach outside.
const OUTSIDE: &[&str] = &["env", "fs", "net", "os", "process", "thread"];

/// Functions that read a clock.
const CLOCKS: &[[&str; 2]] = &[["Instant", "now"], ["SystemTime", "now"]];

/// No path in shipped code of a pure crate leads outside.
pub(crate) fn check(sources: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| PURE.iter().any(|folder| source.path.starts_with(folder)))
    {
        let mut paths = Paths::default();
        paths.visit_file(&source.ast);
        let shipped = paths
            .0
            .iter()
            .filter(|(line, _)| !source.is_test_line(*line));
        findings.extend(
            shipped
                .filter(|(_, names)| leads_outside(names))
                .map(|(line, names)| {
                    Finding::at(
                        &source.path,
                        *line,
                        format!("{} in a crate that must be pure", names.join("::")),
                    )
                }),
        );
    }
    findings
}

fn leads_outside(names: &[String]) -> bool {
    let starts_outside =
        matches!(names, [std, module, ..] if std == "std" && OUTSIDE.contains(&module.as_str()));
    let reads_clock = names
        .windows(2)
        .any(|pair| CLOCKS.iter().any(|clock| pair == clock));
    starts_outside || reads_clock
}

/// Every path that is written, with its line; a group in a `use` counts as several.
#[derive(Default)]
struct Paths(Vec<(usize, Vec<String>)>);

impl Paths {
    fn note_use(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_use(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|item| self.note_use(item, before)),
            syn::UseTree::Name(name) => self.0.push((name.span().start().line, with(&name.ident))),
            syn::UseTree::Rename(rename) => self
                .0
                .push((rename.span().start().line, with(&rename.ident))),
            syn::UseTree::Glob(glob) => self.0.push((glob.span().start().line, before.to_vec())),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        self.0.push((path.span().start().line, names));
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_use(&item.tree, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_in(path: &str, text: &str) -> Vec<Finding> {
        check(&[SourceFile::parse(path, text).unwrap()])
    }

    #[test]
    fn whatever_reaches_outside_is_found() {
        for text in [
            "use std::fs;",
            "use std::{fmt, env::var};",
            "use std::net::*;",
            "use std::process as p;",
            "fn f() { std::thread::yield_now(); }",
            "fn f() -> Instant { Instant::now() }",
            "fn f() { g(std::time::SystemTime::now) }",
        ] {
            assert_eq!(
                check_in("crates/belljar-core/src/lib.rs", text).len(),
                1,
                "{text}"
            );
            assert_eq!(
                check_in("crates/belljar-store/src/lib.rs", text),
                [],
                "{text}"
            );
        }
    }

    #[test]
    fn what_stays_inside_is_fine_and_so_are_tests() {
        for text in [
            "use std::time::{Duration, SystemTime};",
            "use crate::process::Step; fn f(fs: u8) -> u8 { fs }",
            "#[cfg(test)] mod tests { use std::fs; }",
        ] {
            assert_eq!(
                check_in("crates/belljar-plan/src/lib.rs", text),
                [],
                "{text}"
            );
        }
    }
}
