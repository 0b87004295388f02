//! Debian's packages, from where this machine itself gets them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// The keys of Debian's archive, as its own package has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where this machine itself gets Debian's packages.
pub(crate) fn mirror() -> Result<String> {
    let format = "$(ORIGIN)\t$(LABEL)\t$(COMPONENT)\t$(SITE)";
    let list = || {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", format, "Created-By: Packages"]);
        shell::read(&mut apt)
    };
    let mut found = debian_of(&list()?);
    if found.is_none() {
        // Whose an archive is, apt knows only once it has its index.
        shell::read(Command::new("apt-get").args(["update", "--quiet"]))?;
        found = debian_of(&list()?);
    }
    found.context("this machine's apt knows no archive of Debian itself: add one to its sources")
}

fn debian_of(listed: &str) -> Option<String> {
    listed.lines().find_map(|line| {
        let mut fields = line.split('\t');
        let is_debian = ["Debian", "Debian", "main"]
            .iter()
            .all(|due| fields.next() == Some(*due));
        is_debian.then(|| fields.next().unwrap_or_default().to_owned())
    })
}

/// Unpacks one package of a suite below `folder`, which must be empty, without installing anything. Gives its
/// version.
pub(crate) fn unpack(suite: &str, package: &str, folder: &Path) -> Result<String> {
    let place = |name: &str| folder.join("apt").join(name);
    for name in ["state/lists/partial", "cache/archives/partial"] {
        let path = place(name);
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    let sources = place("sources.list");
    let line = format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror()?);
    std::fs::write(&sources, line).with_context(|| sources.display().to_string())?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let own = [
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State", &place("state")),
            option("Dir::State::Status", Path::new("/dev/null")),
            option("Dir::Cache", &place("cache")),
            // The target folder may be closed to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        apt.args(own.iter().flat_map(|one| ["--option", one.as_str()]));
        shell::read(apt.args(arguments).current_dir(folder))
    };
    apt(&["update", "--quiet"])?;
    apt(&["download", "--quiet", package])?;
    let archive = archive_in(folder)?;
    let mut unpack = Command::new("dpkg-deb");
    shell::read(unpack.arg("--extract").arg(&archive).arg(folder))?;
    let mut version = Command::new("dpkg-deb");
    let version = shell::read(version.arg("--field").arg(&archive).arg("Version"))?;
    for left in [archive, folder.join("apt")] {
        let removed = if left.is_dir() {
            std::fs::remove_dir_all(&left)
        } else {
            std::fs::remove_file(&left)
        };
        removed.with_context(|| left.display().to_string())?;
    }
    Ok(version.trim().to_owned())
}

/// The one package file in a folder.
fn archive_in(folder: &Path) -> Result<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut archives: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    let first = archives.pop();
    ensure!(
        archives.is_empty(),
        "more than one package in {}",
        folder.display()
    );
    first.with_context(|| format!("no package in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_and_not_that_of_somebody_else() {
        let listed = "Somebody\tDebian\tmain\thttp://one.invalid/\n\
                      Debian\tDebian-Security\tmain\thttp://two.invalid/\n\
                      Debian\tDebian\tmain\thttp://three.invalid/debian/\n";
        assert_eq!(
            debian_of(listed).as_deref(),
            Some("http://three.invalid/debian/")
        );
        assert_eq!(
            debian_of("Ubuntu\tUbuntu\tmain\thttp://one.invalid/\n"),
            None
        );
    }

    #[test]
    fn one_package_is_due() {
        let folder = tempfile::tempdir().unwrap();
        assert!(archive_in(folder.path()).is_err());
        std::fs::write(folder.path().join("a_1_amd64.deb"), "").unwrap();
        assert!(
            archive_in(folder.path())
                .unwrap()
                .ends_with("a_1_amd64.deb")
        );
        std::fs::write(folder.path().join("b_1_amd64.deb"), "").unwrap();
        assert!(archive_in(folder.path()).is_err());
    }
}
