//! The build specification on the wire: round trips, complete, and refused by field.

use std::collections::{BTreeMap, BTreeSet};

use crate::v1;
use belljar_core::{
    ArtifactFetch, ArtifactForm, BaseImage, BuildSpec, BuilderId, EnvName, EnvValue, Fetch,
    FetchUrl, Fetches, GitFetch, GitId, Image, ImageConfig, ImageFields, ImageOutput, Input,
    InputName, Inputs, Invalid, LimitFigures, Limits, Mirrors, Network, ObjectId, Outputs,
    Platform, RelPath, Script, Steps, Unpack, UrlFetch, bounds,
};
use proptest::prelude::*;
use prost::Message;
use prost_types::FileDescriptorSet;

fn fetch() -> v1::Fetch {
    let tar = v1::unpack::Tar {
        strip_components: 1,
    };
    v1::Fetch {
        urls: vec!["https://a.example/x.tar.gz".to_owned()],
        sha256: ObjectId::of(b"x").digest.to_hex(),
        unpack: Some(v1::Unpack {
            kind: Some(v1::unpack::Kind::Tar(tar)),
        }),
        earlier_build: None,
        git_commit: None,
    }
}

fn earlier() -> v1::fetch::EarlierBuild {
    v1::fetch::EarlierBuild {
        directory: false,
        build: "builds/01m80ts0f9k8jr4yh4r7abv98y".to_owned(),
        builder: "urn:x/builders/dev/v1".to_owned(),
    }
}

/// The commit whose name is this, so often as it takes.
fn commit(text: &str) -> v1::GitCommit {
    v1::GitCommit {
        commit: text.repeat(40 / text.len()),
        submodules: true,
    }
}

fn proto() -> v1::BuildSpec {
    v1::BuildSpec {
        image: "host".to_owned(),
        source: Some(ObjectId::of(b"tree").into()),
        run: vec!["make".to_owned()],
        outputs: vec!["app".to_owned()],
        ..Default::default()
    }
}

fn input() -> v1::Input {
    v1::Input {
        tree: Some(ObjectId::of(b"tree").into()),
        derivation: None,
    }
}

fn parse(change: impl FnOnce(&mut v1::BuildSpec)) -> Result<BuildSpec, Invalid> {
    let mut spec = proto();
    change(&mut spec);
    spec.try_into()
}

/// The names of a message's fields, out of the compiled descriptors.
fn fields_of(message: &str) -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    let found = set
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .find(|m| m.name() == message)
        .unwrap();
    found
        .field
        .iter()
        .map(|field| field.name().to_owned())
        .collect()
}

type Change = fn(&mut v1::BuildSpec);
type LimitChange = fn(&mut v1::Limits, i64);

/// For each field a change that a client can make.
const CHANGES: [(&str, Change); 11] = [
    ("source", |s| {
        s.source = Some(ObjectId::of(b"another").into())
    }),
    ("run", |s| s.run.push("make install".to_owned())),
    ("env", |s| {
        s.env = BTreeMap::from([("CC".to_owned(), "gcc".to_owned())])
    }),
    ("outputs", |s| s.outputs.push("lib".to_owned())),
    ("limits", |s| {
        s.limits = Some(v1::Limits {
            pids: Some(7),
            ..Default::default()
        })
    }),
    ("inputs", |s| {
        s.inputs = BTreeMap::from([("cargo".to_owned(), input())])
    }),
    ("fetches", |s| {
        s.fetches = BTreeMap::from([("zlib".to_owned(), fetch())])
    }),
    ("image_output", |s| {
        s.image_output = Some(v1::ImageOutput {
            base: Some(v1::image_output::Base::Scratch("linux/amd64".to_owned())),
            ..Default::default()
        })
    }),
    ("working_directory", |s| {
        s.working_directory = "sub".to_owned()
    }),
    ("source_date_epoch", |s| s.source_date_epoch = Some(5)),
    // Only one value exists yet: that another one is refused shows that it is looked at.
    ("network", |s| s.network = 99),
];

