use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use belljar_core::Digest;
use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, fstatfs, fsync,
    futimens, mkdirat, open, openat, utimensat,
};
use rustix::io::Errno;

use crate::LayoutError;

/// Objects by SHA-256, below the store's root.
pub const OBJECTS: &str = "objects/sha256";
/// Names that exist for a moment only, below the store's root.
pub const TMP: &str = "tmp";
/// Logs of attempts, below the store's root.
pub const LOGS: &str = "logs";
/// Marks of the records of derivations that the store made itself, below the store's root.
pub const DERIVATIONS: &str = "derivations";
/// Mountable images of trees, below the store's root.
pub const IMAGES: &str = "images";

/// What objects looked like when they were verified, a file below the store's root.
pub const STAMPS: &str = "stamps.v1";
/// Damaged objects, below the store's root: nobody reads them but people.
pub const QUARANTINE: &str = "quarantine";

/// Modification time of every object since its content was verified: whoever writes to it changes that, also
/// within the tick of the kernel's clock in which it was verified, where the time of change stays. One second
/// after the beginning of 1970, which no clock says.
pub(crate) const VERIFIED: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// `OVERLAYFS_SUPER_MAGIC` (statfs(2)).
const OVERLAYFS: i64 = 0x794c_7630;

/// Directories of the store: its group reads, nobody else enters.
const DIRECTORY_MODE: u32 = 0o750;

/// The path of an object below [`OBJECTS`].
pub(crate) fn object_path(digest: Digest) -> String {
    let hex = digest.to_hex();
    let (directory, name) = object_place(&hex);
    format!("{directory}/{name}")
}

/// The directory of an object below [`OBJECTS`], and its name there, out of its digest in hexadecimal digits.
pub(crate) fn object_place(hex: &str) -> (&str, &str) {
    hex.split_at(2)
}

/// The path of an object, below the store's `root`.
pub fn path_of(root: &Path, digest: Digest) -> PathBuf {
    root.join(OBJECTS).join(object_path(digest))
}

/// Notes on an object that its content was verified.
pub(crate) fn mark_verified(file: impl AsFd) -> io::Result<()> {
    Ok(futimens(file, &TIMES)?)
}

/// The same by its path below `objects`.
pub(crate) fn mark_verified_at(objects: impl AsFd, path: &str) -> io::Result<()> {
    Ok(utimensat(objects, path, &TIMES, AtFlags::SYMLINK_NOFOLLOW)?)
}

const TIMES: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    },
    last_modification: VERIFIED,
};

/// Opens the store's root after seeing that it can be one, and makes every directory of the layout, so
/// that no write ever has to make one, or make one durable.
pub(crate) fn create(root: &Path) -> Result<OwnedFd, LayoutError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| LayoutError::Io { path, source }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(root, flags, Mode::empty()).map_err(|e| failed(root)(e.into()))?;
    refuse_overlay(
        root,
        fstatfs(&top).map_err(|e| failed(root)(e.into()))?.f_type,
    )?;
    refuse_exposed(root, &top)?;
    for name in [
        "objects",
        OBJECTS,
        TMP,
        LOGS,
        IMAGES,
        DERIVATIONS,
        QUARANTINE,
    ] {
        directory(&top, name).map_err(failed(&root.join(name)))?;
    }
    let objects = root.join(OBJECTS);
    let all =
        openat(&top, OBJECTS, flags, Mode::empty()).map_err(|e| failed(&objects)(e.into()))?;
    for prefix in 0..=u8::MAX {
        let name = format!("{prefix:02x}");
        directory(&all, &name).map_err(failed(&objects.join(&name)))?;
    }
    for directory in [all.as_fd(), top.as_fd()] {
        fsync(directory).map_err(|e| failed(root)(e.into()))?;
    }
    Ok(top)
}

fn refuse_overlay(root: &Path, magic: i64) -> Result<(), LayoutError> {
    match magic {
        OVERLAYFS => Err(LayoutError::Overlay(root.to_owned())),
        _ => Ok(()),
    }
}

fn refuse_exposed(root: &Path, top: &OwnedFd) -> Result<(), LayoutError> {
    let status = fstat(top).map_err(|e| LayoutError::Io {
        path: root.to_owned(),
        source: e.into(),
    })?;
    let uid = rustix::process::geteuid().as_raw();
    let mode = status.st_mode & 0o7777;
    if status.st_uid != uid || mode & 0o022 != 0 {
        return Err(LayoutError::Exposed {
            path: root.to_owned(),
            uid,
            owner: status.st_uid,
            mode,
        });
    }
    Ok(())
}

/// Makes a directory that is not there yet, whatever the umask.
fn directory(parent: &OwnedFd, name: &str) -> io::Result<()> {
    let mode = Mode::from_raw_mode(DIRECTORY_MODE);
    let made = match mkdirat(parent, name, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(openat(parent, name, flags, Mode::empty())?);
    if made {
        fchmod(&opened, mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn the_layout_is_complete_and_can_be_made_again() {
        let root = tempfile::tempdir().unwrap();
        create(root.path()).unwrap();
        create(root.path()).unwrap();
        let mode = |name: &str| std::fs::metadata(root.path().join(name)).unwrap().mode() & 0o7777;
        for name in [
            "objects",
            "objects/sha256/00",
            "objects/sha256/ff",
            TMP,
            LOGS,
            IMAGES,
            DERIVATIONS,
            QUARANTINE,
        ] {
            assert_eq!(mode(name), DIRECTORY_MODE, "{name}");
        }
    }

    #[test]
    fn overlayfs_is_refused_with_a_hint() {
        let error = refuse_overlay(Path::new("/x"), OVERLAYFS).unwrap_err();
        assert!(error.to_string().contains("hint"));
        // tmpfs and ext4, statfs(2)
        assert!(refuse_overlay(Path::new("/x"), 0x0102_1994).is_ok());
        assert!(refuse_overlay(Path::new("/x"), 0xef53).is_ok());
    }

    #[test]
    fn a_root_that_others_may_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o770)).unwrap();
        assert!(matches!(
            create(root.path()),
            Err(LayoutError::Exposed { mode: 0o770, .. })
        ));
    }

    #[test]
    fn a_link_in_place_of_a_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), root.path().join(LOGS)).unwrap();
        assert!(
            matches!(create(root.path()), Err(LayoutError::Io { path, .. }) if path.ends_with(LOGS))
        );
    }
}
