//! Files in a directory that is held by descriptor: opened without following a link, linked into place
//! without replacing anything. For the processes that read and write evidence.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, linkat, open, openat2, unlinkat};

/// Nothing on the way may be a link or lead elsewhere.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens the directory at `path`, which must not be a link itself. Its `sync_all` makes names durable.
///
/// # Errors
/// What openat(2) says.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?.into())
}

/// Opens a regular file for reading. Never waits, whatever the name stands for.
///
/// # Errors
/// What openat2(2) says; `InvalidData` for anything but a regular file, a link above all.
pub fn open_regular(directory: impl AsFd, name: &str) -> io::Result<File> {
    regular(directory, name, OFlags::RDONLY, Mode::empty())
}

fn regular(directory: impl AsFd, name: &str, how: OFlags, mode: Mode) -> io::Result<File> {
    let irregular = || io::Error::new(io::ErrorKind::InvalidData, "not a regular file");
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file: File = match openat2(directory, name, flags, mode, BENEATH) {
        Ok(descriptor) => descriptor.into(),
        // ELOOP: a link; ENXIO: a socket.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Err(irregular()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(irregular());
    }
    Ok(file)
}

/// Makes a new file for writing, with the permission bits `mode` less the umask.
///
/// # Errors
/// What openat2(2) says; `AlreadyExists` when the name is taken.
pub fn create_new(directory: impl AsFd, name: &str, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(directory, name, flags, Mode::from_raw_mode(mode), BENEATH)?.into())
}

/// Opens a regular file for reading and writing, and makes it, with the permission bits `mode` less the umask, if it
/// is not there. Never waits, whatever the name stands for.
///
/// # Errors
/// What openat2(2) says; `InvalidData` for anything but a regular file, a link above all.
pub fn open_or_create(directory: impl AsFd, name: &str, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    regular(directory, name, flags, Mode::from_raw_mode(mode))
}

/// Gives the file `from` the second name `to` in the same directory.
///
/// # Errors
/// What linkat(2) says; `AlreadyExists` when the name is taken: nothing is ever replaced.
pub fn link_new(directory: impl AsFd, from: &str, to: &str) -> io::Result<()> {
    let directory = directory.as_fd();
    Ok(linkat(directory, from, directory, to, AtFlags::empty())?)
}

/// Removes a name. That it is not there is fine.
///
/// # Errors
/// What unlinkat(2) says.
pub fn remove(directory: impl AsFd, name: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn scratch(name: &str) -> (std::path::PathBuf, File) {
        let path =
            std::env::temp_dir().join(format!("belljar-sys-durable-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let directory = open_directory(&path).unwrap();
        (path, directory)
    }

    #[test]
    fn only_a_regular_file_of_this_directory_is_opened() {
        let (path, directory) = scratch("open");
        std::fs::write(path.join("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", path.join("link")).unwrap();
        std::fs::create_dir(path.join("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
        let mut text = String::new();
        open_regular(&directory, "file")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "content");
        for name in ["link", "directory", "socket"] {
            assert_eq!(
                open_regular(&directory, name).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{name}"
            );
        }
        assert_eq!(
            open_regular(&directory, "absent").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        for outside in ["..", "/etc/passwd", "../../etc/passwd"] {
            assert!(open_regular(&directory, outside).is_err(), "{outside}");
        }
        assert!(open_directory(&path.join("link")).is_err());
        for _ in 0..2 {
            let mut file = open_or_create(&directory, "kept", 0o600).unwrap();
            assert_eq!(file.metadata().unwrap().len() % 3, 0);
            file.write_all(b"new").unwrap();
        }
        for name in ["link", "directory", "socket"] {
            assert!(open_or_create(&directory, name, 0o600).is_err(), "{name}");
        }
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn nothing_is_replaced() {
        let (path, directory) = scratch("link");
        create_new(&directory, "new", 0o600)
            .unwrap()
            .write_all(b"one")
            .unwrap();
        assert_eq!(
            create_new(&directory, "new", 0o600).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        link_new(&directory, "new", "name").unwrap();
        remove(&directory, "new").unwrap();
        remove(&directory, "new").unwrap();
        create_new(&directory, "new", 0o600)
            .unwrap()
            .write_all(b"two")
            .unwrap();
        assert_eq!(
            link_new(&directory, "new", "name").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(path.join("name")).unwrap(), b"one");
        std::os::unix::fs::symlink("absent", path.join("dangling")).unwrap();
        assert!(create_new(&directory, "dangling", 0o600).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }
}
