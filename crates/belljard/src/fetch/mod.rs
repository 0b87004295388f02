//! What builds declare by digest is fetched here, and nowhere else: by this process alone, before a build is staged, and
//! only where the operator says so. What does not have the digest never gets a name in the store.

mod download;
mod flight;
mod http;
pub(crate) mod pull;
mod resolve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_audit::{FetchTry, Found};
use belljar_core::{
    Digest, Fetch, Fetches, Input, InputName, Inputs, ObjectId, Outcome, ProjectId, Recipe, Unpack,
    bounds,
};
use belljar_engine::garbage::Hold;
use belljar_engine::life::{FetchReport, Fetched};
use belljar_engine::ownership::{Ownership, OwnershipError};
use belljar_engine::ports::Fetcher;
use belljar_plan::store::{Answer, Consent};
use belljar_policy::NO_FETCHES;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use crate::config::FetchSettings;
use crate::peers::{Derivation, StoreClient};
use crate::tasks;
use download::{Brought, Download};
use flight::Flights;

pub(crate) use http::connector;
pub(crate) use resolve::{Resolve, System, files};

/// What this is called in outcomes.
const STAGE: &str = "fetch";
/// How often the store is asked for a tree while it makes as many as it can.
const BUSY_TRIES: u32 = 60;
/// How long is waited between.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// Fetches, and has trees made of what came.
pub(crate) struct Fetching {
    open: Option<Arc<Open>>,
    store: StoreClient,
    ownership: Ownership,
    /// Where the store's objects are.
    root: PathBuf,
    hold: Hold,
    /// How long a project that is told to have something need not be noted to have been told again, in seconds.
    noted: u64,
    flights: Flights,
    places: Arc<Semaphore>,
    made: Mutex<HashMap<(ProjectId, ObjectId, Unpack), Input>>,
}

/// What there is where the operator lets fetch.
pub(crate) struct Open {
    pub(crate) settings: FetchSettings,
    pub(crate) tls: TlsConnector,
    pub(crate) resolver: Box<dyn Resolve>,
}

/// Why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) sort: Sort,
    pub(crate) why: String,
}

/// What another try may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// It must not be, or is not what it should be.
    Refused,
    /// It is not there.
    Lasting,
    /// It may be there later.
    Passing,
}

impl Trouble {
    pub(crate) fn refused(why: impl Into<String>) -> Self {
        let (sort, why) = (Sort::Refused, why.into());
        Self { sort, why }
    }

    fn lasting(why: impl Into<String>) -> Self {
        let (sort, why) = (Sort::Lasting, why.into());
        Self { sort, why }
    }

    fn passing(why: impl Into<String>) -> Self {
        let (sort, why) = (Sort::Passing, why.into());
        Self { sort, why }
    }

    /// All in one; the one that may pass says whether another try makes sense.
    fn all(troubles: Vec<Self>) -> Option<Self> {
        let sort = troubles.iter().map(|trouble| trouble.sort).max()?;
        let why = troubles.into_iter().map(|trouble| trouble.why);
        let why = why.collect::<Vec<_>>().join("; ");
        Some(Self { sort, why })
    }

    /// How an attempt ends by it.
    fn outcome(&self, name: &InputName) -> Outcome {
        let why = format!("{name}: {}", self.why);
        match self.sort {
            Sort::Refused => Outcome::Refused {
                reasons: vec![format!("fetches.{why}")],
            },
            Sort::Lasting => Outcome::permanent(STAGE, why),
            Sort::Passing => Outcome::retryable(STAGE, why),
        }
    }
}

