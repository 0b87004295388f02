use belljar_core::{
    ArtifactFetch, ArtifactForm, BuildSpec, BuilderId, Digest, Fetch, Fetches, Input, InputName,
    Inputs, ObjectId, Producer, Recipe, RelPath, Unpack,
};
use belljar_plan::{OutputEntry, OutputKind, Plan, Receipt};
use belljar_tests::Part;
use serde_json::json;

use super::scene::{Scene, Told, answer_of, attest, spec};
use super::{Row, SIGNER, row};

/// What every build of [`honest`] leaves.
const MADE: &[u8] = b"made\n";
/// What none has.
const FORGED: &[u8] = b"forged\n";

/// A build that was signed, and the digest of its bundle.
fn honest(scene: &mut Scene) -> Producer {
    let made = spec("echo made > out");
    let attempt = scene.build(&made);
    let told = scene.tell(Part::Signer, &attest(&attempt, &made));
    assert!(
        matches!(&told, Told::Answer(answer) if answer["kind"] == "attested"),
        "{told:?}"
    );
    Producer {
        provenance: Digest::of(&scene.bundle(&attempt).unwrap()),
        attempt: attempt.parse().unwrap(),
    }
}

/// Has the store make a tree, and gives it whatever it asks for.
pub(super) fn derive(scene: &Scene, recipe: &Recipe) -> Input {
    let mut store = scene.connect(Part::Store);
    store.say(&json!({"kind": "derive", "recipe": recipe}));
    loop {
        match answer_of(&mut store) {
            Told::Answer(answer) if answer["kind"] == "derivation_wants" => {
                store.say(&json!({"kind": "given"}));
            }
            Told::Answer(answer) if answer["kind"] == "derived" => {
                let tree = serde_json::from_value(answer["tree"].clone()).unwrap();
                let derivation = serde_json::from_value(answer["derivation"].clone()).unwrap();
                return Input { tree, derivation };
            }
            told => panic!("{told:?}"),
        }
    }
}

/// Runs a build that is given the tree of this recipe, as what the fetch names; then asks for a statement.
fn given(scene: &mut Scene, fetch: impl FnOnce(Input) -> ArtifactFetch, recipe: &Recipe) -> Told {
    let input = derive(scene, recipe);
    let name = InputName::new("x").unwrap();
    let fetch = Fetch::Artifact(fetch(input));
    let given = BuildSpec {
        fetches: Fetches::new([(name.clone(), fetch)].into()).unwrap(),
        ..spec("ls /deps/x > out")
    };
    let inputs = Inputs::new([(name, input)].into()).unwrap();
    sign_for(scene, &given, &inputs)
}

/// Runs a build that is given these trees as what it has fetched; then asks for a statement, which there is none of.
pub(super) fn sign_for(scene: &mut Scene, given: &BuildSpec, inputs: &Inputs) -> Told {
    let plan = Plan::with_fetched(given, inputs).unwrap();
    let plan = serde_json::to_value(plan).unwrap();
    let attempt = scene.attempt();
    let staged = scene.stage(&attempt, given.digest().unwrap(), &plan);
    assert_eq!(staged["kind"], "staged", "{staged}");
    scene.ask(&json!({"kind": "launch", "attempt": attempt}));
    scene.wait(&attempt);
    let collected = scene.collect(&attempt);
    assert_eq!(collected["outcome"]["kind"], "succeeded", "{collected}");
    scene.destroy(&attempt);
    let told = scene.tell(Part::Signer, &attest(&attempt, given));
    assert!(scene.bundle(&attempt).is_none(), "{told:?}");
    told
}

/// A file as what this producer has left.
fn file(scene: &mut Scene, content: &[u8], producer: Producer) -> Told {
    demanded(scene, content, producer, |_| {})
}

/// The same, of which the specification demands more.
fn demanded(
    scene: &mut Scene,
    content: &[u8],
    producer: Producer,
    demand: impl FnOnce(&mut ArtifactFetch),
) -> Told {
    let unpack = Unpack::file("x", false).unwrap();
    let recipe = Recipe::Artifact {
        producer,
        content: scene.keep(content),
        unpack: unpack.clone(),
    };
    let mut fetch = ArtifactFetch {
        artifact: Digest::of(content),
        form: ArtifactForm::File(unpack),
        build: None,
        builder: None,
    };
    demand(&mut fetch);
    given(scene, |_| fetch, &recipe)
}

