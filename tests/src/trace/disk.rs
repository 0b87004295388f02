//! A disk that loses its power: what was recorded is replayed, and what nobody has made durable may be gone.
//!
//! Nothing is assumed but what fsync(2), fdatasync(2) and syncfs(2) promise: the content of a file is durable when the
//! file was synced, a name when its directory was. In between anything may have reached the disk; looked at are the
//! two ends of that, which every order of writing lies between.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Change, File};

/// What of a state directory is on disk for its own sake.
const KEPT: [&str; 5] = ["daemon", "receipts", "evidence", "store", "signer"];

/// A disk, as its processes see it and as it is.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    state: PathBuf,
    files: BTreeMap<File, Content>,
    names: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    seen: Body,
    durable: Body,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Body {
    bytes: Vec<u8>,
    mode: u32,
    owner: u32,
    group: u32,
    modified: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    File(File),
    Directory { mode: u32, owner: u32, group: u32 },
}

/// What is left after a loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// What was made durable, and no more.
    Durable,
    /// Every name, but of each file only the content that was made durable.
    Names,
}

impl Disk {
    /// The disk below a state directory as it is, all of it durable.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(state: &Path) -> io::Result<Self> {
        let mut disk = Self {
            state: state.to_owned(),
            ..Self::default()
        };
        for kept in KEPT {
            disk.load_tree(&state.join(kept))?;
        }
        disk.durable = disk.names.clone();
        Ok(disk)
    }

    fn load_tree(&mut self, path: &Path) -> io::Result<()> {
        let status = fs::symlink_metadata(path)?;
        let (mode, owner, group) = (status.mode() & 0o7777, status.uid(), status.gid());
        if status.is_dir() {
            let entry = Entry::Directory { mode, owner, group };
            self.names.insert(path.to_owned(), entry);
            for entry in fs::read_dir(path)? {
                self.load_tree(&entry?.path())?;
            }
            return Ok(());
        }
        // SQLite makes its index of the log anew.
        if path.to_string_lossy().ends_with("-shm") {
            return Ok(());
        }
        let body = Body {
            bytes: fs::read(path)?,
            mode,
            owner,
            group,
            modified: status.mtime(),
        };
        let file = (status.dev(), status.ino());
        let content = Content {
            seen: body.clone(),
            durable: body,
        };
        self.files.insert(file, content);
        self.names.insert(path.to_owned(), Entry::File(file));
        Ok(())
    }

    /// Does what a process with these ids has done.
    ///
    /// # Panics
    /// When it is about a file that nobody has made.
    pub fn apply(&mut self, change: &Change, (owner, group): (u32, u32)) {
        match change {
            Change::Create { file, path, mode } => {
                let named = path.as_ref().map(PathBuf::from);
                if named
                    .as_ref()
                    .is_some_and(|path| self.names.contains_key(path))
                {
                    return;
                }
                let body = Body {
                    mode: *mode,
                    owner,
                    group,
                    ..Body::default()
                };
                let durable = body.clone();
                self.files.insert(
                    *file,
                    Content {
                        seen: body,
                        durable,
                    },
                );
                if let Some(path) = named.filter(|path| self.is_kept(path)) {
                    self.names.insert(path, Entry::File(*file));
                }
            }
            Change::Write {
                file,
                offset,
                bytes,
            } => {
                let offset = usize::try_from(*offset).expect("an offset");
                let Some(body) = self.seen(file) else { return };
                let end = offset + bytes.len() / 2;
                if body.bytes.len() < end {
                    body.bytes.resize(end, 0);
                }
                for (at, digits) in bytes.as_bytes().chunks(2).enumerate() {
                    let digits = std::str::from_utf8(digits).expect("digits");
                    body.bytes[offset + at] = u8::from_str_radix(digits, 16).expect("digits");
                }
            }
            Change::Truncate { file, length } => {
                let length = usize::try_from(*length).expect("a length");
                if let Some(body) = self.seen(file) {
                    body.bytes.resize(length, 0);
                }
            }
            Change::Attributes {
                file,
                mode,
                group,
                modified,
            } => {
                if let Some(body) = self.seen(file) {
                    (body.mode, body.group, body.modified) = (*mode, *group, *modified);
                }
            }
            _ => self.apply_to_names(change, (owner, group)),
        }
    }

    fn apply_to_names(&mut self, change: &Change, (owner, group): (u32, u32)) {
        match change {
            Change::Directory { path, mode } if self.is_kept(Path::new(path)) => {
                let mode = *mode;
                let entry = Entry::Directory { mode, owner, group };
                self.names.insert(PathBuf::from(path), entry);
            }
            Change::Link { file, path } => {
                let taken = self.names.contains_key(Path::new(path));
                if !taken && self.files.contains_key(file) {
                    self.names.insert(PathBuf::from(path), Entry::File(*file));
                }
            }
            Change::Rename { from, to } => {
                if let Some(entry) = self.names.remove(Path::new(from)) {
                    self.names.insert(PathBuf::from(to), entry);
                }
            }
            Change::Remove { path } => drop(self.names.remove(Path::new(path))),
            Change::Sync {
                directory: Some(directory),
                ..
            } => self.sync_names(|path| path.parent() == Some(Path::new(directory))),
            Change::Sync { file, .. } => {
                if let Some(content) = self.files.get_mut(file) {
                    content.durable = content.seen.clone();
                }
            }
            Change::SyncAll => {
                self.sync_names(|_| true);
                for content in self.files.values_mut() {
                    content.durable = content.seen.clone();
                }
            }
            _ => {}
        }
    }

    fn sync_names(&mut self, which: impl Fn(&Path) -> bool) {
        self.durable
            .retain(|path, _| !which(path) || self.names.contains_key(path));
        for (path, entry) in self.names.iter().filter(|(path, _)| which(path)) {
            self.durable.insert(path.clone(), *entry);
        }
    }

    fn seen(&mut self, file: &File) -> Option<&mut Body> {
        self.files.get_mut(file).map(|content| &mut content.seen)
    }

    fn is_kept(&self, path: &Path) -> bool {
        let mut kept = KEPT.iter();
        kept.any(|kept| path.starts_with(self.state.join(kept)))
    }

    /// The files that are left below a directory of the state, by their names there.
    pub fn left(&self, left: Left, directory: &str) -> BTreeMap<PathBuf, &[u8]> {
        let directory = self.state.join(directory);
        let names = match left {
            Left::Durable => &self.durable,
            Left::Names => &self.names,
        };
        let files = names.iter().filter_map(|(path, entry)| {
            let name = path.strip_prefix(&directory).ok()?;
            let Entry::File(file) = entry else {
                return None;
            };
            let content = &self.files.get(file)?.durable;
            Some((name.to_owned(), content.bytes.as_slice()))
        });
        files.collect()
    }

    /// Whether every name below a directory of the state is durable, and all that it stands for.
    pub fn is_durable(&self, directory: &str) -> bool {
        let directory = self.state.join(directory);
        let mut names = self.names.iter();
        names.all(|(path, entry)| {
            let whole = match entry {
                Entry::File(file) => {
                    let content = self.files.get(file);
                    content.is_some_and(|content| content.seen == content.durable)
                }
                Entry::Directory { .. } => true,
            };
            !path.starts_with(&directory) || (whole && self.durable.get(path) == Some(entry))
        })
    }

    /// Puts what is left into the place of what is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restore(&self, left: Left) -> io::Result<()> {
        for kept in KEPT {
            fs::remove_dir_all(self.state.join(kept))?;
        }
        let names = match left {
            Left::Durable => &self.durable,
            Left::Names => &self.names,
        };
        for (path, entry) in names {
            // Without its directory it is lost, too.
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match entry {
                Entry::Directory { mode, owner, group } => {
                    DirBuilder::new().mode(*mode).create(path)?;
                    chown(path, Some(*owner), Some(*group))?;
                    fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
                }
                Entry::File(file) => {
                    let Some(Content { durable, .. }) = self.files.get(file) else {
                        continue;
                    };
                    let mut made = fs::File::create(path)?;
                    made.write_all(&durable.bytes)?;
                    chown(path, Some(durable.owner), Some(durable.group))?;
                    made.set_permissions(fs::Permissions::from_mode(durable.mode))?;
                    let modified = u64::try_from(durable.modified).unwrap_or_default();
                    made.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is written and gets its name, with these calls in between and after.
    fn after(calls: &[Change]) -> (Disk, PathBuf) {
        let state = tempfile::tempdir().unwrap();
        for kept in KEPT {
            fs::create_dir(state.path().join(kept)).unwrap();
        }
        let mut disk = Disk::load(state.path()).unwrap();
        for call in calls {
            disk.apply(call, (0, 0));
        }
        (disk, state.path().join("receipts/one"))
    }

    fn calls(path: &Path) -> [Change; 5] {
        let (file, path) = ((1, 7), path.to_str().unwrap().to_owned());
        let directory = Path::new(&path).parent().unwrap().to_str().unwrap();
        [
            Change::Create {
                file,
                path: None,
                mode: 0o640,
            },
            Change::Write {
                file,
                offset: 0,
                bytes: "6869".to_owned(),
            },
            Change::Sync {
                file,
                directory: None,
            },
            Change::Link {
                file,
                path: path.clone(),
            },
            Change::Sync {
                file: (1, 8),
                directory: Some(directory.to_owned()),
            },
        ]
    }

    #[test]
    fn what_was_not_synced_is_lost() {
        let (mut disk, path) = after(&[]);
        let calls = calls(&path);
        let one = |disk: &Disk, left| {
            let files = disk.left(left, "receipts");
            files.get(Path::new("one")).map(|bytes| bytes.to_vec())
        };
        for call in &calls[..4] {
            disk.apply(call, (0, 0));
        }
        assert_eq!(one(&disk, Left::Durable), None);
        assert_eq!(one(&disk, Left::Names), Some(b"hi".to_vec()));
        assert!(!disk.is_durable("receipts"));
        disk.apply(&calls[4], (0, 0));
        assert_eq!(one(&disk, Left::Durable), Some(b"hi".to_vec()));
        assert!(disk.is_durable("receipts") && disk.is_durable("evidence"));
        // The same without the first of the syncs.
        let (mut disk, path) = after(&[]);
        let calls = self::calls(&path);
        for call in [&calls[..2], &calls[3..]].concat() {
            disk.apply(&call, (0, 0));
        }
        assert_eq!(one(&disk, Left::Durable), Some(Vec::new()));
        assert!(!disk.is_durable("receipts"));
    }
}
