//! Places in output directories that a killed `belljar` has left: whoever comes next removes them.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, FlockOperation, Mode, flock, fstat, openat};
use rustix::io::Errno;

use super::DIRECTORY;

/// What the names begin with; a UUID follows.
const PREFIX: &str = ".belljar-";
/// How long one may be there before its owner has claimed it.
const UNCLAIMED: Duration = Duration::from_mins(1);

/// A name that nobody has used before.
pub(super) fn new_name() -> String {
    format!("{PREFIX}{}", crate::random::uuid())
}

/// Shows everybody else that somebody lives who uses it, as long as it is open (flock(2)). Where a file system has no
/// such locks, nobody can show anything, and nothing is removed.
pub(super) fn claim(place: impl AsFd) {
    let _ = flock(place, FlockOperation::NonBlockingLockExclusive);
}

/// Removes those in `directory`, which is at `path`, that nobody claims and that are not new. What cannot be removed is
/// in nobody's way.
pub(super) fn remove(path: &Path, directory: impl AsFd) {
    let Ok(entries) = Dir::read_from(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if is_ours(name) && is_abandoned(&directory, name) == Ok(true) {
            let _ = std::fs::remove_dir_all(path.join(name));
        }
    }
}

/// Whether it is a name like those of [`new_name`].
fn is_ours(name: &str) -> bool {
    let Some(uuid) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let lengths = uuid.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

fn is_abandoned(directory: impl AsFd, name: &str) -> Result<bool, Errno> {
    let place = openat(directory, name, DIRECTORY, Mode::empty())?;
    flock(&place, FlockOperation::NonBlockingLockExclusive)?;
    let changed = u64::try_from(fstat(&place)?.st_mtime).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.unwrap_or_default().as_secs().saturating_sub(changed);
    Ok(age > UNCLAIMED.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;
    use crate::fetch::Output;

    #[test]
    fn what_a_killed_one_has_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let old = FileTimes::new().set_modified(SystemTime::now() - UNCLAIMED * 2);
        let made = |name: &str, times: Option<FileTimes>| {
            let place = dir.path().join(name);
            std::fs::create_dir(&place).unwrap();
            std::fs::write(place.join("part"), "of it").unwrap();
            let opened = File::open(&place).unwrap();
            if let Some(times) = times {
                opened.set_times(times).unwrap();
            }
            (place, opened)
        };
        let (left, _) = made(&new_name(), Some(old));
        let (new, _) = made(&new_name(), None);
        let (others, _) = made(".belljar-of-somebody-else", Some(old));
        let (used, in_use) = made(&new_name(), Some(old));
        claim(&in_use);
        // An output directory that is open keeps its own place from others.
        let first = Output::open(dir.path()).unwrap();
        let there = || [&left, &new, &others, &used].map(|place| place.exists());
        assert_eq!(there(), [false, true, true, true]);
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        let before = count();
        drop(Output::open(dir.path()).unwrap());
        assert_eq!(count(), before);
        drop(first);
        assert_eq!(count(), before - 1);
    }
}
