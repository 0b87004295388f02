//! A root file system of Debian packages, made by mmdebstrap(1) from where this host gets its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use belljar_core::BuildSpec;
use tempfile::TempDir;

use crate::cli::{BuildDebian, Variant};
use crate::error::Error;
use crate::terminal::Terminal;

/// Where apt(8) is told where packages come from.
const SOURCES: &str = "/etc/apt/sources.list";
const SOURCES_DIRECTORY: &str = "/etc/apt/sources.list.d";
/// What of apt's configuration says how to reach them.
const REACHING: [&str; 6] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-",
    "Acquire::Retries",
    "Dir::Etc::netrc",
    "Acquire::ForceIPv",
];
/// What tells of this host or of where the packages came from: the same packages shall give the same tree.
const FORGOTTEN: &str = "rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/* \
     \"$1\"/etc/apt/apt.conf.d/99mmdebstrap \"$1\"/etc/dpkg/dpkg.cfg.d/99mmdebstrap \
     \"$1\"/etc/hostname \"$1\"/etc/resolv.conf \
     \"$1\"/etc/machine-id \"$1\"/var/lib/dbus/machine-id";

/// A root file system that was made; removed when this is dropped, unless somebody wants the archive.
pub(super) struct Made {
    _dir: TempDir,
    path: PathBuf,
    described: String,
}

impl Made {
    /// The archive.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was asked for.
    pub(super) fn described(&self) -> &str {
        &self.described
    }
}

/// Makes it.
///
/// # Errors
/// When mmdebstrap is missing or may not do its work here, or fails.
pub(super) fn build(arguments: &BuildDebian, terminal: &mut Terminal) -> Result<Made, Error> {
    check_words(arguments)?;
    check_ability()?;
    let host = host_suite();
    let suite = match (&arguments.suite, &host) {
        (Some(suite), _) => suite.clone(),
        (None, Some(host)) => host.clone(),
        (None, None) => {
            return Err(Error::Usage(
                "this host does not say which Debian it is; name one by --suite".to_owned(),
            ));
        }
    };
    let dir = tempfile::Builder::new()
        .prefix("belljar-debian-")
        .tempdir()
        .map_err(|e| Error::Process("make a temporary directory", e))?;
    let sources = sources(dir.path(), host.as_deref(), &suite)?;
    let path = match &arguments.archive {
        Some(path) => path.clone(),
        None => dir.path().join("image.tar"),
    };
    let variant = match arguments.variant {
        Variant::Apt => "apt",
        Variant::Essential => "essential",
    };
    let mut described = format!("--variant={variant} {suite}");
    let mut command = Command::new("mmdebstrap");
    command.arg(format!("--variant={variant}"));
    if !arguments.include.is_empty() {
        let include = format!("--include={}", arguments.include.join(","));
        described = format!("{include} {described}");
        command.arg(include);
    }
    command.args(apt_options()?.iter().map(|line| format!("--aptopt={line}")));
    command
        .arg(format!("--customize-hook={FORGOTTEN}"))
        // What is cut short here is made anew, so dpkg need not wait for the disk.
        .args(["--dpkgopt=force-unsafe-io", "--quiet"])
        .args([&suite])
        .arg(&path)
        .args(&sources)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
        command.env("SOURCE_DATE_EPOCH", BuildSpec::DEFAULT_EPOCH.to_string());
    }
    terminal.phase(&format!("mmdebstrap {described}"));
    let status = command.status().map_err(|e| missing(&e))?;
    if !status.success() {
        return Err(Error::Usage(format!(
            "mmdebstrap ended with {status}; what it said is above"
        )));
    }
    Ok(Made {
        _dir: dir,
        path,
        described,
    })
}

/// Arguments of another program that could be taken for something else.
fn check_words(arguments: &BuildDebian) -> Result<(), Error> {
    let fine = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| {
                c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_' | ':' | '=')
            })
    };
    let words = arguments.include.iter().map(|word| ("--include", word));
    let mut words = words.chain(arguments.suite.iter().map(|word| ("--suite", word)));
    match words.find(|(_, word)| !fine(word)) {
        None => Ok(()),
        Some((option, word)) => Err(Error::Usage(format!(
            "{option}: `{}` is not a name",
            word.escape_debug()
        ))),
    }
}

