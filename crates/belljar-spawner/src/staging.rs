//! Mounts of an attempt that outlive its sandbox: scratch space, and its trees under overlays. They are made
//! in the spawner's own mount namespace, which dies with it, so nothing of them can be left on the host. The
//! sandbox gets clones; the collector reads the merged mount after the sandbox is gone.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use belljar_core::{InputName, LimitFigures};
use belljar_sys::connections::Connections;
use belljar_sys::mount::{self, Attributes};
use belljar_sys::{namespace, process, program};

use crate::ids::Pair;
use crate::site::Owners;
use crate::trees::{Inputs, Mounted, OBJECTS};

const READ_ONLY: Attributes = Attributes {
    read_only: true,
    devices: false,
    no_exec: false,
};

/// Where the mounts of one slot lie, below the spawner's mount directory.
#[derive(Clone, Debug)]
pub struct Places {
    mounts: PathBuf,
    base: PathBuf,
}

impl Places {
    /// The places of slot `slot` below `mounts`.
    pub fn new(mounts: &Path, slot: usize) -> Self {
        Self {
            mounts: mounts.to_owned(),
            base: mounts.join(slot.to_string()),
        }
    }

    /// Where the sandbox's root is put together, in the sandbox's own mount namespace.
    pub fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// The root file system, if it is a tree, as a layer.
    pub fn image(&self) -> PathBuf {
        self.base.join("image")
    }

    /// The sources under the overlay.
    pub fn merged(&self) -> PathBuf {
        self.base.join("merged")
    }

    /// A further input under its overlay.
    pub fn input(&self, name: &InputName) -> PathBuf {
        self.inputs().join(name.as_str())
    }

    /// A directory of the scratch space: `tmp`, `home` or `shm`.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.base.join("scratch").join(name)
    }

    /// The scratch space, of which all these directories are.
    pub fn scratch_space(&self) -> PathBuf {
        self.base.join("scratch")
    }

    /// The directory of all of them.
    pub fn base(&self) -> PathBuf {
        self.base.clone()
    }

    /// Options for an overlay of these layers, the uppermost first, over the store's objects.
    ///
    /// A build reads them in /proc/mounts: relative to the mount directory, where this process and init stay,
    /// they tell nothing of the host, and they fit fsconfig(2), which takes less than 256 bytes. Layers by
    /// descriptor would need Linux 6.13.
    ///
    /// # Errors
    /// When a path is not UTF-8, or not below the mount directory.
    pub fn overlay(&self, layers: &[PathBuf]) -> io::Result<Vec<(&'static str, Option<String>)>> {
        let mut options = Vec::new();
        for layer in layers {
            options.push(("lowerdir+", Some(self.relative(layer)?)));
        }
        options.extend([
            ("datadir+", Some(OBJECTS.to_owned())),
            ("metacopy", Some("on".to_owned())),
            // Objects are found by it; and renaming a source directory would fail with EXDEV without.
            ("redirect_dir", Some("on".to_owned())),
            ("index", Some("off".to_owned())),
            ("xino", Some("off".to_owned())),
        ]);
        Ok(options)
    }

    /// Options for an overlay of layers that have nothing to do with the store.
    ///
    /// # Errors
    /// As [`Places::overlay`].
    pub fn plain_overlay(
        &self,
        layers: &[PathBuf],
    ) -> io::Result<Vec<(&'static str, Option<String>)>> {
        let mut options = Vec::new();
        for layer in layers {
            options.push(("lowerdir+", Some(self.relative(layer)?)));
        }
        options.extend([
            ("metacopy", Some("off".to_owned())),
            ("redirect_dir", Some("nofollow".to_owned())),
            ("index", Some("off".to_owned())),
            ("xino", Some("off".to_owned())),
        ]);
        Ok(options)
    }

    fn relative(&self, path: &Path) -> io::Result<String> {
        let relative = path.strip_prefix(&self.mounts).ok().and_then(Path::to_str);
        let relative = relative.map(str::to_owned);
        relative.ok_or_else(|| io::Error::other("a layer is not below the mount directory"))
    }

    fn lower(&self) -> PathBuf {
        self.base.join("lower")
    }

    fn inputs(&self) -> PathBuf {
        self.base.join("inputs")
    }

    fn input_layers(&self) -> PathBuf {
        self.base.join("layers")
    }
}

