mod care;
mod end;
mod held;
mod removals;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use belljar_core::{ObjectId, bounds};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, fchmod, fsync, linkat, open, openat, openat2,
    renameat, unlinkat,
};
use rustix::io::Errno;

use crate::failure::is_full;
use crate::few::Few;
use crate::tree::{Measure, Tree, all, are_whole};
use crate::{BlobSource, HeldObject, IMAGES, LayoutError, QUARANTINE, Room, TMP, TreeError};

use held::HeldTrees;

/// An image is never written to once it has a name.
const IMAGE_MODE: u32 = 0o440;
/// Mountable images of trees, on disk: each is the tree as [`belljar_tree::erofs`] writes it, the list of
/// objects that it names, and a digest of all that. That an image is there means that its tree was
/// verified, message by message and object by object.
///
/// Nobody waits for the disk until the first build that had the image is over: a name of which power loss has
/// taken the content has the wrong digest, and the image is made anew.
#[derive(Debug)]
pub struct Images {
    directory: File,
    tmp: OwnedFd,
    quarantine: OwnedFd,
    /// Held while a name is given, or taken from a damaged image.
    names: Mutex<()>,
    /// How many damaged images were put aside, or had others put in their place.
    damages: AtomicU64,
    few: Few,
    /// Images that this process has made or read to the end, at most [`bounds::KNOWN_IMAGES`].
    known: Mutex<BTreeMap<String, Known>>,
    held: HeldTrees,
    /// How often objects were removed: what was seen before may be gone.
    removals: AtomicU64,
    /// How many of the damages of objects were taken note of.
    noted: AtomicU64,
    /// What new images leave to builds that run.
    room: Room,
    /// Makes the names in `tmp` differ.
    next: AtomicU64,
}

/// Which image.
#[derive(Clone, Copy, Debug)]
pub struct ImageOrder<'a> {
    /// The name of its file, which says everything that its bytes depend on.
    pub name: &'a str,
    /// The `Directory` at the top.
    pub tree: ObjectId,
    /// Time of every file, directory and link that has none of its own, in seconds since 1970.
    pub mtime: u64,
}

/// Where an image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// This process has verified it before, and it has not changed since.
    Known,
    /// It was there, and is whole, and so are the objects that it names.
    Found,
    /// It was made now.
    Made,
    /// It was there, damaged, and was made anew, which is counted by [`Images::damages`].
    Mended,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    stamp: Stamp,
    measure: Measure,
    /// After so many removals its objects were there.
    removals: u64,
    /// Whether this process has seen it on the disk.
    durable: bool,
}

/// What changes when somebody writes to a file, or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let status = file.metadata()?;
        Ok(Self {
            inode: status.ino(),
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
            changed: (status.ctime(), status.ctime_nsec()),
        })
    }
}

