//! Lock files as inputs: real packages, fetched at test time by the machine's own package managers with their
//! own configuration; and what is refused, by name.
//!
//! * [`cargo`]: a program with dependencies, built by the toolchain that builds these tests.
//! * [`npm`]: a bundle of packages, made by one of them.
//! * [`refused`]: packages and lock files that are not what they should be.

// Helpers of tests may stop at the first surprise too; clippy's exemption is for the tests themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod cargo;
mod npm;
mod refused;

use std::collections::BTreeSet;
use std::path::Path;

use belljar_tests::{Instance, Project};
use serde_json::Value;

/// Package URL and digest of each package among the resolved dependencies.
fn packages(statement: &Value, algorithm: &str) -> BTreeSet<(String, String)> {
    let all = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let packages = all.as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packages
        .filter(|one| {
            one["uri"]
                .as_str()
                .is_some_and(|uri| uri.starts_with("pkg:"))
        })
        .map(|one| (text(&one["uri"]), text(&one["digest"][algorithm])))
        .collect()
}

/// The error of a `belljar run` that comes to nothing, with its exit status.
fn error(instance: &Instance, dir: &Path, variables: &[(&str, &Path)]) -> (i32, String) {
    let output = tempfile::tempdir().unwrap();
    let ended = instance
        .command("run")
        .arg(dir)
        .arg("--output")
        .arg(output.path())
        .arg("--json")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}", String::from_utf8_lossy(&ended.stderr));
    });
    assert_eq!(told["schema"], "belljar.error/v1", "{told:#}");
    let error = told["error"].as_str().unwrap().to_owned();
    (ended.status.code().unwrap(), error)
}

/// A project with a lock file of Cargo's that is written here, and needs no registry.
fn locked(lock: &str) -> Project {
    let project = Project::of(&["cargo build"], &["out"], "deps = [\"Cargo.lock\"]");
    project.write("Cargo.lock", lock);
    let manifest = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    project.write("Cargo.toml", manifest);
    project.write("src/main.rs", "fn main() {}\n");
    project
}
