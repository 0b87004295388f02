//! The other processes, faked: they live on when the daemon is killed, remember what was asked of them, and
//! can be told to hang at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::life::{Bundle, Collected, Fetched};
use crate::ownership::Ownership;
use crate::ports::{
    Clock, Fetcher, Ports, Refusal, Signer, Spawner, SpawnerError, Store, Taken, Trouble,
};
use crate::queue::{OpenError, Queue, Record, Submitted};
use crate::{Driver, Engine, Settings, engine};
use belljar_core::{
    AttemptId, BuildId, BuildSpec, Digest, Fetch, FetchUrl, Fetches, Image, ImageKind, Input,
    InputName, Inputs, Limits, Mirrors, Network, ObjectId, Outcome, Outputs, ProjectId, RelPath,
    RequestId, Script, Sha512Digest, Steps, Timestamp, Unpack, UrlFetch,
};
use belljar_plan::signer::Asserted;
use belljar_plan::{
    Binaries, CleanRoom, InputRecord, LogRecord, OutputEntry, OutputKind, Plan, Receipt,
    RootFsRecord, Usage,
};
use belljar_policy::{
    Access, Admitted, Decision, FetchRules, HostPattern, Identity, Policy, decide,
};
use belljar_tree::{Built, Leaf, build};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Where an operation hangs for ever: before it has an effect, or after, so that its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hang {
    Before,
    After,
}

/// What happens to the attempts of one build, by their number from 1; the last entry counts for all later.
pub(crate) type Fates = Vec<Fate>;

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// The steps end so, and so does the receipt.
    Ends(Outcome),
    /// The steps run until they are killed.
    Runs,
    /// The steps succeed, but the receipt says this.
    Collects(Outcome),
    /// The spawner goes away while they run.
    Lost,
}

#[derive(Default)]
pub(crate) struct State {
    /// Everything that was done, in order.
    pub(crate) done: Vec<String>,
    pub(crate) known: BTreeSet<AttemptId>,
    pub(crate) running: BTreeSet<AttemptId>,
    pub(crate) most_running: usize,
    pub(crate) killed: BTreeMap<AttemptId, String>,
    pub(crate) receipts: BTreeMap<AttemptId, Vec<u8>>,
    pub(crate) objects: BTreeMap<Digest, Vec<u8>>,
    pub(crate) logs: BTreeSet<Digest>,
    pub(crate) bundles: BTreeMap<AttemptId, (Asserted, Vec<u8>)>,
    pub(crate) fates: BTreeMap<String, Fates>,
    pub(crate) refuse_signing: Option<Refusal>,
    pub(crate) destroy_fails: u32,
    pub(crate) forge_receipts: bool,
    pub(crate) store_away: bool,
    /// Why the store takes nothing, while it does not.
    pub(crate) refuse_puts: Option<String>,
    /// How the next fetches end, the last first; then they succeed.
    pub(crate) fetch_fails: Vec<Outcome>,
    specs: BTreeMap<AttemptId, (Digest, Plan)>,
    operations: usize,
    hang: Option<(usize, Hang)>,
}

#[derive(Default)]
pub(crate) struct World {
    state: Mutex<State>,
    changed: Notify,
    pub(crate) hung: Notify,
    clock: AtomicU64,
}

/// A handle, for each port.
#[derive(Clone)]
pub(crate) struct Port(pub Arc<World>);

impl World {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next operation with this number, counted from now, hangs.
    pub(crate) fn hang_at(&self, operation: usize, hang: Hang) {
        let mut state = self.state();
        state.operations = 0;
        state.hang = Some((operation, hang));
    }

    pub(crate) fn hang_no_more(&self) -> usize {
        let mut state = self.state();
        state.hang = None;
        state.operations
    }

    /// Does `effect`, or hangs.
    async fn operation<R>(&self, name: String, effect: impl FnOnce(&mut State) -> R) -> R {
        tokio::task::yield_now().await;
        let hang = {
            let mut state = self.state();
            state.operations += 1;
            let (number, here) = (state.operations, state.hang);
            here.filter(|(at, _)| *at == number).map(|(_, hang)| hang)
        };
        if hang == Some(Hang::Before) {
            self.hung.notify_one();
            return std::future::pending().await;
        }
        let result = {
            let mut state = self.state();
            state.done.push(name);
            effect(&mut state)
        };
        self.changed.notify_waiters();
        if hang == Some(Hang::After) {
            self.hung.notify_one();
            return std::future::pending().await;
        }
        result
    }
}

