use std::sync::Arc;
use std::time::Duration;

use belljar_plan::{ConfinedStep, LayerReport};
use tokio::time::timeout;

use crate::peers::{SignerClient, StoreClient};

/// How long a process may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// How Belljar's own processes have confined themselves, by what they tell.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    own: Arc<Vec<ConfinedStep>>,
    store: StoreClient,
    signer: Arc<SignerClient>,
}

impl Processes {
    pub(crate) fn new(
        own: Vec<ConfinedStep>,
        store: StoreClient,
        signer: Arc<SignerClient>,
    ) -> Self {
        let own = Arc::new(own);
        Self { own, store, signer }
    }

    /// A layer for each of them.
    pub(crate) async fn layers(&self) -> [LayerReport; 3] {
        let (store, signer) = tokio::join!(
            timeout(PATIENCE, self.store.confinement()),
            timeout(PATIENCE, self.signer.confinement()),
        );
        let store = store.ok().and_then(|told| told.inspect_err(silent).ok());
        let signer = signer.ok().and_then(|told| told.inspect_err(silent).ok());
        [
            LayerReport::of_process("belljard", Some(&self.own)),
            LayerReport::of_process("belljar-store", store.as_deref()),
            LayerReport::of_process("belljar-signer", signer.as_deref()),
        ]
    }
}

fn silent(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "a process did not tell how it is confined");
}
