//! `package-lock.json` and `npm-shrinkwrap.json` (npm-package-lock-json(5)), and the cache that
//! serves their packages to `npm ci --offline`.
//!
//! The tree that is laid out is a cache directory of npm's with nothing in it but content by digest
//! ([`CONTENT`]): an entry of the lock file with `resolved` and `integrity` is taken from there, without an
//! index, and without anything being written (npm 7 and later). npm verifies each tarball once more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use belljar_core::{Invalid, RelPath, Sha512Digest, shown_url};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::purl::encoded;
use crate::{bounded, excerpt, is_location, is_version, sri, text};

/// Where content lies below the cache directory, in directories by the first two bytes of its digest.
pub const CONTENT: &str = "_cacache/content-v2/sha512";

/// The directory that packages are installed in, as it stands in the keys of the file.
const INSTALLED: &str = "node_modules/";

/// What a lock file of npm's says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Packages that have to be fetched, sorted, each once.
    pub packages: Vec<Package>,
    /// Directories of the project with packages of their own: workspaces and what is linked, sorted.
    pub local: Vec<RelPath>,
}

/// One package that has to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name, with its scope: `name` or `@scope/name`.
    pub name: String,
    /// Its version: characters of `[0-9A-Za-z.+-]`.
    pub version: String,
    /// What its tarball must hash to.
    pub integrity: Sha512Digest,
    /// Where the file says that the tarball was: an `http` or `https` URL.
    pub resolved: String,
    /// Where alone it is installed. None if npm would not do without it.
    pub only_for: Option<Platforms>,
}

/// Systems and processors that an optional package is for, as npm names them; empty for all, `!` for not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platforms {
    /// Systems, such as `linux` (Node.js, `process.platform`).
    pub os: Vec<String>,
    /// Processors, such as `x64` (Node.js, `process.arch`).
    pub cpu: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    lockfile_version: u64,
    packages: Option<Entries>,
}

/// Entries in the order of the file. A key that is there twice is refused: of two readers each could take
/// another.
struct Entries(BTreeMap<String, Entry>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    os: OneOrMore,
    #[serde(default)]
    cpu: OneOrMore,
}

/// npm takes a single text for a list of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Lock {
    /// Reads the content of a `package-lock.json` or `npm-shrinkwrap.json`.
    ///
    /// # Errors
    /// When it is none, of a version that is not supported, or when a package cannot be taken; that one's key
    /// in the file is the error's field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let file: File = serde_json::from_str(text(bytes)?).map_err(|e| {
            Invalid::new(format!(
                "not a lock file of npm's: {}",
                excerpt(&e.to_string())
            ))
        })?;
        if !(2..=3).contains(&file.lockfile_version) {
            return Err(Invalid::field(
                "lockfileVersion",
                format!(
                    "lock files of version {} are not supported; 2 and 3 are. `npm install --package-lock-only --lockfile-version 3` writes one",
                    file.lockfile_version
                ),
            ));
        }
        let entries = file.packages.map(|entries| entries.0);
        let entries =
            entries.ok_or_else(|| Invalid::field("packages", "missing; it is required"))?;
        bounded(entries.len())?;
        let (mut packages, mut local) = (BTreeMap::new(), BTreeSet::new());
        for (key, entry) in &entries {
            let taken = taken(key, entry, &entries).map_err(|e| e.within(excerpt(key)))?;
            match taken {
                Taken::Nothing => {}
                Taken::Local(path) => {
                    local.insert(path);
                }
                Taken::Package(package) => add(&mut packages, package),
            }
        }
        Ok(Self {
            packages: packages.into_values().collect(),
            local: local.into_iter().collect(),
        })
    }
}

/// What an entry asks for.
enum Taken {
    /// It is the project itself, or comes with another package.
    Nothing,
    /// A directory of the project.
    Local(RelPath),
    /// A tarball.
    Package(Package),
}

/// One package may be installed in several places; it is optional only if it is so in each.
fn add(packages: &mut BTreeMap<(String, String, Sha512Digest), Package>, package: Package) {
    let id = (
        package.name.clone(),
        package.version.clone(),
        package.integrity,
    );
    match packages.get_mut(&id) {
        Some(before) if package.only_for.is_none() => before.only_for = None,
        Some(_) => {}
        None => {
            packages.insert(id, package);
        }
    }
}

fn taken(key: &str, entry: &Entry, all: &BTreeMap<String, Entry>) -> Result<Taken, Invalid> {
    if key.is_empty() || entry.in_bundle {
        return Ok(Taken::Nothing);
    }
    let outside = |path: &str| {
        Invalid::new(format!(
            "it is a path dependency on `{}`, which is not in the project. Move it there, or take a release from a registry",
            excerpt(path)
        ))
    };
    if entry.link {
        let target = entry.resolved.as_deref().unwrap_or_default();
        let path = RelPath::new(target).map_err(|_| outside(target))?;
        return match all.get(target) {
            Some(_) => Ok(Taken::Local(path)),
            None => Err(outside(target)),
        };
    }
    let Some((_, installed)) = key.rsplit_once(INSTALLED) else {
        return RelPath::new(key)
            .map(Taken::Local)
            .map_err(|_| outside(key));
    };
    package(entry.name.as_deref().unwrap_or(installed), entry).map(Taken::Package)
}

