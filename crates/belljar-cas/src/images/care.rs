//! The care of images that are there: whether they are whole, and what becomes of those that are not.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::Images;
use super::end::{self, End};
use crate::Finding;
use crate::failure::is_unreadable;
use crate::removal::has_room;
use crate::usage::tree_of;

impl Images {
    /// The names of all images that are there.
    ///
    /// # Errors
    /// What the system says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            names.extend(
                name.filter(|name| tree_of(name).is_some())
                    .map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// Reads an image to its end, whatever was noted of it. One that is damaged is put aside, and made anew from its
    /// tree when it is asked for next; so is one that the disk does not give, as long as these are few. `told` hears how many
    /// bytes each piece has that was read, and may keep the next one waiting.
    ///
    /// # Errors
    /// When it cannot be told, or put aside.
    pub fn examine(&self, name: &str, told: &mut dyn FnMut(usize)) -> io::Result<Finding> {
        let Some(file) = self.find(name)? else {
            return Ok(Finding::Absent);
        };
        let status = file.metadata()?;
        let (size, inode) = (status.size(), status.ino());
        let finding = match end::read_whole(&file, told) {
            Ok(Some(_)) => return Ok(Finding::Whole { size }),
            Ok(None) => Finding::Damaged { size, inode },
            Err(error) if is_unreadable(&error) => {
                self.few.take()?;
                Finding::Unread { size, inode }
            }
            Err(error) => return Err(error),
        };
        Ok(match self.put_aside(name, inode)? {
            true => finding,
            false => Finding::Absent,
        })
    }

    /// The end of an image, which is believed where the image is `known`. None where it is damaged, or the disk does not give it:
    /// that is counted, since builds may have it mounted.
    pub(super) fn end_of(&self, file: &File, known: bool) -> io::Result<Option<End>> {
        let end = match known {
            true => end::read(file),
            false => end::read_whole(file, &mut |_| {}),
        };
        let end = match end {
            Err(error) if is_unreadable(&error) => None,
            end => end?,
        };
        if end.is_none() {
            self.damages.fetch_add(1, Ordering::SeqCst);
        }
        Ok(end)
    }

    /// How many damaged images were put aside, or had others put in their place, since this process began. Who had one
    /// before may have read from it.
    pub fn damages(&self) -> u64 {
        self.damages.load(Ordering::SeqCst)
    }

    /// Removes an image; it is made anew when it is needed. Gives the bytes that it took on disk; none where
    /// there was no such image.
    ///
    /// # Errors
    /// What the system says.
    pub fn evict(&self, name: &str) -> io::Result<Option<u64>> {
        let Some(file) = self.find(name)? else {
            return Ok(None);
        };
        let bytes = file.metadata()?.blocks() * 512;
        self.lock().remove(name);
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) => Ok(Some(bytes)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the name of the image in the file `inode`, durably; whether it had it still.
    fn put_aside(&self, name: &str, inode: u64) -> io::Result<bool> {
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) if status.st_ino == inode => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // Before it is done: whoever looks after this finds it counted.
        self.damages.fetch_add(1, Ordering::SeqCst);
        if has_room(&self.quarantine)? {
            renameat(&self.directory, name, &self.quarantine, name)?;
        } else {
            unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        self.lock().remove(name);
        self.held.let_go(name);
        self.directory.sync_all()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fsync(openat(&self.quarantine, ".", flags, Mode::empty())?)?;
        Ok(true)
    }
}
