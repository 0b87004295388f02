//! The other three processes, faked over the real sockets and the real messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use belljar_cas::{BlobSink as _, Writer};
use belljar_core::{
    AttemptId, BlobName, Derivation, Digest, Dropped, Inputs, ObjectId, Outcome, Recipe, RelPath,
    Sha512Digest, Timestamp, bounds,
};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::NamedBlob;
use belljar_plan::{
    Binaries, CleanRoom, ConfinedStep, HostReport, InputRecord, LayerReport, LogRecord,
    OutputEntry, OutputKind, Plan, Receipt, RootFsRecord, Usage, Verdict, signer, spawner, store,
};
use belljar_sys::seqpacket::{Connection, Listener};

/// What every build leaves.
pub(super) const APP: &[u8] = b"what was built";
/// Beginning of every log.
pub(super) const LOG: &[u8] = b"making\n";

/// What the fakes shall do, and what they saw.
#[derive(Default)]
pub(super) struct Script {
    /// Steps run until they are killed.
    pub(super) runs_on: bool,
    /// The host lacks a layer.
    pub(super) lacks: bool,
    /// The spawner hangs up when it is asked to launch, this often.
    pub(super) hangs_up: u32,
    /// The signer does not tell how it is confined, and says nothing.
    pub(super) silent: bool,
    /// How often each question was asked of whom.
    pub(super) asked: BTreeMap<&'static str, usize>,
    pub(super) puts: usize,
    pub(super) staged: Vec<AttemptId>,
    pub(super) attested: Vec<AttemptId>,
    specs: BTreeMap<AttemptId, (Digest, Plan)>,
    known: BTreeSet<AttemptId>,
}

#[derive(Clone)]
pub(super) struct Site {
    pub(super) root: PathBuf,
    pub(super) script: Arc<Mutex<Script>>,
}

impl Site {
    /// Directories and fakes; they end with the test's process.
    pub(super) fn start(root: &Path) -> Self {
        let site = Self {
            root: root.to_owned(),
            script: Arc::default(),
        };
        for directory in ["run", "receipts", "evidence", "daemon", "store"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        let writer = Arc::new(Writer::open(&root.join("store")).unwrap());
        fs::create_dir_all(root.join("store/logs")).unwrap();
        let sink = writer.clone();
        site.listen("store", move |site, connection| {
            store(site, &connection, &sink)
        });
        site.listen("signer", |site, connection| sign(site, &connection));
        site.listen("spawner", move |site, connection| {
            spawn(site, &connection, &writer)
        });
        site
    }

    fn note(&self, question: &'static str) {
        *self
            .script
            .lock()
            .unwrap()
            .asked
            .entry(question)
            .or_default() += 1;
    }

    pub(super) fn asked(&self, question: &str) -> usize {
        let script = self.script.lock().unwrap();
        script.asked.get(question).copied().unwrap_or(0)
    }

    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.root.join(format!("run/{name}.sock"))
    }

    fn listen(&self, name: &str, serve: impl Fn(&Site, Connection) + Clone + Send + 'static) {
        let listener = Listener::bind(&self.socket(name), 0o600, 16).unwrap();
        let site = self.clone();
        thread::spawn(move || {
            loop {
                let connection = listener.accept().unwrap();
                let (site, serve) = (site.clone(), serve.clone());
                thread::spawn(move || serve(&site, connection));
            }
        });
    }
}

fn confined() -> Vec<ConfinedStep> {
    let (name, found) = ("seccomp".to_owned(), "7 instructions".to_owned());
    vec![ConfinedStep { name, found }]
}