#[test]
fn every_field_of_the_message_reaches_the_domain() {
    let mut named: BTreeSet<String> = CHANGES
        .iter()
        .map(|(field, _)| (*field).to_owned())
        .collect();
    named.extend(["image".to_owned(), "image_tree".to_owned()]);
    assert_eq!(
        named,
        fields_of("BuildSpec"),
        "a field was added to the message: say here what it changes"
    );
    let plain = parse(|_| ()).unwrap();
    for (field, change) in CHANGES {
        match parse(change) {
            Ok(changed) => assert_ne!(changed.digest(), plain.digest(), "{field} changes nothing"),
            Err(refused) => assert_eq!((field, refused.field.as_str()), ("network", "network")),
        }
    }
    let by_digest = parse(|s| {
        s.image = "tree".to_owned();
        s.image_tree = Some(input());
    });
    assert_ne!(by_digest.unwrap().digest(), plain.digest());
    let refused: [(&str, Change); 5] = [
        ("image", |s| s.image = "rust".to_owned()),
        ("image", |s| s.image = String::new()),
        ("image_tree", |s| s.image = "tree".to_owned()),
        ("image_tree", |s| s.image_tree = Some(input())),
        ("image_tree.tree", |s| {
            s.image = "tree".to_owned();
            s.image_tree = Some(v1::Input::default());
        }),
    ];
    for (field, change) in refused {
        assert_eq!(parse(change).unwrap_err().field, field);
    }
    for (name, place) in [("A", "inputs"), ("ok", "inputs.ok.tree")] {
        let refused = parse(|s| {
            s.inputs = BTreeMap::from([(name.to_owned(), v1::Input::default())]);
        });
        assert_eq!(refused.unwrap_err().field, place);
    }
    type ChangeFetch = fn(&mut v1::Fetch);
    let refused: [(&str, ChangeFetch); 18] = [
        ("fetches.x.urls", |f| f.urls.clear()),
        ("fetches.x.urls[0]", |f| {
            f.urls[0] = "ftp://a.example/".to_owned()
        }),
        ("fetches.x.sha256", |f| f.sha256 = "AA".to_owned()),
        ("fetches.x.urls", |f| f.earlier_build = Some(earlier())),
        ("fetches.x.unpack", |f| {
            f.urls.clear();
            f.unpack = None;
            f.earlier_build = Some(earlier());
        }),
        ("fetches.x.unpack", |f| {
            f.urls.clear();
            let directory = true;
            f.earlier_build = Some(v1::fetch::EarlierBuild {
                directory,
                ..earlier()
            });
        }),
        ("fetches.x.earlier_build.build", |f| {
            f.urls.clear();
            let build = "01m".to_owned();
            f.earlier_build = Some(v1::fetch::EarlierBuild { build, ..earlier() });
        }),
        ("fetches.x.earlier_build.builder", |f| {
            f.urls.clear();
            let builder = "a b".to_owned();
            f.earlier_build = Some(v1::fetch::EarlierBuild {
                builder,
                ..earlier()
            });
        }),
        ("fetches.x.unpack", |f| f.unpack = None),
        ("fetches.x.sha256", |f| f.git_commit = Some(commit("a"))),
        ("fetches.x.unpack", |f| {
            f.sha256.clear();
            f.git_commit = Some(commit("a"));
        }),
        ("fetches.x.earlier_build", |f| {
            f.sha256.clear();
            f.unpack = None;
            f.earlier_build = Some(earlier());
            f.git_commit = Some(commit("a"));
        }),
        ("fetches.x.git_commit.commit", |f| {
            f.sha256.clear();
            f.unpack = None;
            f.git_commit = Some(commit("main"));
        }),
        ("fetches.x.urls", |f| {
            *f = v1::Fetch {
                git_commit: Some(commit("a")),
                ..Default::default()
            };
        }),
        ("fetches.x.urls[0]", |f| {
            *f = v1::Fetch {
                urls: vec!["https://a.example/?r=x".to_owned()],
                git_commit: Some(commit("a")),
                ..Default::default()
            };
        }),
        ("fetches.x.unpack.kind", |f| {
            f.unpack = Some(v1::Unpack { kind: None })
        }),
        ("fetches.x.unpack.tar.strip_components", |f| {
            let tar = v1::unpack::Tar {
                strip_components: 129,
            };
            f.unpack = Some(v1::Unpack {
                kind: Some(v1::unpack::Kind::Tar(tar)),
            });
        }),
        ("fetches.x.unpack.file.name", |f| {
            let name = "a/b".to_owned();
            let file = v1::unpack::File {
                name,
                executable: false,
            };
            f.unpack = Some(v1::Unpack {
                kind: Some(v1::unpack::Kind::File(file)),
            });
        }),
    ];
    for (field, change) in refused {
        let mut fetch = fetch();
        change(&mut fetch);
        let refused = parse(|s| {
            s.fetches = BTreeMap::from([("x".to_owned(), fetch)]);
        });
        assert_eq!(refused.unwrap_err().field, field);
    }
    // One name means one thing.
    let refused = parse(|s| {
        s.fetches = BTreeMap::from([("x".to_owned(), fetch())]);
        s.inputs = BTreeMap::from([("x".to_owned(), input())]);
    });
    assert_eq!(refused.unwrap_err().field, "fetches.x");
    for path in ["..", "/abs", "a/../b", "a\0"] {
        let refused = parse(|s| s.working_directory = path.to_owned()).unwrap_err();
        assert_eq!(refused.field, "working_directory");
    }
}

