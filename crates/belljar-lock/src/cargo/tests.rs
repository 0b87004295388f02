use super::*;
use proptest::prelude::*;

const SUM: &str = "3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4";

fn lock(entries: &str) -> String {
    format!(
        "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\"itoa\"]\n\n{entries}"
    )
}

fn entry(name: &str, version: &str, more: &str) -> String {
    format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{more}\n")
}

fn from(source: &str) -> String {
    format!("source = \"{source}\"\nchecksum = \"{SUM}\"")
}

fn refused(text: &str) -> String {
    Lock::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn packages_and_members_are_told_apart() {
    let text = lock(&entry("itoa", "1.0.19", &from(DEFAULT_REGISTRY)));
    let lock = Lock::parse(text.as_bytes()).unwrap();
    assert_eq!(lock.local.len(), 1);
    assert_eq!(lock.local[0].name, "app");
    let [itoa] = &lock.packages[..] else {
        panic!("{lock:?}")
    };
    assert_eq!(itoa.archive(), "itoa-1.0.19.crate");
    assert_eq!(itoa.purl(), "pkg:cargo/itoa@1.0.19");
    assert_eq!(itoa.checksum.to_hex(), SUM);
    assert_eq!(
        itoa.checksum_file(),
        format!("{{\"files\":{{}},\"package\":\"{SUM}\"}}")
    );
}

#[test]
fn our_own_lock_file_is_read() {
    let bytes = include_bytes!("../../../../Cargo.lock");
    let lock = Lock::parse(bytes).unwrap();
    assert!(lock.packages.len() > 100, "{}", lock.packages.len());
    assert!(lock.local.iter().any(|local| local.name == "belljar-lock"));
}

#[test]
fn the_first_version_keeps_its_checksums_apart() {
    let source = format!("source = \"{DEFAULT_REGISTRY}\"");
    let metadata = |sum: &str| {
        format!("[metadata]\n\"checksum itoa 1.0.19 ({DEFAULT_REGISTRY})\" = \"{sum}\"\n")
    };
    let text = entry("itoa", "1.0.19", &source) + &metadata(SUM);
    let lock = Lock::parse(text.as_bytes()).unwrap();
    assert_eq!(lock.packages[0].checksum.to_hex(), SUM);
    let none = entry("itoa", "1.0.19", &source) + &metadata("<none>");
    assert!(refused(&none).contains("has no checksum"));
}

#[test]
fn other_registries_are_named_in_configuration_and_purl() {
    let [git, sparse] = [
        "registry+https://r.example/index",
        "sparse+https://s.example/i/",
    ];
    let text = lock(&(entry("a", "1.0.0", &from(git)) + &entry("b", "1.0.0+x", &from(sparse))));
    let lock = Lock::parse(text.as_bytes()).unwrap();
    let config: toml::Table = lock.config().parse().unwrap();
    let source = |name: &str| config["source"][name].as_table().unwrap().clone();
    assert_eq!(source("belljar")["directory"].as_str(), Some("vendor"));
    assert_eq!(
        source("crates-io")["replace-with"].as_str(),
        Some("belljar")
    );
    assert_eq!(
        source("belljar-0")["registry"].as_str(),
        Some("https://r.example/index")
    );
    assert_eq!(
        source("belljar-1")["registry"].as_str(),
        Some("sparse+https://s.example/i/")
    );
    assert_eq!(
        lock.packages[1].purl(),
        "pkg:cargo/b@1.0.0%2Bx?repository_url=sparse%2Bhttps%3A%2F%2Fs.example%2Fi%2F"
    );
}

#[test]
fn what_cannot_be_taken_is_refused_by_name() {
    let git = "source = \"git+https://g.example/foo?rev=1#0123\"";
    let unsummed = format!("source = \"{DEFAULT_REGISTRY}\"");
    let twice = entry("x", "1.0.0", &from(DEFAULT_REGISTRY))
        + &entry("x", "1.0.0", &from("registry+https://r.example/i"));
    let replaced = from(DEFAULT_REGISTRY) + "\nreplace = \"x 1.0.0\"";
    let cases = [
        (entry("x", "1.0.0", git), "x 1.0.0: it is a git dependency"),
        (
            entry("x", "1.0.0", &unsummed),
            "x 1.0.0: it has no checksum",
        ),
        (entry("x", "1.0.0", &replaced), "x 1.0.0: it is replaced"),
        (
            entry("x", "1.0.0", &from("path+file:///x")),
            "x 1.0.0: its source `path+file:///x` is no registry",
        ),
        (
            entry("x", "1.0.0", &from("registry+https://a b")),
            "x 1.0.0: its source `registry+https://a b` is no URL",
        ),
        (
            entry("x", "1.0.0", &from("sparse+https://u:p@r.example/i/")),
            "x 1.0.0: its source has a user name",
        ),
        (
            entry("x", "1.0.0", &from(DEFAULT_REGISTRY).replace("3bd", "3BD")),
            "x 1.0.0.checksum: `3BD",
        ),
        (twice, "x 1.0.0: it is there twice"),
        (
            entry("../x", "1.0.0", &from(DEFAULT_REGISTRY)),
            "../x 1.0.0: that is no name",
        ),
        (entry("x", "1/0", ""), "x 1/0: that is no version"),
        (entry("x", "..", ""), "x ..: that is no version"),
        (entry("x", "", ""), "x : that is no version"),
        (entry("", "1.0.0", ""), " 1.0.0: that is no name"),
    ];
    for (text, due) in cases {
        let said = refused(&lock(&text));
        assert!(said.starts_with(due), "said: {said}\n due: {due}");
    }
}

#[test]
fn what_is_no_lock_file_is_refused() {
    for (text, due) in [
        ("version = 5\n", "version: lock files of version 5"),
        ("version = \"4\"\n", "not a Cargo.lock"),
        ("[[package]]\nname = \"x\"\n", "not a Cargo.lock"),
        ("{", "not a Cargo.lock"),
    ] {
        assert!(refused(text).starts_with(due), "{}", refused(text));
    }
    assert!(Lock::parse(b"\xff").is_err());
    let large = vec![b'#'; belljar_core::bounds::LOCK_BYTES + 1];
    assert!(Lock::parse(&large).unwrap_err().reason.contains("bytes"));
    let many = entry("x", "1.0.0", "").repeat(belljar_core::bounds::LOCK_PACKAGES + 1);
    assert!(refused(&many).contains("packages"));
}

proptest! {
    #[test]
    fn hostile_text_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Lock::parse(&bytes);
    }

    /// Whatever is accepted stays inside the directories that it is laid out in, and configures nothing but
    /// its sources.
    #[test]
    fn hostile_fields_reach_neither_paths_nor_the_configuration(
        name in "[a-z./\\\\\"\n_-]{0,6}", version in "[0-9./\\\\\"\n+-]{0,6}", url in "[a-z:/\"\\]\\[\n =.-]{0,12}",
    ) {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let text = format!(
            "[[package]]\nname = {}\nversion = {}\nsource = {}\nchecksum = \"{SUM}\"\n",
            quoted(&name), quoted(&version), quoted(&format!("registry+{url}")),
        );
        if let Ok(lock) = Lock::parse(text.as_bytes()) {
            let package = &lock.packages[0];
            let path = belljar_core::RelPath::new(package.directory()).unwrap();
            prop_assert_eq!(path.components().count(), 1);
            let config: toml::Table = lock.config().parse().unwrap();
            prop_assert_eq!(config.len(), 2);
            let sources = config["source"].as_table().unwrap();
            prop_assert_eq!(sources.len(), 3);
            prop_assert_eq!(sources["belljar-0"]["registry"].as_str(), Some(url.as_str()));
        }
    }
}
