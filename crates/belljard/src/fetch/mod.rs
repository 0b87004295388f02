//! What builds declare by digest is fetched here, and nowhere else: by this process alone, before a build is staged, and
//! only where the operator says so. What does not have the digest never gets a name in the store.

mod download;
mod earlier;
mod flight;
mod git;
mod http;
pub(crate) mod pull;
mod resolve;
#[cfg(test)]
mod tests;
mod trees;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_audit::{FetchTry, Found};
use belljar_core::{
    Digest, Fetch, Fetches, GitId, Input, InputName, Inputs, ObjectId, Outcome, ProjectId, Recipe,
    UrlFetch, bounds,
};
use belljar_engine::garbage::Hold;
use belljar_engine::life::{FetchReport, Fetched};
use belljar_engine::ownership::{Ownership, OwnershipError};
use belljar_engine::ports::Fetcher;
use belljar_policy::NO_FETCHES;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::FetchSettings;
use crate::peers::{PutError, StoreClient};
use crate::places::Turns;
use crate::tasks;
use download::Download;
use flight::{Brought, Flights, Tries, Wanted};
use trouble::{STAGE, Trouble};

pub(crate) use earlier::Earlier;
pub(crate) use http::connector;
pub(crate) use resolve::{Resolve, System, files};

/// Fetches, and has trees made of what came.
pub(crate) struct Fetching {
    open: Option<Arc<Open>>,
    earlier: Earlier,
    store: StoreClient,
    ownership: Ownership,
    /// Where the store's objects are.
    root: PathBuf,
    hold: Hold,
    /// How long a project that is told to have something need not be noted to have been told again, in seconds.
    noted: u64,
    flights: Flights,
    places: Turns<ProjectId>,
    derivations: Turns<ProjectId>,
    known: Mutex<HashMap<Made, Input>>,
    /// Packs that have come, of which the tree of the commit was made.
    packs: Mutex<HashMap<(ProjectId, GitId), ObjectId>>,
}

/// What a tree was made of, and for whom.
type Made = (ProjectId, Recipe);

/// When all fetches of an attempt have to be over.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    seconds: u64,
}

impl Deadline {
    /// What is said afterwards. It would take as long again.
    fn late(self) -> Trouble {
        let seconds = self.seconds;
        Trouble::lasting(format!(
            "all fetches of the build together took longer than the {seconds} s that they may"
        ))
    }
}

/// What there is where the operator lets fetch.
pub(crate) struct Open {
    pub(crate) settings: FetchSettings,
    pub(crate) tls: TlsConnector,
    pub(crate) resolver: Box<dyn Resolve>,
}

impl Fetcher for Fetching {
    fn fetch(
        &self,
        project: ProjectId,
        fetches: Fetches,
    ) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>> {
        Box::pin(self.all(project, fetches))
    }
}

impl Fetching {
    pub(crate) fn new(
        open: Option<Open>,
        earlier: Earlier,
        store: StoreClient,
        ownership: Ownership,
        root: PathBuf,
        (hold, lease): (Hold, u64),
    ) -> Self {
        Self {
            open: open.map(Arc::new),
            earlier,
            store,
            ownership,
            root,
            hold,
            noted: lease / 4,
            flights: Flights::default(),
            places: Turns::new(bounds::FETCHES, bounds::FETCHES_PER_PROJECT),
            derivations: Turns::new(bounds::DERIVATIONS, bounds::DERIVATIONS_PER_PROJECT),
            known: Mutex::default(),
            packs: Mutex::default(),
        }
    }

    /// One after the other, until one fails or the time for all of them is over: they keep a slot meanwhile.
    async fn all(&self, project: ProjectId, fetches: Fetches) -> Fetched {
        let (mut reports, mut trees) = (Vec::new(), BTreeMap::new());
        let deadline = self.deadline();
        let mut submodules = bounds::GIT_SUBMODULES;
        for (name, fetch) in fetches.iter() {
            let (all, made) = self
                .one(&project, name, fetch, deadline, &mut submodules)
                .await;
            for report in all {
                let (submodule, digest) = (&report.submodule, report.digest);
                let (found, refused) = (&report.found, &report.refused);
                tracing::info!(%project, %name, ?submodule, %digest, ?found, refused, "fetched");
                reports.push(report);
            }
            match made {
                Ok(input) => trees.insert(name.clone(), input),
                Err(trouble) => {
                    let result = Err(trouble.outcome(name));
                    return Fetched { reports, result };
                }
            };
        }
        let result = Inputs::new(trees).map_err(|e| Outcome::permanent(STAGE, e));
        Fetched { reports, result }
    }

    fn deadline(&self) -> Deadline {
        let settings = self.open.as_ref().map(|open| &open.settings);
        let seconds = settings.map_or(bounds::FETCHING_SECONDS, |settings| settings.all_seconds);
        let at = Instant::now() + Duration::from_secs(seconds);
        Deadline { at, seconds }
    }

