use std::sync::Arc;

use belljar_engine::garbage::{Ballast, Hold, Sweeper};
use belljar_engine::ownership::Ownership;
use belljar_engine::queue::Queue;

use crate::config::{Config, StoreKeeping};
use crate::peers::{Peers, StoreClient};
use crate::services::{Census, Content, StoreKeeper, Trees, Vault};
use crate::sweeping::Broom;

/// What callers have in the store, and how it goes.
pub(crate) struct Stored {
    pub(crate) vault: Vault,
    pub(crate) trees: Trees,
    pub(crate) sweeper: Arc<Broom>,
}

impl Stored {
    /// What is there now still is as long as somebody has taken `hold`.
    pub(crate) fn new(
        config: &Config,
        peers: &Peers,
        queue: Queue,
        ownership: Ownership,
        hold: Hold,
    ) -> Self {
        let trees = Trees::new();
        let keeping = config.store.keeping.clone();
        let (objects, owners) = (peers.objects.clone(), ownership.clone());
        let vault = Vault::new(objects, owners, hold.clone(), keeping.lease);
        let ballast = Ballast::new(&config.state.join("ballast"));
        if let Err(error) = ballast.take() {
            tracing::warn!(%error, "there is no room for the ballast");
        }
        let sweeper = Sweeper {
            queue,
            ownership,
            spawner: peers.spawner.clone(),
            upkeep: peers.store.clone(),
            source: peers.objects.clone(),
            root: config.store_root.clone(),
            hold,
            keeping,
            one: tokio::sync::Mutex::default(),
            ballast,
            forget: Box::new({
                let trees = trees.clone();
                move || trees.forget()
            }),
        };
        Self {
            vault,
            trees,
            sweeper: Arc::new(sweeper),
        }
    }

    /// Who sees to it when asked.
    pub(crate) fn keeper(&self, store: StoreClient, keeping: StoreKeeping) -> StoreKeeper {
        StoreKeeper {
            census: Census::new({
                let sweeper = self.sweeper.clone();
                move || Box::pin(Content::of(sweeper.clone()))
            }),
            sweeper: self.sweeper.clone(),
            vault: self.vault.clone(),
            store,
            keeping,
        }
    }
}