#[test]
fn every_limit_of_the_message_reaches_the_domain() {
    let set: [(&str, LimitChange); 11] = [
        ("wall_seconds", |l, n| l.wall_seconds = Some(n)),
        ("cpu_millis", |l, n| l.cpu_millis = Some(n)),
        ("memory_bytes", |l, n| l.memory_bytes = Some(n)),
        ("pids", |l, n| l.pids = Some(n)),
        ("scratch_bytes", |l, n| l.scratch_bytes = Some(n)),
        ("scratch_inodes", |l, n| l.scratch_inodes = Some(n)),
        ("log_bytes", |l, n| l.log_bytes = Some(n)),
        ("output_bytes", |l, n| l.output_bytes = Some(n)),
        ("output_entries", |l, n| l.output_entries = Some(n)),
        ("cpu_seconds", |l, n| l.cpu_seconds = Some(n)),
        ("grace_seconds", |l, n| l.grace_seconds = Some(n)),
    ];
    let domain: BTreeSet<String> = Limits::DEFAULT
        .get()
        .named()
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(domain, fields_of("Limits"));
    assert_eq!(
        domain,
        set.iter().map(|(name, _)| (*name).to_owned()).collect()
    );
    for (name, change) in set {
        let least = Limits::FLOOR.get().named();
        let (_, least) = least.into_iter().find(|(of, _)| *of == name).unwrap();
        let mut limits = v1::Limits::default();
        change(&mut limits, i64::try_from(least).unwrap());
        let limits = Limits::try_from(limits).unwrap();
        let figures = limits.get().named().into_iter();
        let differing: Vec<_> = figures
            .zip(Limits::DEFAULT.get().named())
            .filter(|(figure, default)| figure != default)
            .map(|(figure, _)| figure)
            .collect();
        assert_eq!(differing, [(name, least)]);
    }
}

#[test]
fn bad_fields_are_named_by_their_path() {
    let limits = |limits| move |s: &mut v1::BuildSpec| s.limits = Some(limits);
    let cases: [(&str, Result<BuildSpec, Invalid>); 22] = [
        ("image", parse(|s| s.image.clear())),
        ("source", parse(|s| s.source = None)),
        (
            "source.hash",
            parse(|s| s.source.as_mut().unwrap().hash = "ABC".to_owned()),
        ),
        (
            "source.size_bytes",
            parse(|s| s.source.as_mut().unwrap().size_bytes = -1),
        ),
        ("run", parse(|s| s.run.clear())),
        (
            "run",
            parse(|s| s.run = vec!["true".to_owned(); bounds::STEPS + 1]),
        ),
        ("run[1]", parse(|s| s.run.push(" ".to_owned()))),
        (
            "env",
            parse(|s| s.env = BTreeMap::from([("1A".to_owned(), String::new())])),
        ),
        (
            "env",
            parse(|s| {
                s.env = (0..=bounds::ENV_VARIABLES)
                    .map(|n| (format!("V{n}"), String::new()))
                    .collect()
            }),
        ),
        (
            "env.A",
            parse(|s| s.env = BTreeMap::from([("A".to_owned(), "\0".to_owned())])),
        ),
        ("outputs", parse(|s| s.outputs.clear())),
        ("outputs[1]", parse(|s| s.outputs.push("../up".to_owned()))),
        ("outputs[1]", parse(|s| s.outputs.push("app".to_owned()))),
        ("outputs[1]", parse(|s| s.outputs.push("lib/[a".to_owned()))),
        ("outputs", parse(|s| s.outputs.push("app/inner".to_owned()))),
        (
            "limits.pids",
            parse(limits(v1::Limits {
                pids: Some(0),
                ..Default::default()
            })),
        ),
        (
            "limits.log_bytes",
            parse(limits(v1::Limits {
                log_bytes: Some(-5),
                ..Default::default()
            })),
        ),
        (
            "limits.wall_seconds",
            parse(limits(v1::Limits {
                wall_seconds: Some(i64::MAX),
                ..Default::default()
            })),
        ),
        (
            "source_date_epoch",
            parse(|s| s.source_date_epoch = Some(-1)),
        ),
        (
            "source_date_epoch",
            parse(|s| {
                s.source_date_epoch = Some(crate::numbers::signed(BuildSpec::LAST_EPOCH + 1))
            }),
        ),
        (
            "source_date_epoch",
            parse(|s| s.source_date_epoch = Some(i64::MAX)),
        ),
        (
            "",
            parse(|s| s.run = vec!["x".repeat(bounds::SCRIPT_BYTES); 3]),
        ),
    ];
    for (field, parsed) in cases {
        assert_eq!(parsed.unwrap_err().field, field);
    }
}

