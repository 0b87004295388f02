//! `.crate` files out of Cargo's own cache.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_core::{Digest, RelPath};
use belljar_lock::cargo::{Local, Lock, Package};
use belljar_manifest::LockFile;
use serde::Deserialize;

use super::{Error, named, program, wrong};
use crate::source::{self, Gathered, SourceFile, Sources};
use crate::terminal::Terminal;

/// The packages of a `Cargo.lock` that lies in the source directory `dir`.
pub(super) fn packages(
    dir: &Path,
    file: &LockFile,
    bytes: &[u8],
    terminal: &mut Terminal,
) -> Result<Sources, Error> {
    let lock = Lock::parse(bytes).map_err(|e| wrong(file, e))?;
    let cargo = Cargo::of(dir, file)?;
    cargo.all_are_members(&lock.local)?;
    let cache = cargo.home.join("registry/cache");
    let mut found = look(&cache, &lock)?;
    let missing = lock.packages.iter().filter(|p| !found.has(p)).count();
    let mut said = None;
    if missing > 0 {
        terminal.phase(&format!(
            "{}: {missing} of {} packages are not in Cargo's cache; asking `cargo fetch`",
            file.path,
            lock.packages.len()
        ));
        // What is missing afterwards is the error, and this one its cause.
        said = cargo.ask(&["fetch", "--locked", "--quiet"]).err();
        found = look(&cache, &lock)?;
    }
    let chosen = found.choose(&lock, &cache, file, said)?;
    terminal.phase(&format!(
        "{}: {} packages, as locked",
        file.path,
        lock.packages.len()
    ));
    Ok(found
        .gathered
        .into_tree(|file| chosen.get(&file.path).cloned())?)
}

/// Cargo, about one workspace.
struct Cargo<'a> {
    file: &'a LockFile,
    dir: &'a Path,
    manifest: PathBuf,
    home: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

impl<'a> Cargo<'a> {
    fn of(dir: &'a Path, file: &'a LockFile) -> Result<Self, Error> {
        let lock = dir.join(file.path.as_str());
        Ok(Self {
            file,
            dir,
            manifest: lock.with_file_name("Cargo.toml"),
            home: home()?,
        })
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, program::Error> {
        let mut command = Command::new("cargo");
        command
            .args(arguments)
            .arg("--manifest-path")
            .arg(&self.manifest)
            .env("CARGO_HOME", &self.home);
        program::ask(command, &format!("cargo {}", arguments[0]))
    }

    /// Packages without a source have to be members of the workspace: what lies elsewhere does not come
    /// along with the sources.
    fn all_are_members(&self, local: &[Local]) -> Result<(), Error> {
        let answer = self.ask(&["metadata", "--no-deps", "--offline", "--format-version=1"])?;
        let metadata: Metadata =
            serde_json::from_slice(&answer).map_err(|_| program::Error::Answer {
                what: "cargo metadata".to_owned(),
            })?;
        let inside = metadata
            .packages
            .iter()
            .filter(|m| m.manifest_path.starts_with(self.dir));
        let members: BTreeSet<(&str, &str)> = inside
            .map(|m| (m.name.as_str(), m.version.as_str()))
            .collect();
        let stray = local
            .iter()
            .find(|l| !members.contains(&(l.name.as_str(), l.version.as_str())));
        match stray {
            None => Ok(()),
            Some(stray) => Err(Error::Outside {
                package: named(self.file, format_args!("{} {}", stray.name, stray.version)),
            }),
        }
    }
}

/// Where Cargo keeps what it fetches (The Cargo Book, "Cargo Home").
fn home() -> Result<PathBuf, Error> {
    let unknown = |source| program::Error::Run {
        program: "cargo".to_owned(),
        source,
    };
    let home = match std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => home.into(),
        None => std::env::home_dir()
            .ok_or_else(|| unknown(std::io::Error::other("this user has no home directory")))?
            .join(".cargo"),
    };
    Ok(std::path::absolute(home).map_err(unknown)?)
}

/// Archives that have the name of a package, in the directories of all registries.
struct Found {
    gathered: Gathered,
    /// By the name of the archive.
    archives: BTreeMap<String, Vec<(RelPath, Digest)>>,
}

fn look(cache: &Path, lock: &Lock) -> Result<Found, Error> {
    let mut paths = Vec::new();
    for registry in registries(cache)? {
        for package in &lock.packages {
            // What cannot be a path is no directory of a registry's.
            let Ok(path) = RelPath::new(format!("{registry}/{}", package.archive())) else {
                break;
            };
            if cache
                .join(path.as_str())
                .symlink_metadata()
                .is_ok_and(|status| status.is_file())
            {
                paths.push(path);
            }
        }
    }
    let gathered = match paths.is_empty() {
        // The directory need not be there.
        true => Gathered::hash(Path::new("/"), paths)?,
        false => Gathered::hash(cache, paths)?,
    };
    let mut archives: BTreeMap<String, Vec<(RelPath, Digest)>> = BTreeMap::new();
    for SourceFile { path, object, .. } in &gathered.files {
        let same = archives.entry(path.file_name().to_owned()).or_default();
        same.push((path.clone(), object.digest));
    }
    Ok(Found { gathered, archives })
}

