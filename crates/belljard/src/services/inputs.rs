use std::time::Duration;

use belljar_cas::ReadError;
use belljar_core::{Input, ObjectId, Recipe, bounds};
use belljar_plan::store::{Answer, Consent, Failure};
use belljar_policy::{Identity, Right};
use belljar_wire::{DerivedTree, Problem, Reason, v1};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use v1::input_service_server::InputService;

use super::builds::named;
use super::vault::Share;
use super::{Caller, Vault, internal, refused};
use crate::peers::{Derivation, PutError, StoreClient};
use crate::places::Places;

/// When somebody who was turned away because of others should come again.
const LATER: Duration = Duration::from_secs(10);

/// `belljar.v1.InputService`: has the store make trees.
pub(crate) struct TreeMaker {
    vault: Vault,
    store: StoreClient,
    places: Places<Identity>,
}

impl TreeMaker {
    pub(crate) fn new(vault: Vault, store: StoreClient) -> Self {
        Self {
            vault,
            store,
            places: Places::new(bounds::DERIVATIONS, bounds::DERIVATIONS_PER_PRINCIPAL),
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
        let place = self.places.take(caller.identity().clone());
        let _place = place.map_err(|full| busy(&full.to_string()))?;
        match self.derive(&share, recipe).await? {
            Answer::Derived {
                tree,
                derivation,
                entries,
                bytes,
                dropped,
            } => {
                // It was made of nothing but what the project has.
                share.take_tree(tree, derivation).await?;
                let (identity, project) = (caller.identity(), share.project());
                tracing::info!(%identity, %project, %tree, %derivation, "a tree was made");
                let derived = DerivedTree {
                    input: Input {
                        tree,
                        derivation: Some(derivation),
                    },
                    entries,
                    bytes,
                    dropped,
                };
                Ok(Response::new((&derived).into()))
            }
            other => Err(not_made(other)),
        }
    }
}

/// What an answer means that is no tree.
fn not_made(answer: Answer) -> Status {
    let what = "the store did not make a tree";
    match answer {
        Answer::DerivationRefused { why } => Problem::new(Reason::DerivationRefused, why).into(),
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
        Recipe::Fetched { content, .. } => vec![*content],
        Recipe::Oci { index, .. } => vec![*index],
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
