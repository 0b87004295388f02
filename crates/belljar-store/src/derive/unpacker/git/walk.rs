use std::collections::BTreeSet;

use belljar_core::{GitId, RelPath, bounds};
use belljar_plan::unpack::Said;
use gix_hash::Kind as HashKind;
use gix_object::tree::name_order;
use gix_object::{CommitRefIter, Kind, TreeRefIter};
use gix_validate::path::component;

use super::super::archive::shown;
use super::super::outlet::{Outlet, Stop};
use super::pack::{Pack, broken, id, refused};

/// What git never writes to a disk, whatever file system that has.
const NAMES: component::Options = component::Options {
    protect_windows: false,
    protect_hfs: true,
    protect_ntfs: true,
};

/// Where submodules say where they can be had.
const MODULES: &str = ".gitmodules";

/// Says what stands in the tree of a commit.
pub(super) struct Walk<'a, 'c> {
    pub(super) outlet: &'a Outlet<'c>,
    pub(super) pack: &'a mut Pack,
    /// What was said.
    pub(super) count: Count,
    /// Commits that stand in the tree.
    pub(super) links: Vec<(RelPath, GitId)>,
    /// Content of the file `.gitmodules`.
    pub(super) modules: Vec<u8>,
}

/// Entries of trees, with those of other packs.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    entries: usize,
    /// Bytes of their paths.
    names: usize,
}

impl Count {
    /// One more.
    fn add(&mut self, path: &RelPath) -> Result<(), Stop> {
        self.entries += 1;
        self.names = self.names.saturating_add(path.as_str().len());
        if self.entries > bounds::TREE_ENTRIES {
            let most = bounds::TREE_ENTRIES;
            return Err(refused(format!("has more than {most} entries in its tree")));
        }
        if self.names > bounds::UNPACKED_NAMES_BYTES {
            let most = bounds::UNPACKED_NAMES_BYTES;
            return Err(refused(format!(
                "has paths in its tree that together are longer than {most} bytes"
            )));
        }
        Ok(())
    }
}

/// The modes that git writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Tree,
    File { executable: bool },
    Symlink,
    Commit,
}

struct Named {
    mode: Mode,
    path: RelPath,
    id: GitId,
}

impl Walk<'_, '_> {
    /// Says the tree of a commit at a place; gives its name.
    pub(super) fn commit(&mut self, commit: GitId, at: Option<&RelPath>) -> Result<GitId, Stop> {
        if !self.pack.has(commit) {
            let why = "has not got that commit: the server has sent something else";
            return Err(refused(why));
        }
        if self.pack.commits() > 1 {
            let why = "has commits beside the one that was asked for: history is not fetched";
            return Err(refused(why));
        }
        let (kind, content) = self.pack.object(commit)?;
        if kind != Kind::Commit {
            return Err(refused(format!(
                "has a {kind} of that name, which is no commit; name the commit itself"
            )));
        }
        let tree = CommitRefIter::from_bytes(content, HashKind::Sha1).tree_id();
        let tree = id(&tree.map_err(|e| broken(&e))?)?;
        if content.len() > bounds::GIT_COMMIT_BYTES {
            let most = bounds::GIT_COMMIT_BYTES;
            return Err(refused(format!("has a commit of more than {most} bytes")));
        }
        let path = at.cloned();
        self.outlet.say(&Said::Commit { path })?;
        for piece in content.chunks(bounds::CHUNK_BYTES) {
            self.outlet.piece(piece)?;
        }
        self.outlet.say(&Said::FileEnd {})?;
        let mut next = vec![(at.cloned(), tree)];
        while let Some((place, tree)) = next.pop() {
            for named in self.tree(tree, place.as_ref())? {
                if let Some(below) = self.entry(named, at)? {
                    next.push(below);
                }
            }
        }
        Ok(tree)
    }

