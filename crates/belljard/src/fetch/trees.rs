use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use belljar_cas::Reached;
use belljar_core::{Digest, Input, ObjectId, ProjectId, Recipe, bounds};
use belljar_plan::store::{Answer, Consent, Failure};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Fetching, Made, Trouble, lock, looked};
use crate::peers::{Derivation, PutError};
use crate::tasks;

/// How long is waited before the store is asked again for a tree while it makes as many as it can.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

impl Fetching {
    /// The tree that is made by a recipe of these objects. It is made once, as long as it is there.
    pub(super) async fn tree(
        &self,
        project: &ProjectId,
        recipe: Recipe,
        objects: &BTreeSet<ObjectId>,
    ) -> Result<Input, Trouble> {
        let key = (project.clone(), recipe.clone());
        if let Some(input) = self.made(project, &key).await? {
            return Ok(input);
        }
        let Ok(_turn) = self.derivations.wait(project.clone()).await else {
            return std::future::pending().await;
        };
        // Another build of the project may have had it made meanwhile.
        if let Some(input) = self.made(project, &key).await? {
            return Ok(input);
        }
        let input = self.derive(objects, recipe).await?;
        let record = input.derivation.map(|record| record.digest);
        let made = record.into_iter().chain([input.tree.digest]).collect();
        self.ownership.grant(project, made).await?;
        let granted = self.ownership.grant_tree(project, input.tree.digest);
        granted.await?;
        let mut made = lock(&self.known);
        if made.len() >= bounds::KNOWN_FETCHES {
            made.clear();
        }
        made.insert(key, input);
        Ok(input)
    }

    /// The tree, if it was made before and is still there.
    async fn made(&self, project: &ProjectId, key: &Made) -> Result<Option<Input>, Trouble> {
        let known = lock(&self.known).get(key).copied();
        match known {
            Some(input) if self.is_there(project, input).await? => Ok(Some(input)),
            _ => Ok(None),
        }
    }

    /// Whether a tree that was made is still there and the project's. It goes from its root on.
    async fn is_there(&self, project: &ProjectId, input: Input) -> Result<bool, Trouble> {
        if !self.is_whole(input).await? {
            return Ok(false);
        }
        let _held = self.hold.take().await;
        let (ownership, root, of) = (self.ownership.clone(), self.root.clone(), project.clone());
        let named = input.derivation.map(|record| record.digest);
        let objects: Vec<Digest> = named.into_iter().chain([input.tree.digest]).collect();
        let asked = objects.clone();
        let looking = spawn_blocking(move || {
            let owned = ownership.owns(&of, &asked)?.iter().all(|owned| *owned)
                && ownership.owns_tree(&of, input.tree.digest)?;
            Ok::<_, Trouble>(owned && asked.iter().all(|digest| lies(&root, *digest)))
        });
        let there = looked(looking.await)??;
        if there {
            let told = self.ownership.touch(project, objects, self.noted);
            told.await?;
        }
        Ok(there)
    }

    /// Whether nothing of a tree is missing below its root, where something was found damaged and put aside: that may be
    /// any part of it. No sweep is held back meanwhile, since it takes many looks.
    async fn is_whole(&self, input: Input) -> Result<bool, Trouble> {
        let (root, source) = (self.root.clone(), self.earlier.objects.clone());
        let looking = spawn_blocking(move || {
            let aside = belljar_cas::quarantined(&root).map_err(failed)?;
            let mut whole = lies(&root, input.tree.digest);
            if whole && aside.iter().any(|aside| !aside.image) {
                let mut reached = Reached::default();
                let walked = reached.add_tree(&*source, input.tree, |digest| {
                    whole &= lies(&root, digest);
                });
                // What cannot be read, or goes meanwhile, is made anew.
                whole &= walked.is_ok();
            }
            Ok::<_, Trouble>(whole)
        });
        looked(looking.await)?
    }

    /// Has the store make it, however long others keep it from that: who waits says when it was long enough.
    async fn derive(&self, objects: &BTreeSet<ObjectId>, recipe: Recipe) -> Result<Input, Trouble> {
        loop {
            match self.derive_once(objects, recipe.clone()).await {
                Ok(Answer::Derived {
                    tree, derivation, ..
                }) => {
                    return Ok(Input {
                        tree,
                        derivation: Some(derivation),
                    });
                }
                Ok(Answer::DerivationsBusy {}) => sleep(BUSY_PAUSE).await,
                // It has waited.
                Err(PutError::Busy(_)) => {}
                Ok(other) => return Err(not_made(&recipe, other)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn derive_once(
        &self,
        objects: &BTreeSet<ObjectId>,
        recipe: Recipe,
    ) -> Result<Answer, PutError> {
        let mut deriving = self.store.derive(recipe).await?;
        loop {
            match deriving.hear().await? {
                Derivation::Done(answer) => return Ok(answer),
                Derivation::Wants(object, more) => {
                    let consent = match objects.contains(&object) {
                        true => Consent::Given {},
                        false => Consent::Withheld {},
                    };
                    more.tell(consent).await?;
                    deriving = more;
                }
            }
        }
    }
}

/// The store could not be looked at.
fn lies(root: &Path, digest: Digest) -> bool {
    belljar_cas::path_of(root, digest).is_file()
}

fn failed(error: impl std::error::Error + 'static) -> Trouble {
    Trouble::passing(tasks::chain(&error))
}

/// Why the store has made no tree.
fn not_made(recipe: &Recipe, answer: Answer) -> Trouble {
    match answer {
        Answer::DerivationRefused { why } => Trouble::refused(why),
        // The same pack would come again, and do the same to an unpacker.
        Answer::Failed {
            class: Failure::Refused,
            why,
        } if matches!(recipe, Recipe::Git { .. }) => Trouble::refused(why),
        Answer::Failed { why, .. } => Trouble::passing(why),
        other => {
            let why = other.refusal();
            let why = why.unwrap_or_else(|| format!("an answer that does not fit: {other:?}"));
            Trouble::passing(format!("the store: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use belljar_core::GitId;

    use super::super::trouble::Sort;
    use super::*;

    #[test]
    fn a_pack_that_takes_an_unpacker_over_is_not_brought_again() {
        let object = ObjectId::of(b"x");
        let git = Recipe::Git {
            commit: GitId::from_bytes([1; 20]),
            pack: object,
            submodules: Vec::new(),
        };
        let tar = Recipe::Tar { archive: object };
        for (recipe, class, due) in [
            (&git, Failure::Refused, Sort::Refused),
            (&git, Failure::Internal, Sort::Passing),
            (&git, Failure::Full, Sort::Passing),
            (&tar, Failure::Refused, Sort::Passing),
        ] {
            let why = "it was so".to_owned();
            let trouble = not_made(recipe, Answer::Failed { class, why });
            assert_eq!(trouble.sort, due, "{recipe:?} {class:?}");
        }
    }
}
