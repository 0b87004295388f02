//! What the store takes on disk, as du(1) counts it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use belljar_core::Digest;
use rustix::fs::statvfs;

use crate::{DERIVATIONS, IMAGES, LOGS, OBJECTS, QUARANTINE, TMP, path_of};

/// A sort of file, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Files.
    pub files: u64,
    /// Bytes that they take on disk.
    pub bytes: u64,
}

/// What the store takes on disk. Files without a name – uploads under way – are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects.
    pub objects: Part,
    /// Mountable images of trees.
    pub images: Part,
    /// Logs, and where steps begin in them.
    pub logs: Part,
    /// Damaged objects.
    pub quarantine: Part,
    /// Directories, marks, and all the rest.
    pub other: Part,
}

/// What was found damaged, and put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// Of the object, or of the tree that it is an image of.
    pub digest: Digest,
    /// Whether it is the mountable image of a tree, which is made anew from that.
    pub image: bool,
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the file system.
    pub total: u64,
    /// Bytes that who is not root may still use. Where there may be no more files before there are no more bytes, what those stand
    /// for that there may be: each for its part of all bytes.
    pub available: u64,
}

/// An object as it lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub digest: Digest,
    /// Bytes of content.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub bytes: u64,
    /// When it was last given, in seconds since 1970.
    pub given: u64,
}

impl Space {
    /// Of the file system that `path` lies on.
    ///
    /// # Errors
    /// What statvfs(3) says.
    pub fn of(path: &Path) -> io::Result<Self> {
        let status = statvfs(path)?;
        let total = status.f_blocks.saturating_mul(status.f_frsize);
        let available = status.f_bavail.saturating_mul(status.f_frsize);
        // Some file systems have no bound on files, and say so by zero.
        let by_files = (u128::from(total) * u128::from(status.f_favail))
            .checked_div(status.f_files.into())
            .map_or(u64::MAX, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX));
        Ok(Self {
            total,
            available: available.min(by_files),
        })
    }
}

impl Usage {
    /// Counts what lies below the store's `root`. What comes or goes meanwhile is counted or not.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut usage = Self::default();
        count(root, &mut usage.other)?;
        for name in [DERIVATIONS, TMP] {
            count(&root.join(name), &mut usage.other)?;
        }
        for (name, part) in [
            (IMAGES, &mut usage.images),
            (LOGS, &mut usage.logs),
            (QUARANTINE, &mut usage.quarantine),
        ] {
            count(&root.join(name), part)?;
        }
        count(&root.join("objects"), &mut usage.other)?;
        count(&root.join(OBJECTS), &mut usage.other)?;
        for prefix in 0..=u8::MAX {
            let directory = root.join(OBJECTS).join(format!("{prefix:02x}"));
            count(&directory, &mut usage.objects)?;
        }
        Ok(usage)
    }

    /// Bytes of everything.
    pub fn bytes(&self) -> u64 {
        let parts = [
            self.objects,
            self.images,
            self.logs,
            self.quarantine,
            self.other,
        ];
        parts.iter().map(|part| part.bytes).sum()
    }
}

/// Counts the files in a directory, without those below further directories, and what the directory takes itself.
fn count(directory: &Path, part: &mut Part) -> io::Result<()> {
    part.bytes += fs::symlink_metadata(directory)?.blocks() * 512;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let status = match entry.metadata() {
            Ok(status) => status,
            // It is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !status.is_dir() {
            part.files += 1;
            part.bytes += status.blocks() * 512;
        }
    }
    Ok(())
}

/// What was found damaged and put aside, below the store's `root`, in order.
///
/// # Errors
/// What the system says.
pub fn quarantined(root: &Path) -> io::Result<Vec<Aside>> {
    let mut found: Vec<_> = aside(root)?.into_iter().map(|(aside, _)| aside).collect();
    found.sort_unstable();
    // One tree may have several images, of different times.
    found.dedup();
    Ok(found)
}

/// Those of what is [`quarantined`] that nobody has given, or made, anew: what has such a name was looked at before it got it.
///
/// # Errors
/// What the system says.
pub fn unmended(root: &Path) -> io::Result<BTreeSet<Aside>> {
    let mut found = BTreeSet::new();
    for (aside, name) in aside(root)? {
        let place = match aside.image {
            true => root.join(IMAGES).join(name),
            false => path_of(root, aside.digest),
        };
        if !place.try_exists()? {
            found.insert(aside);
        }
    }
    Ok(found)
}

/// All that was put aside, with the names that it has there.
fn aside(root: &Path) -> io::Result<Vec<(Aside, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(QUARANTINE))? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let (tree, object) = (tree_of(&name), Digest::from_hex(&name).ok());
        let image = tree.is_some();
        if let Some(digest) = tree.or(object) {
            found.push((Aside { digest, image }, name));
        }
    }
    Ok(found)
}

/// Which tree an image is of, by its name; none where that is no image's.
pub(crate) fn tree_of(name: &str) -> Option<Digest> {
    let (tree, _) = name.split_once('-')?;
    Digest::from_hex(tree).ok()
}

/// The objects whose digests begin with `prefix`, below the store's `root`. What is not named like an object is
/// left out.
///
/// # Errors
/// What the system says.
pub fn objects_of_prefix(root: &Path, prefix: u8) -> io::Result<Vec<Found>> {
    let hex = format!("{prefix:02x}");
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(OBJECTS).join(&hex))? {
        let entry = entry?;
        let name = entry.file_name();
        let digest = name.to_str().map(|rest| format!("{hex}{rest}"));
        let Some(digest) = digest.and_then(|hex| Digest::from_hex(&hex).ok()) else {
            continue;
        };
        match entry.metadata() {
            Ok(status) if status.is_file() => found.push(Found {
                digest,
                size: status.len(),
                bytes: status.blocks() * 512,
                given: u64::try_from(status.ctime()).unwrap_or(0),
            }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
