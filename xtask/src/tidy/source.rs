//! The Rust files of the repository, parsed once, with their test code marked.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::shell;

/// A parsed file.
pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
    /// As syn reads it.
    pub(crate) ast: syn::File,
    /// Whether the whole file is test code: a test crate, or a module declared under `#[cfg(test)]`.
    pub(crate) is_test: bool,
    /// Lines (from 1) of the items that exist only in tests.
    pub(crate) test_lines: Vec<RangeInclusive<usize>>,
}

impl SourceFile {
    /// Parse one file.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self> {
        let ast = syn::parse_file(text).map_err(|error| {
            let at = error.span().start();
            anyhow!("{path}:{}: {error}", at.line)
        })?;
        let mut items = TestItems(Vec::new());
        items.visit_file(&ast);
        let is_test = path.split('/').any(|part| part == "tests") || is_test_only(&ast.attrs);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            ast,
            is_test,
            test_lines: items.0,
        })
    }

    /// Whether this line, counted from 1, is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// Whether a program wrote it.
    pub(crate) fn is_generated(&self) -> bool {
        self.text
            .lines()
            .take(5)
            .any(|line| line.starts_with("//") && line.contains("@generated"))
    }
}

/// Every Rust file that git tracks or would track.
pub(crate) fn load(root: &Path) -> Result<Vec<SourceFile>> {
    let mut git = Command::new("git");
    git.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.rs",
    ]);
    let listed = shell::read(&mut git)?;
    let mut files = Vec::new();
    for path in listed
        .split('\0')
        .filter(|path| !path.is_empty())
        .collect::<BTreeSet<_>>()
    {
        match std::fs::read_to_string(root.join(path)) {
            Ok(text) => files.push(SourceFile::parse(path, &text)?),
            // Listed, but deleted and not yet committed as such.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.to_owned()),
        }
    }
    mark_test_modules(&mut files);
    Ok(files)
}

/// `#[cfg(test)] mod tests;` makes another file test code, and the modules below that one too.
fn mark_test_modules(files: &mut [SourceFile]) {
    let places: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let folder = module_folder(&file.path);
            file.ast.items.iter().filter_map(move |item| match item {
                syn::Item::Mod(module)
                    if module.content.is_none() && is_test_only(&module.attrs) =>
                {
                    Some(format!("{folder}/{}", module.ident))
                }
                _ => None,
            })
        })
        .collect();
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        if places
            .iter()
            .any(|place| stem == place || stem.starts_with(&format!("{place}/")))
        {
            file.is_test = true;
        }
    }
}

/// Where the child modules of a file are.
fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        other => format!("{folder}/{}", other.trim_end_matches(".rs")),
    }
}

/// Whether attributes say that an item exists only in tests: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
pub(crate) fn is_test_only(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        if attr.path().is_ident("test") {
            return true;
        }
        attr.path().is_ident("cfg")
            && attr
                .parse_args::<syn::Meta>()
                .is_ok_and(|meta| needs_test(&meta))
    })
}

fn needs_test(meta: &syn::Meta) -> bool {
    match meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            let parser = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parser)
                .is_ok_and(|parts| parts.iter().any(needs_test))
        }
        // `any(test, …)` and `not(test)` also exist outside tests.
        syn::Meta::List(_) | syn::Meta::NameValue(_) => false,
    }
}

struct TestItems(Vec<RangeInclusive<usize>>);

impl TestItems {
    fn note(&mut self, attrs: &[syn::Attribute], item: &impl Spanned) {
        if is_test_only(attrs) {
            let span = item.span();
            self.0.push(span.start().line..=span.end().line);
        }
    }
}

impl<'ast> Visit<'ast> for TestItems {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.note(&item.attrs, item);
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.attrs, item);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.note(&item.attrs, item);
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.attrs, item);
        visit::visit_impl_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_exists_in_tests_alone_is_test_code() {
        let text = "\
fn ships() {}
#[cfg(test)]
mod tests {
    fn helper() {}
}
#[cfg(all(test, unix))]
fn also() {}
#[cfg(any(test, unix))]
fn both() {}
#[cfg(not(test))]
fn never() {}
";
        let file = SourceFile::parse("crates/x/src/lib.rs", text).unwrap();
        let tests: Vec<usize> = (1..=11).filter(|&line| file.is_test_line(line)).collect();
        assert_eq!(tests, [2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_test_code() {
        let mut files = [
            ("crates/x/src/a.rs", "#[cfg(test)] mod tests; mod other;"),
            ("crates/x/src/a/tests.rs", "fn f() {}"),
            ("crates/x/src/a/tests/deep.rs", "fn f() {}"),
            ("crates/x/src/a/other.rs", "fn f() {}"),
            ("crates/x/tests/e2e.rs", "fn f() {}"),
        ]
        .map(|(path, text)| SourceFile::parse(path, text).unwrap());
        // The folder name alone must not decide here.
        files[2].is_test = false;
        mark_test_modules(&mut files);
        assert_eq!(
            files.map(|file| file.is_test),
            [false, true, true, false, true]
        );
    }

    #[test]
    fn what_cannot_be_parsed_is_an_error_with_its_line() {
        let error = SourceFile::parse("x.rs", "fn f() {}\nfn {").err().unwrap();
        assert!(error.to_string().starts_with("x.rs:2"), "{error}");
    }

    #[test]
    fn generated_files_say_so_at_the_top() {
        let parse = |text: &str| SourceFile::parse("x.rs", text).unwrap().is_generated();
        assert!(parse("// @generated by a program\nfn f() {}"));
        assert!(!parse("fn f() { let x = \"@generated\"; }"));
    }
}
