use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, statfs};

use super::{BELLJARD, Error, GROUP, ROOT, SIGNER, STORE};

/// `OVERLAYFS_SUPER_MAGIC` (linux/magic.h).
const OVERLAYFS: u64 = 0x794c_7630;

/// A state directory that was looked at.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
}

/// A directory of the state: where, whose, for whom.
struct Directory {
    name: &'static str,
    uid: u32,
    gid: u32,
    mode: u32,
}

const fn directory(name: &'static str, uid: u32, gid: u32, mode: u32) -> Directory {
    Directory {
        name,
        uid,
        gid,
        mode,
    }
}

/// Every directory, parents first. A process can write where it owns, and read where the group may.
const LAYOUT: [Directory; 12] = [
    directory("config", ROOT, ROOT, 0o755),
    directory("daemon-logs", ROOT, ROOT, 0o700),
    directory("run", ROOT, ROOT, 0o755),
    directory("run/store", STORE, GROUP, 0o750),
    directory("run/signer", SIGNER, GROUP, 0o750),
    directory("run/spawner", ROOT, GROUP, 0o750),
    directory("run/belljard", BELLJARD, GROUP, 0o755),
    directory("store", STORE, GROUP, 0o750),
    directory("receipts", ROOT, GROUP, 0o750),
    directory("signer", SIGNER, GROUP, 0o700),
    directory("evidence", SIGNER, GROUP, 0o750),
    directory("daemon", BELLJARD, GROUP, 0o700),
];

impl State {
    /// Makes the directory if it is missing, and checks that it is safe: root's alone up to the top, open to
    /// the other user ids, and on a file system that images can lie on.
    pub(super) fn prepare(path: &Path) -> Result<Self, Error> {
        let set_up = |source: io::Error| Error::SetUp {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(set_up)?;
        let path = path.canonicalize().map_err(set_up)?;
        for above in path.ancestors() {
            let status = above.metadata().map_err(set_up)?;
            check(above, above == path, status.uid(), status.mode())?;
        }
        let status = statfs(&path).map_err(|e| set_up(e.into()))?;
        if u64::try_from(status.f_type) == Ok(OVERLAYFS) {
            return Err(Error::State {
                path: path.display().to_string(),
                why: "lies on overlayfs, where the files of a build cannot be mounted from"
                    .to_owned(),
                hint: "choose a directory on a real file system by --state; in a container, mount a volume there",
            });
        }
        let state = Self { path };
        state.make(&directory("", ROOT, ROOT, 0o755))?;
        Ok(state)
    }

    /// Where it is, without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes every directory. What sockets an earlier run left is removed: whoever waits for a socket waits for
    /// the new one.
    pub(super) fn lay_out(&self) -> Result<(), Error> {
        for directory in &LAYOUT {
            self.make(directory)?;
        }
        for name in ["store", "signer", "spawner", "belljard"] {
            let socket = self.path.join(format!("run/{name}/{name}.sock"));
            match std::fs::remove_file(&socket) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::SetUp {
                        path: socket,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make(&self, directory: &Directory) -> Result<(), Error> {
        let path = self.path.join(directory.name);
        let set_up = |source: io::Error| Error::SetUp {
            path: path.clone(),
            source,
        };
        // Nobody but root can look into it before it has its owner.
        let new = match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(set_up(e)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, &path, flags, Mode::empty()).map_err(|e| set_up(e.into()))?;
        let (uid, gid) = (Uid::from_raw(directory.uid), Gid::from_raw(directory.gid));
        if new {
            fchown(&opened, Some(uid), Some(gid)).map_err(|e| set_up(e.into()))?;
        }
        let opened = File::from(opened);
        let status = opened.metadata().map_err(set_up)?;
        if (status.uid(), status.gid()) != (directory.uid, directory.gid) {
            return Err(Error::State {
                path: path.display().to_string(),
                why: format!(
                    "belongs to {}:{}; {}:{} is due",
                    status.uid(),
                    status.gid(),
                    directory.uid,
                    directory.gid
                ),
                hint: "choose a new directory by --state, or remove this one",
            });
        }
        fchmod(&opened, Mode::from_raw_mode(directory.mode)).map_err(|e| set_up(e.into()))
    }
}

/// Whether a directory on the way to the state, or the state itself, is safe and open.
fn check(path: &Path, is_state: bool, owner: u32, mode: u32) -> Result<(), Error> {
    let refused = |why: &str, hint| {
        Err(Error::State {
            path: path.display().to_string(),
            why: why.to_owned(),
            hint,
        })
    };
    if owner != ROOT {
        let hint =
            "choose a directory by --state that only root can replace, such as one below /var/lib";
        return refused(
            "belongs to another user, who could replace what lies in it",
            hint,
        );
    }
    // In a sticky directory, such as /tmp, only a file's owner can replace it.
    if mode & 0o022 != 0 && (is_state || mode & 0o1000 == 0) {
        let hint =
            "take away the write permission of others, or choose another directory by --state";
        return refused("can be written to by others than root", hint);
    }
    if !is_state && mode & 0o001 == 0 {
        let hint = "allow it by `chmod o+x`, or choose another directory by --state";
        return refused(
            "cannot be entered by other users, and Belljar's processes run under user ids of their own",
            hint,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(is_state: bool, owner: u32, mode: u32) -> Result<(), String> {
        check(Path::new("/x"), is_state, owner, mode).map_err(|e| e.to_string())
    }

    #[test]
    fn the_way_to_the_state_is_safe_and_open() {
        assert_eq!(verdict(false, 0, 0o755), Ok(()));
        assert_eq!(verdict(false, 0, 0o711), Ok(()));
        assert_eq!(verdict(false, 0, 0o1777), Ok(()));
        assert_eq!(
            verdict(true, 0, 0o700),
            Ok(()),
            "it is opened when it is laid out"
        );
        assert!(
            verdict(false, 0, 0o700)
                .unwrap_err()
                .contains("cannot be entered")
        );
        assert!(
            verdict(false, 1000, 0o755)
                .unwrap_err()
                .contains("another user")
        );
        assert!(
            verdict(false, 0, 0o775)
                .unwrap_err()
                .contains("written to by others")
        );
        assert!(
            verdict(true, 0, 0o1777)
                .unwrap_err()
                .contains("written to by others")
        );
    }

    #[test]
    fn parents_come_first() {
        for (at, directory) in LAYOUT.iter().enumerate() {
            if let Some((parent, _)) = directory.name.rsplit_once('/') {
                assert!(
                    LAYOUT[..at].iter().any(|other| other.name == parent),
                    "{}",
                    directory.name
                );
            }
        }
    }
}