fn store(site: &Site, connection: &Connection, writer: &Writer) {
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    while let Ok(Some(received)) = connection.receive(&mut buffer) {
        let Frame::Control(rest) = frame::parse(&buffer[..received.length]).unwrap() else {
            panic!("content without a request")
        };
        let mut many = false;
        let (opened, blobs): (_, Vec<BlobName>) = match frame::decode(rest).unwrap() {
            store::Request::Put { object } => (None, vec![object.into()]),
            store::Request::Upload { blob, offset, .. } => (Some((0, offset == 0)), vec![blob]),
            store::Request::Space {} => {
                let answer = store::Answer::Space {
                    total: 1 << 40,
                    available: 1 << 39,
                    reserve: 1 << 30,
                    grace: 3600,
                };
                connection.send(&frame::encode(&answer).unwrap()).unwrap();
                continue;
            }
            store::Request::Uploaded { .. } => (Some((0, false)), vec![]),
            store::Request::PutMany { blobs } => {
                many = true;
                (None, blobs)
            }
            store::Request::Derive { recipe } => {
                let mut answer = derive(&recipe);
                if let Recipe::Tar { archive } = recipe
                    && !is_given(connection, archive)
                {
                    answer = store::Answer::DerivationLacks { object: archive };
                }
                if matches!(answer, store::Answer::Derived { .. }) {
                    let record = record(&recipe).canonical().unwrap();
                    let mut pending = writer.begin(Some(ObjectId::of(&record).into())).unwrap();
                    pending.write(&record).unwrap();
                    pending.finish().unwrap();
                }
                let answer = frame::encode(&answer).unwrap();
                connection.send(&answer).unwrap();
                continue;
            }
            store::Request::Confinement {} => {
                site.note("store: confinement");
                let steps = confined();
                let answer = frame::encode(&store::Answer::Confinement { steps }).unwrap();
                connection.send(&answer).unwrap();
                continue;
            }
            other => panic!("not for belljard: {other:?}"),
        };
        if let Some((committed, open)) = opened {
            let answer = store::Answer::Upload { committed, open };
            connection.send(&frame::encode(&answer).unwrap()).unwrap();
            if !open {
                continue;
            }
        }
        let Some(content) = gather(connection, &blobs) else {
            return;
        };
        let (mut refused, mut named) = (Vec::new(), Vec::new());
        let mut received = Err(String::new());
        let mut rest = &content[..];
        for (index, blob) in blobs.iter().enumerate() {
            let (mine, more) = rest.split_at(usize::try_from(blob.size).unwrap());
            rest = more;
            let mut pending = writer.begin(Some(*blob)).unwrap();
            pending.write(mine).unwrap();
            match pending.finish() {
                Ok(object) => {
                    received = Ok(object);
                    let digest = object.digest;
                    named.extend(
                        blob.object()
                            .is_none()
                            .then_some(NamedBlob { index, digest }),
                    );
                }
                Err(error) => {
                    received = Err(error.to_string());
                    let class = store::Failure::Content;
                    refused.push(store::RefusedBlob { index, class });
                }
            }
        }
        let answer = match (many, received) {
            (true, _) => store::Answer::Kept { refused, named },
            (false, Ok(object)) if opened.is_some() => store::Answer::Received { object },
            (false, Ok(_)) => store::Answer::Stored,
            (false, Err(why)) => store::Answer::Failed {
                class: store::Failure::Content,
                why,
            },
        };
        site.script.lock().unwrap().puts += 1;
        connection.send(&frame::encode(&answer).unwrap()).unwrap();
    }
}

/// What comes of an archive follows from its content.
fn derive(recipe: &Recipe) -> store::Answer {
    let Recipe::Tar { archive } = *recipe else {
        panic!("not in these tests: {recipe:?}")
    };
    let is = |content: &[u8]| archive == ObjectId::of(content);
    let failed = |class| store::Answer::Failed {
        class,
        why: "for a reason".to_owned(),
    };
    match archive {
        _ if is(b"good") => store::Answer::Derived {
            tree: ObjectId::of(b""),
            derivation: ObjectId::of(&record(recipe).canonical().unwrap()),
            entries: 2,
            bytes: 3,
            dropped: [(Dropped::Owners, 4)].into(),
        },
        _ if is(b"bad") => store::Answer::DerivationRefused {
            why: "the archive is bad".to_owned(),
        },
        _ if is(b"busy") => store::Answer::DerivationsBusy {},
        _ if is(b"full") => failed(store::Failure::Full),
        _ if is(b"broken") => failed(store::Failure::Internal),
        object => store::Answer::DerivationLacks { object },
    }
}

