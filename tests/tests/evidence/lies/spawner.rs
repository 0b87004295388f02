use belljar_core::{BuildSpec, Derivation, Digest, ObjectId, Recipe, bounds};
use belljar_tests::{Part, SIGNER_UID, STORE_UID};
use serde_json::{Value, json};

use super::scene::{Scene, Told, answer_of, plan, spec};
use super::{Row, SPAWNER, STORE, row};

/// Sends bytes to the spawner, which takes them for no request.
fn raw(scene: &mut Scene, bytes: &[u8]) -> Told {
    scene.spawner = scene.connect(Part::Spawner);
    scene.spawner.send(bytes);
    answer_of(&mut scene.spawner)
}

fn request(scene: &mut Scene, operation: Value) -> Told {
    raw(
        scene,
        format!("J{}", json!({"number": 1, "operation": operation})).as_bytes(),
    )
}

pub(super) const FRAMES: &[Row] = &[
    row(
        "a frame of more than 160 KiB to the spawner",
        SPAWNER,
        "larger than allowed",
        |scene| raw(scene, &vec![b'J'; bounds::FRAME_BYTES + 1]),
    ),
    row(
        "a frame of no known kind",
        SPAWNER,
        "unknown kind 0x58",
        |scene| raw(scene, b"X{}"),
    ),
    row(
        "content instead of a request",
        SPAWNER,
        "content came",
        |scene| raw(scene, b"Dabc"),
    ),
    row("half a request", SPAWNER, "EOF while parsing", |scene| {
        raw(scene, b"J{\"number\":1,")
    }),
    row(
        "a request nested 100 000 deep",
        SPAWNER,
        "recursion limit exceeded",
        |scene| {
            raw(
                scene,
                format!(
                    "J{{\"number\":1,\"operation\":{{\"kind\":\"stage\",\"plan\":{}",
                    "[".repeat(100_000)
                )
                .as_bytes(),
            )
        },
    ),
    row(
        "an operation that is none",
        SPAWNER,
        "unknown variant `exec`",
        |scene| request(scene, json!({"kind": "exec", "argv": ["/bin/sh"]})),
    ),
    row(
        "a path beside an operation",
        SPAWNER,
        "unknown field `path`",
        |scene| {
            request(
                scene,
                json!({"kind": "launch", "attempt": "01jd8q6z8r4x7j2m5t9v0w3y6b-1", "path": "/etc"}),
            )
        },
    ),
    row(
        "a path as an attempt",
        SPAWNER,
        "not an attempt id",
        |scene| request(scene, json!({"kind": "destroy", "attempt": "../../etc"})),
    ),
    row(
        "a file descriptor with an operation",
        SPAWNER,
        "a descriptor came",
        |scene| {
            scene.spawner = scene.connect(Part::Spawner);
            scene
                .spawner
                .send_with_descriptor(b"J{\"number\":1,\"operation\":{\"kind\":\"list\"}}");
            answer_of(&mut scene.spawner)
        },
    ),
    row(
        "the store's user as belljard",
        SPAWNER,
        "not belljard's user",
        |scene| stranger(scene, STORE_UID),
    ),
    row(
        "the signer's user as belljard",
        SPAWNER,
        "not belljard's user",
        |scene| stranger(scene, SIGNER_UID),
    ),
    row(
        "root as belljard",
        SPAWNER,
        "not belljard's user",
        |scene| stranger(scene, 0),
    ),
];

fn stranger(scene: &mut Scene, uid: u32) -> Told {
    let question = json!({"number": 1, "operation": {"kind": "list"}});
    match scene.instance.ask(Part::Spawner, uid, &question).unwrap() {
        Value::Null => Told::Closed(None),
        answer => Told::Answer(answer),
    }
}

const SLOW: &str = "echo x > out; sleep 30";

/// What is answered about a build that runs, which then is killed.
fn while_it_runs(scene: &mut Scene, lie: fn(&mut Scene, &str) -> Value) -> Told {
    let attempt = scene.launch(&spec(SLOW));
    let told = lie(scene, &attempt);
    scene.destroy(&attempt);
    Told::Answer(told)
}

