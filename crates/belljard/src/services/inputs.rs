use std::sync::Arc;
use std::time::Duration;

use belljar_cas::ReadError;
use belljar_core::{ImageReference, Input, ObjectId, Recipe, bounds};
use belljar_plan::store::{Answer, Consent, Failure};
use belljar_policy::{Identity, Right, Way};
use belljar_wire::{DerivedTree, ImagePull, Problem, PulledImage, Reason, v1};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use v1::input_service_server::InputService;

use super::builds::named;
use super::hung_up::HungUp;
use super::pulling::{NotPulled, Pulling};
use super::vault::Share;
use super::{Caller, Vault, internal, refused};
use crate::fetch::pull::{Puller, Sort, Trouble};
use crate::peers::{Derivation, PutError, StoreClient};
use crate::places::Places;

/// When somebody who was turned away because of others should come again.
const LATER: Duration = Duration::from_secs(10);
/// How long a pull may take.
const PULL: Duration = Duration::from_secs(bounds::PULL_SECONDS);

/// `belljar.v1.InputService`: has the store make trees, also of what registries have.
pub(crate) struct TreeMaker {
    vault: Vault,
    store: StoreClient,
    puller: Arc<Puller>,
    places: Places<Identity>,
    pulls: Places<Identity>,
}

impl TreeMaker {
    pub(crate) fn new(vault: Vault, store: StoreClient, puller: Arc<Puller>) -> Self {
        Self {
            vault,
            store,
            puller,
            places: Places::new(bounds::DERIVATIONS, bounds::DERIVATIONS_PER_PRINCIPAL),
            pulls: Places::new(bounds::PULLS, bounds::PULLS_PER_PRINCIPAL),
        }
    }
}

#[tonic::async_trait]
impl InputService for TreeMaker {
    async fn derive_tree(
        &self,
        request: Request<v1::DeriveTreeRequest>,
    ) -> Result<Response<v1::DeriveTreeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = caller.project("project", named(&request.project)?, &[Right::Submit])?;
        let share = self.vault.of(&caller, project);
        let recipe = Recipe::try_from(request).map_err(Problem::invalid)?;
        // What the recipe names is looked at before, what that leads to after.
        own(&share, named_by(&recipe)).await?;
        let derived = self.make(&share, recipe, "").await?;
        Ok(Response::new((&derived).into()))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = caller.project("project", named(&request.project)?, &[Right::Submit])?;
        let share = self.vault.of(&caller, project);
        let pull = ImagePull::try_from(request).map_err(Problem::invalid)?;
        let place = self.pulls.take(caller.identity().clone());
        let _place = place.map_err(|full| {
            let why = format!("too many images are being pulled already: {full}");
            Problem::exhausted(why, Some(LATER))
        })?;
        let ImagePull { reference, .. } = &pull;
        let (identity, project) = (caller.identity(), share.project());
        let hung_up = HungUp::told_by(|| {
            let why = "who asked has hung up before the end, or belljard ends";
            tracing::info!(target: "audit", %identity, %project, %reference, why, "an image was not pulled");
        });
        let pulled = timeout(PULL, self.pull(&share, &pull)).await;
        hung_up.answered();
        let pulled = pulled.unwrap_or_else(|_| {
            let seconds = bounds::PULL_SECONDS;
            let why = format!("{reference}: it took longer than the {seconds} s that a pull may");
            Err(Problem::unavailable(why).into())
        });
        match &pulled {
            Ok(PulledImage { image, derived, .. }) => {
                let tree = &derived.input.tree;
                tracing::info!(target: "audit", %identity, %project, %reference, %image, %tree, "an image was pulled");
            }
            Err(status) => {
                let why = status.message();
                tracing::info!(target: "audit", %identity, %project, %reference, why, "an image was not pulled");
            }
        }
        Ok(Response::new((&pulled?).into()))
    }
}

/// What a caller hears of an image that was not pulled.
fn said(reference: &ImageReference, not_pulled: NotPulled) -> Status {
    match not_pulled {
        NotPulled::Own(status) => status,
        NotPulled::Image(Trouble { sort, why }) => {
            let why = format!("{reference}: {why}");
            match sort {
                Sort::Passing => Problem::unavailable(why).into(),
                Sort::Refused | Sort::Lasting => Problem::new(Reason::ImageRefused, why).into(),
            }
        }
    }
}

/// What an answer means that is no tree.
fn not_made(answer: Answer, of: &str) -> Status {
    let what = "the store did not make a tree";
    match answer {
        Answer::DerivationRefused { why } => {
            Problem::new(Reason::DerivationRefused, format!("{of}{why}")).into()
        }
        Answer::DerivationLacks { object } => Problem::input_missing("recipe", object).into(),
        Answer::DerivationsBusy {} => busy("the store has as many as it makes at once"),
        Answer::Failed {
            class: Failure::Full,
            why,
        } => Problem::exhausted(why, None).into(),
        Answer::Failed { why, .. } => internal(what, &PutError::Store(why)),
        other => {
            let error = PutError::Store(format!("an answer that does not fit: {other:?}"));
            internal(what, &error)
        }
    }
}