fn registries(cache: &Path) -> Result<Vec<String>, Error> {
    let unreadable = |source| source::Error::Read {
        path: cache.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(cache) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(unreadable)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

impl Found {
    fn of(&self, package: &Package) -> &[(RelPath, Digest)] {
        self.archives
            .get(&package.archive())
            .map_or(&[], Vec::as_slice)
    }

    fn has(&self, package: &Package) -> bool {
        !self.of(package).is_empty()
    }

    /// For each package an archive with the right bytes, by its path in the cache: its name in the tree.
    fn choose(
        &self,
        lock: &Lock,
        cache: &Path,
        file: &LockFile,
        mut said: Option<program::Error>,
    ) -> Result<BTreeMap<RelPath, RelPath>, Error> {
        let mut chosen = BTreeMap::new();
        for package in &lock.packages {
            let found = self.of(package);
            if let Some((path, _)) = found.iter().find(|(_, digest)| *digest == package.checksum) {
                let name = RelPath::new(package.archive()).map_err(|e| wrong(file, e))?;
                chosen.insert(path.clone(), name);
                continue;
            }
            let (package, checksum) = (named(file, package), package.checksum);
            return Err(match found.first() {
                Some((path, digest)) => Error::Differs {
                    package,
                    file: cache.join(path.as_str()),
                    expected: checksum.to_string(),
                    found: digest.to_string(),
                },
                None => Error::Missing {
                    package,
                    expected: checksum.to_string(),
                    place: cache.to_owned(),
                    said: said.take().map(Box::new),
                },
            });
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::ObjectId;
    use belljar_lock::Ecosystem;

    const SOURCE: &str = "registry+https://r.example/index";

    fn file() -> LockFile {
        LockFile {
            path: RelPath::new("Cargo.lock").unwrap(),
            ecosystem: Ecosystem::Cargo,
        }
    }

    fn lock(packages: &[(&str, &[u8])]) -> Lock {
        let entry = |(name, content): &(&str, &[u8])| {
            let sum = Digest::of(content).to_hex();
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{SOURCE}\"\nchecksum = \"{sum}\"\n"
            )
        };
        let text: String = packages.iter().map(entry).collect();
        Lock::parse(text.as_bytes()).unwrap()
    }

    fn tree(cache: &Path, lock: &Lock) -> Result<Sources, Error> {
        let found = look(cache, lock)?;
        let chosen = found.choose(lock, cache, &file(), None)?;
        Ok(found
            .gathered
            .into_tree(|file| chosen.get(&file.path).cloned())?)
    }

    #[test]
    fn the_right_bytes_are_found_in_whichever_registry_and_go_up_under_their_names() {
        let cache = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = cache.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("one/a-1.0.0.crate", "other");
        write("two/a-1.0.0.crate", "right");
        write("two/b-1.0.0.crate", "b");
        write("two/unasked-1.0.0.crate", "x");
        let lock = lock(&[("a", b"right"), ("b", b"b")]);
        let sources = tree(cache.path(), &lock).unwrap();
        let leaf = |name: &str, content: &[u8]| {
            let object = ObjectId::of(content);
            let executable = false;
            (
                RelPath::new(name).unwrap(),
                belljar_tree::Leaf::File { object, executable },
            )
        };
        let due = [leaf("a-1.0.0.crate", b"right"), leaf("b-1.0.0.crate", b"b")];
        assert_eq!(sources.tree, belljar_tree::build(due).unwrap().root);
        assert_eq!(sources.files.len(), 2);
    }

    #[test]
    fn what_is_missing_or_differs_is_told_by_name_and_digest() {
        let cache = tempfile::tempdir().unwrap();
        let lock = lock(&[("a", b"right")]);
        let nowhere = cache.path().join("nowhere");
        let missing = tree(&nowhere, &lock).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("Cargo.lock: a 1.0.0 is missing"),
            "{missing}"
        );
        std::fs::create_dir(cache.path().join("r")).unwrap();
        std::fs::write(cache.path().join("r/a-1.0.0.crate"), "wrong").unwrap();
        let differs = tree(cache.path(), &lock).unwrap_err().to_string();
        let (expected, found) = (Digest::of(b"right"), Digest::of(b"wrong"));
        assert!(
            differs.starts_with("Cargo.lock: a 1.0.0 is not what was locked"),
            "{differs}"
        );
        assert!(
            differs.contains(&format!("{expected} is expected")),
            "{differs}"
        );
        assert!(
            differs.ends_with(&format!("r/a-1.0.0.crate has {found}")),
            "{differs}"
        );
    }
}