fn unknown(scene: &mut Scene, kind: &str) -> Told {
    let attempt = scene.attempt();
    Told::Answer(scene.ask(&json!({"kind": kind, "attempt": attempt})))
}

pub(super) const ORDER: &[Row] = &[
    row(
        "launch what was never staged",
        SPAWNER,
        "is not known",
        |scene| unknown(scene, "launch"),
    ),
    row(
        "collect what was never staged",
        SPAWNER,
        "is not known",
        |scene| unknown(scene, "collect"),
    ),
    row(
        "ask what nothing has used",
        SPAWNER,
        "is not known",
        |scene| unknown(scene, "usage"),
    ),
    row(
        "launch a second time",
        SPAWNER,
        "the attempt is not staged",
        |scene| {
            while_it_runs(scene, |scene, attempt| {
                scene.ask(&json!({"kind": "launch", "attempt": attempt}))
            })
        },
    ),
    row(
        "collect while it runs",
        SPAWNER,
        "the attempt has not ended",
        |scene| while_it_runs(scene, Scene::collect),
    ),
    row(
        "stage an attempt that runs with another plan",
        SPAWNER,
        "each runs once",
        |scene| {
            while_it_runs(scene, |scene, attempt| {
                let other = spec("echo other > out");
                scene.stage(attempt, other.digest().unwrap(), &plan(&other))
            })
        },
    ),
    row(
        "run an attempt again that has a receipt",
        SPAWNER,
        "each runs once",
        |scene| {
            let spec = spec("echo x > out");
            let attempt = scene.build(&spec);
            Told::Answer(scene.stage(&attempt, spec.digest().unwrap(), &plan(&spec)))
        },
    ),
    row(
        "launch again what was collected",
        SPAWNER,
        "the attempt is not staged",
        |scene| {
            let attempt = scene.launch(&spec("echo x > out"));
            scene.wait(&attempt);
            let collected = scene.collect(&attempt);
            assert_eq!(collected["outcome"]["kind"], "succeeded", "{collected}");
            let told = scene.ask(&json!({"kind": "launch", "attempt": attempt}));
            // Nor does that change what was collected.
            assert_eq!(scene.collect(&attempt), collected);
            scene.destroy(&attempt);
            Told::Answer(told)
        },
    ),
    row(
        "a name of 100 000 bytes for who cancels",
        SPAWNER,
        "a name of a principal is due",
        |scene| cancelled_by(scene, &"x".repeat(100_000)),
    ),
    row(
        "a name with a line break for who cancels",
        SPAWNER,
        "a name of a principal is due",
        |scene| cancelled_by(scene, "root\n2026-01-01T00:00:00Z ERROR forged"),
    ),
    row(
        "one build more than there are slots",
        SPAWNER,
        "every slot is taken",
        |scene| {
            let mut running = Vec::new();
            loop {
                let (attempt, spec) = (scene.attempt(), spec(SLOW));
                let told = scene.stage(&attempt, spec.digest().unwrap(), &plan(&spec));
                if told["kind"] != "staged" {
                    running
                        .iter()
                        .for_each(|attempt: &String| scene.destroy(attempt));
                    return Told::Answer(told);
                }
                running.push(attempt);
                assert!(running.len() <= bounds::CONCURRENT_SANDBOXES);
            }
        },
    ),
];

fn cancelled_by(scene: &mut Scene, by: &str) -> Told {
    let attempt = scene.attempt();
    Told::Answer(scene.ask(&json!({"kind": "kill", "attempt": attempt, "by": by})))
}

/// Stages the plan of a plain build, with one thing in it changed.
fn staged(scene: &mut Scene, change: impl FnOnce(&mut Value)) -> Told {
    let spec = spec("echo x > out");
    let mut plan = plan(&spec);
    change(&mut plan);
    let attempt = scene.attempt();
    let operation =
        json!({"kind": "stage", "attempt": attempt, "spec": spec.digest().unwrap(), "plan": plan});
    scene.spawner = scene.connect(Part::Spawner);
    scene
        .spawner
        .say(&json!({"number": 1, "operation": operation}));
    let told = answer_of(&mut scene.spawner);
    if matches!(told, Told::Answer(_)) {
        scene.destroy(&attempt);
    }
    told
}