    /// What stands in a tree, of which nothing is odd.
    fn tree(&mut self, tree: GitId, place: Option<&RelPath>) -> Result<Vec<Named>, Stop> {
        let (kind, content) = self.pack.object(tree)?;
        if kind != Kind::Tree {
            return Err(refused(format!(
                "has a {kind} where a tree is named: {tree}"
            )));
        }
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        let mut before: Option<(Vec<u8>, bool)> = None;
        let mut entries = TreeRefIter::from_bytes(content, HashKind::Sha1);
        loop {
            let written = &content[entries.offset_to_next_entry(content)..];
            let Some(entry) = entries.next() else {
                return Ok(all);
            };
            let entry = entry.map_err(|e| broken(&e))?;
            let name: &[u8] = entry.filename.as_ref();
            let odd = |why: &str| {
                let place = place.map_or(String::new(), |place| format!("{place}/"));
                let name = shown(name);
                refused(format!("has an entry `{place}{name}`, which {why}"))
            };
            let mode = mode(written).map_err(|written| {
                let written = shown(written);
                odd(&format!(
                    "has the mode {written}, which git does not write, or not so"
                ))
            })?;
            let leaf = (mode == Mode::Symlink).then_some(component::Mode::Symlink);
            component(entry.filename, leaf, NAMES)
                .map_err(|e| odd(&format!("cannot be taken: {e}")))?;
            let is_tree = mode == Mode::Tree;
            if let Some((last, tree)) = &before
                && name_order(last, *tree, name, is_tree).is_ge()
            {
                return Err(odd("is out of order"));
            }
            before = Some((name.to_vec(), is_tree));
            let text = str::from_utf8(name).map_err(|_| odd("has a name that is not UTF-8"))?;
            if !names.insert(text) {
                return Err(odd("stands there twice"));
            }
            let path = match place {
                None => RelPath::new(text),
                Some(place) => place.join(text),
            };
            let path = path.map_err(|e| odd(&format!("cannot be taken: {e}")))?;
            let id = id(entry.oid)?;
            self.count.add(&path)?;
            all.push(Named { mode, path, id });
        }
    }

    /// Says one entry; gives the tree that it is, if it is one.
    fn entry(
        &mut self,
        named: Named,
        root: Option<&RelPath>,
    ) -> Result<Option<(Option<RelPath>, GitId)>, Stop> {
        let Named { mode, path, id } = named;
        match mode {
            Mode::Tree => {
                self.outlet.say(&Said::Directory { path: path.clone() })?;
                return Ok(Some((Some(path), id)));
            }
            Mode::Commit => {
                self.outlet.say(&Said::Directory { path: path.clone() })?;
                self.links.push((path, id));
            }
            Mode::File { executable } => {
                let own = match root {
                    None => path.as_str() == MODULES,
                    Some(root) => path.below(root).is_some_and(|p| p.as_str() == MODULES),
                };
                let content = blob(self.pack, &path, id)?;
                if own && content.len() <= bounds::GIT_MODULES_BYTES {
                    self.modules = content.to_vec();
                }
                self.outlet.say(&Said::File { path, executable })?;
                for piece in content.chunks(bounds::CHUNK_BYTES) {
                    self.outlet.piece(piece)?;
                }
                self.outlet.say(&Said::FileEnd {})?;
            }
            Mode::Symlink => {
                let target = blob(self.pack, &path, id)?;
                let odd = |why: &str| refused(format!("has a symbolic link `{path}`, which {why}"));
                if target.len() > bounds::SYMLINK_BYTES {
                    let most = bounds::SYMLINK_BYTES;
                    return Err(odd(&format!("points to a name of more than {most} bytes")));
                }
                let target = str::from_utf8(target);
                let target = target.map_err(|_| odd("points to a name that is not UTF-8"))?;
                let target = target.to_owned();
                self.outlet.say(&Said::Symlink { path, target })?;
            }
        }
        Ok(None)
    }
}

fn blob<'p>(pack: &'p mut Pack, path: &RelPath, id: GitId) -> Result<&'p [u8], Stop> {
    match pack.object(id)? {
        (Kind::Blob, content) => Ok(content),
        (kind, _) => Err(refused(format!(
            "has a {kind} where a file is named: `{path}`, {id}"
        ))),
    }
}

/// The mode that an entry begins with, written as git writes it: names of trees are about how it is written, too.
fn mode(entry: &[u8]) -> Result<Mode, &[u8]> {
    let end = entry.iter().position(|byte| *byte == b' ');
    let written = &entry[..end.unwrap_or(0)];
    match written {
        b"40000" => Ok(Mode::Tree),
        b"100644" => Ok(Mode::File { executable: false }),
        b"100755" => Ok(Mode::File { executable: true }),
        b"120000" => Ok(Mode::Symlink),
        b"160000" => Ok(Mode::Commit),
        _ => Err(written),
    }
}
