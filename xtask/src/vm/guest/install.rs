//! README's "As a service", word for word.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Where it stands.
const HEADING: &str = "### As a service";
/// What README leaves to an editor: names of one's own instead of the example's.
const EDITOR: &str = "sed -i -e s,builds.example.org,vm.example.net,";

/// Runs each of the commands as root would type it.
pub(super) fn run(payload: &Path) -> Result<String> {
    let readme = std::fs::read_to_string(payload.join("README.md")).context("README.md")?;
    let mut said = String::new();
    for line in commands(&readme)? {
        let mut command = Command::new("bash");
        command
            .args(["-e", "-c", line])
            .env("EDITOR", EDITOR)
            .current_dir(payload);
        let answer = shell::read(&mut command).with_context(|| line.to_owned())?;
        said += &format!("# {line}\n{answer}");
    }
    Ok(said)
}

/// The lines behind a root's prompt in the first block of that chapter.
fn commands(readme: &str) -> Result<Vec<&str>> {
    let block = readme
        .split_once(HEADING)
        .and_then(|(_, chapter)| chapter.split_once("```console\n"))
        .and_then(|(_, block)| block.split_once("```"));
    let (block, _) =
        block.with_context(|| format!("README.md has no commands below {HEADING:?}"))?;
    let lines: Vec<_> = block
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .collect();
    ensure!(!lines.is_empty(), "README.md's commands are not root's");
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_has_what_the_machine_does() {
        let path = crate::workspace::root().join("README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let lines = commands(&readme).unwrap();
        for due in [
            "install -m 0755",
            "systemd-sysusers",
            "$EDITOR",
            "systemctl",
            "belljar doctor",
        ] {
            assert!(
                lines.iter().any(|line| line.contains(due)),
                "{due}: {lines:?}"
            );
        }
        assert!(commands("### As a service\n\n```console\n$ true\n```\n").is_err());
        assert!(commands("nothing").is_err());
    }
}
