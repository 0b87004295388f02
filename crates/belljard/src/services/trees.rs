use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};

use belljar_cas::{BlobSource as _, ReadError};
use belljar_core::{BuildSpec, Derivation, Image, Input, Invalid, ObjectId, ProjectId, bounds};
use belljar_policy::Identity;
use belljar_tree::Directory;
use belljar_wire::Problem;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::internal;
use super::vault::Share;
use crate::places::{Turn, Turns};

/// Looks whether the trees of a build belong to its project, down to the last file: a root alone proves
/// nothing, since a `Directory` message may name any digest that somebody has heard of. Cheap to clone.
///
/// What was found to belong is remembered, also over changes further up, until something is taken back.
#[derive(Clone, Debug)]
pub(crate) struct Trees {
    known: Arc<Mutex<Known>>,
    turns: Turns<Identity>,
}

/// Directories that belong to their project with all below them.
#[derive(Debug, Default)]
struct Known {
    of: HashMap<ProjectId, HashSet<ObjectId>>,
    count: usize,
}

/// Why a build may not have a tree.
enum Unfit {
    /// Not there, for this project: the two are one.
    Missing(ObjectId),
    Malformed(Invalid),
    Unreadable(ReadError),
}

impl From<ReadError> for Unfit {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(object) | ReadError::Size { object, .. } => Self::Missing(object),
            error @ ReadError::Io { .. } => Self::Unreadable(error),
        }
    }
}

impl Trees {
    pub(crate) fn new() -> Self {
        Self {
            known: Arc::default(),
            turns: Turns::new(bounds::TREE_CHECKS, bounds::TREE_CHECKS_PER_PRINCIPAL),
        }
    }

    /// Forgets what was found: something is about to be taken from projects.
    pub(crate) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Known::default();
    }

    /// A turn to look at trees. Whoever waits for one holds nothing: what goes meanwhile is waited for by all.
    pub(super) async fn turn(&self, share: &Share) -> Result<Turn, Status> {
        let turn = self.turns.wait(share.caller().identity().clone()).await;
        turn.map_err(|e| internal("shutting down", &e))
    }

    /// Looks at every tree that `spec` names.
    pub(super) async fn check(
        &self,
        turn: Turn,
        share: &Share,
        spec: &BuildSpec,
    ) -> Result<(), Status> {
        let (trees, share, named) = (self.clone(), share.clone(), named(spec));
        let base = spec.image_output.as_ref();
        let base = base.and_then(|output| output.base.image()?.derivation);
        let looking = spawn_blocking(move || {
            // Until the thread ends, also for a caller who is gone.
            let _turn = turn;
            for Named {
                field,
                tree,
                record,
            } in named
            {
                trees
                    .whole(&share, tree)
                    .map_err(|unfit| (field.clone(), unfit))?;
                if let Some((field, record)) = record {
                    all_there(&share, &[record]).map_err(|unfit| (field, unfit))?;
                }
            }
            let below = base.map_or(Ok(()), |record| layers(&share, record));
            below.map_err(|unfit| ("spec.image_output.base".to_owned(), unfit))
        });
        let what = "the trees of a build could not be looked at";
        let looked = looking.await.map_err(|e| internal(what, &e))?;
        looked.map_err(|(field, unfit)| match unfit {
            Unfit::Missing(object) => Problem::input_missing(&field, object).into(),
            Unfit::Malformed(invalid) => Problem::invalid(invalid.within(field)).into(),
            Unfit::Unreadable(error) => internal(what, &error),
        })
    }

    /// Whether everything of the tree with this root belongs to the project.
    fn whole(&self, share: &Share, root: ObjectId) -> Result<(), Unfit> {
        // By its id: its digest alone may be known, with all below it.
        all_there(share, &[root])?;
        let mut walked = HashSet::new();
        let mut level = self.unknown(share.project(), vec![root]);
        if !level.is_empty() && share.owns_tree(root)? {
            return Ok(());
        }
        let mut entries = 0;
        // One level at a time: the index is asked about many objects at once.
        for _ in 0..=bounds::PATH_DEPTH {
            if level.is_empty() {
                self.remember(share.project(), walked);
                return Ok(());
            }
            all_there(share, &level)?;
            let (mut below, mut files) = (Vec::new(), Vec::new());
            for object in level {
                if !walked.insert(object) {
                    continue;
                }
                let directory = read(share, object)?;
                entries += directory.files().len() + directory.directories().len();
                if entries > bounds::TREE_ENTRIES {
                    let why = format!("the tree has more than {} entries", bounds::TREE_ENTRIES);
                    return Err(Unfit::Malformed(Invalid::new(why)));
                }
                files.extend(directory.files().iter().map(|node| node.object));
                below.extend(directory.directories().iter().map(|node| node.object));
            }
            all_there(share, &files)?;
            level = self.unknown(share.project(), below);
        }
        let why = format!("the tree is deeper than {} directories", bounds::PATH_DEPTH);
        Err(Unfit::Malformed(Invalid::new(why)))
    }

    /// Those of which it is not known yet that they belong to the project.
    fn unknown(&self, project: &ProjectId, directories: Vec<ObjectId>) -> Vec<ObjectId> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.of.get(project);
        let is_new = |object: &ObjectId| known.is_none_or(|known| !known.contains(object));
        directories.into_iter().filter(is_new).collect()
    }

    fn remember(&self, project: &ProjectId, directories: HashSet<ObjectId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.count + directories.len() > bounds::KNOWN_DIRECTORIES {
            *known = Known::default();
        }
        if directories.len() <= bounds::KNOWN_DIRECTORIES {
            known.count += directories.len();
            known
                .of
                .entry(project.clone())
                .or_default()
                .extend(directories);
        }
    }
}

