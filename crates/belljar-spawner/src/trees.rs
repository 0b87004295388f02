//! Trees that are mounted: one superblock for each image of the store, which all builds on that tree share.
//! A build sees a clone of it under an overlay of its own, never the mount itself. All of it lies in the
//! spawner's own mount namespace and is gone when that is.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use belljar_core::{InputName, bounds};
use belljar_plan::Plan;
use belljar_plan::store::StagedTree;
use belljar_sys::mount::{self, Attributes};
use belljar_sys::process::Child;
use belljar_sys::{durable, process, program};

/// Below the mount directory: a number for each mounted tree.
const TREES: &str = "trees";
/// Below the mount directory: the objects that all trees are over.
pub const OBJECTS: &str = "objects";

/// Below the store's root: images of trees, under their names.
const IMAGES: &str = "images";

const READ_ONLY: Attributes = Attributes {
    read_only: true,
    devices: false,
    no_exec: false,
};

/// The mounted trees, at most [`bounds::MOUNTED_TREES`] beside those in use.
#[derive(Debug)]
pub struct Trees {
    mounts: PathBuf,
    store: PathBuf,
    store_uid: u32,
    /// Which directory is shown as the one of all objects: device and inode.
    objects: Option<(u64, u64)>,
    /// By the names of their images; with the time of their last use, counted in uses.
    mounted: BTreeMap<String, (Rc<Mounted>, u64)>,
    /// How many trees were mounted or used so far: names of places, and their age.
    uses: u64,
    /// Processes that take mounts off.
    janitors: Vec<Child>,
}

/// One mounted tree. It stays mounted as long as anyone has a reference.
#[derive(Debug)]
pub struct Mounted {
    place: PathBuf,
    image: File,
    stamp: Stamp,
}

/// What changes when somebody writes to the image file, or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    /// Without its name it has room on the disk as long as it is mounted, and nobody looks after it.
    has_name: bool,
    size: u64,
    modified: (i64, i64),
}

/// The trees of one attempt.
#[derive(Debug)]
pub struct Inputs {
    /// The sources.
    pub source: Rc<Mounted>,
    /// The root file system, if it is a tree.
    pub image: Option<Rc<Mounted>>,
    /// The further inputs.
    pub further: Vec<(InputName, Rc<Mounted>)>,
}

impl Mounted {
    /// Where it is mounted.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Whether its image is as it was when it was mounted: the kernel reads from it as long as it is.
    ///
    /// # Errors
    /// What fstat(2) says.
    fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.image)? == self.stamp)
    }
}

impl Stamp {
    fn of(image: &File) -> io::Result<Self> {
        let status = image.metadata()?;
        Ok(Self {
            inode: status.ino(),
            has_name: status.nlink() > 0,
            size: status.size(),
            modified: (status.mtime(), status.mtime_nsec()),
        })
    }
}

impl Inputs {
    /// Mounts what `plan` needs and what is not mounted yet.
    ///
    /// # Errors
    /// When an image cannot be mounted.
    pub fn mount(trees: &mut Trees, plan: &Plan) -> io::Result<Self> {
        let source = trees.mount(&plan.staged_source())?;
        let image = plan.staged_image().map(|tree| trees.mount(&tree));
        let image = image.transpose()?;
        let further = plan.staged_inputs().map(|(name, tree)| {
            let mounted = trees.mount(&tree)?;
            Ok((name.clone(), mounted))
        });
        Ok(Self {
            source,
            image,
            further: further.collect::<io::Result<_>>()?,
        })
    }

