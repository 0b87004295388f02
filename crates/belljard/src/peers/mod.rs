//! The other processes, as the engine's ports.

mod channel;
mod files;
mod signer;
mod spawner;
mod store;

pub(crate) use files::{LogFile, Logs, Trails};
pub(crate) use signer::SignerClient;
pub(crate) use spawner::SpawnerClient;
pub(crate) use store::{Derivation, Put, PutError, StoreClient};

use std::time::SystemTime;

use belljar_core::Timestamp;
use belljar_engine::ports::Clock;

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }
}