/// Makes an overlay of `options`, detached.
///
/// # Errors
/// What the mount calls say.
pub fn overlay(
    options: &[(&'static str, Option<String>)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let options: Vec<_> = options
        .iter()
        .map(|(key, value)| (*key, value.as_deref()))
        .collect();
    mount::make("overlay", &options, attributes)
}

/// Gives this process a mount namespace of its own and a directory on a tmpfs in it, `<runtime>/mnt`, which
/// becomes its working directory.
///
/// # Errors
/// What the mount calls say.
pub fn prepare(runtime: &Path) -> io::Result<PathBuf> {
    let mounts = runtime.join("mnt");
    namespace::unshare_mounts()?;
    mount::make_all_private()?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&mounts)?;
    let options = [("size", Some("1m")), ("mode", Some("700"))];
    mount::attach(
        mount::make("tmpfs", &options, Attributes::default())?,
        &mounts,
    )?;
    std::env::set_current_dir(&mounts)?;
    Ok(mounts)
}

/// What is mounted for one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Its trees.
    pub inputs: &'a Inputs,
    /// Whose their files are inside.
    pub owners: &'a Owners,
    /// Its host ids.
    pub ids: Pair,
    /// What it may use.
    pub limits: &'a LimitFigures,
}

/// Mounts the scratch space, sized, and over it and the source tree the overlay that the build works in;
/// the image as a layer, and each further input under a read-only overlay of its own: an overlay that two
/// builds shared would carry file locks and inotify events between them. What the store owns in a tree
/// appears as the build's or as inside 0's, by id-mapped clones.
///
/// # Errors
/// What the mount calls say, with the step; nothing stays mounted then.
pub fn mount_all(places: &Places, order: Order<'_>) -> io::Result<()> {
    let made = mount_steps(places, order);
    if made.is_err() {
        let _ = unmount_all(places);
    }
    made
}

fn mount_steps(places: &Places, order: Order<'_>) -> io::Result<()> {
    let during =
        |step: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{step}: {e}"));
    make_directory(&places.base)?;
    make_directory(&places.root())?;
    scratch_space(places, order.ids, order.limits).map_err(during("scratch space"))?;
    sources(places, order).map_err(during("sources"))?;
    if let Some(image) = &order.inputs.image {
        layer(image, &places.image(), &order.owners.image).map_err(during("root file system"))?;
    }
    if !order.inputs.further.is_empty() {
        make_directory(&places.inputs())?;
        make_directory(&places.input_layers())?;
    }
    for (name, tree) in &order.inputs.further {
        further_input(places, name, tree, order.owners).map_err(during("further input"))?;
    }
    Ok(())
}

fn sources(places: &Places, order: Order<'_>) -> io::Result<()> {
    layer(&order.inputs.source, &places.lower(), &order.owners.build)?;
    let mut options = places.overlay(&[places.lower()])?;
    options.extend([
        ("upperdir", Some(places.relative(&places.scratch("upper"))?)),
        ("workdir", Some(places.relative(&places.scratch("work"))?)),
        // The upper layer is thrown away: flushing it would be waste.
        ("volatile", None),
    ]);
    like_below(&places.lower(), &places.scratch("upper"))?;
    make_directory(&places.merged())?;
    mount::attach(overlay(&options, Attributes::default())?, &places.merged())
}