/// Whether mmdebstrap can work here: as root, or in a user namespace of its own (user_namespaces(7)).
fn check_ability() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let namespaces = read("/proc/sys/user/max_user_namespaces").trim() != "0"
        && read("/proc/sys/kernel/unprivileged_userns_clone").trim() != "0";
    let ids = !read("/etc/subuid").trim().is_empty();
    if namespaces && ids {
        return Ok(());
    }
    Err(Error::Usage(
        "making a root file system needs root, or user namespaces and a range of ids in /etc/subuid; run this as root, or elsewhere and import the archive: mmdebstrap SUITE image.tar"
            .to_owned(),
    ))
}

fn missing(error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::Usage(
            "mmdebstrap is not installed; install it: apt-get install mmdebstrap".to_owned(),
        );
    }
    Error::Usage(format!("mmdebstrap cannot be started: {error}"))
}

/// The suite that this host runs (os-release(5)).
fn host_suite() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned()).filter(|suite| !suite.is_empty())
}

/// The host's own package sources; copies in `dir` that name another suite where one was asked for.
fn sources(dir: &Path, host: Option<&str>, suite: &str) -> Result<Vec<PathBuf>, Error> {
    let mut files = vec![PathBuf::from(SOURCES)];
    for entry in std::fs::read_dir(SOURCES_DIRECTORY)
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|e| e == "list" || e == "sources")
        {
            files.push(path);
        }
    }
    files.retain(|path| path.metadata().is_ok_and(|status| status.len() > 0));
    files.sort();
    if files.is_empty() {
        return Err(Error::Usage(format!(
            "this host has no package sources of its own, neither {SOURCES} nor in {SOURCES_DIRECTORY}"
        )));
    }
    let Some(host) = host.filter(|host| *host != suite) else {
        return Ok(files);
    };
    let mut copies = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let text = std::fs::read_to_string(path).map_err(|e| super::send::unreadable(path, e))?;
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let copy = dir.join(format!("{number}.{extension}"));
        std::fs::write(&copy, text.replace(host, suite)).map_err(|source| Error::File {
            what: "write",
            path: copy.clone(),
            source,
        })?;
        copies.push(copy);
    }
    Ok(copies)
}

/// How this host's apt reaches its sources: proxies, credentials, what it does not check.
fn apt_options() -> Result<Vec<String>, Error> {
    let output = Command::new("apt-config").arg("dump").output();
    let output = output.map_err(|e| {
        Error::Usage(format!(
            "apt-config cannot be started ({e}); this needs a host with apt"
        ))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let reaching = text.lines().filter(|line| {
        // An empty value is apt's own default.
        REACHING.iter().any(|start| line.starts_with(start)) && !line.ends_with(" \"\";")
    });
    let mut options: Vec<String> = reaching.map(str::to_owned).collect();
    for (option, path) in [
        ("Dir::Etc::netrc", "/etc/apt/auth.conf"),
        ("Dir::Etc::netrcparts", "/etc/apt/auth.conf.d"),
    ] {
        // Relative names would be looked for inside the new root.
        options.retain(|line| !line.starts_with(&format!("{option} ")));
        if Path::new(path).exists() {
            options.push(format!("{option} \"{path}\";"));
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Asked, Image};
    use clap::Parser as _;

    fn arguments(more: &[&str]) -> BuildDebian {
        let all = ["belljar", "image", "build-debian", "--name", "c"];
        match Cli::parse_from(all.iter().chain(more)).command {
            Asked::Image {
                command: Image::BuildDebian(arguments),
            } => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_that_could_be_options_are_refused() {
        assert!(
            check_words(&arguments(&[
                "--include",
                "gcc,libc6-dev",
                "--suite",
                "trixie"
            ]))
            .is_ok()
        );
        for bad in [
            &["--include=gcc,--hook"][..],
            &["--include=gcc;x"],
            &["--suite=-x"],
            &["--suite=a b"],
        ] {
            assert!(check_words(&arguments(bad)).is_err(), "{bad:?}");
        }
    }
}