impl State {
    fn fate(&self, attempt: &AttemptId) -> Fate {
        let (spec, plan) = &self.specs[attempt];
        let _ = spec;
        let script = plan.run.iter().next().unwrap().as_str().to_owned();
        let fates = self.fates.get(&script).cloned().unwrap_or_default();
        let index = attempt.number() as usize - 1;
        fates
            .get(index)
            .or(fates.last())
            .cloned()
            .unwrap_or(Fate::Ends(Outcome::Succeeded))
    }
}

fn unknown() -> SpawnerError {
    SpawnerError::Failed(Outcome::permanent("run", "no such attempt"))
}

impl Spawner for Port {
    async fn stage(
        &self,
        attempt: &AttemptId,
        spec: Digest,
        plan: Plan,
    ) -> Result<(), SpawnerError> {
        let name = format!("stage {attempt}");
        self.0
            .operation(name, |state| {
                assert!(
                    state.known.insert(attempt.clone()),
                    "staged twice: {attempt}"
                );
                state.specs.insert(attempt.clone(), (spec, plan));
                Ok(())
            })
            .await
    }

    async fn launch(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
        let name = format!("launch {attempt}");
        self.0
            .operation(name, |state| {
                assert!(state.known.contains(attempt));
                state.running.insert(attempt.clone());
                state.most_running = state.most_running.max(state.running.len());
                Ok(())
            })
            .await
    }

    async fn exited(&self, attempt: &AttemptId) -> Result<Outcome, SpawnerError> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut state = self.0.state();
                if !state.known.contains(attempt) {
                    return Err(unknown());
                }
                let killed = state.killed.get(attempt).cloned();
                let outcome = match (killed, state.fate(attempt)) {
                    (Some(by), _) => Some(Ok(Outcome::Cancelled { by, reason: None })),
                    (None, Fate::Ends(outcome)) => Some(Ok(outcome)),
                    (None, Fate::Collects(_)) => Some(Ok(Outcome::Succeeded)),
                    (None, Fate::Lost) => Some(Err(SpawnerError::Lost("gone".to_owned()))),
                    (None, Fate::Runs) => None,
                };
                if let Some(outcome) = outcome {
                    state.running.remove(attempt);
                    return outcome;
                }
            }
            changed.await;
        }
    }

    async fn kill(&self, attempt: &AttemptId, by: &str) -> Result<(), SpawnerError> {
        let name = format!("kill {attempt}");
        self.0
            .operation(name, |state| {
                state.killed.insert(attempt.clone(), by.to_owned());
                Ok(())
            })
            .await
    }

    async fn collect(&self, attempt: &AttemptId) -> Result<Taken, SpawnerError> {
        let name = format!("collect {attempt}");
        self.0
            .operation(name, |state| {
                if !state.known.contains(attempt) {
                    return Err(unknown());
                }
                let outcome = match (state.killed.get(attempt), state.fate(attempt)) {
                    (Some(by), _) => Outcome::Cancelled {
                        by: by.clone(),
                        reason: None,
                    },
                    (None, Fate::Ends(outcome) | Fate::Collects(outcome)) => outcome,
                    (None, Fate::Runs | Fate::Lost) => Outcome::Succeeded,
                };
                let (spec, plan) = state.specs[attempt].clone();
                let bytes = receipt(attempt, spec, &plan, outcome.clone())
                    .canonical()
                    .unwrap();
                let receipt = Digest::of(&bytes);
                let forged = state.forge_receipts;
                state
                    .receipts
                    .insert(attempt.clone(), if forged { b"{}".to_vec() } else { bytes });
                Ok(Taken { receipt, outcome })
            })
            .await
    }

    async fn receipt(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        self.0
            .state()
            .receipts
            .get(attempt)
            .cloned()
            .ok_or_else(|| Trouble("no receipt".to_owned()))
    }

    async fn destroy(&self, attempt: &AttemptId) -> Result<(), SpawnerError> {
        let name = format!("destroy {attempt}");
        self.0
            .operation(name, |state| {
                if state.destroy_fails > 0 {
                    state.destroy_fails -= 1;
                    return Err(SpawnerError::Lost("busy".to_owned()));
                }
                state.known.remove(attempt);
                state.running.remove(attempt);
                Ok(())
            })
            .await
    }

    async fn list(&self) -> Result<Vec<AttemptId>, SpawnerError> {
        Ok(self.0.state().known.iter().cloned().collect())
    }
}

impl Store for Port {
    async fn put(&self, content: Vec<u8>) -> Result<ObjectId, Trouble> {
        let object = ObjectId::of(&content);
        self.0
            .operation("put".to_owned(), |state| {
                if let Some(why) = state.refuse_puts.clone() {
                    return Err(Trouble(why));
                }
                state.objects.insert(object.digest, content);
                Ok(object)
            })
            .await
    }

