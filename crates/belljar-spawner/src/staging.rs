//! Mounts of an attempt that outlive its sandbox: scratch space, and the sources under an overlay. They
//! are made in the spawner's own mount namespace, which dies with it, so nothing of them can be left on
//! the host. The sandbox gets clones; the collector reads the merged mount after the sandbox is gone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use belljar_core::LimitFigures;
use belljar_sys::mount::{self, Attributes};
use belljar_sys::{namespace, process, program};

use crate::ids::Pair;

/// Where the mounts of one slot lie, below the spawner's mount directory.
#[derive(Clone, Debug)]
pub struct Places {
    base: PathBuf,
}

impl Places {
    /// The places of slot `slot` below `mounts`.
    pub fn new(mounts: &Path, slot: usize) -> Self {
        Self {
            base: mounts.join(slot.to_string()),
        }
    }

    /// Where the sandbox's root is put together, in the sandbox's own mount namespace.
    pub fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// The sources under the overlay.
    pub fn merged(&self) -> PathBuf {
        self.base.join("merged")
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

    fn lower(&self) -> PathBuf {
        self.base.join("lower")
    }
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

/// Mounts the scratch space, sized, and over it and the staged copy at `tree` the overlay that the build
/// works in. Files of the store's user appear as the build's, by an id-mapped clone.
///
/// # Errors
/// What the mount calls say, with the step; nothing stays mounted then.
pub fn mount_all(
    places: &Places,
    tree: &Path,
    store_uid: u32,
    ids: Pair,
    limits: &LimitFigures,
) -> io::Result<()> {
    let made = mount_steps(places, tree, store_uid, ids, limits);
    if made.is_err() {
        let _ = unmount_all(places);
    }
    made
}

fn mount_steps(
    places: &Places,
    tree: &Path,
    store_uid: u32,
    ids: Pair,
    limits: &LimitFigures,
) -> io::Result<()> {
    let during =
        |step: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{step}: {e}"));
    for name in ["root", "merged", "lower", "scratch"] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(places.base.join(name))?;
    }
    scratch_space(places, ids, limits).map_err(during("scratch space"))?;
    let lower = id_mapped(tree, store_uid, ids).map_err(during("id-mapped sources"))?;
    mount::attach(&lower, &places.lower()).map_err(during("sources"))?;
    // A build reads these in /proc/mounts: relative to the mount directory, where this process stays, they
    // tell nothing of the host, and they fit fsconfig(2), which takes less than 256 bytes.
    let mounts = places.base.parent().unwrap_or(&places.base);
    let text = |path: PathBuf| {
        let relative = path
            .strip_prefix(mounts)
            .ok()
            .and_then(Path::to_str)
            .map(str::to_owned);
        relative.ok_or_else(|| io::Error::other("a path is not UTF-8"))
    };
    let options = [
        ("lowerdir+", Some(text(places.lower())?)),
        ("upperdir", Some(text(places.scratch("upper"))?)),
        ("workdir", Some(text(places.scratch("work"))?)),
        // Renaming a source directory would fail with EXDEV otherwise.
        ("redirect_dir", Some("on".to_owned())),
        ("metacopy", Some("off".to_owned())),
        ("index", Some("off".to_owned())),
        ("xino", Some("off".to_owned())),
        // The upper layer is thrown away: flushing it would be waste.
        ("volatile", None),
    ];
    let options: Vec<_> = options
        .iter()
        .map(|(key, value)| (*key, value.as_deref()))
        .collect();
    let merged =
        mount::make("overlay", &options, Attributes::default()).map_err(during("overlay"))?;
    mount::attach(merged, &places.merged())
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

/// A detached, read-only clone of the staged copy, in which what the store owns is the build's.
fn id_mapped(tree: &Path, store_uid: u32, ids: Pair) -> io::Result<OwnedFd> {
    let directory = mount::directory(tree)?;
    let owner = fs::metadata(format!("/proc/self/fd/{}", raw(&directory)))?;
    if owner.uid() != store_uid {
        return Err(io::Error::other(format!(
            "the staged copy belongs to uid {}, not the store's",
            owner.uid()
        )));
    }
    let groups = owner.gid();
    let clone = mount::clone_directory(directory.as_fd())?;
    let map = |on_disk: u32| format!("{on_disk} {} 1\n", ids.build);
    let namespace = namespace::user(&map(store_uid), &map(groups))?;
    let read_only = Attributes {
        read_only: true,
        ..Attributes::default()
    };
    mount::set_attributes(clone.as_fd(), read_only, Some(namespace.as_fd()), false)?;
    Ok(clone)
}

fn raw(descriptor: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    descriptor.as_raw_fd()
}

/// Takes all mounts of a slot off, innermost last reference included, and removes their directories.
///
/// # Errors
/// What umount2(2) or rmdir(2) say; what is not mounted is fine.
pub fn unmount_all(places: &Places) -> io::Result<()> {
    for name in ["merged", "lower", "scratch"] {
        let path = places.base.join(name);
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

/// Starts a process that takes the mounts off. Dropping a large tmpfs takes the kernel a while: that
/// process waits for it, not the event loop.
///
/// # Errors
/// What clone3(2) says.
pub fn start_janitor(places: &Places) -> io::Result<process::Child> {
    process::clone_child(process::NewNamespaces::default(), None, || {
        let work = || -> io::Result<()> {
            program::close_others(&[])?;
            process::die_with_parent()?;
            unmount_all(places)
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