/// A tree of a specification.
struct Named {
    field: String,
    tree: ObjectId,
    /// The record that it was made by, with its field.
    record: Option<(String, ObjectId)>,
}

fn named(spec: &BuildSpec) -> Vec<Named> {
    let of = |field: String, input: &Input| Named {
        record: input
            .derivation
            .map(|record| (format!("{field}.derivation"), record)),
        field: format!("{field}.tree"),
        tree: input.tree,
    };
    let mut named = vec![Named {
        field: "spec.source".to_owned(),
        tree: spec.source,
        record: None,
    }];
    if let Image::Tree(input) = &spec.image {
        named.push(of("spec.image_tree".to_owned(), input));
    }
    let output = spec.image_output.as_ref();
    if let Some(input) = output.and_then(|output| output.base.image()) {
        named.push(of("spec.image_output.base".to_owned(), input));
    }
    let inputs = spec.inputs.iter();
    named.extend(inputs.map(|(name, input)| of(format!("spec.inputs.{name}"), input)));
    named
}

/// Whether all that the image of this record is made of belongs to the project: a layer is laid on it, and what comes of that is
/// the project's.
fn layers(share: &Share, record: ObjectId) -> Result<(), Unfit> {
    let malformed = |why: String| Unfit::Malformed(Invalid::field("derivation", why));
    if record.size > bounds::DERIVATION_BYTES as u64 {
        return Err(malformed(format!("{record} is too large for a record")));
    }
    let bytes = whole(share, record)?;
    let made = Derivation::from_canonical(&bytes).map_err(|e| malformed(e.to_string()))?;
    let image = made.image().ok_or_else(|| {
        let why = "its tree was made of no OCI image, so that there are no layers to lay one over";
        malformed(why.to_owned())
    });
    let (manifest, config, layers) = image?;
    all_there(share, &[&[manifest, config], layers].concat())
}

/// Whether the project has all of these, and by their sizes.
fn all_there(share: &Share, objects: &[ObjectId]) -> Result<(), Unfit> {
    let there = share.has(objects)?;
    match objects.iter().zip(there).find(|(_, there)| !there) {
        Some((object, _)) => {
            share.note(*object);
            Err(Unfit::Missing(*object))
        }
        None => Ok(()),
    }
}

fn read(share: &Share, object: ObjectId) -> Result<Directory, Unfit> {
    if object.size > bounds::DIRECTORY_BYTES as u64 {
        let why = format!("{object}: too large for a directory");
        return Err(Unfit::Malformed(Invalid::new(why)));
    }
    Directory::decode(&whole(share, object)?)
        .map_err(|e| Unfit::Malformed(Invalid::new(format!("{object} is no directory: {e}"))))
}

fn whole(share: &Share, object: ObjectId) -> Result<Vec<u8>, Unfit> {
    let mut bytes = Vec::new();
    share
        .read_verified(object)?
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io { object, source })?;
    Ok(bytes)
}