#[test]
fn outputs_are_a_set() {
    let one = parse(|s| s.outputs = vec!["a".to_owned(), "b".to_owned()]).unwrap();
    let other = parse(|s| s.outputs = vec!["b".to_owned(), "a".to_owned()]).unwrap();
    assert_eq!(one.digest(), other.digest());
}

#[test]
fn what_is_not_asked_for_is_the_operators_default() {
    let mut figures = *Limits::DEFAULT.get();
    (figures.pids, figures.grace_seconds) = (7, 8);
    let defaults = Limits::new(figures).unwrap();
    let plain = crate::with_defaults(None, &defaults);
    assert_eq!(Limits::try_from(plain), Ok(defaults));
    let asked = v1::Limits {
        pids: Some(9),
        ..Default::default()
    };
    let limits = Limits::try_from(crate::with_defaults(Some(asked), &defaults)).unwrap();
    assert_eq!((limits.get().pids, limits.get().grace_seconds), (9, 8));
}

fn figures() -> impl Strategy<Value = Limits> {
    let (least, most) = (*Limits::FLOOR.get(), *Limits::CEILING.get());
    let figures = (
        least.wall_seconds..=most.wall_seconds,
        least.cpu_millis..=most.cpu_millis,
        least.memory_bytes..=most.memory_bytes,
        least.pids..=most.pids,
        least.scratch_bytes..=most.scratch_bytes,
        least.scratch_inodes..=most.scratch_inodes,
        least.log_bytes..=most.log_bytes,
        least.output_bytes..=most.output_bytes,
        least.output_entries..=most.output_entries,
        least.cpu_seconds..=most.cpu_seconds,
        least.grace_seconds..=most.grace_seconds,
    );
    figures.prop_map(|f| {
        Limits::new(LimitFigures {
            wall_seconds: f.0,
            cpu_millis: f.1,
            memory_bytes: f.2,
            pids: f.3,
            scratch_bytes: f.4,
            scratch_inodes: f.5,
            log_bytes: f.6,
            output_bytes: f.7,
            output_entries: f.8,
            cpu_seconds: f.9,
            grace_seconds: f.10,
        })
        .unwrap()
    })
}

fn unpacks() -> impl Strategy<Value = Unpack> {
    prop_oneof![
        ("[a-z]{1,5}", any::<bool>()).prop_map(|(name, run)| Unpack::file(&name, run).unwrap()),
        (0..129_u32).prop_map(|strip| Unpack::tar(strip).unwrap()),
        (0..129_u32).prop_map(|strip| Unpack::zip(strip).unwrap()),
    ]
}

