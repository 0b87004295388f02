//! Disks of a test's own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use belljar_tests::tool;
use rustix::fs::FallocateFlags;

/// A small disk of its own: a file with a file system that images of trees can be mounted from, as they cannot from
/// tmpfs.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        Self::of(&[])
    }

    /// One whose file system is made with these options more.
    pub(crate) fn of(options: &[&str]) -> Self {
        let place = tempfile::Builder::new()
            .prefix("belljar-disk-")
            .tempdir_in("/var/tmp");
        let disk = Self(place.unwrap());
        let place = disk.0.path();
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
        let file = File::create_new(place.join("image")).unwrap();
        file.set_len(96 << 20).unwrap();
        fs::create_dir(disk.path()).unwrap();
        let format = ["-q", "-b", "4096", "-O", "^has_journal", "-m", "0"];
        let arguments = [&format[..], options, &["image"]].concat();
        tool(place, "mkfs.ext4", &arguments);
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
        for size in [4096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// The disk does not give these files from now on, of one block each: reading one fails (EIO). Nobody else may use it
    /// meanwhile, and afterwards it is as large as before.
    pub(crate) fn withhold(&self, files: &[PathBuf]) {
        let device = tool(
            self.0.path(),
            "losetup",
            &["-n", "-O", "NAME", "-j", "image"],
        );
        let device = device.trim().trim_start_matches("/dev/");
        // Else some blocks stay free, wherever they are.
        fs::write(format!("/sys/fs/ext4/{device}/reserved_clusters"), "0").unwrap();
        self.fill();
        let filler = self.path().join("filler");
        File::open(&filler).unwrap().sync_all().unwrap();
        // Its last blocks on the disk are the only ones that are free for them then.
        let (logical, physical, length) = last_extent(&filler);
        let blocks = files.len() as u64;
        assert!(length >= blocks, "{length}");
        let space = rustix::fs::statvfs(self.path()).unwrap();
        let block = space.f_bsize;
        rustix::fs::fallocate(
            File::options().write(true).open(&filler).unwrap(),
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            (logical + length - blocks) * block,
            blocks * block,
        )
        .unwrap();
        // The places of the old ones are free only after that.
        let passing = |number: usize| self.path().join(format!("passing-{number}"));
        for (number, file) in files.iter().enumerate() {
            let passing = passing(number);
            let kept = "--preserve=mode,ownership,timestamps";
            tool(self.0.path(), "cp", &[kept, text(file), text(&passing)]);
            File::open(&passing).unwrap().sync_all().unwrap();
        }
        for (number, file) in files.iter().enumerate() {
            fs::rename(passing(number), file).unwrap();
        }
        fs::remove_file(&filler).unwrap();
        let image = File::options()
            .write(true)
            .open(self.0.path().join("image"));
        let end = (physical + length - blocks) * block;
        for file in files {
            let opened = File::open(file).unwrap();
            rustix::fs::syncfs(&opened).unwrap();
            rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        // The loop device finds nothing behind it.
        image.unwrap().set_len(end).unwrap();
        for file in files {
            let error = fs::read(file).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5), "{error}");
        }
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

/// Of the extents of a file the one that lies last on its disk: where it begins in the file and on the disk, and how long
/// it is, in blocks.
fn last_extent(file: &Path) -> (u64, u64, u64) {
    let told = tool(Path::new("/"), "filefrag", &["-v", text(file)]);
    let extents = told.lines().filter_map(|line| {
        // `   0:        0..     255:      34816..     35071:    256:`
        let mut numbers = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|number| !number.is_empty());
        let mut next = || numbers.next()?.parse::<u64>().ok();
        let (_, logical, _, physical, _, length) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        line.contains("..").then_some((logical, physical, length))
    });
    extents
        .max_by_key(|(_, physical, _)| *physical)
        .expect("an extent")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
