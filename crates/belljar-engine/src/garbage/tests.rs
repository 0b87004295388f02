use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use belljar_cas::{BlobSink as _, Custody as _, Disk, Reader, Removal, Usage, Writer};
use belljar_core::{
    BaseImage, BuildSpec, Derivation, Fact, ImageConfig, ImageKind, ImageOutput, Input, Inputs,
    Limits, Network, ObjectId, Outcome, Outputs, Platform, Recipe, RelPath, RequestId, Script,
    Steps,
};
use belljar_plan::Plan;
use belljar_policy::{Access, Admitted, Decision, Identity, Policy, Principals, Rights, decide};
use proptest::prelude::*;

use super::*;
use crate::life::Stage;
use crate::ports::{Gone, Room, SpawnerError, Taken};
use crate::queue::{Left, Pin, Submitted, Target};

struct NoSpawner;

/// There is none in these tests.
fn lost<T>() -> Result<T, SpawnerError> {
    Err(SpawnerError::Lost("none".to_owned()))
}

impl Spawner for NoSpawner {
    async fn stage(&self, _: &AttemptId, _: Digest, _: Plan) -> Result<(), SpawnerError> {
        lost()
    }
    async fn launch(&self, _: &AttemptId) -> Result<(), SpawnerError> {
        lost()
    }
    async fn exited(&self, _: &AttemptId) -> Result<Outcome, SpawnerError> {
        lost()
    }
    async fn kill(&self, _: &AttemptId, _: &str) -> Result<(), SpawnerError> {
        lost()
    }
    async fn collect(&self, _: &AttemptId) -> Result<Taken, SpawnerError> {
        lost()
    }
    async fn receipt(&self, _: &AttemptId) -> Result<Vec<u8>, Trouble> {
        Err(Trouble("none".to_owned()))
    }
    async fn destroy(&self, _: &AttemptId) -> Result<(), SpawnerError> {
        lost()
    }
    async fn list(&self) -> Result<Vec<AttemptId>, SpawnerError> {
        lost()
    }
}

/// The store's process without a process, which may end in the middle.
struct Direct {
    disk: Disk,
    /// Objects that are removed until it ends; negative: it does not.
    left: AtomicI64,
}

impl Upkeep for Direct {
    async fn room(&self) -> Result<Room, Trouble> {
        Ok(Room {
            total: 100,
            available: 0,
            reserve: 0,
            grace: 1,
        })
    }
    async fn evict(&self, _: Vec<String>) -> Result<Gone, Trouble> {
        Ok(Gone::default())
    }
    async fn remove(&self, objects: Vec<Digest>, before: u64) -> Result<Gone, Trouble> {
        let mut gone = Gone::default();
        for digest in objects {
            if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
                return Err(Trouble("the store has ended".to_owned()));
            }
            if let Removal::Removed { bytes } = self.disk.remove(digest, before).unwrap() {
                gone.removed += 1;
                gone.bytes += bytes;
            }
        }
        Ok(gone)
    }
    async fn remove_logs(&self, _: Vec<AttemptId>) -> Result<Gone, Trouble> {
        Ok(Gone::default())
    }
}

struct World {
    root: tempfile::TempDir,
    writer: Writer,
    sweeper: Sweeper<NoSpawner, Direct>,
    project: ProjectId,
    builds: u32,
}

