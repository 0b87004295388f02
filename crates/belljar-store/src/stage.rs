use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use belljar_cas::{ImageOrder, Images, LayoutError, Measure, Provenance, TMP, TreeError};
use belljar_core::bounds;
use belljar_plan::store::StagedTree;

use crate::failed::{Failed, chain};
use crate::session::Store;

/// The trees of one attempt, of which each has an image.
#[derive(Debug)]
pub(crate) struct Staged {
    trees: Arc<Vec<StagedTree>>,
    /// Looks whether they are unchanged.
    looking: Option<JoinHandle<Result<bool, Failed>>>,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// How many of the images were made for it.
    pub(crate) made: usize,
    /// How many damages were known when it began.
    damages: u64,
}

impl Staged {
    /// Sees that there is an image of each of `trees`, verified. The caller holds them.
    pub(crate) fn prepare(store: &Store, trees: Vec<StagedTree>) -> Result<Self, Failed> {
        if trees.is_empty() || trees.len() > bounds::ATTEMPT_TREES {
            return Err(Failed::refused(format!(
                "{} trees of one attempt; between 1 and {} are allowed",
                trees.len(),
                bounds::ATTEMPT_TREES
            )));
        }
        let mut staged = Self {
            trees: Arc::default(),
            looking: None,
            entries: 0,
            bytes: 0,
            made: 0,
            damages: store.damages(),
        };
        // What is just being put aside is counted already, and may be there still.
        store.images.note_damages(staged.damages);
        let removals = store.images.removals();
        staged.see(store, &trees)?;
        // What an image names that is there stays as long as it is held. One that was made while objects were being
        // removed was not asked: when they are gone, it is seen whether its own are there.
        store.leases.settle();
        if store.images.removals() != removals {
            (staged.entries, staged.bytes, staged.made) = (0, 0, 0);
            staged.see(store, &trees)?;
        }
        in_place(store)?;
        staged.trees = Arc::new(trees);
        Ok(staged)
    }

    fn see(&mut self, store: &Store, trees: &[StagedTree]) -> Result<(), Failed> {
        for tree in trees {
            let prepared = store
                .images
                .prepare(&*store.source, order(tree, &tree.image()));
            let (provenance, Measure { entries, bytes, .. }) =
                prepared.map_err(|error| aside(store, error))?;
            self.entries = self.entries.saturating_add(entries);
            self.bytes = self.bytes.saturating_add(bytes);
            match provenance {
                Provenance::Known | Provenance::Found => {}
                Provenance::Made => self.made += 1,
                Provenance::Mended => {
                    tracing::error!(tree = %tree.tree, "an image was damaged, and was made anew");
                    self.made += 1;
                    // This attempt has it as it should be.
                    self.damages += 1;
                }
            }
        }
        Ok(())
    }

    /// Nothing of the attempt reads the trees any more: looks whether they are unchanged while outputs become durable,
    /// which waits for the disk. Where there is no thread for that, [`Self::are_unchanged`] looks.
    pub(crate) fn begin_look(&mut self, store: &Arc<Store>) {
        let (trees, store) = (Arc::clone(&self.trees), Arc::clone(store));
        let look = thread::Builder::new().name("look".to_owned());
        self.looking = look.spawn(move || look_at(&trees, &store)).ok();
    }

    /// Whether images and objects are as they were.
    pub(crate) fn are_unchanged(&mut self, store: &Store) -> Result<bool, Failed> {
        let unchanged = match self.looking.take() {
            Some(looking) => looking.join().unwrap_or_else(|_| {
                let error = io::Error::other("it panicked");
                Err(Failed::internal("looking at what was staged", &error))
            }),
            None => look_at(&self.trees, store),
        };
        // A build may have read what was damaged, and its own outputs, or the next build, may have mended it. Whose it was
        // is not looked at: damage is rare, and the build is run again.
        if store.damages() != self.damages {
            tracing::warn!("something was found damaged since the trees were staged");
            return Ok(false);
        }
        unchanged
    }
}

fn look_at(trees: &[StagedTree], store: &Store) -> Result<bool, Failed> {
    in_place(store)?;
    let (images, source) = (&store.images, &*store.source);
    for tree in trees {
        if !images.is_unchanged(source, order(tree, &tree.image()))? {
            tracing::warn!(tree = %tree.tree, "a staged tree was changed");
            put_aside(store, &tree.image());
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds read objects by their path.
fn in_place(store: &Store) -> Result<(), Failed> {
    let looking = |error| Failed::internal("looking where objects lie", &error);
    match store.custody.is_in_place().map_err(looking)? {
        true => Ok(()),
        false => {
            let why = "the directory of all objects is not the one that the store was started with; restart it";
            Err(looking(io::Error::other(why)))
        }
    }
}

/// Of a tree that was changed, objects that are damaged are put aside: else whoever has them would be told that they are
/// here, and the next build would be refused for them.
fn put_aside(store: &Store, image: &str) {
    let objects = match store.images.objects_of(image) {
        Ok(objects) => objects.unwrap_or_default(),
        Err(error) => {
            let why = chain(&error);
            return tracing::error!(image, why, "it cannot be told what the image names");
        }
    };
    for object in objects {
        if !matches!(store.source.verify(object), Ok(true)) {
            store.put_aside(object);
        }
    }
}

/// An object that was found damaged, or that the disk does not give, is put aside, so that whoever has its content is asked for it again.
fn aside(store: &Store, error: TreeError) -> Failed {
    if let TreeError::Damaged { object, .. } | TreeError::Io { object, .. } = &error {
        store.put_aside(*object);
    }
    error.into()
}

fn order<'a>(tree: &StagedTree, name: &'a str) -> ImageOrder<'a> {
    ImageOrder {
        name,
        tree: tree.tree,
        mtime: tree.mtime,
    }
}

/// The images below the store's `root`, after what an earlier run left in `tmp/` is removed.
pub(crate) fn open(root: &Path) -> Result<Images, OpenError> {
    for entry in std::fs::read_dir(root.join(TMP))? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(Images::open(root)?)
}

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("what an earlier run left cannot be removed")]
    Tmp(#[from] io::Error),
    #[error("the store's images cannot be used")]
    Layout(#[from] LayoutError),
}
