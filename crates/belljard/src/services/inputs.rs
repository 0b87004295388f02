use std::sync::Arc;
use std::time::Duration;

use belljar_core::{Input, Recipe, bounds};
use belljar_plan::store::{Answer, Failure};
use belljar_wire::{DerivedTree, Problem, Reason, v1};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use v1::input_service_server::InputService;

use super::gate::identity;
use super::{internal, refused};
use crate::peers::{PutError, StoreClient};

/// When somebody who was turned away because of others should come again.
const LATER: Duration = Duration::from_secs(10);

/// `belljar.v1.InputService`: has the store make trees.
pub(crate) struct TreeMaker {
    store: StoreClient,
    places: Arc<Semaphore>,
}

impl TreeMaker {
    pub(crate) fn new(store: StoreClient) -> Self {
        Self {
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
        let identity = identity(&request)?;
        let recipe = Recipe::try_from(request.into_inner()).map_err(Problem::invalid)?;
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
                tracing::info!(%identity, %tree, %derivation, "a tree was made");
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
            Answer::DerivationRefused { why } => {
                Err(Problem::new(Reason::DerivationRefused, why).into())
            }
            Answer::DerivationLacks { object } => {
                Err(Problem::input_missing("recipe", object).into())
            }
            Answer::DerivationsBusy {} => Err(busy()),
            Answer::Failed {
                class: Failure::Full,
                why,
            } => Err(Problem::exhausted(why, None).into()),
            Answer::Failed { why, .. } => Err(internal(
                "the store did not make a tree",
                &PutError::Store(why),
            )),
            other => {
                let error = PutError::Store(format!("an answer that does not fit: {other:?}"));
                Err(internal("the store did not make a tree", &error))
            }
        }
    }
}

fn busy() -> Status {
    let why = format!("{} trees are being made already", bounds::DERIVATIONS);
    Problem::exhausted(why, Some(LATER)).into()
}
