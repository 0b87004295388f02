//! One specification and the receipt of a fully enforced, successful attempt at it, with fixed values.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{
    ArtifactFetch, AttemptId, BuildSpec, Derivation, Digest, EnvName, EnvValue, Fetch, Image,
    Input, InputName, Inputs, Limits, Network, ObjectId, Outcome, Outputs, ProjectId, Recipe,
    RelPath, Script, Sha512Digest, Steps, Timestamp,
};
use belljar_plan::signer::Asserted;
use belljar_plan::{
    BUILD_ID, Binaries, Capabilities, CgroupFloor, CgroupReport, CleanRoom, EnforcementReport,
    IdMapping, ImageRule, InputRecord, LandlockReport, LogRecord, MountReport, NamespaceKind,
    NamespaceReport, OutputEntry, OutputKind, Plan, Receipt, RootFsRecord, SeccompReport,
    SelfProbe, StepRecord, Usage,
};

pub(crate) const ARTIFACT: &[u8] = b"the program";

pub(crate) fn attempt() -> AttemptId {
    "01jd8q6z8r4x7j2m5t9v0w3y6b-1".parse().unwrap()
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

pub(crate) fn spec() -> BuildSpec {
    BuildSpec {
        image: Image::Host,
        source: ObjectId::of(b"root directory"),
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output: None,
        working_directory: None,
        run: Steps::new(vec![
            Script::new("make").unwrap(),
            Script::new("make check").unwrap(),
        ])
        .unwrap(),
        env: BTreeMap::from([(EnvName::new("CC").unwrap(), EnvValue::new("gcc").unwrap())]),
        outputs: Outputs::new(BTreeSet::from([path("app"), path("share")])).unwrap(),
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: BuildSpec::DEFAULT_EPOCH,
    }
}

pub(crate) fn asserted() -> Asserted {
    Asserted {
        project: ProjectId::new("web").unwrap(),
        submitter: "unix:uid=0".into(),
        authenticated_by: "SO_PEERCRED".into(),
        accepted: Timestamp::from_millis(1_763_771_399_000),
        audit_trail: Digest::of(b"audit trail"),
        audit_entries: 8,
    }
}

pub(crate) fn file(name: &str, content: &[u8]) -> OutputEntry {
    let (object, sha512) = (ObjectId::of(content), Sha512Digest::of(content));
    OutputEntry {
        path: path(name),
        kind: OutputKind::File {
            object,
            sha512,
            executable: true,
        },
    }
}

pub(crate) fn directory(name: &str) -> OutputEntry {
    OutputEntry {
        path: path(name),
        kind: OutputKind::Directory,
    }
}

pub(crate) fn symlink(name: &str, target: &str) -> OutputEntry {
    OutputEntry {
        path: path(name),
        kind: OutputKind::Symlink {
            target: target.into(),
        },
    }
}

pub(crate) fn receipt() -> Receipt {
    let (spec, step) = (
        spec(),
        StepRecord {
            exit_code: Some(0),
            signal: None,
            started: Timestamp::from_millis(1_763_771_400_000),
            wall_micros: 1000,
            cpu_micros: 900,
            log_offset: 0,
            log_bytes: 3,
        },
    );
    Receipt {
        sequence: 7,
        previous: Some(Digest::of(b"receipt 6")),
        previous_attempt: Some("01jd8q6z8r4x7j2m5t9v0w3y6a-1".parse().unwrap()),
        run_nonce: "0123456789abcdef0123456789abcdef".into(),
        boot_id: "7b0f5a3e-7a3c-4b46-9d3e-0d0a3d7e0001".into(),
        attempt: attempt(),
        spec: spec.digest().unwrap(),
        plan: Plan::compile(&spec).digest().unwrap(),
        binaries: Binaries {
            spawner: Digest::of(b"spawner"),
            spawner_config: Digest::of(b"spawner.toml"),
            version: "0.1.0".into(),
            kernel: "6.12.48".into(),
        },
        rootfs: RootFsRecord::Host {
            paths: vec!["/lib".into(), "/usr".into()],
        },
        image_rule: Some(ImageRule::Any),
        input: InputRecord {
            tree: spec.source,
            unchanged: Some(true),
        },
        inputs: Inputs::default(),
        derivations: Vec::new(),
        enforcement: Some(enforcement()),
        self_probes: ["bpf", "keyctl", "mount", "ptrace", "unshare"]
            .map(|name| SelfProbe {
                name: name.into(),
                refused: true,
                errno: 1,
            })
            .into(),
        steps: vec![step.clone(), step],
        outcome: Outcome::Succeeded,
        usage: Usage::default(),
        log: Some(LogRecord {
            object: ObjectId::of(b"log"),
            truncated: false,
        }),
        outputs: vec![
            file("app", ARTIFACT),
            directory("share"),
            symlink("share/alias", "page"),
            directory("share/deep"),
            file("share/deep/page", b"a page"),
            file("share/page", b"a page"),
        ],
        image_output: None,
        clean_room: CleanRoom {
            no_process: true,
            no_connection: true,
            no_mount: true,
            no_file: true,
        },
        started: Timestamp::from_millis(1_763_771_400_000),
        finished: Timestamp::from_millis(1_763_771_472_500),
    }
}

/// A run on a tree with one further input, both made by the store.
pub(crate) fn hermetic() -> (BuildSpec, Receipt) {
    let input = |text: &str| Input {
        tree: ObjectId::of(text.as_bytes()),
        derivation: Some(ObjectId::of(&derivation(text).canonical().unwrap())),
    };
    let (mut spec, mut receipt) = (spec(), receipt());
    receipt.derivations = ["image", "crates"].map(derivation).into();
    let image = input("image");
    spec.image = Image::Tree(image);
    spec.inputs = Inputs::new(BTreeMap::from([(
        InputName::new("cargo").unwrap(),
        input("crates"),
    )]))
    .unwrap();
    receipt.spec = spec.digest().unwrap();
    receipt.plan = Plan::compile(&spec).digest().unwrap();
    receipt.rootfs = RootFsRecord::Tree {
        tree: image.tree,
        derivation: image.derivation,
    };
    receipt.image_rule = Some(ImageRule::Listed);
    receipt.inputs = spec.inputs.clone();
    if let Some(enforcement) = &mut receipt.enforcement {
        enforcement.mounts.push(MountReport {
            target: "/deps/cargo".into(),
            fs: "overlay".into(),
            options: "ro,nosuid,nodev".into(),
        });
    }
    (spec, receipt)
}

/// A later run that was given what [`receipt`]'s has left, by this recipe.
pub(crate) fn given(fetch: ArtifactFetch, recipe: Recipe) -> (BuildSpec, Receipt) {
    let (mut spec, mut receipt) = (spec(), receipt());
    let record = Derivation {
        recipe,
        ..derivation("left")
    };
    let name = InputName::new("x").unwrap();
    let fetches = BTreeMap::from([(name.clone(), Fetch::Artifact(fetch))]);
    spec.fetches = fetches.try_into().unwrap();
    let input = Input {
        tree: record.tree,
        derivation: Some(ObjectId::of(&record.canonical().unwrap())),
    };
    receipt.attempt = "01jd8q6z8r4x7j2m5t9v0w3y6d-1".parse().unwrap();
    receipt.inputs = Inputs::new(BTreeMap::from([(name, input)])).unwrap();
    receipt.derivations = vec![record];
    receipt.spec = spec.digest().unwrap();
    let plan = Plan::with_fetched(&spec, &receipt.inputs).unwrap();
    receipt.plan = plan.digest().unwrap();
    if let Some(enforcement) = &mut receipt.enforcement {
        enforcement.mounts.push(MountReport {
            target: "/deps/x".into(),
            fs: "overlay".into(),
            options: "ro,nosuid,nodev".into(),
        });
    }
    (spec, receipt)
}

/// The store's record of how it made the tree `text`.
pub(crate) fn derivation(text: &str) -> Derivation {
    let archive = ObjectId::of(format!("{text}.tar").as_bytes());
    Derivation {
        schema: Derivation::SCHEMA.to_owned(),
        recipe: Recipe::Tar { archive },
        from: [archive].into(),
        tree: ObjectId::of(text.as_bytes()),
        entries: 1,
        bytes: 1,
        dropped: BTreeMap::new(),
        facts: Vec::new(),
    }
}

fn enforcement() -> EnforcementReport {
    let map = || {
        [(0, 1_879_048_192), (BUILD_ID, 1_879_048_193)]
            .map(|(inside, outside)| IdMapping {
                inside,
                outside,
                count: 1,
            })
            .to_vec()
    };
    let none = || Capabilities::NONE.to_owned();
    let (figures, mount) = (
        *Limits::DEFAULT.get(),
        |target: &str, fs: &str, options: &str| MountReport {
            target: target.into(),
            fs: fs.into(),
            options: options.into(),
        },
    );
    EnforcementReport {
        namespaces: NamespaceKind::ALL
            .map(|kind| NamespaceReport {
                kind,
                inode: 4_026_532_500 + kind as u64,
                host_inode: 4_026_531_840 + kind as u64,
                owned_by_initial: true,
            })
            .into(),
        uid_map: map(),
        gid_map: map(),
        uids: [1_879_048_193; 4],
        gids: [1_879_048_193; 4],
        groups: Vec::new(),
        capabilities: Capabilities {
            inheritable: none(),
            permitted: none(),
            effective: none(),
            bounding: none(),
            ambient: none(),
        },
        no_new_privs: true,
        max_user_namespaces: 0,
        seccomp: SeccompReport {
            mode: 2,
            filters: 1,
            program: Digest::of(b"seccomp"),
        },
        landlock: LandlockReport {
            abi: 7,
            ruleset: Digest::of(b"landlock"),
        },
        cgroup: CgroupReport {
            floor: CgroupFloor::V2,
            memory_bytes: figures.memory_bytes,
            pids: figures.pids,
            cpu_millis: figures.cpu_millis,
            cpus: 2,
        },
        mounts: vec![
            mount("/", "overlay", "ro,nosuid,nodev"),
            mount("/build", "overlay", "rw,nosuid,nodev"),
            mount("/proc", "proc", "ro,nosuid,nodev,noexec"),
        ],
    }
}
