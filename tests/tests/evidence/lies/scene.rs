use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use belljar_core::{
    BuildSpec, Digest, Image, Inputs, Limits, Network, ObjectId, Outputs, RelPath, Script, Steps,
    bounds,
};
use belljar_plan::Plan;
use belljar_tests::{BELLJARD_UID, Instance, Liar, Part, wait_for};
use serde_json::{Value, json};

/// What came of a lie.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer.
    Answer(Value),
    /// The connection was closed, without a word or after an answer.
    Closed(Option<Value>),
    /// What a program said, and its exit status.
    Said(i32, String),
}

/// An instance whose belljard is a liar.
pub(super) struct Scene {
    // Goes first: an instance looks whether anything of it is left.
    pub(super) spawner: Liar,
    pub(super) instance: Instance,
    number: u64,
    builds: u64,
    exited: Vec<Value>,
}

/// The specification of a build on the host's root file system, without sources.
pub(super) fn spec(script: &str) -> BuildSpec {
    let outputs = BTreeSet::from([RelPath::new("out").unwrap()]);
    let mut figures = *Limits::DEFAULT.get();
    figures.wall_seconds = 60;
    figures.grace_seconds = 1;
    BuildSpec {
        image: Image::Host,
        source: ObjectId::of(b""),
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output: None,
        working_directory: None,
        run: Steps::new(vec![Script::new(script).unwrap()]).unwrap(),
        env: BTreeMap::new(),
        outputs: Outputs::new(outputs).unwrap(),
        limits: Limits::new(figures).unwrap(),
        network: Network::None,
        source_date_epoch: BuildSpec::DEFAULT_EPOCH,
    }
}

pub(super) fn plan(spec: &BuildSpec) -> Value {
    serde_json::to_value(Plan::compile(spec)).unwrap()
}

fn text(spec: &BuildSpec) -> String {
    String::from_utf8(spec.canonical().unwrap()).unwrap()
}

/// What only belljard vouches for.
pub(super) fn asserted() -> Value {
    json!({
        "project": "default",
        "submitter": "unix:uid=0",
        "authenticated_by": "SO_PEERCRED",
        "accepted": "2026-01-01T00:00:00.000Z",
        "audit_trail": Digest::of(b"a trail"),
        "audit_entries": 1,
    })
}

