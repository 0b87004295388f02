//! Tarballs out of npm's own cache, where content lies by its digest.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_core::{RelPath, Sha512Digest, Sha512Hasher, bounds};
use belljar_lock::npm::{CONTENT, Lock, Package};
use belljar_manifest::LockFile;

use super::{Error, named, program, wrong};
use crate::source::{self, Gathered, SourceFile, Sources};
use crate::terminal::Terminal;

/// Packages that npm is asked for at once.
const BATCH: usize = 50;
/// The system that builds run on, as npm names it.
const OS: &str = "linux";

/// The packages of a `package-lock.json`.
pub(super) fn packages(
    file: &LockFile,
    bytes: &[u8],
    terminal: &mut Terminal,
) -> Result<Sources, Error> {
    let lock = Lock::parse(bytes).map_err(|e| wrong(file, e))?;
    let (wanted, others): (Vec<&Package>, Vec<&Package>) = lock
        .packages
        .iter()
        .partition(|package| package.is_for(OS, cpu()));
    let cache = cache()?;
    let mut missing = lacking(&cache, &wanted);
    let mut said = None;
    if !missing.is_empty() {
        terminal.phase(&format!(
            "{}: {} of {} packages are not in npm's cache; asking `npm cache add`",
            file.path,
            missing.len(),
            wanted.len()
        ));
        said = fetch(&missing).err();
        missing = lacking(&cache, &missing);
    }
    if let Some(package) = missing.first() {
        return Err(Error::Missing {
            package: named(file, package),
            expected: package.integrity.to_string(),
            place: cache,
            said: said.map(Box::new),
        });
    }
    let packages = tree(&cache, &wanted, file)?;
    let left_out = match others.len() {
        0 => String::new(),
        count => format!("; {count} for other systems are left out"),
    };
    terminal.phase(&format!(
        "{}: {} packages, as locked{left_out}",
        file.path,
        wanted.len()
    ));
    Ok(packages)
}

/// The processor that builds run on, as npm names it: the daemon's is this host's.
fn cpu() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where npm keeps what it fetches.
fn cache() -> Result<PathBuf, Error> {
    let mut command = Command::new("npm");
    command.args(["config", "get", "cache"]);
    let what = "npm config get cache";
    let answer = program::ask(command, what)?;
    let path = String::from_utf8(answer)
        .ok()
        .map(|text| PathBuf::from(text.trim_end_matches('\n')));
    let path = path.filter(|path| path.is_absolute());
    Ok(path.ok_or_else(|| program::Error::Answer {
        what: what.to_owned(),
    })?)
}

/// Those that the cache does not have.
fn lacking<'a>(cache: &Path, packages: &[&'a Package]) -> Vec<&'a Package> {
    let has = |package: &Package| {
        let status = cache.join(package.content_path()).symlink_metadata();
        status.is_ok_and(|status| status.is_file())
    };
    packages
        .iter()
        .filter(|package| !has(package))
        .copied()
        .collect()
}

/// Asks npm to fetch packages into its cache, by name and version from the registries that the user has configured. All
/// are tried, whatever becomes of the others.
///
/// Never by the place that the lock file gives: what npm does with that is npm's to say, whatever it looks like. Of a URL
/// below `https://github.com/` it clones a repository, and runs scripts that are in there.
fn fetch(packages: &[&Package]) -> Result<(), program::Error> {
    let mut done = Ok(());
    for batch in packages.chunks(BATCH) {
        let mut command = Command::new("npm");
        command
            .args([
                "cache",
                "add",
                "--ignore-scripts",
                "--no-update-notifier",
                "--no-progress",
                "--",
            ])
            .args(batch.iter().map(ToString::to_string));
        let asked = program::ask(command, "npm cache add").map(drop);
        done = done.and(asked);
    }
    done
}

/// The tree of the wanted packages, named by their digests, after a look whether each has its own.
fn tree(cache: &Path, wanted: &[&Package], file: &LockFile) -> Result<Sources, Error> {
    let content = cache.join(CONTENT);
    let mut by_path: BTreeMap<RelPath, &Package> = BTreeMap::new();
    for package in wanted {
        let path = package.content_path();
        let below = path
            .strip_prefix(CONTENT)
            .unwrap_or(&path)
            .trim_start_matches('/');
        by_path.insert(RelPath::new(below).map_err(|e| wrong(file, e))?, package);
    }
    let gathered = match by_path.is_empty() {
        // The directory need not be there.
        true => Gathered::hash(Path::new("/"), Vec::new())?,
        false => Gathered::hash(&content, by_path.keys().cloned().collect())?,
    };
    for found in &gathered.files {
        let Some(package) = by_path.get(&found.path) else {
            continue;
        };
        let digest = sha512(&gathered, found)?;
        if digest != package.integrity {
            return Err(Error::Differs {
                package: named(file, package),
                file: content.join(found.path.as_str()),
                expected: package.integrity.to_string(),
                found: digest.to_string(),
            });
        }
    }
    let name = |found: &SourceFile| {
        let package = by_path.get(&found.path)?;
        RelPath::new(format!("{}.tgz", package.integrity.to_hex())).ok()
    };
    Ok(gathered.into_tree(name)?)
}

fn sha512(gathered: &Gathered, file: &SourceFile) -> Result<Sha512Digest, source::Error> {
    let mut opened = gathered.open(file)?;
    let mut hasher = Sha512Hasher::new();
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        let read = opened
            .read(&mut buffer)
            .map_err(|e| gathered.unreadable(file, e))?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_lock::Ecosystem;

    /// The SHA-512 of nothing at all, in base 64.
    const EMPTY: &str =
        "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";

    fn lock() -> Lock {
        let text = format!(
            r#"{{"lockfileVersion": 3, "packages": {{"node_modules/x": {{"version": "1.0.0",
            "resolved": "https://r.example/x/-/x-1.0.0.tgz", "integrity": "sha512-{EMPTY}"}}}}}}"#
        );
        Lock::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn tarballs_are_found_by_their_digest_and_looked_at() {
        let file = LockFile {
            path: RelPath::new("package-lock.json").unwrap(),
            ecosystem: Ecosystem::Npm,
        };
        let cache = tempfile::tempdir().unwrap();
        let lock = lock();
        let wanted: Vec<&Package> = lock.packages.iter().collect();
        assert_eq!(lacking(cache.path(), &wanted), wanted);
        let place = cache.path().join(wanted[0].content_path());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "").unwrap();
        assert!(lacking(cache.path(), &wanted).is_empty());
        let sources = tree(cache.path(), &wanted, &file).unwrap();
        assert_eq!(sources.files.len(), 1);
        std::fs::write(&place, "x").unwrap();
        let differs = tree(cache.path(), &wanted, &file).unwrap_err().to_string();
        assert!(
            differs.starts_with("package-lock.json: x@1.0.0 is not what was locked: sha512:cf83"),
            "{differs}"
        );
        assert!(
            differs.ends_with(&Sha512Digest::of(b"x").to_string()),
            "{differs}"
        );
    }
}