    async fn keep_log(&self, attempt: &AttemptId, object: ObjectId) -> Result<(), Trouble> {
        self.0
            .operation(format!("keep_log {attempt}"), |state| {
                state.logs.insert(object.digest);
                Ok(())
            })
            .await
    }

    async fn is_there(&self) -> bool {
        !self.0.state().store_away
    }
}

fn about_receipt(attempt: &AttemptId) -> Vec<u8> {
    format!("bundle about the receipt of {attempt}").into_bytes()
}

/// Brings what it is asked for, or hangs.
impl Fetcher for Port {
    fn fetch(
        &self,
        project: ProjectId,
        fetches: Fetches,
    ) -> Pin<Box<dyn Future<Output = Fetched> + Send + '_>> {
        let tree = |fetch: &Fetch| Input {
            tree: ObjectId::of(fetch.digest().to_string().as_bytes()),
            derivation: Some(ObjectId::of(b"record")),
        };
        let all = fetches.iter();
        let trees = all
            .map(|(name, fetch)| (name.clone(), tree(fetch)))
            .collect();
        let name = format!("fetch for {project}");
        Box::pin(self.0.operation(name, move |state| Fetched {
            reports: Vec::new(),
            result: match state.fetch_fails.pop() {
                Some(outcome) => Err(outcome),
                None => Ok(Inputs::new(trees).unwrap()),
            },
        }))
    }
}

impl Signer for Port {
    async fn attest(
        &self,
        collected: Collected,
        spec: String,
        asserted: Asserted,
    ) -> Result<Bundle, Refusal> {
        let attempt = collected.attempt().clone();
        self.0
            .operation(format!("attest {attempt}"), |state| {
                if let Some(refusal) = state.refuse_signing.clone() {
                    return Err(refusal);
                }
                let receipt = Receipt::from_canonical(&state.receipts[&attempt]).unwrap();
                assert!(receipt.outcome.is_success());
                assert_eq!(receipt.spec, Digest::of(spec.as_bytes()));
                // As the real one: a second, different story about an attempt is refused.
                if let Some((before, _)) = state.bundles.get(&attempt)
                    && *before != asserted
                {
                    return Err(Refusal {
                        retryable: false,
                        reasons: vec!["another statement about this attempt was signed".to_owned()],
                    });
                }
                let bytes = format!("bundle of {attempt}").into_bytes();
                let object = ObjectId::of(&bytes);
                state.bundles.insert(attempt, (asserted, bytes));
                Ok(Bundle {
                    object,
                    key_id: "SHA256:key".to_owned(),
                })
            })
            .await
    }

    async fn sign_receipt(&self, attempt: &AttemptId) -> Result<ObjectId, Refusal> {
        match self.0.state().refuse_signing.clone() {
            Some(refusal) => Err(refusal),
            None => Ok(ObjectId::of(&about_receipt(attempt))),
        }
    }

    async fn receipt_bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        Ok(about_receipt(attempt))
    }

    async fn bundle(&self, attempt: &AttemptId) -> Result<Vec<u8>, Trouble> {
        let bundles = &self.0.state().bundles;
        bundles
            .get(attempt)
            .map(|(_, bytes)| bytes.clone())
            .ok_or_else(|| Trouble("no bundle".to_owned()))
    }
}

impl Clock for Port {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000 + self.0.clock.fetch_add(1, Ordering::Relaxed))
    }
}

fn receipt(attempt: &AttemptId, spec: Digest, plan: &Plan, outcome: Outcome) -> Receipt {
    let digest = Digest::of(b"");
    let entry = |path, kind| OutputEntry {
        path: RelPath::new(path).unwrap(),
        kind,
    };
    let file = || OutputKind::File {
        object: ObjectId::of(b"app"),
        sha512: Sha512Digest::of(b"app"),
        executable: true,
    };
    let outputs = vec![
        entry("app", file()),
        entry("share", OutputKind::Directory),
        entry("share/app", file()),
    ];
    Receipt {
        sequence: 1,
        previous: None,
        previous_attempt: None,
        run_nonce: "0".repeat(32),
        boot_id: "boot".to_owned(),
        attempt: attempt.clone(),
        spec,
        plan: plan.digest().unwrap(),
        binaries: Binaries {
            spawner: digest,
            spawner_config: digest,
            version: "0".to_owned(),
            kernel: "6".to_owned(),
        },
        rootfs: RootFsRecord::Host { paths: vec![] },
        image_rule: None,
        input: InputRecord {
            tree: plan.source,
            unchanged: Some(true),
        },
        inputs: Inputs::default(),
        derivations: Vec::new(),
        enforcement: None,
        self_probes: vec![],
        steps: vec![],
        outputs: if outcome.is_success() {
            outputs
        } else {
            vec![]
        },
        outcome,
        usage: Usage::default(),
        log: Some(LogRecord {
            object: ObjectId::of(b"log"),
            truncated: false,
        }),
        image_output: None,
        clean_room: CleanRoom::default(),
        started: Timestamp::from_millis(1),
        finished: Timestamp::from_millis(2),
    }
}

