use std::fs;
use std::path::Path;

use belljar_core::{Digest, ObjectId, Recipe, RelPath};
use belljar_tests::{Client, Instance, Project};
use belljar_tree::Leaf;
use belljar_wire::Reason;

use crate::{error, locked};

const REGISTRY: &str = "registry+https://r.example/index";

fn entry(name: &str, source: &str, checksum: Option<Digest>) -> String {
    let checksum = checksum.map(|sum| format!("checksum = \"{}\"\n", sum.to_hex()));
    format!(
        "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n{}",
        checksum.unwrap_or_default()
    )
}

fn lock(entry: &str) -> String {
    format!("version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n\n{entry}")
}

/// A gzipped tar archive of one entry, whose name may be bad.
fn archive(path: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(1);
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b"x"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// Uploads files into one directory.
fn directory(client: &Client, files: &[(&str, &[u8])]) -> ObjectId {
    let leaves = files.iter().map(|(name, content)| {
        let object = client.put(content);
        let executable = false;
        (
            RelPath::new(*name).unwrap(),
            Leaf::File { object, executable },
        )
    });
    let built = belljar_tree::build(leaves.collect::<Vec<_>>()).unwrap();
    for (_, bytes) in &built.directories {
        client.put(bytes);
    }
    built.root
}

#[test]
fn entries_that_nothing_vouches_for_are_refused_before_anything_is_started() {
    let instance = Instance::new();
    let cases = [
        (
            entry("bad", "git+https://g.example/bad?rev=1#0", None),
            "bad 1.0.0: it is a git dependency",
        ),
        (
            entry("bad", "git+https://me:hunter2@g.example/bad?rev=1#0", None),
            "bad 1.0.0: it is a git dependency (git+https://…@g.example/bad?…)",
        ),
        (
            entry("bad", REGISTRY, None),
            "bad 1.0.0: it has no checksum",
        ),
    ];
    for (entry, due) in cases {
        let project = locked(&lock(&entry));
        let (code, said) = error(&instance, project.path(), &[]);
        assert_eq!(code, 2, "{said}");
        assert!(said.starts_with(&format!("Cargo.lock: {due}")), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let project = Project::of(&["true"], &["out"], "deps = [\"poetry.lock\"]");
    let (code, said) = error(&instance, project.path(), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("lock files of Poetry (`poetry.lock`) are not supported yet"),
        "{said}"
    );
    assert!(
        !instance.state().join("config").exists(),
        "something was started"
    );
}

#[test]
fn a_path_dependency_outside_of_the_sources_is_refused_by_name() {
    let instance = Instance::new();
    let project = Project::bare();
    let package = |name: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
    };
    project.write("lib/Cargo.toml", package("stray"));
    project.write("lib/src/lib.rs", "");
    let manifest = package("app") + "[dependencies]\nstray = { path = \"../lib\" }\n";
    project.write("app/Cargo.toml", manifest);
    project.write("app/src/main.rs", "fn main() {}\n");
    let stray = "[[package]]\nname = \"stray\"\nversion = \"0.1.0\"\n";
    project.write("app/Cargo.lock", lock(stray));
    let build =
        "image = \"host\"\nrun = [\"true\"]\noutputs = [\"out\"]\ndeps = [\"Cargo.lock\"]\n";
    project.write("app/belljar.toml", build);
    let (code, said) = error(&instance, &project.path().join("app"), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.starts_with("Cargo.lock: stray 0.1.0 is a path dependency"),
        "{said}"
    );
}

#[test]
fn one_flipped_byte_is_refused_before_the_upload_by_name_and_digests() {
    let instance = Instance::new();
    let good = archive("bad-1.0.0/x");
    let mut flipped = good.clone();
    flipped[600] ^= 1;
    let project = locked(&lock(&entry("bad", REGISTRY, Some(Digest::of(&good)))));
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("registry/cache/r.example");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("bad-1.0.0.crate"), &flipped).unwrap();
    let variables: [(&str, &Path); 1] = [("CARGO_HOME", home.path())];
    let (code, said) = error(&instance, project.path(), &variables);
    assert_eq!(code, 12, "{said}");
    assert!(
        said.starts_with("Cargo.lock: bad 1.0.0 is not what was locked"),
        "{said}"
    );
    for digest in [Digest::of(&good), Digest::of(&flipped)] {
        assert!(said.contains(&digest.to_string()), "{said}");
    }
}

/// The store looks again, whoever has uploaded what.
#[test]
fn packages_that_are_not_what_was_locked_make_no_input() {
    let instance = Instance::started();
    let client = instance.client();
    let good = archive("bad-1.0.0/x");
    let mut flipped = good.clone();
    flipped[600] ^= 1;
    let lying = archive("bad-1.0.0/../../x");
    let cases: [(&[u8], &[u8], &str); 2] = [
        (
            &good,
            &flipped,
            "bad 1.0.0 is missing: the lock file demands sha256:",
        ),
        (
            &lying,
            &lying,
            "bad 1.0.0 has an entry `bad-1.0.0/../../x`, which has `..` in its path",
        ),
    ];
    for (locked, given, due) in cases {
        let text = lock(&entry("bad", REGISTRY, Some(Digest::of(locked))));
        let recipe = Recipe::CargoLock {
            lock: client.put(text.as_bytes()),
            packages: directory(&client, &[("bad-1.0.0.crate", given)]),
        };
        let problem = client.derive(&recipe).unwrap_err();
        assert_eq!(problem.reason, Reason::DerivationRefused);
        assert!(problem.message.contains(due), "{problem}");
    }
}

/// What a caller says of a tree is not believed: the store has to have made it itself.
#[test]
fn a_record_of_another_tree_is_refused() {
    let instance = Instance::started();
    let client = instance.client();
    let made = |name: &str| {
        let good = archive(&format!("{name}-1.0.0/x"));
        let text = lock(&entry(name, REGISTRY, Some(Digest::of(&good))));
        let recipe = Recipe::CargoLock {
            lock: client.put(text.as_bytes()),
            packages: directory(&client, &[("a", &good)]),
        };
        client.derive(&recipe).unwrap().input
    };
    let (one, other) = (made("one"), made("other"));
    let mut spec = client.spec(&[("a", "a")], &["true"], &["a"]);
    let name = belljar_core::InputName::new("cargo").unwrap();
    let mixed = belljar_core::Input {
        tree: one.tree,
        derivation: other.derivation,
    };
    spec.inputs = belljar_core::Inputs::new([(name, mixed)].into()).unwrap();
    let build = match client.submit("mixed", &spec) {
        Err(problem) => {
            assert!(problem.message.contains("derivation"), "{problem}");
            return;
        }
        Ok(build) => build,
    };
    let ended = client.until(&build.id, |build| build.outcome.is_some());
    let outcome = ended.outcome.unwrap().to_string();
    assert!(outcome.contains("is about the tree"), "{outcome}");
}
