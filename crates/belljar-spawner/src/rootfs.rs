//! Root file systems: a tree, or `host`, read-only paths of the host, a built-in list that the operator
//! extends.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use belljar_core::bounds;
use belljar_plan::RootFsRecord;

/// Programs and libraries, and the few files under `/etc` without which they do not start. Nothing that
/// names people, hosts or secrets.
const BUILT_IN: &[&str] = &[
    "/bin",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/usr",
];

/// What the sandbox has itself at the top of its root, over whatever an image has there.
const OWN: &[&str] = &["build", "deps", "dev", "etc", "proc", "tmp"];
/// What an image must not have at its top: the sandbox's own files of these names show whether Landlock bites,
/// and cover what builds must not see.
const RESERVED: &[&str] = &[".masked", ".uncovered"];

/// The root file system of one sandbox.
#[derive(Clone, Copy, Debug)]
pub enum RootFs<'a> {
    /// Paths of the host.
    Host(&'a HostRootFs),
    /// A tree.
    Tree(&'a TreeRootFs),
}

/// A tree as a root file system.
#[derive(Clone, Debug)]
pub struct TreeRootFs(Vec<PathBuf>);

impl TreeRootFs {
    /// Looks at the top of the tree that is mounted at `place`.
    ///
    /// # Errors
    /// Says why it cannot be a root file system.
    pub fn look(place: &Path) -> Result<Self, String> {
        let unread = |e: io::Error| format!("image: it cannot be read: {e}");
        let mut top = Vec::new();
        for entry in std::fs::read_dir(place).map_err(unread)? {
            let entry = entry.map_err(unread)?;
            let name = entry.file_name();
            if RESERVED.iter().any(|reserved| name == *reserved) {
                return Err(format!(
                    "image: it has `/{}`, which is the sandbox's own",
                    name.display()
                ));
            }
            let kind = entry.file_type().map_err(unread)?;
            if kind.is_symlink() || OWN.iter().any(|own| name == *own) {
                continue;
            }
            if top.len() == bounds::IMAGE_TOP_ENTRIES {
                return Err(format!(
                    "image: it has more than {} entries at its top",
                    bounds::IMAGE_TOP_ENTRIES
                ));
            }
            top.push(Path::new("/").join(name));
        }
        top.sort_unstable();
        Ok(Self(top))
    }

    /// Files and directories at its top that the sandbox has not itself, sorted; a link leads to another.
    pub fn top(&self) -> &[PathBuf] {
        &self.0
    }
}

/// One path of the list, as it is on the host now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPath {
    /// A directory, to be bound read-only.
    Directory(PathBuf),
    /// A regular file, to be bound read-only.
    File(PathBuf),
    /// A symbolic link, to be made again with the same target.
    Symlink(PathBuf, PathBuf),
}

/// The listed paths that exist.
#[derive(Clone, Debug)]
pub struct HostRootFs(Vec<HostPath>);

impl HostRootFs {
    /// Looks at the built-in list and `further` paths. A built-in path that is not there is left out (not
    /// every distribution has `/lib32`), a configured one must be there.
    ///
    /// # Errors
    /// Names the configured path that is missing or is neither directory, file nor link.
    pub fn look(further: &[PathBuf]) -> io::Result<Self> {
        let configured: BTreeSet<&Path> = further.iter().map(PathBuf::as_path).collect();
        let listed: BTreeSet<&Path> = BUILT_IN
            .iter()
            .map(Path::new)
            .chain(configured.iter().copied())
            .collect();
        let mut paths: Vec<HostPath> = Vec::new();
        for path in listed {
            let inside = paths
                .iter()
                .any(|p| matches!(p, HostPath::Directory(outer) if path.starts_with(outer)));
            if inside {
                continue;
            }
            match path.symlink_metadata() {
                Ok(found) if found.is_dir() => paths.push(HostPath::Directory(path.to_owned())),
                Ok(found) if found.is_file() => paths.push(HostPath::File(path.to_owned())),
                Ok(found) if found.is_symlink() => {
                    paths.push(HostPath::Symlink(
                        path.to_owned(),
                        std::fs::read_link(path)?,
                    ));
                }
                Ok(_) => {
                    return Err(io::Error::other(format!(
                        "host_paths: {} is a special file",
                        path.display()
                    )));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && !configured.contains(path) => {}
                Err(e) => {
                    return Err(io::Error::new(
                        e.kind(),
                        format!("host_paths: {}: {e}", path.display()),
                    ));
                }
            }
        }
        Ok(Self(paths))
    }

    /// The paths, sorted; none lies inside another.
    pub fn paths(&self) -> &[HostPath] {
        &self.0
    }

    /// What the receipt says of it.
    pub fn record(&self) -> RootFsRecord {
        let name = |path: &HostPath| match path {
            HostPath::Directory(path) | HostPath::File(path) | HostPath::Symlink(path, _) => {
                path.display().to_string()
            }
        };
        RootFsRecord::Host {
            paths: self.0.iter().map(name).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_tree_is_what_the_sandbox_has_not_itself() {
        let root = tempfile::tempdir().unwrap();
        for name in ["usr", "etc", "dev", "opt"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("file"), b"").unwrap();
        let found = TreeRootFs::look(root.path()).unwrap();
        assert_eq!(found.top(), ["/file", "/opt", "/usr"].map(PathBuf::from));
        for i in 0..bounds::IMAGE_TOP_ENTRIES {
            std::fs::write(root.path().join(format!("f{i}")), b"").unwrap();
        }
        assert!(
            TreeRootFs::look(root.path())
                .unwrap_err()
                .contains("entries")
        );
    }

    #[test]
    fn a_tree_with_names_of_the_sandbox_is_none() {
        for name in RESERVED {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join(name), b"").unwrap();
            assert!(TreeRootFs::look(root.path()).unwrap_err().contains(name));
        }
    }

    #[test]
    fn a_configured_path_must_be_there_and_nested_ones_are_folded() {
        assert!(HostRootFs::look(&[PathBuf::from("/nonexistent/x")]).is_err());
        let folded = HostRootFs::look(&[PathBuf::from("/usr/bin")]).unwrap();
        assert!(
            folded
                .paths()
                .contains(&HostPath::Directory(PathBuf::from("/usr")))
        );
        assert!(
            !folded
                .paths()
                .contains(&HostPath::Directory(PathBuf::from("/usr/bin")))
        );
    }
}