/// The request to attest.
pub(super) fn attest(attempt: &str, spec: &BuildSpec) -> Value {
    json!({"kind": "attest", "attempt": attempt, "spec": text(spec), "asserted": asserted()})
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut instance = Instance::started();
        instance.end_part(Part::Belljard);
        let spawner = Liar::connect(&instance, Part::Spawner, BELLJARD_UID);
        let scene = Self {
            instance,
            spawner,
            number: 0,
            builds: 0,
            exited: Vec::new(),
        };
        let told = scene.put(ObjectId::of(b""), b"");
        assert!(matches!(&told, Told::Answer(answer) if answer["kind"] == "stored"));
        scene
    }

    /// A new connection, also in the place of one that was closed.
    pub(super) fn connect(&self, part: Part) -> Liar {
        Liar::connect(&self.instance, part, BELLJARD_UID)
    }

    /// An attempt that nobody has heard of.
    pub(super) fn attempt(&mut self) -> String {
        self.builds += 1;
        format!("01jd8q6z8r4x7j2m5t9v0w{:04}-1", self.builds)
    }

    /// Asks the spawner. What it tells unasked meanwhile is kept.
    pub(super) fn ask(&mut self, operation: &Value) -> Value {
        self.number += 1;
        let request = json!({"number": self.number, "operation": operation});
        self.spawner.say(&request);
        loop {
            let message = self.spawner.hear();
            let mut message = message.unwrap_or_else(|| panic!("closed upon {request}"));
            if message["kind"] == "exited" {
                self.exited.push(message);
            } else if message["number"] == self.number {
                return message["answer"].take();
            }
        }
    }

    pub(super) fn stage(&mut self, attempt: &str, spec: Digest, plan: &Value) -> Value {
        self.ask(&json!({"kind": "stage", "attempt": attempt, "spec": spec, "plan": plan}))
    }

    /// Stages and launches it.
    pub(super) fn launch(&mut self, spec: &BuildSpec) -> String {
        let attempt = self.attempt();
        let staged = self.stage(&attempt, spec.digest().unwrap(), &plan(spec));
        assert_eq!(staged["kind"], "staged", "{staged}");
        let launched = self.ask(&json!({"kind": "launch", "attempt": attempt}));
        assert_eq!(launched["kind"], "launched", "{launched}");
        attempt
    }

    /// Waits until it has ended.
    pub(super) fn wait(&mut self, attempt: &str) {
        let is_its = |message: &Value| message["attempt"] == attempt;
        while !self.exited.iter().any(is_its) {
            let message = self.spawner.hear().unwrap();
            self.exited.push(message);
        }
    }

    /// Takes it to its receipt. Gives the answer.
    pub(super) fn collect(&mut self, attempt: &str) -> Value {
        self.ask(&json!({"kind": "collect", "attempt": attempt}))
    }

    /// Forgets it.
    pub(super) fn destroy(&mut self, attempt: &str) {
        let destroyed = self.ask(&json!({"kind": "destroy", "attempt": attempt}));
        assert_eq!(destroyed["kind"], "destroyed", "{destroyed}");
    }

    /// Runs a build as an honest belljard would. Gives the attempt.
    pub(super) fn build(&mut self, spec: &BuildSpec) -> String {
        let attempt = self.launch(spec);
        self.wait(&attempt);
        let collected = self.collect(&attempt);
        assert_eq!(collected["kind"], "collected", "{collected}");
        self.destroy(&attempt);
        attempt
    }

    /// One message to the store or the signer, on a connection of its own.
    pub(super) fn tell(&self, part: Part, message: &Value) -> Told {
        self.send(part, format!("J{message}").as_bytes())
    }

    /// The same with any bytes.
    pub(super) fn send(&self, part: Part, message: &[u8]) -> Told {
        let mut liar = self.connect(part);
        liar.send(message);
        answer_of(&mut liar)
    }

    /// The same with a descriptor.
    pub(super) fn send_with_descriptor(&self, part: Part, message: &Value) -> Told {
        let mut liar = self.connect(part);
        liar.send_with_descriptor(format!("J{message}").as_bytes());
        answer_of(&mut liar)
    }

    /// Gives the store content that is to be an object.
    pub(super) fn put(&self, object: ObjectId, content: &[u8]) -> Told {
        let mut store = self.connect(Part::Store);
        store.say(&json!({"kind": "put", "object": object}));
        for piece in content.chunks(bounds::CHUNK_BYTES) {
            store.send(&[b"D", piece].concat());
        }
        answer_of(&mut store)
    }

    /// Has an object kept.
    pub(super) fn keep(&self, content: &[u8]) -> ObjectId {
        let object = ObjectId::of(content);
        let told = self.put(object, content);
        assert!(
            matches!(&told, Told::Answer(answer) if answer["kind"] == "stored"),
            "{told:?}"
        );
        object
    }

    /// What the signer has signed about an attempt.
    pub(super) fn bundle(&self, attempt: &str) -> Option<Vec<u8>> {
        let path = format!("evidence/{attempt}.sigstore.json");
        fs::read(self.instance.state().join(path)).ok()
    }

    /// How long the record of a process is.
    pub(super) fn recorded(&self, part: Part) -> usize {
        self.instance.said(part).len()
    }

    /// Waits until a process has recorded a refusal with these words, after its record was so long.
    pub(super) fn wait_until_recorded(&self, part: Part, since: usize, words: &str, lie: &str) {
        let what = format!("{part:?} records: {lie} ({words})");
        wait_for(&what, Duration::from_secs(15), || {
            let said = self.instance.said(part);
            let mut lines = said.get(since..)?.lines();
            let is_it = |line: &str| line.contains(" audit: refused who=") && line.contains(words);
            lines.any(is_it).then_some(())
        });
    }
}

/// The answer, and whether the connection is closed after it.
pub(super) fn answer_of(liar: &mut Liar) -> Told {
    match liar.hear() {
        Some(answer) => Told::Answer(answer),
        None => Told::Closed(None),
    }
}