/// Of each sort.
fn fetches() -> impl Strategy<Value = Fetch> {
    let digest = || any::<u64>().prop_map(|seed| ObjectId::of(&seed.to_be_bytes()).digest);
    let urls = (digest(), unpacks()).prop_map(|(digest, unpack)| {
        let url = FetchUrl::new("https://a.example/x").unwrap();
        Fetch::Urls(UrlFetch {
            urls: Mirrors::new(vec![url]).unwrap(),
            digest,
            unpack,
        })
    });
    let form = prop_oneof![
        unpacks().prop_map(ArtifactForm::File),
        Just(ArtifactForm::Directory),
    ];
    let build = proptest::option::of("[0-7][0-9a-hjkmnp-tv-z]{25}");
    let builder = proptest::option::of("[!-~]{1,30}");
    let artifacts =
        (digest(), form, build, builder).prop_map(|(artifact, form, build, builder)| {
            Fetch::Artifact(ArtifactFetch {
                artifact,
                form,
                build: build.map(|id| id.parse().unwrap()),
                builder: builder.map(|id| BuilderId::new(id).unwrap()),
            })
        });
    let commits = (any::<[u8; 20]>(), any::<bool>()).prop_map(|(commit, submodules)| {
        let url = FetchUrl::new("https://a.example/x.git").unwrap();
        Fetch::Git(GitFetch {
            repositories: Mirrors::new(vec![url]).unwrap(),
            commit: GitId::from_bytes(commit),
            submodules,
        })
    });
    prop_oneof![urls, artifacts, commits]
}

prop_compose! {
    fn images()(
        platform in prop::sample::select(vec![Platform::LinuxAmd64, Platform::LinuxArm64]),
        base in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
        root in any::<bool>(),
        arguments in proptest::collection::vec("[a-z /]{1,9}", 0..4),
        env in proptest::collection::btree_map("[A-Z_]{1,8}", "[^\0]{0,20}", 0..3),
        user in "|[a-z0-9]{1,4}(:[0-9]{1,4})?",
        directory in "|/[a-z]{0,4}",
        labels in proptest::collection::btree_map("[a-z.]{1,8}", "[^\0]{0,20}", 0..3),
    ) -> ImageOutput {
        let base = base.map(|content| Input { tree: ObjectId::of(&content), derivation: Some(ObjectId::of(b"record")) });
        ImageOutput {
            base: base.map_or(BaseImage::Scratch(platform), BaseImage::Image),
            root: root.then(|| RelPath::new("app").unwrap()),
            config: ImageConfig::new(ImageFields {
                entrypoint: arguments.clone(),
                command: arguments,
                env,
                user,
                working_directory: directory,
                labels,
            }).unwrap(),
        }
    }
}

prop_compose! {
    fn specs()(
        content in proptest::collection::vec(any::<u8>(), 0..9),
        run in proptest::collection::vec("[^\0]{0,20}x", 1..5),
        env in proptest::collection::btree_map("V[A-Za-z0-9_]{1,8}", "[^\0]{0,20}", 0..5),
        outputs in proptest::collection::btree_set("[^/\\[*\0-\u{1f}\u{7f}-\u{9f}]{1,9}|[a*]{1,2}|\\[[ab]+\\]", 1..5),
        limits in figures(),
        fetches in proptest::collection::btree_map("[a-z]{1,4}", fetches(), 0..4),
        image_output in proptest::option::of(images()),
        source_date_epoch in 0..=BuildSpec::LAST_EPOCH,
    ) -> BuildSpec {
        let paths = outputs.into_iter().filter_map(|text| RelPath::new(text).ok());
        let fetches = fetches.into_iter().map(|(name, fetch)| (InputName::new(name).unwrap(), fetch));
        let named = |(name, value): (String, String)| (EnvName::new(name).unwrap(), EnvValue::new(value).unwrap());
        BuildSpec {
            image: Image::Host,
            source: ObjectId::of(&content),
            inputs: Inputs::default(),
            fetches: Fetches::new(fetches.collect()).unwrap(),
            // What a layer's times can be, where there is one.
            source_date_epoch: image_output.as_ref().map_or(source_date_epoch, |_| {
                source_date_epoch.min(ImageOutput::LAST_EPOCH)
            }),
            image_output,
            working_directory: None,
            run: Steps::new(run.into_iter().map(|text| Script::new(text).unwrap()).collect()).unwrap(),
            env: env.into_iter().map(named).collect(),
            outputs: Outputs::new(paths.chain([RelPath::new("app").unwrap()]).collect()).unwrap(),
            limits,
            network: Network::None,
        }
    }
}