/// Whether belljard lets the store read it.
fn is_given(connection: &Connection, object: ObjectId) -> bool {
    let wants = store::Answer::DerivationWants { object };
    connection.send(&frame::encode(&wants).unwrap()).unwrap();
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let received = connection.receive(&mut buffer).unwrap().unwrap();
    let Frame::Control(rest) = frame::parse(&buffer[..received.length]).unwrap() else {
        panic!("content where consent was due")
    };
    frame::decode::<store::Consent>(rest).unwrap() == store::Consent::Given {}
}

/// The store's record of the tree that is made of something good.
pub(super) fn record(recipe: &Recipe) -> Derivation {
    let Recipe::Tar { archive } = recipe else {
        panic!("not asked for in these tests")
    };
    Derivation {
        schema: Derivation::SCHEMA.to_owned(),
        recipe: recipe.clone(),
        from: [*archive].into(),
        tree: ObjectId::of(b""),
        entries: 2,
        bytes: 3,
        dropped: [(Dropped::Owners, 4)].into(),
        facts: Vec::new(),
    }
}

/// All content that was announced; none when the other end has broken off.
fn gather(connection: &Connection, blobs: &[BlobName]) -> Option<Vec<u8>> {
    let due: u64 = blobs.iter().map(|blob| blob.size).sum();
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let mut content = Vec::new();
    while (content.len() as u64) < due {
        let Ok(Some(received)) = connection.receive(&mut buffer) else {
            return None;
        };
        match frame::parse(&buffer[..received.length]).unwrap() {
            Frame::Data(piece) => content.extend_from_slice(piece),
            Frame::Control(_) => return None,
        }
    }
    Some(content)
}

/// Leaves a bundle of that name.
fn signed(site: &Site, name: &str) -> signer::Answer {
    let bundle = format!("the bundle {name}").into_bytes();
    fs::write(site.root.join("evidence").join(name), &bundle).unwrap();
    signer::Answer::Attested {
        bundle: Digest::of(&bundle),
        size: bundle.len() as u64,
    }
}

fn sign(site: &Site, connection: &Connection) {
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    while let Ok(Some(received)) = connection.receive(&mut buffer) {
        let Frame::Control(rest) = frame::parse(&buffer[..received.length]).unwrap() else {
            panic!("not a question")
        };
        let answer = match frame::decode(rest).unwrap() {
            signer::Request::PublicKey => signer::Answer::PublicKey {
                pem: "-----BEGIN PUBLIC KEY-----".to_owned(),
                key_id: "SHA256:key".to_owned(),
            },
            signer::Request::Confinement => {
                site.note("signer: confinement");
                if site.script.lock().unwrap().silent {
                    continue;
                }
                signer::Answer::Confinement { steps: confined() }
            }
            signer::Request::Attest { attempt, .. } => {
                let answer = signed(site, &format!("{attempt}.sigstore.json"));
                site.script.lock().unwrap().attested.push(attempt);
                answer
            }
            signer::Request::SignReceipt { attempt } => {
                signed(site, &format!("{attempt}.receipt.sigstore.json"))
            }
        };
        connection.send(&frame::encode(&answer).unwrap()).unwrap();
    }
}

fn spawn(site: &Site, connection: &Connection, writer: &Writer) {
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    while let Ok(Some(received)) = connection.receive(&mut buffer) {
        let Frame::Control(rest) = frame::parse(&buffer[..received.length]).unwrap() else {
            panic!("not a request")
        };
        let spawner::Request { number, operation } = frame::decode(rest).unwrap();
        let (answer, exited) = obey(site, writer, operation);
        let Some(answer) = answer else { return };
        // The end may well come before the answer that the steps were started.
        for message in exited
            .into_iter()
            .chain([spawner::Message::Answer { number, answer }])
        {
            connection.send(&frame::encode(&message).unwrap()).unwrap();
        }
    }
}