    async fn one(
        &self,
        project: &ProjectId,
        name: &InputName,
        fetch: &Fetch,
        deadline: Deadline,
        submodules: &mut usize,
    ) -> (Vec<FetchReport>, Result<Input, Trouble>) {
        let mut tries = Vec::new();
        let (found, made) = match fetch {
            Fetch::Urls(fetch) => self.downloaded(project, fetch, deadline, &mut tries).await,
            Fetch::Artifact(fetch) => {
                let looking = timeout_at(deadline.at, self.artifact(project, fetch));
                let late = |_| (Found::Nothing {}, Err(deadline.late()));
                looking.await.unwrap_or_else(late)
            }
            Fetch::Git(fetch) => {
                let of = (project, name);
                return self.commit(of, fetch, deadline, submodules).await;
            }
        };
        let report = FetchReport {
            name: name.clone(),
            submodule: None,
            digest: fetch.digest(),
            found,
            refused: made.as_ref().err().map(|trouble| trouble.why.clone()),
            tries,
        };
        (vec![report], made)
    }

    /// What comes from elsewhere, and the tree that is made of it.
    async fn downloaded(
        &self,
        project: &ProjectId,
        fetch: &UrlFetch,
        deadline: Deadline,
        tries: &mut Vec<FetchTry>,
    ) -> (Found, Result<Input, Trouble>) {
        let content = self.content(project, fetch, deadline, tries).await;
        let made = match &content {
            Ok((content, _)) => {
                let recipe = Recipe::Fetched {
                    content: *content,
                    unpack: fetch.unpack.clone(),
                };
                let objects = BTreeSet::from([*content]);
                let making = self.tree(project, recipe, &objects);
                let made = timeout_at(deadline.at, making).await;
                made.unwrap_or_else(|_| Err(deadline.late()))
            }
            Err(trouble) => Err(trouble.clone()),
        };
        let tree = made.as_ref().ok().map(|input| input.tree);
        let found = match content {
            Ok((content, true)) => Found::Present { content, tree },
            Ok((content, false)) => Found::Fetched { content, tree },
            Err(_) => Found::Nothing {},
        };
        (found, made)
    }

    /// The content, and whether the project had it before. What others have is fetched all the same: else the time would
    /// say that they have it.
    async fn content(
        &self,
        project: &ProjectId,
        fetch: &UrlFetch,
        deadline: Deadline,
        tries: &mut Vec<FetchTry>,
    ) -> Result<(ObjectId, bool), Trouble> {
        if self.open.is_none() {
            return Err(Trouble::refused(NO_FETCHES));
        }
        let there = self.there(project, vec![fetch.digest]).await?;
        if let Some(object) = there.and_then(|objects| objects.first().copied()) {
            return Ok((object, true));
        }
        let wanted = Wanted::Url(fetch.urls.clone(), fetch.digest);
        let object = self.brought(project, wanted, deadline, tries).await?;
        let granted = self.ownership.grant(project, vec![object.digest]).await;
        granted?;
        Ok((object, false))
    }

    /// What comes from elsewhere: once for all who want the same of the same places.
    async fn brought(
        &self,
        project: &ProjectId,
        wanted: Wanted,
        deadline: Deadline,
        tries: &mut Vec<FetchTry>,
    ) -> Result<ObjectId, Trouble> {
        let Some(open) = self.open.clone() else {
            return Err(Trouble::refused(NO_FETCHES));
        };
        let key = (project.clone(), wanted.clone());
        let work = |tried: Tries| {
            let (store, places) = (self.store.clone(), self.places.clone());
            let project = project.clone();
            async move {
                let Ok(_place) = places.wait(project.clone()).await else {
                    return std::future::pending().await;
                };
                let download = Download {
                    project: &project,
                    settings: &open.settings,
                    tls: &open.tls,
                    resolver: &*open.resolver,
                    store: &store,
                };
                download.bring(&wanted, &tried).await
            }
        };
        let joined = self
            .flights
            .join(key, deadline.at, || deadline.late(), work);
        let Brought {
            tries: told,
            content,
        } = joined.await;
        *tries = told;
        content
    }

    /// The objects of these digests, if the project has all of them and they are there.
    async fn there(
        &self,
        project: &ProjectId,
        digests: Vec<Digest>,
    ) -> Result<Option<Vec<ObjectId>>, Trouble> {
        let _held = self.hold.take().await;
        let (ownership, root, of) = (self.ownership.clone(), self.root.clone(), project.clone());
        let asked = digests.clone();
        let looking = spawn_blocking(move || {
            if !ownership.owns(&of, &asked)?.iter().all(|owned| *owned) {
                return Ok(None);
            }
            let object = |digest: Digest| {
                let path = belljar_cas::path_of(&root, digest);
                let size = std::fs::symlink_metadata(path).map(|status| status.len());
                size.ok().map(|size| ObjectId { digest, size })
            };
            Ok::<_, OwnershipError>(asked.into_iter().map(object).collect::<Option<Vec<_>>>())
        });
        let found = looked(looking.await)??;
        if found.is_some() {
            let told = self.ownership.touch(project, digests, self.noted);
            told.await?;
        }
        Ok(found)
    }
}

impl From<OwnershipError> for Trouble {
    fn from(error: OwnershipError) -> Self {
        Self::passing(tasks::chain(&error))
    }
}

impl From<PutError> for Trouble {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Content(why) => Self::refused(why),
            other => Self::passing(other.to_string()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a look at the disk came to.
fn looked<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Trouble> {
    result.map_err(|e| Trouble::passing(tasks::chain(&io::Error::other(e))))
}
