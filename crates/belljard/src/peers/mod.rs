//! The other processes, as the engine's ports.

mod channel;
mod damage;
mod files;
mod port;
mod put;
mod receiving;
mod signer;
mod spawner;
mod store;
mod upkeep;

pub(crate) use files::{LogFile, Logs, Trails};
pub(crate) use put::Put;
pub(crate) use signer::{PublicKey, SignerClient};
pub(crate) use spawner::SpawnerClient;
pub(crate) use store::{Derivation, PutError, StoreClient};

use std::sync::Arc;
use std::time::SystemTime;

use belljar_cas::{BlobSource, LayoutError, Reader, Reporting};
use belljar_core::Timestamp;
use belljar_engine::ports::{Clock, Fetcher, Ports};

use crate::config::Config;

/// The other processes, and what they leave on disk for belljard to read.
pub(crate) struct Peers {
    pub(crate) spawner: Arc<SpawnerClient>,
    pub(crate) store: StoreClient,
    pub(crate) signer: Arc<SignerClient>,
    pub(crate) objects: Arc<dyn BlobSource>,
    pub(crate) logs: Logs,
    pub(crate) trails: Trails,
}

impl Peers {
    pub(crate) fn reach(config: &Config, trails: Trails) -> Result<Self, LayoutError> {
        let logs = || Logs::new(&config.store_root);
        let store = StoreClient::new(config.store_socket.clone(), logs());
        let reader = Reader::new(&config.store_root)?;
        let objects = Reporting::new(reader, damage::reporting(store.clone()));
        Ok(Self {
            logs: logs(),
            store,
            spawner: Arc::new(SpawnerClient::start(
                config.spawner_socket.clone(),
                config.receipts.clone(),
            )),
            signer: Arc::new(SignerClient::new(
                config.signer_socket.clone(),
                config.evidence.clone(),
            )),
            objects: Arc::new(objects),
            trails,
        })
    }

    /// What the engine needs of them.
    pub(crate) fn ports(
        &self,
        fetcher: Arc<dyn Fetcher>,
    ) -> Ports<Arc<SpawnerClient>, StoreClient, Arc<SignerClient>, SystemClock> {
        Ports {
            spawner: self.spawner.clone(),
            store: self.store.clone(),
            fetcher,
            signer: self.signer.clone(),
            clock: SystemClock,
        }
    }
}

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }
}