fn package(name: &str, entry: &Entry) -> Result<Package, Invalid> {
    if !is_name(name) {
        return Err(Invalid::new(format!(
            "`{}` is no name of a package",
            excerpt(name)
        )));
    }
    let resolved = location(entry.resolved.as_deref())?;
    let version = entry
        .version
        .as_deref()
        .filter(|version| is_version(version));
    let version = version.ok_or_else(|| Invalid::field("version", "missing, or no version"))?;
    let integrity = entry.integrity.as_deref().ok_or_else(|| {
        Invalid::new(
            "it has no integrity, so nothing tells whether its bytes are right. Remove the entry and make it anew with `npm install`",
        )
    })?;
    let platforms = Platforms {
        os: entry.os.list(),
        cpu: entry.cpu.list(),
    };
    let limited = !platforms.os.is_empty() || !platforms.cpu.is_empty();
    Ok(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        integrity: sri::sha512(integrity)?,
        resolved: resolved.to_owned(),
        only_for: (entry.optional && limited).then_some(platforms),
    })
}

/// Where a tarball was, if it was at a registry or another web server.
fn location(resolved: Option<&str>) -> Result<&str, Invalid> {
    let resolved = resolved.ok_or_else(|| {
        Invalid::new(
            "it has no `resolved`, without which npm looks for it at a registry, also offline. Make the file anew with \
             `npm install --package-lock-only --omit-lockfile-registry-resolved=false`",
        )
    })?;
    let shown = shown_url(resolved);
    if resolved.starts_with("git") {
        return Err(Invalid::new(format!(
            "it is a git dependency ({shown}), which has no digest in the lock file. Take a release from a registry, \
             or put its sources into a workspace of the project"
        )));
    }
    if resolved.starts_with("file:") {
        return Err(Invalid::new(format!(
            "it is a path dependency ({shown}). Unpack it into a workspace of the project, or take a release from a registry"
        )));
    }
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| resolved.strip_prefix(scheme));
    match rest {
        Some(rest) if is_location(resolved) => {
            if crate::names_user(rest) {
                return Err(Invalid::new(
                    "its `resolved` has a user name or password in it, which would get into the evidence. Keep them in .npmrc",
                ));
            }
            Ok(resolved)
        }
        _ => Err(Invalid::new(format!(
            "its `resolved` is `{shown}`; an http or https URL is due"
        ))),
    }
}

/// `name` or `@scope/name` of letters, digits, `.`, `_`, `~` and `-`, within npm's 214 characters.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(fine)
    };
    let fine = match name.strip_prefix('@') {
        Some(scoped) => scoped
            .split_once('/')
            .is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    };
    fine && name.len() <= 214
}

impl Package {
    /// Where its tarball lies below the cache directory.
    pub fn content_path(&self) -> String {
        content_path(self.integrity)
    }

    /// Its package URL. If it does not come from where registries keep tarballs, with that place.
    pub fn purl(&self) -> String {
        let (scope, base) = match self.name.split_once('/') {
            Some((scope, base)) => (format!("{}/", encoded(scope)), base),
            None => (String::new(), self.name.as_str()),
        };
        let purl = format!(
            "pkg:npm/{scope}{}@{}",
            encoded(base),
            encoded(&self.version)
        );
        let usual = format!("/{}/-/{base}-{}.tgz", self.name, self.version);
        if self.resolved.ends_with(&usual) {
            return purl;
        }
        format!("{purl}?download_url={}", encoded(&self.resolved))
    }

    /// Whether npm on this system and processor would install it.
    pub fn is_for(&self, os: &str, cpu: &str) -> bool {
        let only = self.only_for.as_ref();
        only.is_none_or(|only| matches(&only.os, os) && matches(&only.cpu, cpu))
    }
}

/// Where content lies below the cache directory (cacache, `content/path.js`).
pub fn content_path(integrity: Sha512Digest) -> String {
    let hex = integrity.to_hex();
    format!("{CONTENT}/{}/{}/{}", &hex[..2], &hex[2..4], &hex[4..])
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// As npm judges (npm-install-checks): nothing that is excluded, and something that is named unless all are
/// exclusions.
fn matches(list: &[String], value: &str) -> bool {
    if list.is_empty() || list == ["any"] {
        return true;
    }
    let excluded = |entry: &String| entry.strip_prefix('!').is_some_and(|not| not == value);
    let exclusions = list.iter().filter(|entry| entry.starts_with('!')).count();
    !list.iter().any(excluded)
        && (exclusions == list.len() || list.iter().any(|entry| entry == value))
}

impl OneOrMore {
    fn list(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::More(more) => more.clone(),
        }
    }
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of packages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, entry)) = map.next_entry::<String, Entry>()? {
            if let Some(_before) = entries.insert(key.clone(), entry) {
                let shown = excerpt(&key);
                return Err(serde::de::Error::custom(format!(
                    "`{shown}` is there twice"
                )));
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests;
