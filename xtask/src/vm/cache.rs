//! Where root file systems are kept: outside of any clone of the repository, so that a fresh one finds them.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// How many are kept, those that were used last: the current recipe's, and that of another branch.
const KEPT: usize = 2;
/// What is begun and not finished by then was cut short.
const MAKING: Duration = Duration::from_secs(24 * 60 * 60);
/// What is being made has a name that begins so.
const BEGUN: &str = "making-";

/// The folder with all of them.
pub(super) struct Cache {
    folder: PathBuf,
    /// Shared by whoever uses what lies here.
    lock: File,
}

impl Cache {
    /// The user's (XDG Base Directory Specification), or else one below the target folder.
    pub(super) fn open(target: &Path) -> Result<Self> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let folder = place(variable("XDG_CACHE_HOME"), variable("HOME"), target);
        Self::open_at(folder)
    }

    fn open_at(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        lock.lock_shared()
            .with_context(|| path.display().to_string())?;
        Ok(Self { folder, lock })
    }

    /// What is called `name`: as an earlier run left it, or made now by `make`, in an empty folder.
    pub(super) fn provide(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = self.folder.join(name);
        if !place.is_dir() {
            let making = tempfile::Builder::new()
                .prefix(BEGUN)
                .tempdir_in(&self.folder)
                .context("a folder to make the root file system in")?;
            make(making.path())?;
            // Put in place only when it is whole: one that was cut short is made anew. If another run was
            // faster, its own is as good.
            let placed = std::fs::rename(making.path(), &place);
            if !place.is_dir() {
                placed.with_context(|| place.display().to_string())?;
            }
        }
        let used = File::open(&place).and_then(|folder| folder.set_modified(SystemTime::now()));
        used.with_context(|| place.display().to_string())?;
        self.tidy(name)?;
        Ok(place)
    }

    /// Removes what was used longest ago, and what was never finished; unless somebody uses any of it now.
    fn tidy(&self, current: &str) -> Result<()> {
        match self.lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(self.lock.lock_shared()?),
            Err(TryLockError::Error(error)) => return Err(error).context("the cache's lock"),
        }
        let mut finished = Vec::new();
        for entry in std::fs::read_dir(&self.folder).context("the cache")? {
            let entry = entry.context("the cache")?;
            let about = entry.metadata().context("the cache")?;
            let name = entry.file_name();
            if !about.is_dir() || name == current {
                continue;
            }
            let changed = about.modified().context("the cache")?;
            if !name.to_string_lossy().starts_with(BEGUN) {
                finished.push((changed, entry.path()));
            } else if changed.elapsed().is_ok_and(|age| age > MAKING) {
                remove(&entry.path())?;
            }
        }
        finished.sort();
        let surplus = (finished.len() + 1).saturating_sub(KEPT);
        for (_, folder) in finished.iter().take(surplus) {
            remove(folder)?;
        }
        Ok(self.lock.lock_shared()?)
    }
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}

/// A path that is not absolute counts as none, as the specification has it.
fn place(cache: Option<PathBuf>, home: Option<PathBuf>, target: &Path) -> PathBuf {
    let absolute = |path: &PathBuf| path.is_absolute();
    let home = home.filter(absolute).map(|home| home.join(".cache"));
    match cache.filter(absolute).or(home) {
        Some(cache) => cache.join("belljar/vm"),
        None => target.join("vm"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_where_the_user_has_caches() {
        let of = |cache: Option<&str>, home: Option<&str>| {
            place(
                cache.map(PathBuf::from),
                home.map(PathBuf::from),
                Path::new("/t"),
            )
        };
        assert_eq!(of(Some("/c"), Some("/h")), Path::new("/c/belljar/vm"));
        assert_eq!(of(Some("c"), Some("/h")), Path::new("/h/.cache/belljar/vm"));
        assert_eq!(of(None, Some("/h")), Path::new("/h/.cache/belljar/vm"));
        assert_eq!(of(None, Some("")), Path::new("/t/vm"));
        assert_eq!(of(None, None), Path::new("/t/vm"));
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_made_is_found_again_and_what_fails_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path().join("vm")).unwrap();
        let failed = cache.provide("a", |_| anyhow::bail!("no mirror"));
        assert_eq!(failed.unwrap_err().to_string(), "no mirror");
        assert_eq!(names(&cache.folder), [""; 0]);
        let make = |place: &Path| Ok(std::fs::write(place.join("root.img"), "it")?);
        let made = cache.provide("a", make).unwrap();
        let found = cache.provide("a", |_| anyhow::bail!("made twice")).unwrap();
        assert_eq!(made, found);
        assert_eq!(std::fs::read(found.join("root.img")).unwrap(), b"it");
    }

    #[test]
    fn the_oldest_go_unless_somebody_uses_them() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("vm");
        let cache = Cache::open_at(place.clone()).unwrap();
        let age = |name: &str, hours: u64| {
            let then = SystemTime::now() - Duration::from_secs(hours * 3600);
            let folder = File::open(place.join(name)).unwrap();
            folder.set_modified(then).unwrap();
        };
        for (name, hours) in [("a", 3), ("b", 2), ("making-x", 30), ("making-y", 1)] {
            std::fs::create_dir(place.join(name)).unwrap();
            age(name, hours);
        }
        let other = Cache::open_at(place.clone()).unwrap();
        cache.provide("c", |_| Ok(())).unwrap();
        assert_eq!(names(&place), ["a", "b", "c", "making-x", "making-y"]);
        drop(other);
        cache.provide("c", |_| Ok(())).unwrap();
        assert_eq!(names(&place), ["b", "c", "making-y"]);
    }
}