/// A build that failed, and the digest of what was signed about it.
fn failed(scene: &mut Scene) -> Producer {
    let attempt = scene.build(&spec("echo forged > out; exit 3"));
    let told = scene.tell(
        Part::Signer,
        &json!({"kind": "sign_receipt", "attempt": attempt}),
    );
    let Told::Answer(answer) = &told else {
        panic!("{told:?}")
    };
    assert_eq!(answer["kind"], "attested", "{told:?}");
    Producer {
        provenance: serde_json::from_value(answer["bundle"].clone()).unwrap(),
        attempt: attempt.parse().unwrap(),
    }
}

/// The receipt of an attempt, with a directory more among its outputs.
fn forged_receipt(scene: &Scene, of: &Producer, content: ObjectId) -> ObjectId {
    let path = format!("receipts/{}.json", of.attempt);
    let bytes = std::fs::read(scene.instance.state().join(path)).unwrap();
    let mut receipt = Receipt::from_canonical(&bytes).unwrap();
    let path = |text: &str| RelPath::new(text).unwrap();
    let mut file = receipt.outputs[0].clone();
    file.path = path("share/file");
    if let OutputKind::File { object, .. } = &mut file.kind {
        *object = content;
    }
    let directory = OutputEntry {
        path: path("share"),
        kind: OutputKind::Directory,
    };
    receipt.outputs.extend([directory, file]);
    scene.keep(&receipt.canonical().unwrap())
}

pub(super) const ROWS: &[Row] = &[
    row(
        "a file of its own, as what a build has left that never was",
        SIGNER,
        "was signed here",
        |scene| {
            let producer = Producer {
                attempt: scene.attempt().parse().unwrap(),
                provenance: Digest::of(b"never signed"),
            };
            file(scene, FORGED, producer)
        },
    ),
    row(
        "a file of its own, as what a build has left that failed, by what was signed about its receipt",
        SIGNER,
        "was signed here",
        |scene| {
            let producer = failed(scene);
            file(scene, FORGED, producer)
        },
    ),
    row(
        "a file of its own, as what a build has left that left another",
        SIGNER,
        "has not left",
        |scene| {
            let producer = honest(scene);
            file(scene, FORGED, producer)
        },
    ),
    row(
        "what a build has left, under provenance that is another's",
        SIGNER,
        "is not sha256:",
        |scene| {
            let (one, two) = (honest(scene), honest(scene));
            let mixed = Producer {
                attempt: one.attempt,
                provenance: two.provenance,
            };
            file(scene, MADE, mixed)
        },
    ),
    row(
        "what a build has left, where the specification demands another build's",
        SIGNER,
        "was not made of what the specification has fetched",
        |scene| {
            let (one, two) = (honest(scene), honest(scene));
            let other = two.attempt.build().clone();
            demanded(scene, MADE, one, |fetch| fetch.build = Some(other))
        },
    ),
    row(
        "what a build has left, where the specification demands a builder that is hermetic",
        SIGNER,
        "not by the builder that the specification demands",
        |scene| {
            let producer = honest(scene);
            let hermetic = BuilderId::new("urn:belljar:embedded/builders/hermetic/v1").unwrap();
            demanded(scene, MADE, producer, |fetch| {
                fetch.builder = Some(hermetic)
            })
        },
    ),
    row(
        "a directory, by a receipt that it wrote itself",
        SIGNER,
        "has not left",
        |scene| {
            let producer = honest(scene);
            let content = scene.keep(FORGED);
            let receipt = forged_receipt(scene, &producer, content);
            let recipe = Recipe::OutputDirectory {
                producer,
                receipt,
                output: RelPath::new("share").unwrap(),
            };
            let fetch = |input: Input| ArtifactFetch {
                artifact: input.tree.digest,
                form: ArtifactForm::Directory,
                build: None,
                builder: None,
            };
            given(scene, fetch, &recipe)
        },
    ),
];
