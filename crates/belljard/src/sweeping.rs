//! Looks now and then how full the store is, has removed what nobody needs, and tells of what was found damaged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_cas::Aside;
use belljar_core::bounds;
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
pub(crate) type Broom = Sweeper<Arc<SpawnerClient>, StoreClient>;

/// Does so until the task is dropped.
pub(crate) fn start(sweeper: Arc<Broom>, keeping: StoreKeeping) -> Task {
    tasks::start("sweep", async move {
        let (mut since, mut told) = (Instant::now(), BTreeSet::new());
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

/// Tells of each damaged object and image that was put aside once, with the builds that need it. Of those that were told of,
/// `told` has what is still there: at most [`bounds::QUARANTINED`].
async fn tell_of_damage(sweeper: &Broom, told: &mut BTreeSet<Aside>) {
    let root = sweeper.root.clone();
    let looked = tokio::task::spawn_blocking(move || belljar_cas::quarantined(&root));
    let cause = match looked.await {
        Ok(Ok(aside)) => return tell_of(sweeper, aside, told).await,
        Ok(Err(error)) => tasks::chain(&error),
        Err(error) => tasks::chain(&error),
    };
    tracing::warn!(cause, "it cannot be told what was found damaged");
}

/// What of this was not told of yet. What is not there any more is forgotten, and told of when it comes again.
fn untold(mut aside: Vec<Aside>, told: &mut BTreeSet<Aside>) -> Vec<Aside> {
    aside.truncate(bounds::QUARANTINED);
    told.retain(|one| aside.contains(one));
    aside.retain(|one| !told.contains(one));
    aside
}

async fn tell_of(sweeper: &Broom, aside: Vec<Aside>, told: &mut BTreeSet<Aside>) {
    let aside = untold(aside, told);
    let digests: Vec<_> = aside.iter().map(|aside| aside.digest).collect();
    match sweeper.needing(&digests).await {
        Ok(needing) => {
            for (aside, builds) in aside.into_iter().zip(needing) {
                let builds: Vec<String> = builds.iter().map(belljar_wire::build_name).collect();
                let digest = aside.digest;
                match aside.image {
                    true => {
                        tracing::error!(target: "audit", tree = %digest, ?builds, "an image is damaged, and was put aside");
                    }
                    false => {
                        tracing::error!(target: "audit", %digest, ?builds, "an object is damaged, and was put aside");
                    }
                }
                told.insert(aside);
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
    use belljar_core::Digest;

    #[test]
    fn what_was_told_of_is_remembered_as_long_as_it_is_there() {
        let digests = |range: std::ops::Range<usize>| -> Vec<Aside> {
            let aside = |n: usize| Aside {
                digest: Digest::of(&n.to_le_bytes()),
                image: n.is_multiple_of(3),
            };
            range.map(aside).collect()
        };
        let mut told = BTreeSet::new();
        for begin in 0..10 {
            let aside = digests(begin * 100..begin * 100 + 2 * bounds::QUARANTINED);
            let new = untold(aside.clone(), &mut told);
            assert!(new.len() <= bounds::QUARANTINED && new.iter().all(|one| aside.contains(one)));
            told.extend(new);
            assert!(told.len() <= bounds::QUARANTINED, "{}", told.len());
            assert_eq!(untold(aside, &mut told), [], "told once");
        }
        let all = digests(0..3);
        told = all.iter().copied().collect();
        assert_eq!(untold(all[..2].to_vec(), &mut told), []);
        assert_eq!(
            untold(all.clone(), &mut told),
            all[2..],
            "it has come again"
        );
    }

    #[test]
    fn watermarks_are_parts_of_the_whole() {
        assert_eq!(share(1000, 15), 150);
        assert_eq!(share(u64::MAX, 100), u64::MAX / 100 * 100);
    }
}