impl World {
    fn new(keeping: Keeping) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let writer = Writer::open(&store).unwrap();
        let sweeper = Sweeper {
            queue: Queue::open(&root.path().join("queue")).unwrap(),
            ownership: Ownership::open(&root.path().join("ownership")).unwrap(),
            spawner: NoSpawner,
            upkeep: Direct {
                disk: Disk::new(writer.clone(), &store).unwrap(),
                left: AtomicI64::new(-1),
            },
            source: Arc::new(Reader::new(&store).unwrap()),
            root: store,
            hold: Hold::default(),
            keeping,
            one: tokio::sync::Mutex::default(),
            ballast: Ballast::new(&root.path().join("ballast")),
            forget: Box::new(|| {}),
        };
        Self {
            root,
            writer,
            sweeper,
            project: ProjectId::new("default").unwrap(),
            builds: 0,
        }
    }

    fn keep(&self, content: &[u8]) -> ObjectId {
        let mut blob = self.writer.begin(None).unwrap();
        blob.write(content).unwrap();
        blob.finish().unwrap()
    }

    async fn put(&self, content: &[u8]) -> ObjectId {
        let object = self.keep(content);
        let granted = self
            .sweeper
            .ownership
            .grant(&self.project, vec![object.digest]);
        granted.await.unwrap();
        object
    }

    /// A tree of two files, and all that it consists of.
    async fn tree(&self, seed: u8) -> (ObjectId, BTreeSet<ObjectId>) {
        let mut all = BTreeSet::new();
        let mut nodes = Vec::new();
        for name in ["a", "b"] {
            let content = format!("{name} of {}", seed / 2 + u8::from(name == "b"));
            let object = self.put(content.as_bytes()).await;
            all.insert(object);
            nodes.push((
                RelPath::new(name).unwrap(),
                belljar_tree::Leaf::File {
                    object,
                    executable: seed.is_multiple_of(2),
                },
            ));
        }
        let built = belljar_tree::build(nodes).unwrap();
        for (object, bytes) in &built.directories {
            assert_eq!(self.put(bytes).await, *object);
            all.insert(*object);
        }
        (built.root, all)
    }

    async fn submit(&mut self, source: ObjectId) -> crate::queue::Record {
        self.builds += 1;
        let name = format!("01jd8q6z8r4x7j2m5t9v0w{:04}", self.builds);
        let id = BuildId::new(name.as_str()).unwrap();
        let request = RequestId::new(name).unwrap();
        let now = Timestamp::from_millis(1);
        let queue = &self.sweeper.queue;
        let submitted = queue.submit(admitted(source), request, id, now).await;
        match submitted.unwrap() {
            Submitted::New(record) => record,
            Submitted::Known(_) => panic!("known"),
        }
    }

    /// Ends a build that left one artifact.
    async fn end(&self, record: &crate::queue::Record, artifact: ObjectId) {
        let mut build = record.build.clone();
        build.sequence += 1;
        build.stage = Stage::Ended {
            outcome: Outcome::Succeeded,
        };
        let queue = &self.sweeper.queue;
        queue
            .index(&build.id, Left::of_files(vec![artifact.digest]))
            .await
            .unwrap();
        queue.advance(record.build.sequence, &build).await.unwrap();
    }

    fn there(&self) -> BTreeSet<ObjectId> {
        let of = |prefix| self.sweeper.upkeep.disk.of_prefix(prefix).unwrap();
        let all = (0..=u8::MAX).flat_map(of).filter(|found| found.size > 0);
        all.map(|found| ObjectId {
            digest: found.digest,
            size: found.size,
        })
        .collect()
    }
}

fn admitted(source: ObjectId) -> Admitted {
    admitted_with(source, None)
}

fn admitted_with(source: ObjectId, image_output: Option<ImageOutput>) -> Admitted {
    let spec = BuildSpec {
        image: belljar_core::Image::Host,
        source,
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output,
        working_directory: None,
        run: Steps::new(vec![Script::new("make").unwrap()]).unwrap(),
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: 0,
    };
    let project = ProjectId::new("default").unwrap();
    let mut access = Access::nobody();
    let root = (Principals::One(Identity::Unix { uid: 0 }), Rights::ALL);
    access.add(project.clone(), [root]).unwrap();
    let policy = Policy::new(access, [ImageKind::Host], Limits::CEILING).unwrap();
    match decide(spec, Identity::Unix { uid: 0 }, project, &policy) {
        Decision::Admit(admitted) => admitted,
        Decision::Deny { .. } => panic!("not admitted"),
    }
}