fn obey(
    site: &Site,
    writer: &Writer,
    operation: spawner::Operation,
) -> (Option<spawner::Answer>, Option<spawner::Message>) {
    use spawner::{Answer, Operation};
    let mut script = site.script.lock().unwrap();
    let mut exited = None;
    let answer = match operation {
        Operation::Probe => {
            *script.asked.entry("spawner: probe").or_default() += 1;
            Answer::Host(HostReport {
                layers: vec![LayerReport {
                    name: "landlock".to_owned(),
                    found: "ABI 3".to_owned(),
                    verdict: if script.lacks {
                        Verdict::Missing
                    } else {
                        Verdict::Enforced
                    },
                    hint: "boot a newer kernel".to_owned(),
                }],
            })
        }
        Operation::List => Answer::Attempts {
            attempts: script.known.iter().cloned().collect(),
        },
        Operation::Stage {
            attempt,
            spec,
            plan,
        } => {
            script.known.insert(attempt.clone());
            script.staged.push(attempt.clone());
            script.specs.insert(attempt, (spec, *plan));
            Answer::Staged
        }
        Operation::Launch { .. } if script.hangs_up > 0 => {
            script.hangs_up -= 1;
            return (None, None);
        }
        Operation::Launch { attempt } => {
            fs::write(
                site.root.join(format!("store/logs/{attempt}.log")),
                log(&attempt),
            )
            .unwrap();
            let marks = format!(
                "{{\"offset\":0,\"step\":0}}\n{{\"offset\":{},\"step\":1}}\n",
                LOG.len()
            );
            fs::write(site.root.join(format!("store/logs/{attempt}.steps")), marks).unwrap();
            let outcome = Outcome::Succeeded;
            exited = (!script.runs_on).then_some(spawner::Message::Exited { attempt, outcome });
            Answer::Launched
        }
        Operation::Kill { attempt, by } => {
            script.specs.get_mut(&attempt).unwrap().1.source_date_epoch = u64::MAX;
            let outcome = Outcome::Cancelled { by, reason: None };
            exited = Some(spawner::Message::Exited { attempt, outcome });
            Answer::Killing
        }
        Operation::Usage { .. } => Answer::Used(Usage::default()),
        Operation::Collect { attempt } => {
            let (spec, plan) = script.specs[&attempt].clone();
            let killed = plan.source_date_epoch == u64::MAX;
            let outcome = match killed {
                true => Outcome::Cancelled {
                    by: "unix:uid=0".to_owned(),
                    reason: None,
                },
                false => Outcome::Succeeded,
            };
            let mut pending = writer.begin(None).unwrap();
            pending.write(APP).unwrap();
            pending.finish().unwrap();
            let mut receipt = receipt(&attempt, spec, &plan, outcome.clone());
            // Without a launch there is no log.
            let kept = fs::exists(site.root.join(format!("store/logs/{attempt}.log"))).unwrap();
            receipt.log = receipt.log.filter(|_| kept);
            let bytes = receipt.canonical().unwrap();
            fs::write(site.root.join(format!("receipts/{attempt}.json")), &bytes).unwrap();
            let receipt = Digest::of(&bytes);
            Answer::Collected { receipt, outcome }
        }
        Operation::Destroy { attempt } => {
            script.known.remove(&attempt);
            Answer::Destroyed
        }
    };
    (Some(answer), exited)
}

/// More than fits one message.
pub(super) fn log(attempt: &AttemptId) -> Vec<u8> {
    [
        LOG,
        attempt.to_string().as_bytes(),
        &b"x".repeat(2 * bounds::LOG_CHUNK_BYTES),
    ]
    .concat()
}

fn receipt(attempt: &AttemptId, spec: Digest, plan: &Plan, outcome: Outcome) -> Receipt {
    let digest = Digest::of(b"");
    let app = OutputEntry {
        path: RelPath::new("app").unwrap(),
        kind: OutputKind::File {
            object: ObjectId::of(APP),
            sha512: Sha512Digest::of(APP),
            executable: true,
        },
    };
    Receipt {
        sequence: 1,
        previous: None,
        previous_attempt: None,
        run_nonce: "0".repeat(32),
        boot_id: "boot".to_owned(),
        attempt: attempt.clone(),
        spec,
        plan: digest,
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
            vec![app]
        } else {
            vec![]
        },
        outcome,
        usage: Usage::default(),
        log: Some(LogRecord {
            object: ObjectId::of(&log(attempt)),
            truncated: false,
        }),
        image_output: None,
        clean_room: CleanRoom::default(),
        started: Timestamp::from_millis(1),
        finished: Timestamp::from_millis(2),
    }
}
