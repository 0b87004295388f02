use std::sync::Arc;
use std::time::Duration;

use belljar_plan::{ConfinedStep, LayerReport};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::peers::{SignerClient, StoreClient};

/// How long what they have told counts: it changes only when one of them is started anew.
const FRESH: Duration = Duration::from_secs(10);
/// How long a process may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// How Belljar's own processes have confined themselves, by what they tell.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    own: Arc<Vec<ConfinedStep>>,
    store: StoreClient,
    signer: Arc<SignerClient>,
    last: Arc<Mutex<Option<Told>>>,
}

/// What they have told, and when.
type Told = (Instant, [LayerReport; 3]);

impl Processes {
    pub(crate) fn new(
        own: Vec<ConfinedStep>,
        store: StoreClient,
        signer: Arc<SignerClient>,
    ) -> Self {
        Self {
            own: Arc::new(own),
            store,
            signer,
            last: Arc::default(),
        }
    }

    /// A layer for each of them, at most some seconds old if all have told. Who asks at the same time shares one
    /// look: they have other things to do.
    pub(crate) async fn layers(&self) -> [LayerReport; 3] {
        let mut last = self.last.lock().await;
        if let Some((when, layers)) = &*last
            && when.elapsed() < FRESH
        {
            return layers.clone();
        }
        let (store, signer) = tokio::join!(
            timeout(PATIENCE, self.store.confinement()),
            timeout(PATIENCE, self.signer.confinement()),
        );
        let store = store.ok().and_then(|told| told.inspect_err(silent).ok());
        let signer = signer.ok().and_then(|told| told.inspect_err(silent).ok());
        let all = store.is_some() && signer.is_some();
        let layers = [
            LayerReport::of_process("belljard", Some(&self.own)),
            LayerReport::of_process("belljar-store", store.as_deref()),
            LayerReport::of_process("belljar-signer", signer.as_deref()),
        ];
        *last = all.then(|| (Instant::now(), layers.clone()));
        layers
    }
}

fn silent(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "a process did not tell how it is confined");
}
