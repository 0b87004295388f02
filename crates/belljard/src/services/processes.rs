use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belljar_plan::{ConfinedStep, LayerReport};
use tokio::time::timeout;

use crate::latest::{FAILED, Latest};
use crate::peers::{SignerClient, StoreClient};

/// How long what they have told counts, unless one is away: it changes only when one of them is started anew.
const FRESH: Duration = Duration::from_secs(10);
/// How long a process may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// How Belljar's own processes have confined themselves, by what they tell.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    own: Arc<Vec<ConfinedStep>>,
    store: StoreClient,
    signer: Arc<SignerClient>,
    /// Whether store and signer answered when that was looked at last.
    answer: Arc<AtomicBool>,
    last: Arc<Latest<Told>>,
}

/// What they have told, and whether all have.
type Told = ([LayerReport; 3], bool);

impl Processes {
    pub(crate) fn new(
        own: Vec<ConfinedStep>,
        (store, signer): (StoreClient, Arc<SignerClient>),
        answer: Arc<AtomicBool>,
    ) -> Self {
        Self {
            own: Arc::new(own),
            store,
            signer,
            answer,
            last: Arc::default(),
        }
    }

    /// A layer for each of them, at most some seconds old if all have told. Who asks at the same time shares one
    /// look: they have other things to do.
    pub(crate) async fn layers(&self) -> [LayerReport; 3] {
        let answer = self.answer.load(Ordering::Relaxed);
        let counts = |(_, all): &Told| if *all && answer { FRESH } else { FAILED };
        self.last.get(counts, self.look()).await.0
    }

    async fn look(&self) -> Told {
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
        (layers, all)
    }
}

fn silent(error: &impl std::fmt::Display) {
    tracing::warn!(%error, "a process did not tell how it is confined");
}
