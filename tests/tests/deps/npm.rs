use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_tests::{Instance, Project, tool};
use serde_json::{Value, json};

use crate::{error, packages};

const MANIFEST: &str = r#"{
  "name": "demo",
  "version": "1.0.0",
  "dependencies": { "chalk": "^4", "minimist": "^1", "semver": "^7" },
  "devDependencies": { "esbuild": "^0.25" }
}
"#;

const PROGRAM: &str = r#"
const said = require("minimist")(["--level", "7"]);
const next = require("semver").inc("1.2.3", "minor");
console.log(new (require("chalk").Instance)({ level: 1 }).red(said.level + " " + next));
"#;

fn project() -> Project {
    let project = Project::of(
        &[
            "npm ci",
            "node_modules/.bin/esbuild main.js --bundle --platform=node --outfile=bundle.js",
            "node bundle.js > out.txt",
        ],
        &["bundle.js", "out.txt"],
        "deps = [\"package-lock.json\"]",
    );
    project.write("package.json", MANIFEST);
    project.write("main.js", PROGRAM);
    let only_the_lock = [
        "install",
        "--package-lock-only",
        "--omit-lockfile-registry-resolved=false",
    ];
    tool(project.path(), "npm", &only_the_lock);
    project
}

fn lock(project: &Project) -> Value {
    let text = fs::read(project.path().join("package-lock.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn hex(sri: &str) -> String {
    let bytes = STANDARD
        .decode(sri.strip_prefix("sha512-").unwrap())
        .unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Package URL and digest of each entry, read without Belljar's own code; what is for other systems left out.
fn locked_packages(lock: &Value) -> BTreeSet<(String, String)> {
    let has = |entry: &Value, field: &str, value: &str| {
        let list = entry[field].as_array();
        list.is_none_or(|list| list.iter().any(|one| one == value))
    };
    let cpu = if cfg!(target_arch = "x86_64") {
        "x64"
    } else {
        "arm64"
    };
    let entries = lock["packages"].as_object().unwrap().iter();
    entries
        .filter(|(key, entry)| {
            !key.is_empty() && has(entry, "os", "linux") && has(entry, "cpu", cpu)
        })
        .map(|(key, entry)| {
            let name = key
                .rsplit("node_modules/")
                .next()
                .unwrap()
                .replace('@', "%40");
            let version = entry["version"].as_str().unwrap();
            let digest = hex(entry["integrity"].as_str().unwrap());
            (format!("pkg:npm/{name}@{version}"), digest)
        })
        .collect()
}

#[test]
fn a_bundle_of_packages_is_made_without_a_network_and_names_them_all() {
    let mut instance = Instance::started();
    let project = project();
    let run = instance.run(&project);
    run.assert_succeeded();
    run.assert_verified("bundle.js");
    assert_eq!(run.file("out.txt"), b"\x1b[31m7 1.3.0\x1b[39m\n");
    let said = tool(run.output(), "node", &["bundle.js"]);
    assert_eq!(said.as_bytes(), run.file("out.txt"));

    let lock = lock(&project);
    let due = locked_packages(&lock);
    assert!(due.len() >= 10, "{due:?}");
    let all = lock["packages"].as_object().unwrap().len();
    assert!(due.len() < all, "nothing was for other systems");
    let statement = run.statement("bundle.js");
    assert_eq!(packages(&statement, "sha512"), due);
    let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
    assert_eq!(parameters["env"]["npm_config_cache"], "/deps/npm");
}

#[test]
fn a_tarball_that_the_lock_file_does_not_mean_is_refused_by_name() {
    let instance = Instance::new();
    let project = project();
    let mut changed = lock(&project);
    let digest = |byte: u8| format!("sha512-{}", STANDARD.encode([byte; 64]));
    changed["packages"]["node_modules/minimist"]["integrity"] = digest(7).into();
    project.write("package-lock.json", changed.to_string());
    let (code, said) = error(&instance, project.path(), &[]);
    assert_eq!(code, 12, "{said}");
    let expected = format!("sha512:{}", "07".repeat(64));
    assert!(said.starts_with("package-lock.json: minimist@1"), "{said}");
    assert!(said.contains(&expected), "{said}");

    changed["packages"]["node_modules/minimist"]["integrity"] =
        format!("sha1-{}", STANDARD.encode([7; 20])).into();
    project.write("package-lock.json", changed.to_string());
    let (code, said) = error(&instance, project.path(), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("node_modules/minimist: its integrity is sha1 only"),
        "{said}"
    );
}

/// What npm makes of a place is npm's to say: of one at GitHub it clones a repository, installs what that depends on, and
/// runs its scripts.
#[test]
fn the_place_in_a_lock_file_is_never_gone_to_and_no_script_of_a_repository_there_is_run() {
    let instance = Instance::new();
    let (home, evil) = (tempfile::tempdir().unwrap(), Project::bare());
    let traces = home.path().join("traces");
    let touch = format!("echo $npm_lifecycle_event >> {}", traces.display());
    let scripts = ["preinstall", "install", "postinstall", "prepare"];
    let scripts = scripts.map(|name| (name.to_owned(), Value::from(touch.as_str())));
    let package = json!({"name": "evil", "version": "1.0.0", "scripts": Value::from_iter(scripts)});
    evil.write("package.json", package.to_string());
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@x.example",
            "commit",
            "--quiet",
            "--message=x",
        ],
    ] {
        tool(evil.path(), "git", arguments);
    }
    // Stands in for GitHub.
    let near = format!("file://{}", evil.path().display());
    let config = format!(
        "[url \"{near}\"]\ninsteadOf = https://github.com/somebody/evil.git\ninsteadOf = https://github.com/somebody/evil\n\
         [protocol \"file\"]\nallow = always\n[safe]\ndirectory = *\n"
    );
    fs::write(home.path().join(".gitconfig"), config).unwrap();
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    place.set_nonblocking(true).unwrap();
    let port = place.local_addr().unwrap().port();
    let project = Project::of(&["true"], &["out"], "deps = [\"package-lock.json\"]");
    let integrity = format!("sha512-{}", STANDARD.encode([7; 64]));
    for resolved in [
        "https://github.com/somebody/evil".to_owned(),
        "https://github.com/somebody/evil/tree/HEAD".to_owned(),
        "https://www.github.com/somebody/evil.git#HEAD".to_owned(),
        format!("http://127.0.0.1:{port}/evil-1.0.0.tgz"),
    ] {
        let lock = json!({"name": "app", "lockfileVersion": 3, "packages": {
            "": {"name": "app"},
            "node_modules/evil": {"version": "1.0.0", "resolved": resolved, "integrity": integrity},
        }});
        project.write("package-lock.json", lock.to_string());
        let cache = home.path().join("cache");
        let variables: [(&str, &Path); 4] = [
            ("HOME", home.path()),
            ("npm_config_cache", &cache),
            // A registry that has nothing.
            ("npm_config_registry", Path::new("http://127.0.0.1:1/")),
            ("npm_config_fetch_retries", Path::new("0")),
        ];
        let (code, said) = error(&instance, project.path(), &variables);
        assert_eq!(code, 12, "{said}");
        let due = "package-lock.json: evil@1.0.0 is missing";
        assert!(said.starts_with(due), "{said}");
        let ran = fs::read_to_string(&traces).unwrap_or_default();
        assert_eq!(ran, "", "{resolved}");
    }
    assert!(place.accept().is_err(), "the place was gone to");
}