impl TreeMaker {
    /// Pulls an image, and has the store make a tree of it.
    async fn pull(&self, share: &Share, pull: &ImagePull) -> Result<PulledImage, Status> {
        let ImagePull {
            reference,
            platform,
        } = pull;
        let repository = reference.repository();
        let conversation = self.puller.converse(share.project(), repository, Way::Pull);
        let conversation = conversation.map_err(|why| {
            let why = format!("{reference}: {why}");
            Problem::denied([why.as_str()])
        })?;
        let mut pulling = Pulling::new(share, conversation, *platform);
        let image = pulling.bring(reference).await;
        let image = image.map_err(|not_pulled| said(reference, not_pulled))?;
        let recipe = Recipe::Pulled {
            repository: repository.clone(),
            image,
            platform: *platform,
        };
        Ok(PulledImage {
            derived: self.make(share, recipe, &format!("{reference}: ")).await?,
            image,
            pulled_bytes: pulling.came(),
        })
    }

    /// Has the store make a tree of what is called so, and gives it to the project.
    async fn make(&self, share: &Share, recipe: Recipe, of: &str) -> Result<DerivedTree, Status> {
        let identity = share.caller().identity();
        let place = self.places.take(identity.clone());
        let _place = place.map_err(|full| busy(&full.to_string()))?;
        match self.derive(share, recipe).await? {
            Answer::Derived {
                tree,
                derivation,
                entries,
                bytes,
                dropped,
            } => {
                // It was made of nothing but what the project has.
                share.take_tree(tree, derivation).await?;
                let project = share.project();
                tracing::info!(%identity, %project, %tree, %derivation, "a tree was made");
                Ok(DerivedTree {
                    input: Input {
                        tree,
                        derivation: Some(derivation),
                    },
                    entries,
                    bytes,
                    dropped,
                })
            }
            other => Err(not_made(other, of)),
        }
    }

    /// Has the store make a tree out of what the project has: an image index may name any digest that somebody
    /// has heard of, so each object is looked at before the store does.
    async fn derive(&self, share: &Share, recipe: Recipe) -> Result<Answer, Status> {
        let mut deriving = self.store.derive(recipe).await.map_err(|e| refused(&e))?;
        loop {
            match deriving.hear().await.map_err(|e| refused(&e))? {
                Derivation::Done(answer) => return Ok(answer),
                Derivation::Wants(object, more) => {
                    let lacking = lacking(share, vec![object]).await?;
                    let consent = match lacking {
                        None => Consent::Given {},
                        Some(_) => Consent::Withheld {},
                    };
                    more.tell(consent).await.map_err(|e| refused(&e))?;
                    deriving = more;
                }
            }
        }
    }
}

fn named_by(recipe: &Recipe) -> Vec<ObjectId> {
    match recipe {
        Recipe::Tar { archive } => vec![*archive],
        Recipe::Fetched { content, .. } | Recipe::Artifact { content, .. } => vec![*content],
        Recipe::OutputDirectory { receipt, .. } => vec![*receipt],
        Recipe::Oci { index, .. } => vec![*index],
        Recipe::Pulled { image, .. } => vec![*image],
        Recipe::Git { pack, .. } => vec![*pack],
        Recipe::CargoLock { lock, packages } | Recipe::NpmLock { lock, packages } => {
            vec![*lock, *packages]
        }
    }
}

/// Whether all of these belong to the project: else they are not there for it.
async fn own(share: &Share, objects: Vec<ObjectId>) -> Result<(), Status> {
    match lacking(share, objects).await? {
        Some(object) => Err(Problem::input_missing("recipe", object).into()),
        None => Ok(()),
    }
}

/// The first of these that does not belong to the project, or is not there.
async fn lacking(share: &Share, objects: Vec<ObjectId>) -> Result<Option<ObjectId>, Status> {
    let what = "the objects of a recipe could not be looked at";
    let share = share.clone();
    let looking = spawn_blocking(move || {
        let owned = share.has(&objects)?;
        let lacking = objects.into_iter().zip(owned).find(|(_, owned)| !owned);
        let lacking = lacking.map(|(object, _)| object);
        lacking.inspect(|object| share.note(*object));
        Ok(lacking)
    });
    let looked = looking.await.map_err(|e| internal(what, &e))?;
    looked.map_err(|e: ReadError| internal(what, &e))
}

fn busy(why: &str) -> Status {
    let why = format!("too many trees are being made already: {why}");
    Problem::exhausted(why, Some(LATER)).into()
}