fn keeping(builds: Option<u64>, lease: u64) -> Keeping {
    Keeping {
        retention: Retention {
            builds,
            ..Retention::default()
        },
        projects: BTreeMap::new(),
        lease,
    }
}

/// Until everything that was given before counts as given before.
async fn a_second() {
    tokio::time::sleep(Duration::from_millis(2100)).await;
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8),
    Tree(u8),
    Submit(u8),
    End(u8),
    PinTree(u8),
    PinBuild(u8),
    Unpin(u8),
    Sweep,
    /// The store's process ends after so many objects.
    Crash(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<u8>().prop_map(Op::Put),
        2 => (0..8_u8).prop_map(Op::Tree),
        4 => (0..8_u8).prop_map(Op::Submit),
        4 => any::<u8>().prop_map(Op::End),
        1 => (0..8_u8).prop_map(Op::PinTree),
        1 => any::<u8>().prop_map(Op::PinBuild),
        1 => any::<u8>().prop_map(Op::Unpin),
        1 => Just(Op::Sweep),
        1 => (0..6_u8).prop_map(Op::Crash),
    ]
}

/// What must be there, as the operations say it.
#[derive(Default)]
struct Model {
    /// Builds by their ids, with what each needs; and whether it has ended.
    builds: Vec<(BuildId, BTreeSet<ObjectId>, bool)>,
    records: BTreeMap<String, crate::queue::Record>,
    pins: Vec<(u64, BTreeSet<ObjectId>, Option<BuildId>)>,
}

impl Model {
    fn needed(&self) -> BTreeSet<ObjectId> {
        let builds = self.builds.iter().flat_map(|(_, needs, _)| needs);
        let pins = self.pins.iter().flat_map(|(_, needs, _)| needs);
        builds.chain(pins).copied().collect()
    }

    /// What a sweep that keeps so many builds gives up: of those that have ended, all but the newest.
    fn release(&mut self, most: usize) {
        let pinned: Vec<_> = self.pins.iter().filter_map(|pin| pin.2.clone()).collect();
        let mut kept = 0;
        let mut builds: Vec<_> = self.builds.drain(..).rev().collect();
        builds.retain(|(id, _, ended)| {
            let keep = !ended || kept < most || pinned.contains(id);
            kept += usize::from(*ended && kept < most);
            keep
        });
        self.builds = builds.into_iter().rev().collect();
    }
}

const KEPT: usize = 2;

async fn apply(world: &mut World, model: &mut Model, op: Op) {
    match op {
        Op::Put(seed) => drop(world.put(&[seed, 1]).await),
        Op::Tree(seed) => drop(world.tree(seed).await),
        Op::Submit(seed) => {
            let (root, needs) = world.tree(seed).await;
            let record = world.submit(root).await;
            let id = record.build.id.clone();
            model.records.insert(id.to_string(), record);
            model.builds.push((id, needs, false));
        }
        Op::End(seed) => {
            let artifact = world.put(&[seed, 2]).await;
            if let Some((id, needs, ended)) = model.builds.iter_mut().find(|build| !build.2) {
                world.end(&model.records[id.as_str()], artifact).await;
                needs.insert(artifact);
                *ended = true;
            }
        }
        Op::PinTree(seed) => {
            let (root, needs) = world.tree(seed).await;
            pin(world, model, Target::Tree(root), needs, None).await;
        }
        Op::PinBuild(at) => {
            let builds = model.builds.len();
            if builds > 0 {
                let id = model.builds[usize::from(at) % builds].0.clone();
                let target = Target::Build(id.clone());
                pin(world, model, target, BTreeSet::new(), Some(id)).await;
            }
        }
        Op::Unpin(at) => {
            let pins = model.pins.len();
            if pins > 0 {
                let (number, ..) = model.pins.remove(usize::from(at) % pins);
                world.sweeper.queue.unpin(number).await.unwrap();
            }
        }
        Op::Sweep => {
            world.sweeper.sweep(Goal::All).await.unwrap();
            model.release(KEPT);
        }
        Op::Crash(left) => {
            world
                .sweeper
                .upkeep
                .left
                .store(i64::from(left), Ordering::SeqCst);
            // It ends early, or has less to do than that.
            let _ = world.sweeper.sweep(Goal::All).await;
            world.sweeper.upkeep.left.store(-1, Ordering::SeqCst);
            model.release(KEPT);
        }
    }
}

