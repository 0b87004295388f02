//! Images of trees: whatever goes of them is made anew when it is needed.

use std::time::Duration;

use belljar_core::{Digest, bounds};

use super::mark::{self, Marked};
use super::{Goal, Report, SweepError, Sweeper};
use crate::ports::{Spawner, Upkeep};

/// How long the spawner may take to look around.
const LOOK: Duration = Duration::from_secs(1);

impl<S: Spawner, U: Upkeep> Sweeper<S, U> {
    /// Removes images of trees that nothing leads to, and of all that no build uses, where all shall go, those from before the
    /// lease. One that is needed after all is made anew.
    pub(super) async fn evict(
        &self,
        marked: &Marked,
        goal: Goal,
        before: u64,
        report: &mut Report,
    ) -> Result<(), SweepError> {
        let images = self.images()?.into_iter();
        let unneeded = images.filter(|(made, name)| {
            let tree = name.split('-').next().map(Digest::from_hex);
            let old = goal == Goal::All && *made < before;
            old || tree.is_some_and(|tree| tree.is_ok_and(|tree| !marked.reached.has(tree)))
        });
        let unneeded: Vec<String> = unneeded.map(|(_, name)| name).collect();
        for portion in unneeded.chunks(bounds::SWEPT_AT_ONCE) {
            let evicted = self.upkeep.evict(portion.to_vec()).await?;
            report.images += evicted.removed;
            report.bytes += evicted.bytes;
        }
        Ok(())
    }

    /// Removes further images, the oldest first, until so many bytes are free: no build that is kept is the poorer for it. Small
    /// trees can have large images, one for each time of their files.
    pub(super) async fn evict_idle(&self, due: u64, report: &mut Report) -> Result<(), SweepError> {
        // What is mounted takes its room for a moment longer: it counts as free.
        let mut free = 0_u64;
        for (_, name) in self.images()? {
            if self.upkeep.room().await?.available.saturating_add(free) >= due {
                break;
            }
            let evicted = self.upkeep.evict(vec![name]).await?;
            report.images += evicted.removed;
            report.bytes += evicted.bytes;
            free = free.saturating_add(evicted.bytes);
        }
        Ok(())
    }

    /// All that are there, the oldest first, with when each was made, in seconds since 1970.
    fn images(&self) -> Result<Vec<(u64, String)>, SweepError> {
        mark::by_age(&self.root.join(belljar_cas::IMAGES)).map_err(SweepError::Store)
    }

    /// Images that are gone have their room as long as the spawner has them mounted. It looks when it is asked this.
    pub(super) async fn let_go(&self, report: &Report) {
        if report.images > 0 {
            let asked = tokio::time::timeout(LOOK, self.spawner.list()).await;
            tracing::debug!(?asked, "the spawner was told that images are gone");
        }
    }
}
