//! Mounts by descriptor: fsopen(2), fsmount(2), open_tree(2), mount_setattr(2), move_mount(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, move_mount, open_tree,
};

/// What a mount forbids, beside nosuid, which every mount of Belljar has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// No writing.
    pub read_only: bool,
    /// Device nodes work. Only for the binds of single device nodes, and what they are taken from.
    pub devices: bool,
    /// No program can be started from it.
    pub no_exec: bool,
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

impl Attributes {
    fn flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, !self.devices);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags
    }
}

/// Makes a file system of type `kind` with these options (an option without a value is a flag) and a
/// detached mount of it.
///
/// # Errors
/// What fsopen(2), fsconfig(2) or fsmount(2) say.
pub fn make(
    kind: &str,
    options: &[(&str, Option<&str>)],
    attributes: Attributes,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes.flags(),
    )?)
}

/// A detached copy of the mount at `path`, with everything mounted below it if `recursive`.
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(CWD, path, flags)?)
}

/// A detached copy of what is mounted at the directory that `directory` is.
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_directory(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(directory, "", flags)?)
}

/// Sets attributes on a mount, on everything below it too if `recursive`; with `id_map` it also shows
/// the owner ids of its files through that user namespace's map.
///
/// # Errors
/// What mount_setattr(2) says; EINVAL where the file system cannot be id-mapped.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    id_map: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut request = MountAttr {
        attr_set: u64::from(attributes.flags().bits()),
        ..MountAttr::default()
    };
    if let Some(namespace) = id_map {
        request.attr_set |= MOUNT_ATTR_IDMAP;
        request.userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    }
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let (descriptor, here): (_, &CStr) = (mount.as_raw_fd(), c"");
    // WHY: rustix has no mount_setattr yet.
    // SAFETY: the path is a NUL-terminated string, and `request` is as large as told; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            descriptor,
            here.as_ptr(),
            flags,
            &raw const request,
            size_of::<MountAttr>(),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Puts a detached mount at `path`, which is looked up without following a symbolic link at its end.
///
/// # Errors
/// What move_mount(2) says.
pub fn attach(mount: impl AsFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(
        mount,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Cuts this mount namespace's ties: nothing mounted here shows elsewhere, and nothing from elsewhere
/// shows here (mount_namespaces(7), MS_PRIVATE).
///
/// # Errors
/// What mount(2) says.
pub fn make_all_private() -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Makes the current directory, which must be a mount, the root, and lets go of the old one entirely.
///
/// # Errors
/// What pivot_root(2), umount2(2) or chdir(2) say.
pub fn pivot_here() -> io::Result<()> {
    // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie over the new one, and is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Detaches the mount at `path` with everything below it (umount2(2), MNT_DETACH).
///
/// # Errors
/// What umount2(2) says.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(
        path,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

/// A descriptor of the directory at `path` that allows looking up below it, nothing else.
///
/// # Errors
/// What openat(2) says.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    Ok(open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// Type of the file system that `path` lies on: its magic number (statfs(2)).
///
/// # Errors
/// What statfs(2) says.
pub fn file_system_magic(path: &Path) -> io::Result<i64> {
    Ok(rustix::fs::statfs(path)?.f_type)
}

/// A descriptor of the file or directory at `path`, for looking up below it, naming it in rules or setting
/// attributes on its mount; nothing can be read or written through it (O_PATH, open(2)). A symbolic link
/// at the end is not followed.
///
/// # Errors
/// What openat(2) says.
pub fn location(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    Ok(open(
        path,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}
