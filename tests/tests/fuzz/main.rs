//! Everything that reads hostile bytes, on the corpus of `fuzz/` and on changes of it: what `cargo fuzz` does
//! without end where there is a nightly toolchain, on stable and for a while.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod seeds;
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use targets::{TARGETS, Target};

/// Has the corpus written anew.
const UPDATE: &str = "BELLJAR_TEST_UPDATE";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz")
        .join(name)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("corpus").join(target)).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One change of bytes: some of them gone, put in, or replaced.
fn changed(bytes: &[u8], at: usize, gone: usize, new: &[u8]) -> Vec<u8> {
    let start = at % (bytes.len() + 1);
    let end = (start + gone).min(bytes.len());
    [&bytes[..start], new, &bytes[end..]].concat()
}

/// What stands in many of the formats, or breaks them.
const WORDS: [&[u8]; 14] = [
    b"\"",
    b"{",
    b"[",
    b",",
    b"}",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\u0000",
    b"\xff",
    b"..",
    b"/",
    b"\n",
];

fn withstands(name: &str, target: Target, cases: u32) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|bytes| target(bytes));
    let new = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..8),
        prop::sample::select(WORDS.to_vec()).prop_map(<[u8]>::to_vec),
    ];
    let change = (any::<usize>(), 0..6_usize, new);
    let seeds = prop::sample::select(corpus);
    let all = (seeds, proptest::collection::vec(change, 1..4));
    let ran = TestRunner::new(Config::with_cases(cases)).run(&all, |(bytes, changes)| {
        let bytes = changes.iter().fold(bytes, |bytes, (at, gone, new)| {
            changed(&bytes, *at, *gone, new)
        });
        target(&bytes);
        Ok(())
    });
    ran.unwrap_or_else(|why| panic!("{name}: {why}"));
}

#[test]
fn nothing_of_the_corpus_nor_a_change_of_it_is_misread() {
    for (name, target) in TARGETS {
        // Each needs a thread and a socket.
        let few = ["archive", "image"].contains(&name);
        let cases = if few { 512 } else { 2048 };
        withstands(name, target, cases);
    }
}

/// Files and folders of a folder, without what follows a dot.
fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

#[test]
fn each_target_has_its_program_its_corpus_and_its_line_in_security_md() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(stems(&folder("fuzz_targets")), names);
    assert_eq!(stems(&folder("corpus")), names);
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let security = fs::read_to_string(folder("../SECURITY.md")).unwrap();
    for name in &names {
        let program = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&program), "{name} in fuzz/Cargo.toml");
        assert!(
            security.contains(&format!("| `{name}` |")),
            "{name} in SECURITY.md"
        );
    }
}

#[test]
fn the_corpus_is_what_is_generated() {
    for (name, seeds) in seeds::all() {
        let folder = folder("corpus").join(name);
        for (number, seed) in seeds.iter().enumerate() {
            let path = folder.join(format!("{number}"));
            if std::env::var_os(UPDATE).is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, seed).unwrap();
            }
            let kept = fs::read(&path).unwrap_or_default();
            assert!(
                kept == *seed,
                "{} is another: set {UPDATE} to write it",
                path.display()
            );
        }
    }
}

#[test]
fn seeds_are_accepted_by_what_they_are_for() {
    use belljar_core::{BuildSpec, Derivation};
    let all = seeds::all();
    let seeds = |name: &str| &all.iter().find(|(other, _)| *other == name).unwrap().1;
    for seed in seeds("spec") {
        BuildSpec::from_canonical(seed).unwrap();
    }
    for seed in seeds("receipt") {
        belljar_plan::Receipt::from_canonical(seed).unwrap();
    }
    for seed in seeds("derivation") {
        Derivation::from_canonical(seed).unwrap();
    }
    for seed in seeds("directory") {
        belljar_tree::Directory::decode(seed).unwrap();
    }
    for seed in seeds("tree") {
        belljar_tree::Tree::decode(seed).unwrap();
    }
    for seed in seeds("bundle") {
        belljar_attest::Bundle::from_json(seed).unwrap();
    }
    for seed in seeds("trail") {
        belljar_audit::verify(seed).unwrap();
    }
    for seed in seeds("cargo_lock") {
        belljar_lock::cargo::Lock::parse(seed).unwrap();
    }
    for seed in seeds("belljar_lock") {
        belljar_manifest::Lock::parse(seed).unwrap();
    }
    for seed in seeds("npm_lock") {
        belljar_lock::npm::Lock::parse(seed).unwrap();
    }
    let read = |name: &str, is_read: fn(&[u8]) -> bool| {
        for (number, seed) in seeds(name).iter().enumerate() {
            assert!(is_read(seed), "{name} {number}");
        }
    };
    read("challenge", targets::challenge_is_read);
    read("git_lines", targets::git_lines_are_read);
    read("image", targets::image_is_read);
    read("zstd", targets::zstd_is_read);
}
