//! Where the peer builds: what Belljar has as trees and in memory, laid out for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use belljar_core::{BuildSpec, ObjectId};
use belljar_tree::Directory;

use super::ROOM;
use xtask::shell;

/// A tmpfs of the peer's own, unmounted when it is dropped.
pub(super) struct Memory {
    pub(super) place: PathBuf,
}

impl Memory {
    pub(super) fn mount(place: PathBuf) -> Result<Self> {
        fs::create_dir_all(&place)?;
        let size = format!("size={ROOM},mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "belljar-bench"]);
        shell::run(mount.arg(&place))?;
        Ok(Self { place })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Err(error) = shell::run(Command::new("umount").arg(&self.place)) {
            eprintln!("{}: {error:#}", self.place.display());
        }
    }
}

/// Writes a tree of the store, as a directory that anybody can read.
pub(super) fn write_tree(objects: &Path, root: ObjectId, to: &Path) -> Result<()> {
    let path = |object: ObjectId| {
        let hex = object.digest.to_hex();
        objects.join(&hex[..2]).join(&hex[2..])
    };
    let directory = Directory::decode(&fs::read(path(root))?)?;
    fs::create_dir_all(to)?;
    for node in directory.files() {
        let to = to.join(node.name.as_str());
        fs::copy(path(node.object), &to)?;
        let mode = if node.executable { 0o755 } else { 0o644 };
        fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    for node in directory.symlinks() {
        std::os::unix::fs::symlink(node.target.as_str(), to.join(node.name.as_str()))?;
    }
    for node in directory.directories() {
        write_tree(objects, node.object, &to.join(node.name.as_str()))?;
    }
    Ok(())
}

/// Copies sources, all of the same age: else `make` would see some as newer than what is made of them.
pub(super) fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_sources(&path, &to)?;
        } else {
            fs::copy(path, &to)?;
            let age = SystemTime::UNIX_EPOCH + Duration::from_secs(BuildSpec::DEFAULT_EPOCH);
            fs::File::options()
                .write(true)
                .open(&to)?
                .set_modified(age)?;
        }
    }
    Ok(())
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
