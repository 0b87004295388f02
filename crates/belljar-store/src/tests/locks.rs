//! Trees out of the packages of lock files.

use belljar_core::{Derivation, Digest, Fact, Recipe, Sha512Digest};

use super::deriving::{Tar, gzip};
use super::*;

const REGISTRY: &str = "registry+https://r.example/index";

/// Archives that are given, by name.
type Given<'a> = [(&'a str, &'a [u8])];

fn crate_of(name: &str) -> Vec<u8> {
    let file = |path: &str| format!("{name}-1.0.0/{path}");
    let archive = Tar::new()
        .file(&file("Cargo.toml"), b"[package]\n")
        .file(&file("src/lib.rs"), name.as_bytes())
        .file(&file(".cargo-checksum.json"), b"{\"files\":{\"a\":\"b\"}}");
    gzip(&archive.end())
}

fn cargo_lock(packages: &Given<'_>) -> Vec<u8> {
    let mut text = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n".to_owned();
    for (name, archive) in packages {
        let sum = Digest::of(archive).to_hex();
        text.push_str(&format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{REGISTRY}\"\nchecksum = \"{sum}\"\n"
        ));
    }
    text.into_bytes()
}

fn sri(content: &[u8]) -> String {
    use base64::Engine as _;
    let hex = Sha512Digest::of(content).to_hex();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..128).step_by(2).map(byte).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("sha512-{encoded}")
}

fn npm_lock(packages: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let entries = packages.iter().map(|(name, content, more)| {
        let url = format!("https://r.example/{name}/-/{name}-1.0.0.tgz");
        format!(
            r#""node_modules/{name}": {{"version": "1.0.0", "resolved": "{url}", "integrity": "{}"{more}}}"#,
            sri(content)
        )
    });
    let entries: Vec<String> = entries.collect();
    format!(
        r#"{{"lockfileVersion": 3, "packages": {{{}}}}}"#,
        entries.join(",")
    )
    .into_bytes()
}

impl Rig {
    /// Keeps archives, and a directory that names them.
    fn given(&self, archives: &Given<'_>) -> ObjectId {
        let leaves = archives.iter().map(|(name, content)| {
            let object = self.memory.put(content);
            let executable = false;
            (
                RelPath::new(*name).unwrap(),
                Leaf::File { object, executable },
            )
        });
        let built = build(leaves.collect::<Vec<_>>()).unwrap();
        for (_, bytes) in &built.directories {
            self.memory.put(bytes);
        }
        built.root
    }

    fn of_cargo(&self, lock: &[u8], archives: &Given<'_>) -> Answer {
        let (lock, packages) = (self.memory.put(lock), self.given(archives));
        self.derive(Recipe::CargoLock { lock, packages })
    }

    fn of_npm(&self, lock: &[u8], archives: &Given<'_>) -> Answer {
        let (lock, packages) = (self.memory.put(lock), self.given(archives));
        self.derive(Recipe::NpmLock { lock, packages })
    }

    fn record(&self, answer: &Answer) -> Derivation {
        let Answer::Derived { derivation, .. } = answer else {
            panic!("{answer:?}")
        };
        Derivation::from_canonical(&self.content(*derivation)).unwrap()
    }
}

fn refused(answer: Answer) -> String {
    match answer {
        Answer::DerivationRefused { why } => why,
        other => panic!("{other:?}"),
    }
}

fn tree_of(files: &[(String, Vec<u8>)]) -> ObjectId {
    let leaves = files.iter().map(|(path, content)| {
        let object = ObjectId::of(content);
        let executable = false;
        (
            RelPath::new(path.as_str()).unwrap(),
            Leaf::File { object, executable },
        )
    });
    build(leaves.collect::<Vec<_>>()).unwrap().root
}