proptest! {
    #[test]
    fn a_specification_survives_the_wire(spec in specs()) {
        let bytes = v1::BuildSpec::from(&spec).encode_to_vec();
        let back = BuildSpec::try_from(v1::BuildSpec::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(back.as_ref(), Ok(&spec));
        let back = BuildSpec::from_canonical(&spec.canonical().unwrap());
        prop_assert_eq!(back.as_ref(), Ok(&spec));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = v1::BuildSpec::decode(bytes.as_slice()) {
            let _ = BuildSpec::try_from(message);
        }
        if let Ok(message) = v1::Build::decode(bytes.as_slice()) {
            let _ = crate::BuildRecord::try_from(message);
        }
    }
}

#[test]
fn an_image_that_cannot_be_is_refused_by_field() {
    let with = |change: &dyn Fn(&mut v1::ImageOutput)| {
        let mut spec = proto();
        let mut image = v1::ImageOutput {
            base: Some(v1::image_output::Base::Scratch("linux/amd64".to_owned())),
            ..Default::default()
        };
        change(&mut image);
        spec.image_output = Some(image);
        BuildSpec::try_from(spec).map_err(|e| e.to_string())
    };
    assert!(with(&|_| {}).is_ok());
    type Change<'a> = &'a dyn Fn(&mut v1::ImageOutput);
    let input = |derivation| {
        v1::image_output::Base::Image(v1::Input {
            tree: Some(ObjectId::of(b"").into()),
            derivation,
        })
    };
    let cases: [(&str, Change<'_>); 7] = [
        ("image_output.base: missing", &|image| image.base = None),
        ("image_output.scratch: ", &|image| {
            image.base = Some(v1::image_output::Base::Scratch("plan9/mips".to_owned()))
        }),
        ("image_output.base: the store's record", &|image| {
            image.base = Some(input(None))
        }),
        ("image_output.image.derivation", &|image| {
            image.base = Some(input(Some(v1::Digest::default())))
        }),
        ("image_output.root: `other` is not among", &|image| {
            image.root = "other".to_owned()
        }),
        ("image_output.entrypoint[0]", &|image| {
            image.entrypoint = vec![String::new()]
        }),
        ("image_output.working_directory", &|image| {
            image.working_directory = "x".to_owned()
        }),
    ];
    for (due, change) in cases {
        let refused = with(change).unwrap_err();
        assert!(refused.starts_with(due), "{due}: {refused}");
    }
    let mut spec = proto();
    spec.image_output = Some(v1::ImageOutput {
        base: Some(v1::image_output::Base::Scratch("linux/amd64".to_owned())),
        ..Default::default()
    });
    spec.source_date_epoch = Some(1 << 33);
    let refused = BuildSpec::try_from(spec).unwrap_err();
    assert!(refused.to_string().contains("2242"), "{refused}");
}

#[test]
fn every_field_of_an_image_reaches_the_domain() {
    let scratch = || Some(v1::image_output::Base::Scratch("linux/amd64".to_owned()));
    let image = |change: &dyn Fn(&mut v1::ImageOutput)| {
        let mut image = v1::ImageOutput {
            base: scratch(),
            ..Default::default()
        };
        change(&mut image);
        ImageOutput::try_from(image).unwrap()
    };
    let text = || "/x".to_owned();
    let map = move || BTreeMap::from([("x".to_owned(), text())]);
    type Change = Box<dyn Fn(&mut v1::ImageOutput)>;
    let changes: [(&str, Change); 9] = [
        (
            "scratch",
            Box::new(|i| i.base = Some(v1::image_output::Base::Scratch("linux/arm64".to_owned()))),
        ),
        (
            "image",
            Box::new(|i| i.base = Some(v1::image_output::Base::Image(input()))),
        ),
        ("root", Box::new(|i| i.root = "x".to_owned())),
        ("entrypoint", Box::new(move |i| i.entrypoint = vec![text()])),
        ("command", Box::new(move |i| i.command = vec![text()])),
        ("env", Box::new(move |i| i.env = map())),
        ("user", Box::new(|i| i.user = "x".to_owned())),
        (
            "working_directory",
            Box::new(move |i| i.working_directory = text()),
        ),
        ("labels", Box::new(move |i| i.labels = map())),
    ];
    let named: BTreeSet<String> = changes
        .iter()
        .map(|(field, _)| (*field).to_owned())
        .collect();
    assert_eq!(named, fields_of("ImageOutput"));
    let plain = image(&|_| ());
    for (field, change) in &changes {
        assert_ne!(image(change), plain, "{field}");
    }
}