async fn pin(
    world: &World,
    model: &mut Model,
    target: Target,
    needs: BTreeSet<ObjectId>,
    build: Option<BuildId>,
) {
    let pin = Pin {
        number: 0,
        project: world.project.clone(),
        target,
        reason: String::new(),
        created_by: "me".to_owned(),
        created: Timestamp::from_millis(1),
    };
    let number = world.sweeper.queue.pin(pin).await.unwrap().number;
    if model.pins.iter().all(|pin| pin.0 != number) {
        model.pins.push((number, needs, build));
    }
}

fn du(path: &Path) -> u64 {
    let output = std::process::Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('\t').next().unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn whatever_happens_nothing_that_is_needed_goes(ops in proptest::collection::vec(op(), 8..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut world = World::new(keeping(Some(KEPT as u64), 0));
            let mut model = Model::default();
            for op in ops {
                let sweeps = matches!(op, Op::Sweep | Op::Crash(_));
                if sweeps {
                    a_second().await;
                }
                apply(&mut world, &mut model, op).await;
                let (there, needed) = (world.there(), model.needed());
                assert!(there.is_superset(&needed), "gone: {:?}", needed.difference(&there));
            }
            a_second().await;
            let before = Usage::of(&world.sweeper.root).unwrap();
            let report = world.sweeper.sweep(Goal::All).await.unwrap();
            model.release(KEPT);
            let after = Usage::of(&world.sweeper.root).unwrap();
            // All that is needed is there, and nothing else.
            assert_eq!(world.there(), model.needed());
            assert_eq!(before.bytes() - report.bytes, after.bytes());
            assert_eq!(du(&world.sweeper.root), after.bytes());
            // What is gone belongs to nobody.
            let mut owned = BTreeSet::new();
            let note = |digest, _| {
                owned.insert(digest);
            };
            world.sweeper.ownership.objects(note).unwrap();
            let there: BTreeSet<Digest> = world.there().iter().map(|id| id.digest).collect();
            assert!(owned.is_subset(&there));
            drop(world.root);
        });
    }
}

#[tokio::test]
async fn what_was_told_to_be_there_stays_for_a_lease() {
    let world = World::new(keeping(None, 3600));
    let object = world.put(b"content").await;
    a_second().await;
    let report = world.sweeper.sweep(Goal::All).await.unwrap();
    assert_eq!((report.unneeded, report.objects), (0, 0));
    assert!(world.there().contains(&object));
}

/// What is left of a tree without its root would be taken for all of it.
#[tokio::test]
async fn the_tree_of_a_directory_that_a_build_left_goes_whole_or_not_at_all() {
    let mut world = World::new(keeping(None, 0));
    let (source, needs) = world.tree(1).await;
    let record = world.submit(source).await;
    // The directory's files are artifacts; somebody was given its tree, and needs it no more.
    let file = world.put(b"seed").await;
    let leaf = belljar_tree::Leaf::File {
        object: file,
        executable: false,
    };
    let made = belljar_tree::build([(RelPath::new("deep/seed").unwrap(), leaf)]).unwrap();
    for (_, bytes) in &made.directories {
        world.put(bytes).await;
    }
    let ownership = &world.sweeper.ownership;
    let granted = ownership.grant_tree(&world.project, made.root.digest);
    granted.await.unwrap();
    world.end(&record, file).await;
    let left = Left {
        files: vec![file.digest],
        trees: vec![],
        directories: vec![made.root.digest],
    };
    let queue = &world.sweeper.queue;
    queue.index(&record.build.id, left).await.unwrap();
    a_second().await;
    world.sweeper.sweep(Goal::All).await.unwrap();
    let due: BTreeSet<ObjectId> = needs.into_iter().chain([file]).collect();
    assert_eq!(world.there(), due);
    assert!(
        !ownership
            .owns_tree(&world.project, made.root.digest)
            .unwrap()
    );
}

