use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use belljar_cas::VerifyingRead;
use belljar_core::{Derivation, Input, ObjectId, Recipe, bounds};
use belljar_plan::store::{Answer, Failure};
use belljar_policy::Right;
use belljar_wire::{DerivedTree, Problem, Reason, v1};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use v1::input_service_server::InputService;

use super::builds::named;
use super::vault::Share;
use super::{Caller, Vault, internal, refused};
use crate::peers::{PutError, StoreClient};

/// When somebody who was turned away because of others should come again.
const LATER: Duration = Duration::from_secs(10);

/// `belljar.v1.InputService`: has the store make trees.
pub(crate) struct TreeMaker {
    vault: Vault,
    store: StoreClient,
    places: Arc<Semaphore>,
}

impl TreeMaker {
    pub(crate) fn new(vault: Vault, store: StoreClient) -> Self {
        Self {
            vault,
            store,
            places: Arc::new(Semaphore::new(bounds::DERIVATIONS)),
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
        let share = self.vault.of(project);
        let recipe = Recipe::try_from(request).map_err(Problem::invalid)?;
        // What the recipe names is looked at before, what that leads to after.
        own(&share, named_by(&recipe)).await?;
        let Ok(_place) = self.places.try_acquire() else {
            return Err(busy());
        };
        let answer = self.store.derive(recipe).await.map_err(|e| refused(&e))?;
        match answer {
            Answer::Derived {
                tree,
                derivation,
                entries,
                bytes,
                dropped,
            } => {
                keep(&share, tree, derivation).await?;
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
        Answer::DerivationsBusy {} => busy(),
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

/// Gives the project what was made, if all that was read for it belongs to the project: an image index may
/// name any digest that somebody has heard of.
async fn keep(share: &Share, tree: ObjectId, derivation: ObjectId) -> Result<(), Status> {
    let reading = spawn_blocking({
        let share = share.clone();
        move || read(&share, derivation)
    });
    let made = reading.await.map_err(|e| internal(READING, &e))??;
    own(share, made.from.into_iter().collect()).await?;
    share.take_tree(tree, derivation).await
}

const READING: &str = "the record of a derivation could not be read";

fn named_by(recipe: &Recipe) -> Vec<ObjectId> {
    match recipe {
        Recipe::Tar { archive } => vec![*archive],
        Recipe::Oci { index, .. } => vec![*index],
        Recipe::CargoLock { lock, packages } | Recipe::NpmLock { lock, packages } => {
            vec![*lock, *packages]
        }
    }
}

/// Whether all of these belong to the project: else they are not there for it.
async fn own(share: &Share, objects: Vec<ObjectId>) -> Result<(), Status> {
    let looking = spawn_blocking({
        let (share, objects) = (share.clone(), objects.clone());
        move || share.has(&objects)
    });
    let looked = looking.await.map_err(|e| internal(READING, &e))?;
    let owned =
        looked.map_err(|e| internal("the objects of a recipe could not be looked at", &e))?;
    match objects.into_iter().zip(owned).find(|(_, owned)| !owned) {
        Some((object, _)) => Err(Problem::input_missing("recipe", object).into()),
        None => Ok(()),
    }
}

fn read(share: &Share, record: ObjectId) -> Result<Derivation, Status> {
    let mut bytes = Vec::new();
    let source = share.record(record).map_err(|e| internal(READING, &e))?;
    VerifyingRead::new(source, record)
        .take(bounds::DERIVATION_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| internal(READING, &e))?;
    Derivation::from_canonical(&bytes).map_err(|e| internal(READING, &e))
}

fn busy() -> Status {
    let why = format!("{} trees are being made already", bounds::DERIVATIONS);
    Problem::exhausted(why, Some(LATER)).into()
}
