//! What is kept, and how the rest goes: which builds are kept with what they left ([`Retention`]), and which
//! objects nobody needs.
//!
//! An object stays as long as something that is kept leads to it – a build that has not ended or is kept, the evidence
//! of one that was given up, or a pin –, and for a lease after its project was last told that it has it, or it was last
//! given. What else there is
//! goes, what was used longest ago first. The order makes a crash harmless: a build is released before anything of
//! it goes, objects are taken from projects before they are removed, and only one that nobody has is removed.
//!
//! Whoever lets in builds or tells that objects are there holds [`Hold`] meanwhile. Objects go in small portions,
//! each while nobody holds it, and after looking at the builds that came since.

mod ballast;
mod hold;
mod images;
mod mark;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_cas::{BlobSource, ReachError};
use belljar_core::{AttemptId, BuildId, Digest, ProjectId, Timestamp, bounds};
use tokio::task::spawn_blocking;

use crate::ownership::{self, Ownership, OwnershipError};
use crate::ports::{Spawner, Trouble, Upkeep};
use crate::queue::{Queue, QueueError};
use mark::{Marked, Unneeded};

pub use ballast::Ballast;
pub use hold::Hold;

/// How long a project's builds are kept with what they left. A build is given up when any of these is reached;
/// one that is pinned or has not ended never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Most builds that are kept.
    pub builds: Option<u64>,
    /// Longest time after its end, in seconds.
    pub seconds: Option<u64>,
    /// Most bytes of artifacts and logs, each counted once.
    pub bytes: Option<u64>,
}

/// What is kept.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Of projects that are not named.
    pub retention: Retention,
    /// Of those that are.
    pub projects: BTreeMap<ProjectId, Retention>,
    /// How long an object stays that nothing leads to, in seconds after its project was told that it has it.
    pub lease: u64,
}

/// What shall go of what nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// All of it.
    All,
    /// So much that these bytes of the file system are free.
    Available(u64),
}

/// What came of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Builds that were given up.
    pub builds: u64,
    /// Objects that something leads to.
    pub reached: u64,
    /// Objects that nothing leads to and whose lease was over.
    pub unneeded: u64,
    /// Those of them that were removed.
    pub objects: u64,
    /// Images of trees that were removed.
    pub images: u64,
    /// Files of logs that were removed.
    pub logs: u64,
    /// Bytes that all these took on disk.
    pub bytes: u64,
    /// Longest time that nobody could submit or ask for blobs, in microseconds.
    pub longest_hold_micros: u64,
}