pub(super) const PLANS: &[Row] = &[
    row(
        "a containment of less",
        SPAWNER,
        "unknown variant `none`",
        |scene| staged(scene, |plan| plan["profile"] = "none".into()),
    ),
    row("a network", SPAWNER, "unknown variant `host`", |scene| {
        staged(scene, |plan| plan["network"] = "host".into())
    }),
    row(
        "a path of the host as root file system",
        SPAWNER,
        "unknown variant `path`",
        |scene| staged(scene, |plan| plan["image"] = json!({"path": "/"})),
    ),
    row(
        "more memory than any build may have",
        SPAWNER,
        "beyond the cap",
        |scene| {
            staged(scene, |plan| {
                plan["limits"]["memory_bytes"] = (2_u64 << 40).into()
            })
        },
    ),
    row(
        "no limit on processes",
        SPAWNER,
        "zero is not a limit",
        |scene| staged(scene, |plan| plan["limits"]["pids"] = 0.into()),
    ),
    row(
        "another home directory",
        SPAWNER,
        "set by the sandbox",
        |scene| staged(scene, |plan| plan["env"] = json!({"HOME": "/root"})),
    ),
    row(
        "an output outside of the sources",
        SPAWNER,
        "`..`",
        |scene| staged(scene, |plan| plan["outputs"] = json!(["../../etc/passwd"])),
    ),
    row(
        "a working directory outside of them",
        SPAWNER,
        "`..`",
        |scene| staged(scene, |plan| plan["working_directory"] = "../..".into()),
    ),
    row(
        "mounts beside the plan's",
        SPAWNER,
        "unknown field `mounts`",
        |scene| {
            staged(scene, |plan| {
                plan["mounts"] = json!([{"from": "/", "to": "/build/host"}])
            })
        },
    ),
    row(
        "a root file system that is not in the store",
        STORE,
        "not in the store",
        |scene| {
            staged(scene, |plan| {
                plan["image"] = tree(ObjectId::of(b"foreign"), None)
            })
        },
    ),
    row(
        "a root file system with a record of its making that belljard wrote",
        STORE,
        "derivation:",
        |scene| {
            let root = ObjectId::of(b"");
            let archive = scene.keep(b"not an archive");
            let record = Derivation {
                schema: Derivation::SCHEMA.to_owned(),
                recipe: Recipe::Tar { archive },
                from: [archive].into(),
                tree: root,
                entries: 0,
                bytes: 0,
                dropped: Default::default(),
                facts: Vec::new(),
            };
            let record = scene.keep(&record.canonical().unwrap());
            staged(scene, |plan| plan["image"] = tree(root, Some(record)))
        },
    ),
    row(
        "sources that are no tree",
        STORE,
        "not a Directory message",
        |scene| {
            let object = scene.keep(b"no Directory message");
            staged(scene, |plan| {
                plan["source"] = serde_json::to_value(object).unwrap()
            })
        },
    ),
    row(
        "sources of another size",
        STORE,
        "not in the store",
        |scene| {
            let object = scene.keep(b"sixteen bytes !!");
            let other = ObjectId {
                size: object.size + 1,
                ..object
            };
            staged(scene, |plan| {
                plan["source"] = serde_json::to_value(other).unwrap()
            })
        },
    ),
];

fn tree(root: ObjectId, derivation: Option<ObjectId>) -> Value {
    json!({"tree": {"tree": root, "derivation": derivation}})
}

/// A digest that is of nothing.
pub(super) fn nothing() -> Digest {
    Digest::of(b"nothing that anybody has")
}

/// Another specification.
pub(super) fn other() -> BuildSpec {
    spec("echo another > out")
}
