//! What git calls the tree that was put together: computed here, out of what came, so that nobody has to believe an unpacker,
//! which reads packs that some server has sent.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Fact, GitId, GitSubmodule, ObjectId, Recipe, RelPath, bounds};
use belljar_plan::unpack::Said;
use gix_hash::{Kind as HashKind, oid};
use gix_object::Kind;
use gix_object::tree::name_order;

use super::spool::Spool;
use crate::failed::Failed;

type Rejected = String;

/// The names of everything that came of commits. The root is the empty path.
pub(super) struct Names {
    /// Commits that have to come, by where they stand.
    due: BTreeMap<String, GitId>,
    /// The trees that they name, as far as they have come.
    trees: BTreeMap<String, GitId>,
    /// The commit that is coming.
    open: Option<(String, Vec<u8>)>,
    /// The file that is coming.
    file: Option<(String, &'static str)>,
    /// Files and links, by path: mode and name.
    leaves: BTreeMap<String, (&'static str, GitId)>,
    directories: BTreeSet<String>,
    /// Commits that trees name and that have not to come.
    links: BTreeMap<String, GitId>,
}

const LINK: &str = "160000";
const TREE: &str = "40000";

impl Names {
    /// Those of a recipe; none where it is about no commit.
    pub(super) fn of(recipe: &Recipe) -> Option<Self> {
        let Recipe::Git {
            commit, submodules, ..
        } = recipe
        else {
            return None;
        };
        let below = submodules
            .iter()
            .map(|GitSubmodule { path, commit, .. }| (path.to_string(), *commit));
        Some(Self {
            due: below.chain([(String::new(), *commit)]).collect(),
            trees: BTreeMap::new(),
            open: None,
            file: None,
            leaves: BTreeMap::new(),
            directories: BTreeSet::from([String::new()]),
            links: BTreeMap::new(),
        })
    }

    /// Takes note of what an unpacker says of an entry.
    pub(super) fn hear(&mut self, said: &Said) -> Result<(), Rejected> {
        match said {
            Said::Commit { path } => {
                let path = path.as_ref().map_or_else(String::new, RelPath::to_string);
                self.open = Some((path, Vec::new()));
            }
            Said::Directory { path } => {
                self.directories.insert(path.to_string());
            }
            Said::File { path, executable } => {
                let mode = if *executable { "100755" } else { "100644" };
                self.file = Some((path.to_string(), mode));
            }
            Said::Symlink { path, target } => {
                let id = name_of(Kind::Blob, target.as_bytes())?;
                self.leaves.insert(path.to_string(), ("120000", id));
            }
            Said::FileEnd {} => {}
            _ => return Err("something came that no commit has".to_owned()),
        }
        Ok(())
    }

    /// Takes a piece of a commit, if one is coming.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<bool, Rejected> {
        let Some((_, content)) = &mut self.open else {
            return Ok(false);
        };
        if content.len() + piece.len() > bounds::GIT_COMMIT_BYTES {
            let most = bounds::GIT_COMMIT_BYTES;
            return Err(format!("a commit has more than {most} bytes"));
        }
        content.extend_from_slice(piece);
        Ok(true)
    }

    /// The commit that came is complete, if one was coming.
    pub(super) fn end_commit(&mut self) -> Result<bool, Rejected> {
        let Some((path, content)) = self.open.take() else {
            return Ok(false);
        };
        let found = name_of(Kind::Commit, &content)?;
        match self.due.get(&path) {
            Some(due) if *due == found => {}
            _ => return Err(format!("the commit {found} came, which is not due there")),
        }
        let tree = tree_of(&content).ok_or_else(|| format!("the commit {found} names no tree"))?;
        self.trees.insert(path, tree);
        Ok(true)
    }

    /// The file that came is this object.
    pub(super) fn end_file(&mut self, object: ObjectId, spool: &Spool) -> Result<(), Failed> {
        let Some((path, mode)) = self.file.take() else {
            return Err(Failed::refused("a file ended that was not begun"));
        };
        let mut hasher = gix_hash::hasher(HashKind::Sha1);
        hasher.update(format!("blob {}\0", object.size).as_bytes());
        spool.each(object, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        let id = hasher
            .try_finalize()
            .map_err(|_| Failed::refused("a file is made to collide with another by SHA-1"))?;
        let id = name(&id).map_err(Failed::refused)?;
        self.leaves.insert(path, (mode, id));
        Ok(())
    }

    /// What is found beside the tree has to be so.
    pub(super) fn fact(&mut self, fact: &Fact) -> Result<(), Rejected> {
        match fact {
            Fact::GitCommit {
                path, commit, tree, ..
            } => {
                let path = path.as_ref().map_or("", RelPath::as_str);
                let fits = self.due.get(path) == Some(commit) && self.trees.get(path) == Some(tree);
                match fits {
                    true => Ok(()),
                    false => Err(format!(
                        "the commit {commit} did not come, or has another tree"
                    )),
                }
            }
            Fact::GitLink { path, commit, .. } => {
                self.links.insert(path.to_string(), *commit);
                Ok(())
            }
            _ => Err("something was found that no commit has".to_owned()),
        }
    }

    /// Computes the name of every tree, the deepest first, and compares it with what the commits name.
    pub(super) fn finish(mut self) -> Result<(), Rejected> {
        let mut below = Below::default();
        for (path, (mode, id)) in self.leaves {
            below.put(&path, mode, id);
        }
        // What is in a directory comes behind it.
        for path in self.directories.into_iter().rev() {
            let (entries, id) = below.tree(&path)?;
            let link = self.links.remove(&path);
            let (mode, id) = match (self.trees.remove(&path), link) {
                (Some(tree), _) if tree != id => {
                    return Err(format!("what came of the tree {tree} is another: {id}"));
                }
                (Some(_), _) => (LINK, self.due.remove(&path).unwrap_or(id)),
                (None, Some(commit)) if entries == 0 => (LINK, commit),
                (None, Some(commit)) => {
                    return Err(format!("something stands where the commit {commit} should"));
                }
                (None, None) => (TREE, id),
            };
            if !path.is_empty() {
                below.put(&path, mode, id);
            }
        }
        match self.due.is_empty() && self.links.is_empty() && below.0.is_empty() {
            true => Ok(()),
            false => Err("something came, or was found, that stands nowhere".to_owned()),
        }
    }
}

/// What stands in directories that are not complete, by their paths.
#[derive(Default)]
struct Below(BTreeMap<String, Vec<(String, &'static str, GitId)>>);

impl Below {
    fn put(&mut self, path: &str, mode: &'static str, id: GitId) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entries = self.0.entry(parent.to_owned()).or_default();
        entries.push((name.to_owned(), mode, id));
    }

    /// How much stands in a directory, and its name as a tree (gitformat-index(5) has the order).
    fn tree(&mut self, path: &str) -> Result<(usize, GitId), Rejected> {
        let mut entries = self.0.remove(path).unwrap_or_default();
        entries.sort_by(|(a, of_a, _), (b, of_b, _)| {
            name_order(a.as_bytes(), *of_a == TREE, b.as_bytes(), *of_b == TREE)
        });
        let mut content = Vec::new();
        for (name, mode, id) in &entries {
            content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            content.extend_from_slice(id.as_bytes());
        }
        Ok((entries.len(), name_of(Kind::Tree, &content)?))
    }
}

/// The tree that stands in the first line of a commit.
fn tree_of(content: &[u8]) -> Option<GitId> {
    let (first, rest) = content.strip_prefix(b"tree ")?.split_first_chunk::<40>()?;
    rest.starts_with(b"\n").then_some(())?;
    GitId::new(str::from_utf8(first).ok()?).ok()
}

fn name_of(kind: Kind, content: &[u8]) -> Result<GitId, Rejected> {
    let id = gix_object::compute_hash(HashKind::Sha1, kind, content);
    name(&id.map_err(|_| "an object is made to collide with another by SHA-1".to_owned())?)
}

fn name(id: &oid) -> Result<GitId, Rejected> {
    let bytes = id.as_bytes().try_into();
    bytes
        .map(GitId::from_bytes)
        .map_err(|_| "an object has a name that is no SHA-1".to_owned())
}
