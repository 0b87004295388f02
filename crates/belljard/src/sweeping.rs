//! Looks now and then how full the store is, has removed what nobody needs, and tells of what was found damaged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_core::Digest;
use belljar_engine::garbage::{Goal, SweepError, Sweeper};
use belljar_engine::ports::Upkeep as _;

use crate::config::StoreKeeping;
use crate::peers::{SpawnerClient, StoreClient};
use crate::tasks::{self, Task};

/// How often builds are given up and logs removed also where there is room.
const FULL: Duration = Duration::from_secs(3600);

impl StoreKeeping {
    /// What is to be free where no more than `low_percent` are used of so much.
    pub(crate) fn down_to_low(&self, total: u64) -> Goal {
        Goal::Available(share(total, 100 - self.low_percent))
    }

    /// Whether more than `high_percent` are used.
    fn is_high(&self, total: u64, available: u64) -> bool {
        available < share(total, 100 - self.high_percent)
    }
}

fn share(total: u64, percent: u8) -> u64 {
    total / 100 * u64::from(percent)
}

/// Who sweeps.
type Broom = Sweeper<Arc<SpawnerClient>, StoreClient>;

/// Does so until the task is dropped.
pub(crate) fn start(sweeper: Arc<Broom>, keeping: StoreKeeping) -> Task {
    tasks::start("sweep", async move {
        let (mut since, mut told) = (Instant::now(), HashSet::new());
        loop {
            tokio::time::sleep(Duration::from_secs(keeping.every_seconds)).await;
            tell_of_damage(&sweeper, &mut told).await;
            let room = match sweeper.upkeep.room().await {
                Ok(room) => room,
                Err(error) => {
                    tracing::warn!(%error, "it cannot be told how full the store is");
                    continue;
                }
            };
            if keeping.is_high(room.total, room.available) || since.elapsed() >= FULL {
                since = Instant::now();
                sweep(&sweeper, keeping.down_to_low(room.total)).await;
            }
        }
    })
}

async fn sweep(sweeper: &Broom, goal: Goal) {
    tracing::info!(target: "audit", who = "belljard", ?goal, "garbage is collected");
    match sweeper.sweep(goal).await {
        Ok(report) => {
            tracing::info!(target: "audit", who = "belljard", ?report, "garbage was collected");
        }
        Err(SweepError::Busy) => {}
        Err(error) => {
            let cause = tasks::chain(&error);
            tracing::error!(cause, "garbage could not be collected");
        }
    }
}

/// Tells of each damaged object that was put aside once, with the builds that need it.
async fn tell_of_damage(sweeper: &Broom, told: &mut HashSet<Digest>) {
    let root = sweeper.root.clone();
    let looked = tokio::task::spawn_blocking(move || belljar_cas::quarantined(&root));
    let Ok(Ok(mut aside)) = looked.await else {
        tracing::warn!("it cannot be told what was found damaged");
        return;
    };
    aside.retain(|digest| !told.contains(digest));
    match sweeper.needing(&aside).await {
        Ok(needing) => {
            for (digest, builds) in aside.into_iter().zip(needing) {
                let builds: Vec<String> = builds.iter().map(belljar_wire::build_name).collect();
                tracing::error!(target: "audit", %digest, ?builds, "an object is damaged, and was put aside");
                told.insert(digest);
            }
        }
        Err(error) => {
            let cause = tasks::chain(&error);
            tracing::warn!(cause, "it cannot be told who needs what was found damaged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_parts_of_the_whole() {
        assert_eq!(share(1000, 15), 150);
        assert_eq!(share(u64::MAX, 100), u64::MAX / 100 * 100);
    }
}