impl Images {
    /// The images below `root`, where a [`crate::Writer`] of this process has made the layout.
    ///
    /// # Errors
    /// When the layout is not there.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let directory = |name: &str, access: OFlags| {
            let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open(root.join(name), flags, Mode::empty()).map_err(|e| LayoutError::Io {
                path: root.join(name),
                source: e.into(),
            })
        };
        Ok(Self {
            directory: directory(IMAGES, OFlags::RDONLY)?.into(),
            tmp: directory(TMP, OFlags::PATH)?,
            quarantine: directory(QUARANTINE, OFlags::PATH)?,
            names: Mutex::default(),
            damages: AtomicU64::new(0),
            few: Few::default(),
            known: Mutex::default(),
            held: HeldTrees::new(),
            removals: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            room: Room::new(root, 0),
            next: AtomicU64::new(0),
        })
    }

    /// Makes images only while `room` stays free.
    #[must_use]
    pub fn leaving(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Sees that an image is there, verified and durable; makes it if not. One that is damaged is made anew.
    ///
    /// # Errors
    /// Names the path in the tree that is in the way; nothing of the image is left then.
    pub fn prepare(
        &self,
        source: &dyn BlobSource,
        order: ImageOrder<'_>,
    ) -> Result<(Provenance, Measure), TreeError> {
        let removals = self.removals();
        let mut provenance = Provenance::Made;
        let found = self.find(order.name).map_err(failed)?;
        if let Some(file) = &found {
            let stamp = Stamp::of(file).map_err(failed)?;
            let known = self.known(order.name, stamp);
            if let Some(known) = known.filter(|known| known.removals == removals) {
                return Ok((Provenance::Known, known.measure));
            }
            let end = self.end_of(file, known.is_some()).map_err(failed)?;
            if end.is_none() {
                provenance = Provenance::Mended;
            }
            // Where an object is not whole, the way of a new tree tells which.
            if let Some(end) = end
                && are_whole(source, &end.objects)
            {
                self.remember(order.name, stamp, end.measure, removals);
                let known = known.map_or(Provenance::Found, |_| Provenance::Known);
                return Ok((known, end.measure));
            }
        }
        let tree = Tree::read(source, order.tree)?;
        let objects = tree.objects();
        // It is written while the objects are looked at; without a name it is no image yet.
        let (unnamed, whole) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut bytes = tree.image(order.mtime)?;
                end::append(&mut bytes, tree.measure, &objects);
                let room = self.room.has(bytes.len() as u64);
                room.map_err(TreeError::NoRoom)?;
                self.write(&bytes).map_err(failed)
            });
            let whole = tree.verify(source, &objects);
            (writing.join(), whole)
        });
        whole?;
        let unnamed = unnamed
            .unwrap_or_else(|_| Err(failed(io::Error::other("writing the image panicked"))))?;
        let file = self.publish(&unnamed, order.name, found.is_some());
        let stamp = file.and_then(|file| Stamp::of(&file)).map_err(failed)?;
        if self.removals() != removals {
            // Only since its image is there nothing of it is removed while it is in use.
            tree.verify(source, &objects)?;
        }
        self.remember(order.name, stamp, tree.measure, removals);
        Ok((provenance, tree.measure))
    }

    /// The objects that an image names; none where there is no such image.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn objects_of(&self, name: &str) -> io::Result<Option<Vec<ObjectId>>> {
        let Some(file) = self.find(name)? else {
            return Ok(None);
        };
        match end::read(&file)? {
            Some(end) => Ok(Some(end.objects)),
            None => Err(io::Error::other(format!("the image {name} is damaged"))),
        }
    }

    /// Whether an image is still as it was prepared, and every object that it names as well: by their stamps,
    /// and by their content where these have changed.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn is_unchanged(
        &self,
        source: &dyn BlobSource,
        order: ImageOrder<'_>,
    ) -> Result<bool, TreeError> {
        let Some(file) = self.find(order.name).map_err(failed)? else {
            return Ok(false);
        };
        let stamp = Stamp::of(&file).map_err(failed)?;
        let known = self.known(order.name, stamp);
        if known.is_none_or(|known| !known.durable) {
            // What a failing disk has not taken is not what the build had.
            fsync(&file).map_err(|error| failed(error.into()))?;
            self.directory.sync_all().map_err(failed)?;
        }
        let held = known.and_then(|_| self.held.get(order.name, stamp));
        let end = match (known, &held) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => end::read(&file).map_err(failed)?,
            (None, _) => end::read_whole(&file, &mut |_| {}).map_err(failed)?,
        };
        if let Some(known) = self
            .lock()
            .get_mut(order.name)
            .filter(|known| known.stamp == stamp)
        {
            known.durable = true;
        }
        let unchanged = match (held, end) {
            (Some(objects), _) => self.are_as_held(source, order.name, &objects),
            (None, Some(end)) => self.are_whole(source, order.name, stamp, &end.objects),
            (None, None) => false,
        };
        if !unchanged {
            // Whoever is to use it next finds out what it is.
            self.lock().remove(order.name);
        }
        Ok(unchanged)
    }

    /// Whether the objects of an image are whole, which are held.
    fn are_as_held(&self, source: &dyn BlobSource, name: &str, objects: &[HeldObject]) -> bool {
        if all(objects, |few| source.are_as_held(few)) {
            return true;
        }
        self.held.let_go(name);
        let objects: Vec<ObjectId> = objects.iter().map(HeldObject::object).collect();
        are_whole(source, &objects)
    }

    /// The same of one whose objects are not held. They are from now on, if there is room.
    fn are_whole(
        &self,
        source: &dyn BlobSource,
        name: &str,
        stamp: Stamp,
        objects: &[ObjectId],
    ) -> bool {
        let Some(room) = self.held.make_room(objects.len()) else {
            return are_whole(source, objects);
        };
        let held = Mutex::new(Vec::new());
        let whole = all(objects, |few| match source.hold(few) {
            Some(few) => {
                held.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(few);
                true
            }
            None => source.are_whole(few),
        });
        let held = held.into_inner().unwrap_or_else(PoisonError::into_inner);
        if whole && held.len() == objects.len() {
            self.held.hold(name, stamp, held, room);
        }
        whole
    }

    fn find(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&self.directory, name, flags, Mode::empty(), within) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an image that has no name yet.
    fn write(&self, bytes: &[u8]) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.tmp, ".", flags, Mode::RUSR)?);
        file.write_all(bytes)?;
        fchmod(&file, Mode::from_raw_mode(IMAGE_MODE))?;
        Ok(file)
    }

    /// Gives an image its name.
    fn publish(&self, file: &File, name: &str, replace: bool) -> io::Result<File> {
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |place: &OwnedFd, name: &str| {
            linkat(CWD, &unnamed, place, name, AtFlags::SYMLINK_FOLLOW)
        };
        let _names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if replace {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let passing = format!("{name}.{number}");
            link(&self.tmp, &passing)?;
            renameat(&self.tmp, &passing, &self.directory, name).inspect_err(|_| {
                // The first error is the one to tell; a name that stays is removed at the next start.
                let _ = unlinkat(&self.tmp, &passing, AtFlags::empty());
            })?;
        } else {
            match linkat(
                CWD,
                &unnamed,
                &self.directory,
                name,
                AtFlags::SYMLINK_FOLLOW,
            ) {
                // Somebody else has made the same.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.find(name)?
            .ok_or_else(|| io::Error::other("the image was removed while it was made"))
    }

    fn known(&self, name: &str, stamp: Stamp) -> Option<Known> {
        let known = self.lock().get(name).copied();
        known.filter(|known| known.stamp == stamp)
    }

    fn remember(&self, name: &str, stamp: Stamp, measure: Measure, removals: u64) {
        let mut known = self.lock();
        if known.len() >= bounds::KNOWN_IMAGES {
            // Whatever is forgotten is only read once more.
            known.pop_first();
        }
        let one = Known {
            stamp,
            measure,
            removals,
            durable: known
                .get(name)
                .is_some_and(|known| known.durable && known.stamp == stamp),
        };
        known.insert(name.to_owned(), one);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Every change is one insertion or removal: a panic elsewhere cannot leave half of one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(source: io::Error) -> TreeError {
    if is_full(&source) {
        TreeError::Full(source)
    } else {
        TreeError::Image(source)
    }
}

#[cfg(test)]
mod tests;
