use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;

use belljar_core::{ObjectId, RelPath};
use belljar_wire::{Artifact, ArtifactKind};
use rustix::fs::symlinkat;
use rustix::io::Errno;

use super::Error;
use super::output::{Output, Staged, create, make_directory, open_directory};

/// The entries of one declared output, looked at: a file, or a directory whose entries all lie in directories
/// that are listed before them, and whose links lead nowhere else.
pub(super) struct Tree<'a> {
    root: &'a RelPath,
}

/// A declared output whose files are still to be made and filled.
pub(super) struct Laid {
    /// The whole.
    pub(super) top: Staged,
    /// Its files.
    pub(super) files: Vec<Pending>,
    base: OwnedFd,
}

/// A file that is still to be made. None is open before its content is there: there may be more of them than
/// a process may have open files.
pub(super) struct Pending {
    /// Its content.
    pub(super) object: ObjectId,
    executable: bool,
    /// Its name, below the directories that lead to it.
    names: Vec<String>,
}

impl Laid {
    /// Makes one of its files.
    pub(super) fn create(&self, pending: &Pending) -> Result<File, Errno> {
        let (name, above) = pending.names.split_last().ok_or(Errno::INVAL)?;
        let mut here = open_directory(&self.base, ".")?;
        for directory in above {
            here = open_directory(&here, directory)?;
        }
        create(&here, name, pending.executable)
    }
}

impl<'a> Tree<'a> {
    /// Checks the list that the daemon gave.
    pub(super) fn check(root: &'a RelPath, artifacts: &[&Artifact]) -> Result<Self, Error> {
        let refused = |path: &RelPath, why: &str| {
            Err(Error::Artifact {
                path: path.clone(),
                why: why.to_owned(),
            })
        };
        let mut directories: BTreeSet<&str> = BTreeSet::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for artifact in artifacts {
            let path = &artifact.path;
            if !seen.insert(path.as_str()) {
                return refused(path, "is listed twice");
            }
            let top = path == root;
            let parent = path
                .as_str()
                .rsplit_once('/')
                .map_or("", |(parent, _)| parent);
            if !top && !directories.contains(parent) {
                return refused(path, "does not lie in a directory that is listed before it");
            }
            match &artifact.kind {
                ArtifactKind::Directory { .. } => {
                    directories.insert(path.as_str());
                }
                ArtifactKind::File { .. } => {}
                ArtifactKind::Symlink { .. } if top => {
                    return refused(
                        path,
                        "is a link; only files and directories can be declared",
                    );
                }
                ArtifactKind::Symlink { target } if !stays_inside(root, path, target) => {
                    return refused(path, "is a link that leads out of the declared directory");
                }
                ArtifactKind::Symlink { .. } => {}
            }
        }
        if seen.is_empty() {
            return refused(root, "was declared and is not listed");
        }
        Ok(Self { root })
    }

    /// Makes everything but the files.
    pub(super) fn lay(&self, output: &Output, artifacts: &[&Artifact]) -> Result<Laid, Error> {
        let unwritable = |e: Errno| output.unwritable(e.into());
        if let [
            Artifact {
                kind: ArtifactKind::File { object, executable },
                ..
            },
        ] = artifacts
        {
            let (top, base) = output.reserve()?;
            let files = vec![Pending {
                object: *object,
                executable: *executable,
                names: vec![top.0.clone()],
            }];
            return Ok(Laid { top, files, base });
        }
        let (top, base) = output.directory()?;
        let mut files = Vec::new();
        for artifact in artifacts
            .iter()
            .filter(|artifact| artifact.path != *self.root)
        {
            let names: Vec<&str> = artifact
                .path
                .components()
                .skip(self.root.components().count())
                .collect();
            let (name, above) = names.split_last().ok_or(Errno::INVAL).map_err(unwritable)?;
            let mut here = open_directory(&base, ".").map_err(unwritable)?;
            for directory in above {
                here = open_directory(&here, directory).map_err(unwritable)?;
            }
            match &artifact.kind {
                ArtifactKind::File { object, executable } => files.push(Pending {
                    object: *object,
                    executable: *executable,
                    names: names.iter().map(|name| (*name).to_owned()).collect(),
                }),
                ArtifactKind::Symlink { target } => {
                    symlinkat(target.as_str(), &here, *name).map_err(unwritable)?
                }
                ArtifactKind::Directory { .. } => {
                    drop(make_directory(&here, name).map_err(unwritable)?);
                }
            }
        }
        Ok(Laid { top, files, base })
    }
}