    /// Whether every image is as it was when it was mounted.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn are_unchanged(&self) -> io::Result<bool> {
        let further = self.further.iter().map(|(_, mounted)| mounted);
        let all = [&self.source].into_iter().chain(&self.image).chain(further);
        for mounted in all {
            if !mounted.is_unchanged()? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Trees {
    /// No tree is mounted yet. `mounts` is the mount directory, `store` the root of the store whose user id
    /// is `store_uid`.
    pub fn new(mounts: &Path, store: &Path, store_uid: u32) -> Self {
        Self {
            mounts: mounts.to_owned(),
            store: store.to_owned(),
            store_uid,
            objects: None,
            mounted: BTreeMap::new(),
            uses: 0,
            janitors: Vec::new(),
        }
    }

    /// The tree, which the store has told to have an image, mounted.
    fn mount(&mut self, tree: &StagedTree) -> io::Result<Rc<Mounted>> {
        self.uses += 1;
        let name = tree.image();
        let during = |e: io::Error| io::Error::new(e.kind(), format!("the image {name}: {e}"));
        self.objects()?;
        let image = self.image(&name).map_err(during)?;
        let stamp = Stamp::of(&image).map_err(during)?;
        // The store may have made it anew, for what was wrong with the one that is mounted.
        if let Some((mounted, last)) = self.mounted.get_mut(&name)
            && mounted.stamp == stamp
        {
            *last = self.uses;
            return Ok(Rc::clone(mounted));
        }
        let mounted = Rc::new(self.mount_image(image, stamp).map_err(during)?);
        let one = (Rc::clone(&mounted), self.uses);
        if let Some((old, _)) = self.mounted.insert(name, one) {
            // Somebody has written to that one, and builds that use it will not end well; or the store has found it
            // damaged, or nobody needed it for a while.
            self.take_off(old);
        }
        self.shrink();
        Ok(mounted)
    }

    fn image(&self, name: &str) -> io::Result<File> {
        let images = durable::open_directory(&self.store.join(IMAGES))?;
        let image = durable::open_regular(&images, name)?;
        self.check_owner(&image)?;
        Ok(image)
    }

    fn mount_image(&self, image: File, stamp: Stamp) -> io::Result<Mounted> {
        // By this name it is this very file, whatever its directory holds by now.
        let source = format!("/proc/self/fd/{}", image.as_raw_fd());
        let made = mount::make("erofs", &[("source", Some(&source))], READ_ONLY)?;
        let place = self.mounts.join(TREES).join(self.uses.to_string());
        make_directory(&place)?;
        mount::attach(made, &place)?;
        Ok(Mounted {
            place,
            image,
            stamp,
        })
    }

    /// Shows the store's objects at a place of the spawner's own, read-only. Where somebody has put another directory in their
    /// place, as who restores them does, that one.
    fn objects(&mut self) -> io::Result<()> {
        let objects = durable::open_directory(&self.store.join("objects/sha256"))?;
        let status = objects.metadata()?;
        let found = Some((status.dev(), status.ino()));
        if self.objects == found {
            return Ok(());
        }
        self.check_owner(&objects)?;
        if self.objects.take().is_some() {
            mount::detach(&self.mounts.join(OBJECTS))?;
        }
        let clone = mount::clone_directory(objects.as_fd())?;
        mount::set_attributes(clone.as_fd(), READ_ONLY, None, false)?;
        let place = self.mounts.join(OBJECTS);
        make_directory(&place)?;
        mount::attach(clone, &place)?;
        self.objects = found;
        Ok(())
    }

    fn check_owner(&self, file: &File) -> io::Result<()> {
        let status = file.metadata()?;
        if status.uid() != self.store_uid || status.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "belongs to uid {} with mode {:04o}; it should be the store's, and writable by nobody else",
                status.uid(),
                status.mode() & 0o7777
            )));
        }
        Ok(())
    }

    /// Takes those off that no build uses and whose image is gone: else it would have its room on the disk still.
    pub fn let_go(&mut self) {
        let is_gone = |mounted: &Rc<Mounted>| {
            let idle = Rc::strong_count(mounted) == 1;
            idle && !mounted.is_unchanged().unwrap_or(true)
        };
        let gone = self
            .mounted
            .iter()
            .filter(|(_, (mounted, _))| is_gone(mounted));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some((mounted, _)) = self.mounted.remove(&name) {
                self.take_off(mounted);
            }
        }
    }

    /// Forgets the trees that were not used for the longest time and that no build uses, until there are no
    /// more than may stay.
    fn shrink(&mut self) {
        while self.mounted.len() > bounds::MOUNTED_TREES {
            let idle = self
                .mounted
                .iter()
                .filter(|(_, (mounted, _))| Rc::strong_count(mounted) == 1);
            let oldest = idle.min_by_key(|(_, (_, last))| *last);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            if let Some((mounted, _)) = self.mounted.remove(&name) {
                self.take_off(mounted);
            }
        }
    }

    /// Takes a mount off. What builds have of it are clones, which keep the superblock; the last one to go
    /// drops it, which takes the kernel a while after much was read: that is a janitor's.
    fn take_off(&mut self, mounted: Rc<Mounted>) {
        self.janitors
            .retain(|janitor| matches!(janitor.try_wait(), Ok(None)));
        let place = mounted.place.clone();
        let started = process::clone_child(process::NewNamespaces::default(), None, || {
            let work = || -> io::Result<()> {
                program::close_others(&[])?;
                process::die_with_parent()?;
                take_off(&place)
            };
            u8::from(work().is_err())
        });
        match started {
            Ok(janitor) => self.janitors.push(janitor),
            Err(error) => {
                tracing::warn!(%error, "no janitor can start; a tree is taken off here");
                if let Err(error) = take_off(&place) {
                    tracing::error!(%error, place = %place.display(), "a tree cannot be taken off");
                }
            }
        }
    }
}

fn take_off(place: &Path) -> io::Result<()> {
    mount::detach(place)?;
    fs::remove_dir(place)
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}
