//! What the machine is given: programs, tests, units and README, as one archive on a disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use super::SUITES;
use crate::{shell, workspace};

/// Everything that is installed, or that the tests call.
const PROGRAMS: &[&str] = &[
    "belljar",
    "belljard",
    "belljar-store",
    "belljar-spawner",
    "belljar-signer",
    "belljar-test-peer",
    // Built anew along with them, so it may be another file than the one that runs now.
    "xtask",
];

/// Build what is needed and pack it into `folder`. Gives the archive.
pub(super) fn pack(folder: &Path, target: &Path, only: Option<&str>) -> Result<PathBuf> {
    let tree = folder.join("payload");
    let debug = tree.join("target/debug");
    let deps = debug.join("deps");
    std::fs::create_dir_all(&deps).with_context(|| deps.display().to_string())?;
    let tests = build()?;
    for name in PROGRAMS {
        strip(&target.join("debug").join(name), &debug.join(name))?;
    }
    for (suite, executable) in tests {
        strip(&executable, &deps.join(suite))?;
    }
    let root = workspace::root();
    std::fs::copy(root.join("README.md"), tree.join("README.md")).context("README.md")?;
    let mut copy = Command::new("cp");
    shell::run(copy.arg("-R").arg(root.join("systemd")).arg(&tree))?;
    let script = tree.join("run");
    let only = only.map(|only| format!(" '{}'", only.replace('\'', r"'\''")));
    let text = format!(
        "#!/bin/sh\nexec target/debug/xtask vm-guest \"$1\"{}\n",
        only.unwrap_or_default()
    );
    std::fs::write(&script, text).context("the payload's script")?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).context("the payload's script")?;
    let archive = folder.join("payload.img");
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(&tree)
        .arg("--owner=root:0")
        .arg("--group=root:0");
    shell::run(tar.arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

/// Builds programs and suites. Gives the suites' executables.
fn build() -> Result<Vec<(&'static str, PathBuf)>> {
    // Of the whole workspace: with fewer packages, dependencies may have other features, and be built again.
    let mut cargo = shell::cargo();
    cargo
        .args([
            "build",
            "--workspace",
            "--bins",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(SUITES.iter().flat_map(|(suite, _)| ["--test", *suite]))
        .args(workspace::locked())
        .stderr(Stdio::inherit());
    let messages = shell::read(&mut cargo)?;
    let mut found = Vec::new();
    for message in Message::parse_stream(messages.as_bytes()) {
        let Message::CompilerArtifact(artifact) = message.context("cargo's messages")? else {
            continue;
        };
        let suite = SUITES
            .iter()
            .find(|(suite, _)| *suite == artifact.target.name);
        if let (Some((suite, _)), Some(executable)) = (suite, artifact.executable) {
            found.push((*suite, executable.into_std_path_buf()));
        }
    }
    ensure!(
        found.len() == SUITES.len(),
        "cargo has built only {found:?} of the suites {SUITES:?}"
    );
    Ok(found)
}

/// A copy without debug information, which is most of it.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("strip");
    shell::run(command.arg("--strip-debug").arg("-o").arg(to).arg(from))
}