/// Whether the link at `path` with this target stays inside the directory `root`, wherever other links in
/// there lead: it is relative and climbs, by `..` at its beginning only, at most up to `root`. (A `..` behind
/// a name could undo another link: with `a/s -> ..`, the target `s/..` of a link in `a` lies outside.)
fn stays_inside(root: &RelPath, path: &RelPath, target: &str) -> bool {
    let depth = path
        .components()
        .count()
        .saturating_sub(root.components().count() + 1);
    let mut names = target
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .peekable();
    let mut climbed = 0;
    while names.next_if_eq(&"..").is_some() {
        climbed += 1;
    }
    let absolute = target.starts_with('/');
    let plain = !target.is_empty() && !target.contains('\0');
    plain && !absolute && climbed <= depth && names.all(|name| name != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn entry(at: &str, kind: ArtifactKind) -> Artifact {
        Artifact {
            path: path(at),
            kind,
        }
    }

    fn file(at: &str) -> Artifact {
        let object = ObjectId::of(at.as_bytes());
        entry(
            at,
            ArtifactKind::File {
                object,
                executable: at.ends_with('x'),
            },
        )
    }

    fn link(at: &str, target: &str) -> Artifact {
        entry(
            at,
            ArtifactKind::Symlink {
                target: target.to_owned(),
            },
        )
    }

    fn check(entries: &[Artifact]) -> Result<(), String> {
        let entries: Vec<&Artifact> = entries.iter().collect();
        Tree::check(&path("out"), &entries)
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn links_stay_inside() {
        let inside = |target| stays_inside(&path("d/out"), &path("d/out/a/b/link"), target);
        for good in [
            "x", "../x", "../../x", "./../x", "c/d", "..", "../..", "..x", "a/..b",
        ] {
            assert!(inside(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "../../..",
            "../../../x",
            "s/..",
            "../s/../..",
            "c/../../../..",
            "a\0b",
        ] {
            assert!(!inside(bad), "{bad}");
        }
        assert!(!stays_inside(&path("out"), &path("out/link"), ".."));
        assert!(stays_inside(&path("out"), &path("out/link"), "."));
    }

    #[test]
    fn only_whole_trees_are_taken() {
        let directory = |at| entry(at, ArtifactKind::DIRECTORY);
        assert_eq!(check(&[file("out")]), Ok(()));
        assert_eq!(
            check(&[
                directory("out"),
                directory("out/a"),
                file("out/a/x"),
                link("out/l", "a/x")
            ]),
            Ok(())
        );
        let bad: [(&[Artifact], &str); 7] = [
            (&[], "is not listed"),
            (&[file("out"), file("out")], "twice"),
            (&[file("out"), file("out/x")], "listed before it"),
            (&[file("out/x")], "listed before it"),
            (&[directory("out"), file("out/a/x")], "listed before it"),
            (&[link("out", "x")], "only files and directories"),
            (&[directory("out"), link("out/l", "../x")], "leads out"),
        ];
        for (entries, why) in bad {
            let refused = check(entries).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn what_is_laid_replaces_what_stood_there_and_follows_no_link() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let output = Output::open(dir.path()).unwrap();
        std::fs::create_dir_all(dir.path().join("out/old")).unwrap();
        let entries = [
            entry("out", ArtifactKind::DIRECTORY),
            entry("out/a", ArtifactKind::DIRECTORY),
            file("out/a/x"),
            link("out/l", "a/x"),
        ];
        let entries: Vec<&Artifact> = entries.iter().collect();
        let root = path("out");
        let laid = Tree::check(&root, &entries)
            .unwrap()
            .lay(&output, &entries)
            .unwrap();
        assert_eq!(laid.files.len(), 1);
        drop(laid.create(&laid.files[0]).unwrap());
        output.place(laid.top, &root).unwrap();
        assert!(dir.path().join("out/a/x").metadata().unwrap().is_file());
        assert_eq!(
            std::fs::read_link(dir.path().join("out/l"))
                .unwrap()
                .to_str(),
            Some("a/x")
        );
        assert!(!dir.path().join("out/old").exists());

        // A link that somebody planted: replaced at the end of a path, refused in the middle.
        std::os::unix::fs::symlink(outside.path().join("victim"), dir.path().join("file")).unwrap();
        output.write(&path("file"), b"new").unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"new");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("sub")).unwrap();
        let refused = output.write(&path("sub/victim"), b"new").unwrap_err();
        assert!(
            matches!(refused, Error::InTheWay(ref at) if at.ends_with("sub")),
            "{refused}"
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

        drop(output);
        let left: BTreeSet<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, ["file", "out", "sub"].map(str::to_owned).into());
    }
}
