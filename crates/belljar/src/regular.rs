//! Opens files that have to be regular ones: whoever filled a directory may have put anything else there.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Opens a regular file for reading, with `flags` besides.
///
/// # Errors
/// What open(2) says; with [`OFlags::NOFOLLOW`] also when it is a symbolic link; when it is not a regular file.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    // A pipe would have us wait for whoever writes to it, and a device might never end.
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = File::from(opened.map_err(|errno| match errno {
        Errno::LOOP if flags.contains(OFlags::NOFOLLOW) => {
            io::Error::other("it is a symbolic link")
        }
        other => other.into(),
    })?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Reads a whole regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; when it cannot be read, or is larger.
pub(crate) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open(path, OFlags::empty())?;
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_opened_and_nobody_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, fifo, link) = (
            dir.path().join("file"),
            dir.path().join("fifo"),
            dir.path().join("link"),
        );
        std::fs::write(&file, "it").unwrap();
        let fifos = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, fifos, Mode::RUSR, 0).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open(&file, OFlags::empty()).is_ok());
        assert!(open(&link, OFlags::empty()).is_ok());
        let refusal = |path: &Path, flags| open(path, flags).unwrap_err().to_string();
        assert_eq!(refusal(&link, OFlags::NOFOLLOW), "it is a symbolic link");
        assert_eq!(read(&file, 2).unwrap(), b"it");
        let large = read(&file, 1).unwrap_err().to_string();
        assert_eq!(large, "it is larger than 1 bytes");
        for other in [&fifo, dir.path(), Path::new("/dev/zero")] {
            assert_eq!(refusal(other, OFlags::empty()), "it is not a regular file");
        }
    }
}
