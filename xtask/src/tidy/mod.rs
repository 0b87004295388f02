//! `cargo xtask tidy`: the rules of this repository that a compiler does not check.
//!
//! Each check is a pure function from what it looks at to a list of findings; its tests show that it
//! fails on bad input. This file only gathers the input and prints.

mod arrows;
mod bans;
mod bounds;
mod documents;
mod lints;
mod markdown;
mod purity;
mod size;
mod source;
mod unsafety;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, Metadata};

use crate::workspace;
use source::SourceFile;

/// One broken rule: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    place: String,
    what: String,
}

impl Finding {
    /// A finding at a file, a crate or another named place.
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    /// A finding at a line, counted from 1.
    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.what)
    }
}

/// A crate of this workspace and the names of the crates that it depends on directly.
pub(crate) struct Member {
    name: String,
    /// Normal and build dependencies: what ends up in, or makes, the shipped program.
    deps: Vec<String>,
    /// Development dependencies: what only its tests see.
    dev_deps: Vec<String>,
    /// Names of cargo features, explicit or implied by an optional dependency.
    features: Vec<String>,
    /// `Cargo.toml`, relative to the root.
    manifest: String,
}

/// Run every check and print what they found.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let metadata = workspace::metadata()?;
    let checks = check_all(&root, &metadata)?;
    let mut broken = 0;
    for (name, findings) in checks {
        println!(
            "{:9} {name}",
            if findings.is_empty() { "ok" } else { "BROKEN" }
        );
        for finding in &findings {
            println!("    {finding}");
        }
        broken += findings.len();
    }
    if broken > 0 {
        bail!("tidy: {broken} broken rules");
    }
    Ok(())
}

fn check_all(root: &Path, metadata: &Metadata) -> Result<Vec<(&'static str, Vec<Finding>)>> {
    let members = members(root, metadata);
    let sources = source::load(root)?;
    let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (readme, security) = (text("README.md"), text("SECURITY.md"));
    Ok(vec![
        (
            "arrows between crates",
            arrows::check(arrows::ARROWS, &members),
        ),
        (
            "README's table of crates",
            arrows::check_readme(arrows::ARROWS, &readme),
        ),
        (
            "banned dependencies",
            bans::check_direct(bans::BANS, &members),
        ),
        (
            "banned closures",
            bans::check_closures(bans::CLOSURES, &bans::graph(metadata)),
        ),
        ("no cargo features", bans::check_features(&members)),
        (
            "rustix::mount only in belljar-sys",
            bans::check_mount_api(&sources),
        ),
        (
            "lints are inherited",
            lints::check(&text("Cargo.toml"), &manifests(&members, &text)),
        ),
        ("pure crates reach nothing outside", purity::check(&sources)),
        ("unsafe code and its comments", unsafety::check(&sources)),
        (
            "file and function size",
            size::check(size::ALLOWED, &sources),
        ),
        (
            "containment list",
            documents::check_containment(&sources, &security),
        ),
        (
            "confinement list",
            documents::check_confinement(&sources, &security),
        ),
        ("exit codes", documents::check_exit_codes(&sources, &readme)),
        ("bounds are explained", bounds::check(&sources)),
        ("nothing unfinished", words::check(&sources)),
    ])
}

fn members(root: &Path, metadata: &Metadata) -> Vec<Member> {
    workspace::members(metadata)
        .into_iter()
        .map(|package| {
            let names = |dev: bool| {
                let mut names: Vec<String> = package
                    .dependencies
                    .iter()
                    .filter(|dep| (dep.kind == DependencyKind::Development) == dev)
                    .map(|dep| dep.name.clone())
                    .collect();
                names.sort();
                names.dedup();
                names
            };
            let manifest = package.manifest_path.as_std_path();
            Member {
                name: package.name.to_string(),
                deps: names(false),
                dev_deps: names(true),
                features: package.features.keys().cloned().collect(),
                manifest: manifest
                    .strip_prefix(root)
                    .unwrap_or(manifest)
                    .display()
                    .to_string(),
            }
        })
        .collect()
}

fn manifests(members: &[Member], text: &dyn Fn(&str) -> String) -> Vec<(String, String, String)> {
    members
        .iter()
        .map(|member| {
            (
                member.name.clone(),
                member.manifest.clone(),
                text(&member.manifest),
            )
        })
        .collect()
}

/// The file with this path, if it is there.
fn file<'a>(sources: &'a [SourceFile], path: &str) -> Option<&'a SourceFile> {
    sources.iter().find(|source| source.path == path)
}
