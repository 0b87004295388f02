use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_tests::{Instance, Part, Project, tool};
use tempfile::TempDir;

use crate::packages;

const MANIFEST: &str = r#"[package]
name = "demo"
version = "0.1.0"
edition = "2024"

[dependencies]
hex = "0.4"
itoa = "1"
semver = { version = "1", features = ["serde"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
"#;

const PROGRAM: &str = r#"
#[derive(serde::Serialize)]
struct Said {
    number: String,
    hex: String,
    next: semver::Version,
}

fn main() {
    let said = Said {
        number: itoa::Buffer::new().format(42).to_owned(),
        hex: hex::encode("jar"),
        next: semver::Version::parse("1.2.3").unwrap(),
    };
    println!("{}", serde_json::to_string(&said).unwrap());
}
"#;

/// An instance whose builds see the toolchain that is in use here, and where they see it. Where it lies it may
/// be readable for root alone: the same files get names in a directory of this test's own. (Not below the
/// instance's: a sandbox has a `/var/tmp` of its own.)
fn with_toolchain() -> (Instance, TempDir, PathBuf) {
    let mut instance = Instance::started();
    let sysroot = tool(Path::new("/"), "rustc", &["--print", "sysroot"]);
    let directory = tempfile::Builder::new()
        .prefix("belljar-test-")
        .tempdir_in("/opt")
        .unwrap();
    let place = directory.path().join("toolchain");
    for part in ["bin", "lib"] {
        link(&Path::new(sysroot.trim()).join(part), &place.join(part));
    }
    instance.end_part(Part::Spawner);
    let file = instance.state().join("config/spawner.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("host_paths = [{place:?}]\n{text}")).unwrap();
    instance.start_part(Part::Spawner);
    (instance, directory, place)
}

/// A second name for each file below a directory, or a copy where that cannot be.
fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            link(&path, &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), &to).unwrap();
        } else if fs::hard_link(&path, &to).is_err() {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// Package URL and checksum of each entry with a source, read without Belljar's own code.
fn locked_packages(lock: &str) -> BTreeSet<(String, String)> {
    let entries = lock.split("[[package]]").skip(1);
    let entries = entries.filter(|entry| entry.contains("\nsource = "));
    entries
        .map(|entry| {
            let field = |name: &str| {
                let line = entry.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap()
                    .trim_start_matches(" = ")
                    .trim_matches('"')
                    .to_owned()
            };
            let version = field("version").replace('+', "%2B");
            (
                format!("pkg:cargo/{}@{version}", field("name")),
                field("checksum"),
            )
        })
        .collect()
}

#[test]
fn a_program_with_dependencies_is_built_without_a_network_and_names_them_all() {
    let (mut instance, _directory, toolchain) = with_toolchain();
    let project = Project::of(
        &[
            "cargo build --release --frozen",
            "cp target/release/demo demo",
        ],
        &["demo"],
        &format!(
            "deps = [\"Cargo.lock\"]\n[env]\nPATH = \"{}/bin:/usr/bin:/bin\"",
            toolchain.display()
        ),
    );
    project.write("Cargo.toml", MANIFEST);
    project.write("src/main.rs", PROGRAM);
    tool(project.path(), "cargo", &["generate-lockfile"]);
    let run = instance.run(&project);
    run.assert_succeeded();
    run.assert_verified("demo");
    let said = Command::new(run.output().join("demo")).output().unwrap();
    assert_eq!(
        String::from_utf8(said.stdout).unwrap(),
        "{\"number\":\"42\",\"hex\":\"6a6172\",\"next\":\"1.2.3\"}\n"
    );

    let lock = fs::read_to_string(project.path().join("Cargo.lock")).unwrap();
    let due = locked_packages(&lock);
    assert!(due.len() >= 10, "{due:?}");
    let statement = run.statement("demo");
    assert_eq!(packages(&statement, "sha256"), due);
    let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
    assert_eq!(parameters["env"]["CARGO_HOME"], "/deps/cargo/home");
    assert!(parameters["inputs"]["cargo"]["derivation"]["digest"].is_string());

    // The same lock file is the same input, and the packages are there already.
    let again = instance.run(&project);
    again.assert_succeeded();
    assert_eq!(again.json["spec"]["inputs"], run.json["spec"]["inputs"]);
    assert!(again.said.contains("Cargo.lock: uploaded 0 of"), "{again}");
    assert_eq!(
        again.file("demo"),
        run.file("demo"),
        "built twice, the same"
    );
}