/// Why a sweep ended early. What it has removed by then nobody needed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Another one is under way.
    #[error("another sweep is under way")]
    Busy,
    /// The queue.
    #[error("the builds that are kept cannot be read")]
    Queue(#[from] QueueError),
    /// The index.
    #[error("what belongs to whom cannot be read")]
    Ownership(#[from] OwnershipError),
    /// What builds lead to.
    #[error("what the builds that are kept need cannot be told")]
    Reach(#[from] ReachError),
    /// The store's directories.
    #[error("the store cannot be read")]
    Store(#[source] std::io::Error),
    /// Another process.
    #[error("{0}")]
    Trouble(#[from] Trouble),
    /// The task was ended.
    #[error("the sweep was broken off")]
    Ended,
}

/// Gives up builds and removes what nobody needs.
pub struct Sweeper<S, U> {
    /// The builds.
    pub queue: Queue,
    /// Who has what.
    pub ownership: Ownership,
    /// The receipts.
    pub spawner: S,
    /// The store's process.
    pub upkeep: U,
    /// The objects.
    pub source: Arc<dyn BlobSource>,
    /// The store's root.
    pub root: PathBuf,
    /// Held by others.
    pub hold: Hold,
    /// What is kept.
    pub keeping: Keeping,
    /// One sweep at a time.
    pub one: tokio::sync::Mutex<()>,
    /// What is given back where nothing can be noted any more for want of room.
    pub ballast: Ballast,
    /// Told before objects go: what was seen to be there may be gone.
    pub forget: Box<dyn Fn() + Send + Sync>,
}

impl<S: Spawner, U: Upkeep> Sweeper<S, U> {
    async fn sweep_once(&self, goal: Goal) -> Result<Report, SweepError> {
        let before = ownership::now().saturating_sub(self.keeping.lease);
        let mut report = Report {
            builds: self.release().await?,
            ..Report::default()
        };
        let (mut marked, mut unneeded) = self.mark(before).await?;
        report.reached = marked.reached.len() as u64;
        report.unneeded = unneeded.objects.len() as u64;
        self.remove_logs(&marked, before, &mut report).await?;
        let all = std::mem::take(&mut unneeded.objects);
        if (goal == Goal::All || !all.is_empty()) && self.wanted(goal).await? {
            self.evict(&marked, goal, before, &mut report).await?;
        }
        for portion in all.chunks(bounds::SWEPT_AT_ONCE) {
            if !self.wanted(goal).await? {
                break;
            }
            let began = Instant::now();
            // What came while all was marked, or in the pause: nobody waits for that.
            self.mark_builds(&mut marked).await?;
            let held = self.hold.alone().await;
            let since = Instant::now();
            self.remove(&mut marked, portion, before, &mut report)
                .await?;
            let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            report.longest_hold_micros = report.longest_hold_micros.max(micros);
            drop(held);
            // Builds go first: most of the time is theirs.
            tokio::time::sleep((began.elapsed() * THEIRS).min(PAUSE)).await;
        }
        if let Goal::Available(due) = goal {
            self.evict_idle(due, &mut report).await?;
        }
        self.let_go(&report).await;
        Ok(report)
    }

    /// Which builds that are kept need these objects, at most [`bounds::NEEDING_BUILDS`] of each.
    ///
    /// # Errors
    /// See [`SweepError`].
    pub async fn needing(&self, digests: &[Digest]) -> Result<Vec<Vec<BuildId>>, SweepError> {
        let mut needing = vec![Vec::new(); digests.len()];
        let mut position = 0;
        while !digests.is_empty() {
            let page = self.queue.kept(position, 1).await?;
            let Some(kept) = page.into_iter().next() else {
                break;
            };
            position = kept.position;
            let mut one = Marked::default();
            let build = &kept.record.build;
            if let Some(attempt) = build.attempt.as_ref().filter(|_| build.receipt().is_some()) {
                for digest in mark::outputs(&self.spawner, &*self.source, build, attempt).await? {
                    one.reached.add(digest)?;
                }
            }
            let (id, source) = (build.id.clone(), Arc::clone(&self.source));
            let marking = spawn_blocking(move || {
                one.add_build(&*source, &kept.record)?;
                Ok::<_, SweepError>(one)
            });
            let one = marking.await.map_err(|_| SweepError::Ended)??;
            for (digest, builds) in digests.iter().zip(&mut needing) {
                if one.reached.has(*digest) && builds.len() < bounds::NEEDING_BUILDS {
                    builds.push(id.clone());
                }
            }
        }
        Ok(needing)
    }

    /// Whether more shall go.
    async fn wanted(&self, goal: Goal) -> Result<bool, SweepError> {
        match goal {
            Goal::All => Ok(true),
            Goal::Available(bytes) => Ok(self.upkeep.room().await?.available < bytes),
        }
    }

    /// Removes one portion, while nobody holds.
    async fn remove(
        &self,
        marked: &mut Marked,
        portion: &[Digest],
        before: u64,
        report: &mut Report,
    ) -> Result<(), SweepError> {
        self.mark_builds(marked).await?;
        self.mark_used(marked, before).await?;
        let free = portion.iter().copied();
        let free: Vec<_> = free.filter(|digest| !marked.reached.has(*digest)).collect();
        (self.forget)();
        let free = self.ownership.forget(free, before).await?;
        let removed = self.upkeep.remove(free, before).await?;
        report.objects += removed.removed;
        report.bytes += removed.bytes;
        Ok(())
    }

    /// Removes logs of builds that are not kept.
    async fn remove_logs(
        &self,
        marked: &Marked,
        before: u64,
        report: &mut Report,
    ) -> Result<(), SweepError> {
        let directory = self.root.join(belljar_cas::LOGS);
        let names = mark::names(&directory).map_err(SweepError::Store)?;
        let attempts = names.into_iter().filter_map(|name| {
            let attempt = AttemptId::try_from(name.split('.').next()?.to_owned()).ok()?;
            let kept = marked.builds.contains(attempt.build());
            (!kept && mark::is_older(&directory.join(&name), before)).then_some(attempt)
        });
        let attempts: std::collections::BTreeSet<AttemptId> = attempts.collect();
        let attempts: Vec<AttemptId> = attempts.into_iter().collect();
        for portion in attempts.chunks(bounds::SWEPT_AT_ONCE) {
            let removed = self.upkeep.remove_logs(portion.to_vec()).await?;
            report.logs += removed.removed;
            report.bytes += removed.bytes;
        }
        Ok(())
    }

    /// Marks what is needed, and lists what is not.
    async fn mark(&self, before: u64) -> Result<(Marked, Unneeded), SweepError> {
        let mut marked = Marked::default();
        self.mark_builds(&mut marked).await?;
        self.mark_used(&mut marked, before).await?;
        let kept = self.queue.kept_objects().await?;
        let (source, ownership, root) = (
            Arc::clone(&self.source),
            self.ownership.clone(),
            self.root.clone(),
        );
        let marking = spawn_blocking(move || {
            for digest in kept {
                marked.reached.add(digest)?;
            }
            let unneeded = Unneeded::list(&mut marked, &*source, &ownership, &root, before)?;
            Ok((marked, unneeded))
        });
        marking.await.map_err(|_| SweepError::Ended)?
    }

    /// Marks what is pinned, and trees that projects were told to have: both change also while it is removed.
    async fn mark_used(&self, marked: &mut Marked, before: u64) -> Result<(), SweepError> {
        let pins = self.queue.pins().await?;
        let (source, ownership, root) = (
            Arc::clone(&self.source),
            self.ownership.clone(),
            self.root.clone(),
        );
        let mut moved = std::mem::take(marked);
        let marking = spawn_blocking(move || {
            moved.add_pins(&*source, &pins)?;
            moved.add_trees(&*source, &ownership, &root, before)?;
            Ok::<_, SweepError>(moved)
        });
        *marked = marking.await.map_err(|_| SweepError::Ended)??;
        Ok(())
    }

    /// Marks what the builds need that were not looked at yet.
    async fn mark_builds(&self, marked: &mut Marked) -> Result<(), SweepError> {
        loop {
            let page = self.queue.kept(marked.position, bounds::KEPT_PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            marked.position = last.position;
            let mut outputs = Vec::new();
            for kept in &page {
                let build = &kept.record.build;
                let Some(attempt) = build.attempt.as_ref().filter(|_| !kept.indexed) else {
                    continue;
                };
                if build.receipt().is_some() {
                    outputs
                        .extend(mark::outputs(&self.spawner, &*self.source, build, attempt).await?);
                }
            }
            let (mut moved, source) = (std::mem::take(marked), Arc::clone(&self.source));
            let marking = spawn_blocking(move || {
                for digest in outputs {
                    moved.reached.add(digest)?;
                }
                for kept in page {
                    moved.add_build(&*source, &kept.record)?;
                }
                Ok::<_, SweepError>(moved)
            });
            *marked = marking.await.map_err(|_| SweepError::Ended)??;
        }
    }

    /// Gives up builds that are not to be kept any more.
    async fn release(&self) -> Result<u64, SweepError> {
        let mut ended = BTreeMap::<ProjectId, Vec<mark::Ended>>::new();
        let mut position = 0;
        loop {
            let page = self.queue.kept(position, bounds::KEPT_PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.position;
            for kept in &page {
                if let Some(one) = mark::Ended::of(&kept.record) {
                    let project = kept.record.submission.project.clone();
                    ended.entry(project).or_default().push(one);
                }
            }
        }
        let now = Timestamp::from_millis(ownership::now().saturating_mul(1000));
        let mut released = 0;
        for (project, mut builds) in ended {
            let retention = self.keeping.projects.get(&project);
            let retention = *retention.unwrap_or(&self.keeping.retention);
            // The newest first.
            builds.reverse();
            let source = Arc::clone(&self.source);
            let over = spawn_blocking(move || mark::over(&*source, retention, builds, now));
            let over = over.await.map_err(|_| SweepError::Ended)?;
            released += self.queue.release(over, now).await?;
        }
        Ok(released)
    }
}

/// How much more of the time is everybody else's. A disk that removes files makes others wait as well.
const THEIRS: u32 = 2;
/// The longest pause between two portions.
const PAUSE: Duration = Duration::from_secs(1);
