//! Images of trees: whatever goes of them is made anew when it is needed.

use std::time::Duration;

use belljar_core::{Digest, bounds};

use super::mark::{self, Marked};
use super::{Goal, Report, SweepError, Sweeper};
use crate::ports::{Spawner, Upkeep};

/// How long the spawner may take to look around.
const LOOK: Duration = Duration::from_secs(1);

impl<S: Spawner, U: Upkeep> Sweeper<S, U> {
    /// Removes images of trees that nothing leads to; one that is needed after all is made anew.
    pub(super) async fn evict(
        &self,
        marked: &Marked,
        report: &mut Report,
    ) -> Result<(), SweepError> {
        let names = mark::names(&self.root.join(belljar_cas::IMAGES)).map_err(SweepError::Store)?;
        let unneeded = names.into_iter().filter(|name| {
            let tree = name.split('-').next().map(Digest::from_hex);
            tree.is_some_and(|tree| tree.is_ok_and(|tree| !marked.reached.has(tree)))
        });
        let unneeded: Vec<String> = unneeded.collect();
        for portion in unneeded.chunks(bounds::SWEPT_AT_ONCE) {
            let evicted = self.upkeep.evict(portion.to_vec()).await?;
            report.images += evicted.removed;
            report.bytes += evicted.bytes;
        }
        Ok(())
    }

    /// Removes images that no build uses though it may again, the oldest first: they are made anew then, and no build that is
    /// kept is the poorer for it. Small trees can have large images, one for each time of their files.
    pub(super) async fn evict_idle(
        &self,
        goal: Goal,
        before: u64,
        report: &mut Report,
    ) -> Result<(), SweepError> {
        let directory = self.root.join(belljar_cas::IMAGES);
        let mut images = mark::by_age(&directory).map_err(SweepError::Store)?;
        if goal == Goal::All {
            images.retain(|(made, _)| *made < before);
        }
        // What is mounted takes its room for a moment longer: it counts as free.
        let mut free = 0_u64;
        for (_, name) in images {
            let wanted = match goal {
                Goal::All => true,
                Goal::Available(bytes) => {
                    self.upkeep.room().await?.available.saturating_add(free) < bytes
                }
            };
            if !wanted {
                break;
            }
            let evicted = self.upkeep.evict(vec![name]).await?;
            report.images += evicted.removed;
            report.bytes += evicted.bytes;
            free = free.saturating_add(evicted.bytes);
        }
        Ok(())
    }

    /// Images that are gone have their room as long as the spawner has them mounted. It looks whenever it is asked something.
    pub(super) async fn let_go(&self, report: &Report) {
        if report.images > 0 {
            let asked = tokio::time::timeout(LOOK, self.spawner.list()).await;
            tracing::debug!(?asked, "the spawner was told that images are gone");
        }
    }
}
