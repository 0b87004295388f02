//! Looking at files that somebody hostile has made: every look-up stays beneath a directory, follows no
//! link and crosses no mount (openat2(2)).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
    /// A block or character device.
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device node",
        })
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

/// Finds `path` beneath `directory` without opening it (O_PATH). A symbolic link anywhere in it, also at its
/// end, is an error.
///
/// # Errors
/// What openat2(2) says: ELOOP for a link, EXDEV for a way out or another mount.
pub fn open_beneath(directory: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        directory,
        path,
        flags,
        Mode::empty(),
        beneath(),
    )?)
}

/// Finds the entry `name` of `directory` without opening it; a symbolic link is found itself.
///
/// # Errors
/// As [`open_beneath`].
pub fn open_beneath_nofollow(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    // NO_SYMLINKS refuses a link at the end too unless it is asked for itself by O_PATH and O_NOFOLLOW.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        directory,
        name,
        flags,
        Mode::empty(),
        beneath(),
    )?)
}

/// Opens for reading what was found as a regular file: without blocking, and through `/proc` of nobody.
///
/// # Errors
/// What open(2) says; `InvalidInput` when it is not a regular file.
pub fn reopen_for_reading(found: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    if kind(found)? != Kind::File {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let way = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(rustix::fs::open(way, flags, Mode::empty())?)
}

/// Makes a file without a name on the file system of `directory` (O_TMPFILE, open(2)).
///
/// # Errors
/// What open(2) says; EOPNOTSUPP where the file system cannot.
pub fn unnamed(directory: &std::path::Path) -> io::Result<std::fs::File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::RUSR)?.into())
}

/// What was found.
///
/// # Errors
/// What fstat(2) says.
pub fn kind(found: BorrowedFd<'_>) -> io::Result<Kind> {
    let status = rustix::fs::fstat(found)?;
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Device,
    })
}

/// Permission bits, with set-user-id, set-group-id and sticky.
///
/// # Errors
/// What fstat(2) says.
pub fn mode(found: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(rustix::fs::fstat(found)?.st_mode & 0o7777)
}

/// Apparent size in bytes, holes included.
///
/// # Errors
/// What fstat(2) says.
pub fn size(found: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(found)?.st_size).unwrap_or(0))
}

/// Sets the permission bits of what is open (fchmod(2)).
///
/// # Errors
/// What fchmod(2) says.
pub fn set_mode(opened: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(opened, Mode::from_raw_mode(mode))?)
}

/// Target of a symbolic link that was found itself.
///
/// # Errors
/// What readlinkat(2) says.
pub fn link_target(found: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(found, c"", Vec::new())?.into_bytes())
}

/// What a name counts beside its own bytes where names are kept: about what it costs.
pub const NAME_OVERHEAD: usize = 64;

/// Names in a directory that was found, sorted by bytes, without `.` and `..`; and how many bytes they are, each
/// with [`NAME_OVERHEAD`] more.
///
/// # Errors
/// What openat(2) or getdents64(2) say; when there are more than `most` names; `OutOfMemory`, without a number of the
/// kernel's, when they are more than `room` bytes.
pub fn names(
    directory: BorrowedFd<'_>,
    most: usize,
    room: usize,
) -> io::Result<(Vec<Vec<u8>>, usize)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let (mut names, mut bytes) = (Vec::new(), 0);
    for entry in Dir::new(opened)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == most {
            return Err(io::Error::other(format!("it has more than {most} entries")));
        }
        bytes += name.len() + NAME_OVERHEAD;
        if bytes > room {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("its entries have names of more than {room} bytes"),
            ));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok((names, bytes))
}

/// Whether anything is at `path`, the path itself not followed.
///
/// # Errors
/// What fstatat(2) says, other than that nothing is there.
pub fn exists(path: &std::path::Path) -> io::Result<bool> {
    match rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// How much a file system holds (statvfs(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are in use.
    pub bytes_used: u64,
    /// Bytes that are not.
    pub bytes_free: u64,
    /// Inodes that are in use.
    pub inodes_used: u64,
    /// Inodes that are not.
    pub inodes_free: u64,
}

/// How much the file system at `path` holds.
///
/// # Errors
/// What statfs(2) says.
pub fn space(path: &std::path::Path) -> io::Result<Space> {
    let status = rustix::fs::statvfs(path)?;
    Ok(Space {
        bytes_used: status.f_blocks.saturating_sub(status.f_bfree) * status.f_frsize,
        bytes_free: status.f_bfree * status.f_frsize,
        inodes_used: status.f_files.saturating_sub(status.f_ffree),
        inodes_free: status.f_ffree,
    })
}