/// Gives the top of the upper layer mode and time of the top of the tree below: an overlay's own top is the upper one.
fn like_below(lower: &Path, upper: &Path) -> io::Result<()> {
    let below = fs::symlink_metadata(lower)?;
    fs::set_permissions(upper, Permissions::from_mode(below.mode() & 0o777))?;
    File::open(upper)?.set_modified(below.modified()?)
}

fn further_input(
    places: &Places,
    name: &InputName,
    tree: &Mounted,
    owners: &Owners,
) -> io::Result<()> {
    let below = places.input_layers().join(name.as_str());
    layer(tree, &below, &owners.image)?;
    let options = places.overlay(&[below])?;
    make_directory(&places.input(name))?;
    mount::attach(overlay(&options, READ_ONLY)?, &places.input(name))
}

/// A clone of a mounted tree at `place`, read-only, in which everything is the map's owner's.
fn layer(tree: &Mounted, place: &Path, owner: &OwnedFd) -> io::Result<()> {
    let clone = mount::clone_tree(tree.place(), false)?;
    mount::set_attributes(clone.as_fd(), READ_ONLY, Some(owner.as_fd()), false)?;
    make_directory(place)?;
    mount::attach(clone, place)
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn scratch_space(places: &Places, ids: Pair, limits: &LimitFigures) -> io::Result<()> {
    let (size, inodes) = (
        limits.scratch_bytes.to_string(),
        limits.scratch_inodes.to_string(),
    );
    let options = [
        ("size", Some(size.as_str())),
        ("nr_inodes", Some(inodes.as_str())),
        ("mode", Some("755")),
    ];
    let scratch = mount::make("tmpfs", &options, Attributes::default())?;
    make_directory(&places.base.join("scratch"))?;
    mount::attach(scratch, &places.base.join("scratch"))?;
    for (name, mode, owner) in [
        ("upper", 0o755, ids.build),
        ("work", 0o755, 0),
        ("tmp", 0o1777, ids.build),
        ("home", 0o755, ids.build),
        ("shm", 0o1777, ids.build),
    ] {
        let path = places.scratch(name);
        DirBuilder::new().create(&path)?;
        // After the umask.
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        chown(&path, Some(owner), Some(owner))?;
    }
    Ok(())
}

/// Takes all mounts of a slot off, innermost last reference included, and removes their directories.
///
/// # Errors
/// What umount2(2) or rmdir(2) say; what is not mounted is fine.
pub fn unmount_all(places: &Places) -> io::Result<()> {
    let mut all: Vec<_> = ["merged", "lower", "image", "scratch"]
        .map(|name| places.base.join(name))
        .into();
    for directory in [places.inputs(), places.input_layers()] {
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    all.push(entry?.path());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for path in all {
        match mount::detach(&path) {
            Err(e) if !is_not_mounted(&e) => return Err(e),
            _ => {}
        }
    }
    match fs::remove_dir_all(&places.base) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn is_not_mounted(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(belljar_sys::Errno::INVAL.raw_os_error())
        || code == Some(belljar_sys::Errno::NOENT.raw_os_error())
}

/// Starts a process that takes the mounts off and destroys the connections that outlived their processes. Dropping a
/// large tmpfs or many connections takes the kernel a while: that process waits for it, not the event loop.
///
/// # Errors
/// What clone3(2) says.
pub fn start_janitor(
    places: &Places,
    connections: Option<&Connections>,
) -> io::Result<process::Child> {
    process::clone_child(process::NewNamespaces::default(), None, || {
        let work = || -> io::Result<()> {
            let kept: Vec<_> = connections.iter().map(|it| it.as_fd()).collect();
            program::close_others(&kept)?;
            process::die_with_parent()?;
            let destroyed = connections.map_or(Ok(()), Connections::destroy_all);
            unmount_all(places).and(destroyed)
        };
        u8::from(work().is_err())
    })
}

/// Whether any mount of the slot is left in this process's mount namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn is_unmounted(places: &Places) -> io::Result<bool> {
    let inside = format!("{}/", places.base.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(!mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|target| target.starts_with(&inside)))
}
