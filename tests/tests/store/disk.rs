//! Disks of a test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use belljar_tests::tool;

/// A small disk of its own: a file with a file system that images of trees can be mounted from, as they cannot from
/// tmpfs.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        let place = tempfile::Builder::new()
            .prefix("belljar-disk-")
            .tempdir_in("/var/tmp");
        let disk = Self(place.unwrap());
        let place = disk.0.path();
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
        let file = File::create_new(place.join("image")).unwrap();
        file.set_len(64 << 20).unwrap();
        fs::create_dir(disk.path()).unwrap();
        let format = ["-q", "-O", "^has_journal", "-m", "0", "image"];
        tool(place, "mkfs.ext4", &format);
        tool(place, "mount", &["-o", "loop", "image", "mounted"]);
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("mounted")
    }

    /// How many bytes are left.
    pub(crate) fn available(&self) -> u64 {
        let space = rustix::fs::statvfs(self.path()).unwrap();
        space.f_bavail * space.f_frsize
    }

    /// Leaves no more than so many bytes.
    pub(crate) fn leave(&self, bytes: u64) {
        let filler = vec![7; usize::try_from(self.available() - bytes).unwrap()];
        fs::write(self.path().join("filler"), filler).unwrap();
    }

    /// Uses all that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.path().join("filler"))
            .unwrap();
        let piece = vec![0; 4096];
        while file.write_all(&piece).is_ok() {}
    }

    /// Another bit than was written, as the disk gives it from now on; nobody has written to the file.
    pub(crate) fn rot(&self, file: &Path, at: u64) {
        let opened = File::open(file).unwrap();
        opened.sync_all().unwrap();
        rustix::fs::syncfs(&opened).unwrap();
        let space = rustix::fs::statvfs(self.path()).unwrap();
        let (block, within) = (at / space.f_bsize, at % space.f_bsize);
        let inode = opened.metadata().unwrap().ino();
        let request = format!("bmap <{inode}> {block}");
        let place = tool(self.0.path(), "debugfs", &["-R", &request, "image"]);
        let place: u64 = place.trim().parse().unwrap();
        let image = File::options()
            .read(true)
            .write(true)
            .open(self.0.path().join("image"))
            .unwrap();
        let at = place * space.f_bsize + within;
        let mut byte = [0];
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[byte[0] ^ 1], at).unwrap();
        rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        tool(self.0.path(), "umount", &["--lazy", "mounted"]);
    }
}