#[test]
fn crates_become_a_directory_source_with_its_configuration() {
    let rig = Rig::new();
    let (one, two) = (crate_of("one"), crate_of("two"));
    let lock = cargo_lock(&[("one", &one), ("two", &two)]);
    let answer = rig.of_cargo(&lock, &[("a", &two), ("b", &one), ("unasked", b"x")]);
    let record = rig.record(&answer);
    let parsed = belljar_lock::cargo::Lock::parse(&lock).unwrap();
    let mut due = vec![("home/config.toml".to_owned(), parsed.config().into_bytes())];
    for (name, archive) in [("one", &one), ("two", &two)] {
        let sum = format!(
            "{{\"files\":{{}},\"package\":\"{}\"}}",
            Digest::of(archive).to_hex()
        );
        let at = |path: &str| format!("vendor/{name}-1.0.0/{path}");
        due.push((at("Cargo.toml"), b"[package]\n".to_vec()));
        due.push((at("src/lib.rs"), name.as_bytes().to_vec()));
        due.push((at(".cargo-checksum.json"), sum.into_bytes()));
    }
    assert_eq!(record.tree, tree_of(&due));
    let package = |name: &str, archive: &[u8]| Fact::Package {
        purl: format!(
            "pkg:cargo/{name}@1.0.0?repository_url=registry%2Bhttps%3A%2F%2Fr.example%2Findex"
        ),
        archive: ObjectId::of(archive),
        sha512: None,
        location: REGISTRY.to_owned(),
    };
    assert_eq!(record.facts, [package("one", &one), package("two", &two)]);
    // What is not in the lock file was not read.
    assert_eq!(record.from.len(), 4);
}

#[test]
fn a_lock_file_without_packages_is_a_tree_all_the_same() {
    let rig = Rig::new();
    let answer = rig.of_cargo(&cargo_lock(&[]), &[]);
    assert!(
        matches!(answer, Answer::Derived { entries: 3, .. }),
        "{answer:?}"
    );
    let answer = rig.of_npm(&npm_lock(&[]), &[]);
    assert!(
        matches!(answer, Answer::Derived { entries: 3, .. }),
        "{answer:?}"
    );
}

#[test]
fn a_crate_with_other_bytes_is_refused_by_name_and_digests() {
    let rig = Rig::new();
    let one = crate_of("one");
    let mut flipped = one.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let why = refused(rig.of_cargo(
        &cargo_lock(&[("one", &one)]),
        &[("one-1.0.0.crate", &flipped)],
    ));
    assert!(
        why.starts_with("one 1.0.0 is missing: the lock file demands "),
        "{why}"
    );
    assert!(why.contains(&Digest::of(&one).to_string()), "{why}");
    assert!(
        why.ends_with(&format!("what was given has {}", Digest::of(&flipped))),
        "{why}"
    );
}

#[test]
fn archives_that_lie_are_refused_by_package() {
    let rig = Rig::new();
    let link = tar::EntryType::Symlink;
    let cases: [(Vec<u8>, &str); 7] = [
        (
            Tar::new().file("one-1.0.0/../../x", b"").end(),
            "one 1.0.0 has an entry `one-1.0.0/../../x`, which has `..` in its path",
        ),
        (
            Tar::new().file("/etc/passwd", b"").end(),
            "one 1.0.0 has an entry `/etc/passwd`, which has an absolute path",
        ),
        (
            Tar::new().file("two-1.0.0/Cargo.toml", b"").end(),
            "one 1.0.0 has an entry `two-1.0.0/Cargo.toml`, which is outside of the directory",
        ),
        (
            Tar::new().file("one-1.0.0", b"").end(),
            "the entry `vendor/one-1.0.0/",
        ),
        (
            Tar::new().link(link, "one-1.0.0/x", "/etc/passwd").end(),
            "one 1.0.0 has an entry `one-1.0.0/x`, which is neither a file nor a directory",
        ),
        (
            Tar::new()
                .link(tar::EntryType::Link, "one-1.0.0/x", "two-1.0.0/x")
                .end(),
            "one 1.0.0 has an entry `one-1.0.0/x`, which is neither",
        ),
        (b"no archive".to_vec(), "one 1.0.0 "),
    ];
    for (archive, due) in cases {
        let archive = gzip(&archive);
        let why = refused(rig.of_cargo(&cargo_lock(&[("one", &archive)]), &[("x", &archive)]));
        assert!(why.starts_with(due), "said: {why}\n due: {due}");
    }
    let short = &crate_of("one")[..60];
    let why = refused(rig.of_cargo(&cargo_lock(&[("one", short)]), &[("x", short)]));
    assert!(why.starts_with("one 1.0.0 "), "{why}");
}

