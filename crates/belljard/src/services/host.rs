use std::sync::Arc;
use std::time::Duration;

use belljar_engine::ports::SpawnerError;
use belljar_plan::{HostReport, LayerReport, Verdict};
use tokio::time::timeout;

use crate::latest::{FAILED, Latest};
use crate::peers::SpawnerClient;

/// How long a report counts, unless the spawner is lost. What a host offers changes by an administrator's hand.
const FRESH: Duration = Duration::from_secs(10);
/// How long the spawner may take for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the host offers, by the spawner's probe.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    spawner: Arc<SpawnerClient>,
    last: Arc<Latest<Result<HostReport, SpawnerError>>>,
}

impl Host {
    pub(crate) fn new(spawner: Arc<SpawnerClient>) -> Self {
        Self {
            spawner,
            last: Arc::default(),
        }
    }

    /// The report, at most some seconds old. Who asks at the same time shares one probe.
    async fn report(&self) -> Result<HostReport, SpawnerError> {
        let silent = || SpawnerError::Lost(format!("no answer in {} s", PATIENCE.as_secs()));
        let probed = async {
            let report = timeout(PATIENCE, self.spawner.probe()).await;
            report.unwrap_or_else(|_| Err(silent()))
        };
        let counts = |told: &Result<_, _>| match told {
            Ok(_) if self.spawner.is_connected() => FRESH,
            Ok(_) => Duration::ZERO,
            Err(_) => FAILED,
        };
        self.last.get(counts, probed).await
    }

    /// Every layer, and whether builds are accepted. A spawner that cannot be asked is a layer that is missing, and builds
    /// wait for it in the queue.
    pub(crate) async fn layers(&self) -> (Vec<LayerReport>, bool) {
        match self.report().await {
            Ok(report) => {
                let suffices = report.suffices();
                (report.layers, suffices)
            }
            Err(error) => {
                tracing::warn!(%error, "the host could not be probed");
                (vec![LayerReport::of_process("belljar-spawner", None)], true)
            }
        }
    }

    /// The layers that keep builds from running, each with its hint; none if there are none, or if the
    /// spawner cannot be asked: then a build waits for it in the queue.
    pub(crate) async fn lacks(&self) -> Vec<(String, String)> {
        match self.report().await {
            Ok(report) => {
                let missing = report
                    .layers
                    .into_iter()
                    .filter(|layer| layer.verdict == Verdict::Missing);
                missing
                    .map(|layer| (layer.name, format!("{}: {}", layer.found, layer.hint)))
                    .collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the host could not be probed");
                Vec::new()
            }
        }
    }
}
