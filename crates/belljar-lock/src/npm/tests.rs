use super::*;
use belljar_core::bounds;
use proptest::prelude::*;

const SUM: &str = "sha512-1SDgH6ZSPTlggy1yI6+Dbkiz8xzpHJEVAlF/AM1tHPLsf5STom9rwtjE4hKAF20FfXXNTFqEYXyJNWh1GiZedQ==";

fn lock(entries: &[String]) -> String {
    format!(
        r#"{{"name": "app", "lockfileVersion": 3, "packages": {{"": {{"name": "app"}}, {}}}}}"#,
        entries.join(", ")
    )
}

fn entry(key: &str, more: &str) -> String {
    format!(r#""{key}": {{"version": "1.0.0", {more}}}"#)
}

fn fetched(base: &str) -> String {
    format!(r#""resolved": "https://r.example/{base}/-/{base}-1.0.0.tgz", "integrity": "{SUM}""#)
}

fn parse(entries: &[String]) -> Lock {
    Lock::parse(lock(entries).as_bytes()).unwrap()
}

fn refused(entry: String) -> String {
    Lock::parse(lock(&[entry]).as_bytes())
        .unwrap_err()
        .to_string()
}

#[test]
fn packages_links_and_bundled_ones_are_told_apart() {
    let lock = parse(&[
        entry("packages/a", r#""license": "MIT""#),
        entry(
            "node_modules/@own/a",
            r#""resolved": "packages/a", "link": true"#,
        ),
        entry("node_modules/one", &fetched("one")),
        entry("packages/a/node_modules/one", &fetched("one")),
        entry("node_modules/one/node_modules/in", r#""inBundle": true"#),
        entry(
            "node_modules/alias",
            &format!(r#""name": "@s/real", {}"#, fetched("@s/real")),
        ),
    ]);
    assert_eq!(lock.local, [RelPath::new("packages/a").unwrap()]);
    let names: Vec<String> = lock.packages.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["@s/real@1.0.0", "one@1.0.0"]);
    assert_eq!(lock.packages[1].purl(), "pkg:npm/one@1.0.0");
    let path = lock.packages[1].content_path();
    assert!(
        path.starts_with("_cacache/content-v2/sha512/d5/20/e01fa6523d"),
        "{path}"
    );
    assert_eq!(path.len(), CONTENT.len() + 7 + 124);
}

#[test]
fn package_urls_tell_scope_and_unusual_places() {
    let purl = |key: &str, resolved: &str| {
        let more = format!(r#""resolved": "{resolved}", "integrity": "{SUM}""#);
        parse(&[entry(key, &more)]).packages[0].purl()
    };
    assert_eq!(
        purl(
            "node_modules/@s/b",
            "https://r.example/x/@s/b/-/b-1.0.0.tgz"
        ),
        "pkg:npm/%40s/b@1.0.0"
    );
    assert_eq!(
        purl("node_modules/b", "https://r.example/b.tgz"),
        "pkg:npm/b@1.0.0?download_url=https%3A%2F%2Fr.example%2Fb.tgz"
    );
}

#[test]
fn what_is_optional_elsewhere_may_be_left_out() {
    let with = |more: &str| entry("node_modules/x", &format!("{more}, {}", fetched("x")));
    let is_for = |more: &str, os: &str, cpu: &str| parse(&[with(more)]).packages[0].is_for(os, cpu);
    let here = |more: &str| is_for(more, "linux", "x64");
    assert!(here(r#""optional": true"#));
    assert!(here(
        r#""optional": true, "os": ["linux"], "cpu": ["x64", "arm64"]"#
    ));
    assert!(!here(r#""optional": true, "os": ["darwin"]"#));
    assert!(!here(r#""optional": true, "os": "darwin""#));
    assert!(!here(r#""optional": true, "cpu": ["arm64"]"#));
    assert!(!here(r#""optional": true, "os": ["!linux"]"#));
    assert!(here(r#""optional": true, "os": ["!win32", "!darwin"]"#));
    assert!(here(r#""optional": true, "os": ["any"]"#));
    // npm fails without it, whatever it is for.
    assert!(here(r#""os": ["darwin"]"#));
    let needed = entry("node_modules/y/node_modules/x", &fetched("x"));
    let lock = parse(&[with(r#""optional": true, "os": ["darwin"]"#), needed]);
    assert_eq!(lock.packages.len(), 1);
    assert!(lock.packages[0].is_for("linux", "x64"));
}

#[test]
fn what_cannot_be_taken_is_refused_by_name() {
    let resolved = r#""resolved": "https://r.example/x/-/x-1.0.0.tgz""#;
    let place = |place: &str| format!(r#""resolved": "{place}", "integrity": "{SUM}""#);
    let x = |more: &str| entry("node_modules/x", more);
    let cases = [
        (x(resolved), "node_modules/x: it has no integrity"),
        (
            x(&format!(
                r#"{resolved}, "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=""#
            )),
            "node_modules/x: its integrity is sha1 only",
        ),
        (
            x(&format!(r#""integrity": "{SUM}""#)),
            "node_modules/x: it has no `resolved`",
        ),
        (
            x(&place("git+ssh://me:hunter2@g.example/x.git#0123")),
            "node_modules/x: it is a git dependency (git+ssh://…@g.example/x.git#0123)",
        ),
        (
            x(&place("file:../x.tgz")),
            "node_modules/x: it is a path dependency (file:../x.tgz)",
        ),
        (
            x(r#""resolved": "../x", "link": true"#),
            "node_modules/x: it is a path dependency on `../x`",
        ),
        (
            x(r#""resolved": "nowhere", "link": true"#),
            "node_modules/x: it is a path dependency on `nowhere`",
        ),
        (
            entry("../x", r#""license": "MIT""#),
            "../x: it is a path dependency",
        ),
        (
            x(&place("https://u:p@r.example/x")),
            "node_modules/x: its `resolved` has a user name",
        ),
        (
            x(&place("ftp://r.example/x")),
            "node_modules/x: its `resolved` is `ftp://r.example/x`",
        ),
        (
            x(&place("https://r.example/ x")),
            "node_modules/x: its `resolved` is",
        ),
        (
            entry("node_modules/../x", &fetched("x")),
            "node_modules/../x: `../x` is no name",
        ),
        (
            entry("node_modules/.x", &fetched("x")),
            "node_modules/.x: `.x` is no name",
        ),
        (
            format!(
                r#""node_modules/x": {{"version": "1/0", {}}}"#,
                fetched("x")
            ),
            "node_modules/x.version: missing, or no version",
        ),
    ];
    for (text, due) in cases {
        let said = refused(text);
        assert!(said.starts_with(due), "said: {said}\n due: {due}");
    }
}

#[test]
fn what_is_no_lock_file_is_refused() {
    let refused = |text: &str| Lock::parse(text.as_bytes()).unwrap_err().to_string();
    let x = entry("node_modules/x", &fetched("x"));
    assert!(refused(&lock(&[x.clone(), x])).contains("`node_modules/x` is there twice"));
    for (text, due) in [
        ("", "not a lock file of npm's"),
        ("{}", "not a lock file of npm's"),
        (r#"{"lockfileVersion": 3}"#, "packages: missing"),
        (
            r#"{"lockfileVersion": 1}"#,
            "lockfileVersion: lock files of version 1",
        ),
        (
            r#"{"lockfileVersion": 4, "packages": {}}"#,
            "lockfileVersion: lock files of version 4",
        ),
        (
            r#"{"lockfileVersion": 3, "packages": []}"#,
            "not a lock file of npm's",
        ),
    ] {
        assert!(refused(text).starts_with(due), "{}", refused(text));
    }
    let large = vec![b' '; bounds::LOCK_BYTES + 1];
    assert!(Lock::parse(&large).unwrap_err().reason.contains("bytes"));
    let many: Vec<String> = (0..=bounds::LOCK_PACKAGES)
        .map(|n| format!(r#""p{n}": {{}}"#))
        .collect();
    assert!(refused(&lock(&many)).contains("packages"));
}

proptest! {
    #[test]
    fn hostile_text_is_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Lock::parse(&bytes);
    }

    /// Whatever is accepted has names and places without anything that a path or a terminal would obey.
    #[test]
    fn hostile_fields_are_refused(
        key in "(node_modules/)?[@a-z./\\\\\n]{0,8}", version in "[0-9./\n+-]{0,6}", url in "(https://)?[a-z@:/ \n]{0,8}",
    ) {
        let text = serde_json::json!({"lockfileVersion": 3, "packages": {
            key: {"version": version, "resolved": url, "integrity": SUM}
        }});
        if let Ok(lock) = Lock::parse(text.to_string().as_bytes()) {
            for package in &lock.packages {
                prop_assert!(RelPath::new(package.name.as_str()).is_ok());
                prop_assert!(package.to_string().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(package.purl().bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(package.resolved.starts_with("http"));
            }
        }
    }
}
