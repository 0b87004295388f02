//! How objects go: those that nobody needs, and those that are damaged.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use belljar_core::{Digest, bounds};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::Writer;
use crate::layout::object_path;

/// What became of an object that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed {
        /// Bytes that it took on disk.
        bytes: u64,
    },
    /// There is none.
    Absent,
    /// It stays: it was given, perhaps once more, too lately.
    Given,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has other content.
    Content,
    /// The disk does not give it, now: all of it may be there.
    Unread,
}

/// What became of an object that was found damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantined {
    /// It lies in `quarantine/`.
    Aside,
    /// It is gone: too many lie there.
    Removed,
    /// It stays where it was: too many lie there, and it may be whole.
    Stays,
    /// It was replaced meanwhile, or is gone.
    Replaced,
}

impl Writer {
    /// Removes an object, unless it was given at `before` (in seconds since 1970) or later. It is gone at once
    /// for who looks; after a loss of power it may be there again.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, digest: Digest, before: u64) -> io::Result<Removal> {
        let path = object_path(digest);
        let _names = self.0.lock();
        let status = match statat(&self.0.objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => return Ok(Removal::Absent),
            Err(error) => return Err(error.into()),
        };
        if u64::try_from(status.st_ctime).unwrap_or(0) >= before {
            return Ok(Removal::Given);
        }
        unlinkat(&self.0.objects, &path, AtFlags::empty())?;
        self.0.stamps.forget(digest);
        Ok(Removal::Removed {
            bytes: u64::try_from(status.st_blocks).unwrap_or(0) * 512,
        })
    }

    /// Puts a damaged object aside: nobody finds it by its name any more, and who has its content may give it
    /// again. `inode` is that of the file that was found to be so. Durable when this returns.
    ///
    /// # Errors
    /// What the system says.
    pub fn quarantine(&self, digest: Digest, inode: u64, fault: Fault) -> io::Result<Quarantined> {
        let path = object_path(digest);
        let full = !has_room(&self.0.quarantine)?;
        if full && fault == Fault::Unread {
            return Ok(Quarantined::Stays);
        }
        let _names = self.0.lock();
        match statat(&self.0.objects, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if status.st_ino == inode => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(Quarantined::Replaced),
            Err(error) => return Err(error.into()),
        }
        self.0.stamps.forget(digest);
        self.0.damages.fetch_add(1, Ordering::SeqCst);
        let done = if full {
            unlinkat(&self.0.objects, &path, AtFlags::empty())?;
            Quarantined::Removed
        } else {
            let name = digest.to_hex();
            renameat(&self.0.objects, &path, &self.0.quarantine, name)?;
            Quarantined::Aside
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fsync(openat(&self.0.objects, &path[..2], flags, Mode::empty())?)?;
        fsync(openat(&self.0.quarantine, ".", flags, Mode::empty())?)?;
        Ok(done)
    }
}

/// Whether what is damaged may be put into this directory, or too much lies there.
pub(crate) fn has_room(quarantine: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entries = Dir::new(openat(quarantine, ".", flags, Mode::empty())?)?;
    // Two of them are no files.
    Ok(entries.count().saturating_sub(2) < bounds::QUARANTINED)
}
