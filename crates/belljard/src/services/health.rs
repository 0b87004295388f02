use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_server::ContentAddressableStorageServer;
use belljar_engine::ports::Spawner as _;
use belljar_wire::bytestream::byte_stream_server::ByteStreamServer;
use belljar_wire::v1::build_service_server::BuildServiceServer;
use belljar_wire::v1::evidence_service_server::EvidenceServiceServer;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::{Blobs, Builds, ByteStreams, EvidenceRecords};
use crate::peers::{SignerClient, SpawnerClient, StoreClient};
use crate::tasks::{self, Task};

/// Between two looks at the other processes.
const LOOK: Duration = Duration::from_secs(1);
/// How long each of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// gRPC health checking (`grpc.health.v1`), and the task that looks whether the other processes answer. The
/// server as a whole and builds need all three, blobs the store; evidence is read from disk. The flag is whether store and
/// signer answered last.
pub(crate) async fn health(
    spawner: Arc<SpawnerClient>,
    (store, signer): (StoreClient, Arc<SignerClient>),
) -> (HealthServer<impl Health>, Task, Arc<AtomicBool>) {
    let (reporter, server) = health_reporter();
    // Until the first look nobody has answered.
    tell(&reporter, false, false).await;
    // What they have told meanwhile counts.
    let answer = Arc::new(AtomicBool::new(true));
    let answered = answer.clone();
    let looking = tasks::start("health", async move {
        let mut before = None;
        loop {
            let (spawner, store, signer) = tokio::join!(
                timeout(PATIENCE, spawner.list()),
                timeout(PATIENCE, store.answers()),
                timeout(PATIENCE, signer.answers()),
            );
            let spawner = matches!(spawner, Ok(Ok(_)));
            let (store, signer) = (store.unwrap_or(false), signer.unwrap_or(false));
            tell(&reporter, spawner && store && signer, store).await;
            answered.store(store && signer, Ordering::Relaxed);
            let now = (spawner, store, signer);
            if before.replace(now).is_some_and(|before| before != now) {
                tracing::warn!(spawner, store, signer, "health: who answers has changed");
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    (server, looking, answer)
}

/// Tells what can be done now.
async fn tell(reporter: &HealthReporter, builds: bool, blobs: bool) {
    let statuses = [
        ("", builds),
        (BuildServiceServer::<Builds>::NAME, builds),
        (EvidenceServiceServer::<EvidenceRecords>::NAME, true),
        (ContentAddressableStorageServer::<Blobs>::NAME, blobs),
        (ByteStreamServer::<ByteStreams>::NAME, blobs),
    ];
    for (service, serving) in statuses {
        let status = match serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        reporter.set_service_status(service, status).await;
    }
}