impl From<OwnershipError> for Trouble {
    fn from(error: OwnershipError) -> Self {
        Self::passing(tasks::chain(&error))
    }
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
        store: StoreClient,
        ownership: Ownership,
        root: PathBuf,
        (hold, lease): (Hold, u64),
    ) -> Self {
        Self {
            open: open.map(Arc::new),
            store,
            ownership,
            root,
            hold,
            noted: lease / 4,
            flights: Flights::default(),
            places: Arc::new(Semaphore::new(bounds::FETCHES)),
            made: Mutex::default(),
        }
    }

    /// One after the other, until one fails.
    async fn all(&self, project: ProjectId, fetches: Fetches) -> Fetched {
        let (mut reports, mut trees) = (Vec::new(), BTreeMap::new());
        for (name, fetch) in fetches.iter() {
            let (report, made) = self.one(&project, name, fetch).await;
            let Fetch { digest, .. } = fetch;
            let (found, refused) = (&report.found, &report.refused);
            tracing::info!(%project, %name, %digest, ?found, refused, "fetched");
            reports.push(report);
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

    async fn one(
        &self,
        project: &ProjectId,
        name: &InputName,
        fetch: &Fetch,
    ) -> (FetchReport, Result<Input, Trouble>) {
        let mut tries = Vec::new();
        let content = self.content(project, fetch, &mut tries).await;
        let made = match &content {
            Ok((content, _)) => self.tree(project, *content, &fetch.unpack).await,
            Err(trouble) => Err(trouble.clone()),
        };
        let tree = made.as_ref().ok().map(|input| input.tree);
        let found = match content {
            Ok((content, true)) => Found::Present { content, tree },
            Ok((content, false)) => Found::Fetched { content, tree },
            Err(_) => Found::Nothing {},
        };
        let report = FetchReport {
            name: name.clone(),
            digest: fetch.digest,
            found,
            refused: made.as_ref().err().map(|trouble| trouble.why.clone()),
            tries,
        };
        (report, made)
    }

    /// The content, and whether the project had it before. What others have is fetched all the same: else the time would
    /// say that they have it.
    async fn content(
        &self,
        project: &ProjectId,
        fetch: &Fetch,
        tries: &mut Vec<FetchTry>,
    ) -> Result<(ObjectId, bool), Trouble> {
        let Some(open) = self.open.clone() else {
            return Err(Trouble::refused(NO_FETCHES));
        };
        if let Some(object) = self.present(project, fetch.digest).await? {
            return Ok((object, true));
        }
        let work = || {
            let (store, places, fetch) = (self.store.clone(), self.places.clone(), fetch.clone());
            async move {
                let Ok(_place) = places.acquire_owned().await else {
                    return std::future::pending().await;
                };
                let download = Download {
                    settings: &open.settings,
                    tls: &open.tls,
                    resolver: &*open.resolver,
                    store: &store,
                };
                download.bring(&fetch).await
            }
        };
        let key = (project.clone(), fetch.clone());
        let Brought {
            tries: told,
            content,
        } = self.flights.join(key, work).await;
        *tries = told;
        let object = content?;
        let granted = self.ownership.grant(project, vec![object.digest]).await;
        granted?;
        Ok((object, false))
    }

    /// The object of this digest, if the project has it and it is there.
    async fn present(
        &self,
        project: &ProjectId,
        digest: Digest,
    ) -> Result<Option<ObjectId>, Trouble> {
        let _held = self.hold.take().await;
        let (ownership, root, of) = (self.ownership.clone(), self.root.clone(), project.clone());
        let looking = spawn_blocking(move || {
            if ownership.owns(&of, &[digest])? != [true] {
                return Ok(None);
            }
            let path = belljar_cas::path_of(&root, digest);
            let size = std::fs::symlink_metadata(path).map(|status| status.len());
            Ok::<_, OwnershipError>(size.ok().map(|size| ObjectId { digest, size }))
        });
        let found = looked(looking.await)??;
        if found.is_some() {
            let told = self.ownership.touch(project, vec![digest], self.noted);
            told.await?;
        }
        Ok(found)
    }

    /// The tree that is made of content. It is made once, as long as it is there.
    async fn tree(
        &self,
        project: &ProjectId,
        content: ObjectId,
        unpack: &Unpack,
    ) -> Result<Input, Trouble> {
        let key = (project.clone(), content, unpack.clone());
        let known = self.lock().get(&key).copied();
        if let Some(input) = known
            && self.is_there(project, input).await?
        {
            return Ok(input);
        }
        let recipe = Recipe::Fetched {
            content,
            unpack: unpack.clone(),
        };
        let input = self.derive(content, recipe).await?;
        let record = input.derivation.map(|record| record.digest);
        let objects = record.into_iter().chain([input.tree.digest]).collect();
        self.ownership.grant(project, objects).await?;
        let granted = self.ownership.grant_tree(project, input.tree.digest);
        granted.await?;
        let mut made = self.lock();
        if made.len() >= bounds::KNOWN_FETCHES {
            made.clear();
        }
        made.insert(key, input);
        Ok(input)
    }

    /// Whether a tree that was made is still there and the project's: it goes from its root on.
    async fn is_there(&self, project: &ProjectId, input: Input) -> Result<bool, Trouble> {
        let _held = self.hold.take().await;
        let (ownership, root, of) = (self.ownership.clone(), self.root.clone(), project.clone());
        let named = input.derivation.map(|record| record.digest);
        let objects: Vec<Digest> = named.into_iter().chain([input.tree.digest]).collect();
        let asked = objects.clone();
        let looking = spawn_blocking(move || {
            let owned = ownership.owns(&of, &asked)?.iter().all(|owned| *owned)
                && ownership.owns_tree(&of, input.tree.digest)?;
            let there = |digest: &Digest| belljar_cas::path_of(&root, *digest).is_file();
            Ok::<_, OwnershipError>(owned && asked.iter().all(there))
        });
        let there = looked(looking.await)??;
        if there {
            let told = self.ownership.touch(project, objects, self.noted);
            told.await?;
        }
        Ok(there)
    }

    async fn derive(&self, content: ObjectId, recipe: Recipe) -> Result<Input, Trouble> {
        for _ in 0..BUSY_TRIES {
            match self.derive_once(content, recipe.clone()).await? {
                Answer::Derived {
                    tree, derivation, ..
                } => {
                    return Ok(Input {
                        tree,
                        derivation: Some(derivation),
                    });
                }
                Answer::DerivationsBusy {} => tokio::time::sleep(BUSY_PAUSE).await,
                Answer::DerivationRefused { why } => return Err(Trouble::refused(why)),
                Answer::Failed { why, .. } => return Err(Trouble::passing(why)),
                other => {
                    let why = other.refusal();
                    let why =
                        why.unwrap_or_else(|| format!("an answer that does not fit: {other:?}"));
                    return Err(Trouble::passing(format!("the store: {why}")));
                }
            }
        }
        Err(Trouble::passing("the store makes too many trees"))
    }

    async fn derive_once(&self, content: ObjectId, recipe: Recipe) -> Result<Answer, Trouble> {
        let mut deriving = self.store.derive(recipe).await?;
        loop {
            match deriving.hear().await? {
                Derivation::Done(answer) => return Ok(answer),
                Derivation::Wants(object, more) => {
                    let consent = match object == content {
                        true => Consent::Given {},
                        false => Consent::Withheld {},
                    };
                    more.tell(consent).await?;
                    deriving = more;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(ProjectId, ObjectId, Unpack), Input>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the disk came to.
fn looked<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Trouble> {
    result.map_err(|e| Trouble::passing(tasks::chain(&io::Error::other(e))))
}