#[test]
fn tarballs_become_a_cache_by_digest() {
    let rig = Rig::new();
    let only = r#", "optional": true, "os": ["darwin"]"#;
    let lock = npm_lock(&[("one", b"1", ""), ("two", b"2", ""), ("mac", b"3", only)]);
    let answer = rig.of_npm(&lock, &[("x", b"2"), ("y", b"1")]);
    let record = rig.record(&answer);
    let at = |content: &[u8]| {
        let hex = Sha512Digest::of(content).to_hex();
        let path = format!(
            "_cacache/content-v2/sha512/{}/{}/{}",
            &hex[..2],
            &hex[2..4],
            &hex[4..]
        );
        (path, content.to_vec())
    };
    assert_eq!(record.tree, tree_of(&[at(b"1"), at(b"2")]));
    let package = |name: &str, content: &[u8]| Fact::Package {
        purl: format!("pkg:npm/{name}@1.0.0"),
        archive: ObjectId::of(content),
        sha512: Some(Sha512Digest::of(content)),
        location: format!("https://r.example/{name}/-/{name}-1.0.0.tgz"),
    };
    let left_out = Fact::LeftOut {
        purl: "pkg:npm/mac@1.0.0".to_owned(),
    };
    assert_eq!(
        record.facts,
        [left_out, package("one", b"1"), package("two", b"2")]
    );
    let again = rig.of_npm(&lock, &[("x", b"2"), ("y", b"1"), ("z", b"3")]);
    assert_eq!(rig.record(&again).facts.len(), 3);
    assert_ne!(rig.record(&again).tree, record.tree);
}

#[test]
fn a_tarball_with_other_bytes_is_refused_by_name_and_digest() {
    let rig = Rig::new();
    let why = refused(rig.of_npm(&npm_lock(&[("one", b"1", "")]), &[("x", b"2")]));
    assert!(
        why.starts_with("one@1.0.0 is missing: the lock file demands sha512:"),
        "{why}"
    );
    assert!(why.contains(&Sha512Digest::of(b"1").to_string()), "{why}");
}

#[test]
fn bad_lock_files_and_directories_are_refused_by_what_is_wrong() {
    let rig = Rig::new();
    let git =
        b"[[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = \"git+https://g.example/x#0\"\n";
    let why = refused(rig.of_cargo(git, &[]));
    assert!(
        why.starts_with("the lock file: x 1.0.0: it is a git dependency"),
        "{why}"
    );
    let sha1 = br#"{"lockfileVersion": 3, "packages": {"node_modules/x": {"version": "1.0.0",
        "resolved": "https://r.example/x.tgz", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="}}}"#;
    let why = refused(rig.of_npm(sha1, &[]));
    assert!(
        why.starts_with("the lock file: node_modules/x: its integrity is sha1 only"),
        "{why}"
    );
    let lock = rig.memory.put(&cargo_lock(&[]));
    let properties = belljar_tree::NodeProperties::default().with_mode(0o755);
    let marked = belljar_tree::Directory::default().with_properties(properties.unwrap());
    let packages = rig.memory.put(&marked.unwrap().encode());
    let why = refused(rig.derive(Recipe::CargoLock { lock, packages }));
    assert!(why.contains("nodes with times, modes"), "{why}");
    let packages = rig.memory.put(b"no directory");
    let why = refused(rig.derive(Recipe::CargoLock { lock, packages }));
    assert!(
        why.starts_with("the directory of packages is none"),
        "{why}"
    );
    let absent = ObjectId::of(b"absent");
    let lacks = rig.derive(Recipe::CargoLock {
        lock,
        packages: absent,
    });
    assert_eq!(lacks, Answer::DerivationLacks { object: absent });
}