/// One life of the daemon, over a world and a directory that outlive it.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    _tasks: JoinSet<()>,
}

pub(crate) struct Site {
    pub(crate) world: Arc<World>,
    pub(crate) directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("audit")).unwrap();
        Self {
            world: Arc::default(),
            directory,
        }
    }

    pub(crate) fn trail(&self, id: &BuildId) -> PathBuf {
        self.directory.path().join(format!("audit/{id}.jsonl"))
    }

    /// Starts the daemon, as soon as the last one has let go of the queue.
    pub(crate) async fn start(&self, slots: usize) -> Daemon {
        let path = self.directory.path().join("queue.sqlite");
        let queue = loop {
            match Queue::open(&path) {
                Ok(queue) => break queue,
                Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("{error}"),
            }
        };
        let ownership = Ownership::open(&self.directory.path().join("ownership.sqlite")).unwrap();
        let port = || Port(self.world.clone());
        let ports = Ports {
            spawner: port(),
            store: port(),
            fetcher: Arc::new(port()),
            signer: port(),
            clock: port(),
        };
        let audit = self.directory.path().join("audit");
        let (engine, driver): (_, Driver<Port, Port, Port, Port>) =
            engine(queue, ownership, ports, Settings { slots, audit });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { driver.run().await.unwrap() });
        Daemon {
            engine,
            _tasks: tasks,
        }
    }
}

impl Daemon {
    pub(crate) async fn submit(&self, script: &str, request: &str) -> BuildId {
        let request = RequestId::new(request).unwrap();
        match self
            .engine
            .submit(admitted(script), request, Timestamp::from_millis(9), ())
            .await
            .unwrap()
        {
            Submitted::New(record) | Submitted::Known(record) => record.build.id,
        }
    }

    /// Follows a build to its end.
    pub(crate) async fn end(&self, id: &BuildId) -> Record {
        let mut follow = self.engine.follow(id).await.unwrap().unwrap();
        let mut last = None;
        while let Some(record) = follow.next().await {
            let ended = record.build.outcome().is_some();
            last = Some(record);
            if ended {
                break;
            }
        }
        last.filter(|record| record.build.outcome().is_some())
            .expect("the stream ended before the build")
    }

    /// Waits until a build is in the named stage.
    pub(crate) async fn reaches(&self, id: &BuildId, stage: &str) -> Record {
        loop {
            let record = self.engine.get(id).await.unwrap().unwrap();
            if record.build.stage.name() == stage {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The directory that each build leaves which succeeds.
pub(crate) fn directory() -> Built {
    let leaf = Leaf::File {
        object: ObjectId::of(b"app"),
        executable: true,
    };
    build([(RelPath::new("app").unwrap(), leaf)]).unwrap()
}

/// One thing, for scripts that begin with this word.
fn fetches(script: &str) -> Fetches {
    if !script.starts_with("fetched") {
        return Fetches::default();
    }
    let fetch = Fetch::Urls(UrlFetch {
        urls: Mirrors::new(vec![FetchUrl::new("https://a.example/x").unwrap()]).unwrap(),
        digest: Digest::of(b"x"),
        unpack: Unpack::tar(0).unwrap(),
    });
    Fetches::new([(InputName::new("x").unwrap(), fetch)].into()).unwrap()
}

pub(crate) fn admitted(script: &str) -> Admitted {
    let spec = BuildSpec {
        image: Image::Host,
        source: ObjectId::of(b""),
        inputs: Inputs::default(),
        fetches: fetches(script),
        image_output: None,
        working_directory: None,
        run: Steps::new(vec![Script::new(script).unwrap()]).unwrap(),
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: 0,
    };
    let policy = Policy::new(
        Access::of_users([0]).unwrap(),
        [ImageKind::Host],
        Limits::CEILING,
    )
    .unwrap();
    let rules = FetchRules::new(vec![HostPattern::Any], vec![443], vec![], vec![]);
    let policy = policy.with_fetches(rules.ok());
    match decide(
        spec,
        Identity::Unix { uid: 0 },
        ProjectId::default(),
        &policy,
    ) {
        Decision::Admit(admitted) => admitted,
        Decision::Deny { reasons } => panic!("{reasons:?}"),
    }
}
