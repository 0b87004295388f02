//! `Cargo.lock`, and the directory source (doc.rust-lang.org/cargo, "Source Replacement") that serves its
//! packages without a network.
//!
//! The tree that is laid out has two directories: [`HOME`], to which `CARGO_HOME` points, with the
//! configuration; and [`VENDOR`] with one directory for each package.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use belljar_core::{Digest, Invalid, shown_url};
use serde::Deserialize;

use crate::purl::encoded;
use crate::{bounded, excerpt, is_location, is_version, names_user, text};

/// How Cargo writes its default registry into a lock file. A name of the format: nothing is ever asked there.
const DEFAULT_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// What Cargo calls its default registry in a configuration.
const DEFAULT_SOURCE: &str = "crates-io";

/// The directory that `CARGO_HOME` shall name.
pub const HOME: &str = "home";
/// The directory source, beside [`HOME`].
pub const VENDOR: &str = "vendor";
/// The configuration, in [`HOME`].
pub const CONFIG: &str = "config.toml";
/// What Cargo looks for in each package of a directory source.
pub const CHECKSUM: &str = ".cargo-checksum.json";

/// What a `Cargo.lock` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Packages of registries, sorted, each once.
    pub packages: Vec<Package>,
    /// Packages without a source: members of the workspace, or path dependencies.
    pub local: Vec<Local>,
}

/// One package of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name: 1 to 64 characters of `[A-Za-z0-9_-]`.
    pub name: String,
    /// Its version: characters of `[0-9A-Za-z.+-]`.
    pub version: String,
    /// Its registry, as the file names it: `registry+URL` or `sparse+URL`.
    pub source: String,
    /// What its `.crate` must hash to.
    pub checksum: Digest,
}

/// One package without a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

#[derive(Deserialize)]
struct File {
    version: Option<i64>,
    #[serde(default)]
    package: Vec<Entry>,
    /// Where the first version keeps its checksums.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    replace: Option<String>,
}

impl Lock {
    /// Reads the content of a `Cargo.lock`.
    ///
    /// # Errors
    /// When it is none, of an unknown version, or when a package cannot be taken; that one is the error's
    /// field, as `NAME VERSION`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let file: File = toml::from_str(text(bytes)?)
            .map_err(|e| Invalid::new(format!("not a Cargo.lock: {}", excerpt(e.message()))))?;
        if let Some(version) = file.version.filter(|version| !(1..=4).contains(version)) {
            return Err(Invalid::field(
                "version",
                format!("lock files of version {version} are not supported; 1 to 4 are"),
            ));
        }
        bounded(file.package.len())?;
        let (mut packages, mut local) = (BTreeSet::new(), BTreeSet::new());
        let mut directories = BTreeSet::new();
        for entry in &file.package {
            let id = named(entry)?;
            let within = |e: Invalid| e.within(format!("{} {}", id.name, id.version));
            let Some(source) = &entry.source else {
                local.insert(id);
                continue;
            };
            let package = package(&id, entry, source, &file.metadata).map_err(within)?;
            if !directories.insert(package.directory()) {
                return Err(within(Invalid::new(
                    "it is there twice, from two registries or with two checksums; one directory of packages holds only one",
                )));
            }
            packages.insert(package);
        }
        Ok(Self {
            packages: packages.into_iter().collect(),
            local: local.into_iter().collect(),
        })
    }

    /// The configuration that has Cargo take every package out of [`VENDOR`], and ask no network. Its path is
    /// relative, so that the tree may be mounted anywhere.
    pub fn config(&self) -> String {
        let sources: BTreeSet<&str> = self.packages.iter().map(|p| p.source.as_str()).collect();
        let others = sources.iter().filter(|source| **source != DEFAULT_REGISTRY);
        let mut config = format!(
            "[net]\noffline = true\n\n[source.belljar]\ndirectory = \"{VENDOR}\"\n\n\
             [source.{DEFAULT_SOURCE}]\nreplace-with = \"belljar\"\n"
        );
        for (index, source) in others.enumerate() {
            // `sparse+` belongs to the URL of a registry, `registry+` does not.
            let url = source.strip_prefix("registry+").unwrap_or(source);
            config.push_str(&format!(
                "\n[source.belljar-{index}]\nregistry = \"{url}\"\nreplace-with = \"belljar\"\n"
            ));
        }
        config
    }
}

impl Package {
    /// Name of its archive.
    pub fn archive(&self) -> String {
        format!("{}.crate", self.directory())
    }

    /// Name of the one directory in its archive, and of its directory below [`VENDOR`].
    pub fn directory(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    /// Content of its [`CHECKSUM`]. No file is listed: the tree as a whole is named by its digest, and
    /// the archive was verified before it was unpacked.
    pub fn checksum_file(&self) -> String {
        format!(r#"{{"files":{{}},"package":"{}"}}"#, self.checksum.to_hex())
    }

    /// Its package URL. The default registry goes without saying.
    pub fn purl(&self) -> String {
        let base = format!(
            "pkg:cargo/{}@{}",
            encoded(&self.name),
            encoded(&self.version)
        );
        if self.source == DEFAULT_REGISTRY {
            return base;
        }
        format!("{base}?repository_url={}", encoded(&self.source))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Name and version, which go into file names.
fn named(entry: &Entry) -> Result<Local, Invalid> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let (name, version) = (&entry.name, &entry.version);
    let shown = || format!("{} {}", excerpt(name), excerpt(version));
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
        return Err(Invalid::field(shown(), "that is no name of a package"));
    }
    if !is_version(version) {
        return Err(Invalid::field(shown(), "that is no version"));
    }
    Ok(Local {
        name: name.clone(),
        version: version.clone(),
    })
}

fn package(
    id: &Local,
    entry: &Entry,
    source: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<Package, Invalid> {
    if entry.replace.is_some() {
        return Err(Invalid::new(
            "it is replaced by `[replace]`, which is not supported. Use `[patch]`, with a package of a registry or a member of the workspace",
        ));
    }
    if source.starts_with("git+") {
        return Err(Invalid::new(format!(
            "it is a git dependency ({}), which has no checksum in Cargo.lock. Take a release from a registry, \
             or put its sources into the workspace and depend on them by path",
            shown_url(source)
        )));
    }
    if !["registry+", "sparse+"]
        .iter()
        .any(|kind| source.starts_with(kind))
    {
        return Err(Invalid::new(format!(
            "its source `{}` is no registry. Take a release from a registry, or put its sources into the workspace",
            shown_url(source)
        )));
    }
    if !is_location(source) {
        return Err(Invalid::new(format!(
            "its source `{}` is no URL",
            shown_url(source)
        )));
    }
    if source
        .split_once("://")
        .is_some_and(|(_, rest)| names_user(rest))
    {
        return Err(Invalid::new(
            "its source has a user name or password in it, which would get into the evidence. Keep them in Cargo's credentials",
        ));
    }
    // The first version knows `<none>`, too.
    let kept_apart = format!("checksum {} {} ({source})", id.name, id.version);
    let checksum = entry.checksum.as_ref().or(metadata.get(&kept_apart));
    let checksum = checksum.filter(|checksum| *checksum != "<none>").ok_or_else(|| {
        Invalid::new(
            "it has no checksum, so nothing tells whether its bytes are right. Run `cargo update` with a registry that gives one",
        )
    })?;
    Ok(Package {
        name: id.name.clone(),
        version: id.version.clone(),
        source: source.to_owned(),
        checksum: Digest::from_hex(checksum).map_err(|e| e.within("checksum"))?,
    })
}

#[cfg(test)]
mod tests;