#[tokio::test]
async fn a_build_that_comes_during_a_sweep_keeps_what_it_needs() {
    let mut world = World::new(keeping(None, 0));
    let (root, needs) = world.tree(1).await;
    let (_, others) = world.tree(6).await;
    a_second().await;
    // The sweep has marked, and waits; the build is let in before it removes the first portion.
    let guard = world.sweeper.hold.take().await;
    let record = {
        let sweeping = world.sweeper.sweep(Goal::All);
        tokio::pin!(sweeping);
        let waits = tokio::time::timeout(Duration::from_secs(1), &mut sweeping).await;
        assert!(waits.is_err());
        let id = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6a").unwrap();
        let request = RequestId::new("late").unwrap();
        let now = Timestamp::from_millis(1);
        let queue = &world.sweeper.queue;
        let submitted = queue
            .submit(admitted(root), request, id, now)
            .await
            .unwrap();
        drop(guard);
        let report = sweeping.await.unwrap();
        assert_eq!(report.objects, others.difference(&needs).count() as u64);
        submitted
    };
    assert!(matches!(record, Submitted::New(_)));
    assert_eq!(world.there(), needs);
    world.builds += 1;
}

#[tokio::test]
async fn what_an_image_is_laid_on_stays_with_the_build() {
    let world = World::new(keeping(None, 0));
    let (source, mut needs) = world.tree(1).await;
    let (tree, base) = world.tree(6).await;
    let mut layers = Vec::new();
    for content in [b"manifest", b"config--", b"layer--1", b"layer--2"] {
        layers.push(world.put(content).await);
    }
    let record = Derivation {
        schema: Derivation::SCHEMA.to_owned(),
        recipe: Recipe::Oci {
            index: layers[0],
            platform: Platform::LinuxAmd64,
        },
        from: layers.iter().copied().collect(),
        tree,
        entries: 1,
        bytes: 1,
        dropped: BTreeMap::new(),
        facts: vec![Fact::OciImage {
            manifest: layers[0],
            config: layers[1],
            layers: layers[2..].to_vec(),
        }],
    };
    let record = world.put(&record.canonical().unwrap()).await;
    let input = Input {
        tree,
        derivation: Some(record),
    };
    let output = ImageOutput {
        base: BaseImage::Image(input),
        root: None,
        config: ImageConfig::default(),
    };
    let id = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6a").unwrap();
    let request = RequestId::new("based").unwrap();
    let (queue, now) = (&world.sweeper.queue, Timestamp::from_millis(1));
    let submitted = queue.submit(admitted_with(source, Some(output)), request, id, now);
    submitted.await.unwrap();
    let other = world.put(b"something else").await;
    a_second().await;
    let report = world.sweeper.sweep(Goal::All).await.unwrap();
    assert_eq!(report.objects, 1);
    needs.extend(base);
    needs.extend(layers);
    needs.insert(record);
    assert!(!needs.contains(&other));
    assert_eq!(world.there(), needs);
    // While nobody can read what the base is made of, nothing goes.
    let hex = record.digest.to_hex();
    let objects = world.root.path().join("store/objects/sha256");
    let place = objects.join(&hex[..2]).join(&hex[2..]);
    std::fs::remove_file(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    let other = world.put(b"something else again").await;
    a_second().await;
    let stopped = world.sweeper.sweep(Goal::All).await.unwrap_err();
    assert!(
        matches!(stopped, SweepError::Reach(ReachError::Read(_))),
        "{stopped:?}"
    );
    assert!(world.there().contains(&other));
}

#[tokio::test]
async fn no_more_goes_than_is_wanted() {
    let world = World::new(keeping(None, 0));
    let object = world.put(b"content").await;
    a_second().await;
    // There are 0 bytes free, and no more are wanted.
    let report = world.sweeper.sweep(Goal::Available(0)).await.unwrap();
    assert_eq!((report.unneeded, report.objects), (1, 0));
    assert!(world.there().contains(&object));
    let report = world.sweeper.sweep(Goal::Available(1)).await.unwrap();
    assert_eq!(report.objects, 1);
}

#[tokio::test]
async fn what_is_pinned_or_told_to_be_there_during_a_sweep_stays() {
    let world = World::new(keeping(None, 1));
    let (pinned, mut needs) = world.tree(1).await;
    // Files of a tree that was made for the project are its own by the root alone.
    let (made, below) = {
        let file = world.keep(b"unpacked");
        let leaf = belljar_tree::Leaf::File {
            object: file,
            executable: false,
        };
        let built = belljar_tree::build([(RelPath::new("f").unwrap(), leaf)]).unwrap();
        for (_, bytes) in &built.directories {
            world.keep(bytes);
        }
        (built.root, file)
    };
    let ownership = &world.sweeper.ownership;
    ownership
        .grant_tree(&world.project, made.digest)
        .await
        .unwrap();
    let gone = world.put(b"nobody wants this").await;
    a_second().await;
    a_second().await;
    let guard = world.sweeper.hold.take().await;
    let sweeping = world.sweeper.sweep(Goal::All);
    tokio::pin!(sweeping);
    let waits = tokio::time::timeout(Duration::from_millis(500), &mut sweeping).await;
    assert!(waits.is_err(), "it has marked, and waits");
    let pin = Pin {
        number: 0,
        project: world.project.clone(),
        target: Target::Tree(pinned),
        reason: String::new(),
        created_by: "me".to_owned(),
        created: Timestamp::from_millis(1),
    };
    world.sweeper.queue.pin(pin).await.unwrap();
    ownership
        .touch(&world.project, vec![made.digest], 0)
        .await
        .unwrap();
    drop(guard);
    let report = sweeping.await.unwrap();
    assert_eq!((report.unneeded, report.objects), (6, 1));
    needs.extend([made, below]);
    assert_eq!(world.there(), needs);
    assert!(!world.there().contains(&gone));
}

#[tokio::test]
async fn of_a_build_that_is_given_up_the_evidence_stays() {
    let mut world = World::new(keeping(Some(0), 0));
    let (root, needs) = world.tree(1).await;
    let record = world.submit(root).await;
    let mut evidence = Vec::new();
    for name in ["spec", "plan", "trail", "receipt", "signed", "bundle"] {
        evidence.push(world.put(name.as_bytes()).await);
    }
    let [log, artifact] = [world.put(b"log").await, world.put(b"artifact").await];
    let [spec, plan, audit_trail, receipt, signed, bundle] = evidence[..] else {
        panic!("six")
    };
    let mut build = record.build.clone();
    build.evidence = Some(crate::life::Evidence {
        attempt: AttemptId::new(build.id.clone(), 1).unwrap(),
        spec,
        plan,
        audit_trail,
        receipt: Some(receipt),
        receipt_bundle: Some(signed),
        log: Some(belljar_plan::LogRecord {
            object: log,
            truncated: false,
        }),
        bundle: Some(crate::life::Bundle {
            object: bundle,
            key_id: String::new(),
        }),
        trees: false,
    });
    let ended = crate::queue::Record {
        build,
        ..record.clone()
    };
    world.end(&ended, artifact).await;
    a_second().await;
    let report = world.sweeper.sweep(Goal::All).await.unwrap();
    assert_eq!(report.builds, 1);
    assert_eq!(world.there(), evidence.into_iter().collect());
    assert!(world.there().is_disjoint(&needs));
    // Also after the next sweep, which does not see the build any more.
    a_second().await;
    assert_eq!(world.sweeper.sweep(Goal::All).await.unwrap().objects, 0);
    assert_eq!(world.there().len(), 6);
}
