//! What is refused before it is a build: each with the field and the reason that a program can read, and without
//! leaving anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{ObjectId, Platform, Recipe};
use belljar_tests::{Client, Instance};
use belljar_wire::{Problem, Reason, v1};
use prost::Message as _;
use tonic::{Code, Status};

/// Everything that a build leaves somewhere: queued, staged, run, recorded.
fn left(instance: &Instance) -> BTreeSet<String> {
    let places = [
        "daemon/audit",
        "receipts",
        "evidence",
        "store/logs",
        "store/images",
        "store/derivations",
        "store/tmp",
    ];
    let names = |place: &str| {
        let entries = fs::read_dir(Path::new(instance.state()).join(place));
        let entries = entries.unwrap_or_else(|e| panic!("{place}: {e}"));
        let names = entries.map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names
            .map(|name| format!("{place}/{}", name.display()))
            .collect();
        names
    };
    places.into_iter().flat_map(names).collect()
}

fn builds(client: &Client) -> usize {
    let request = v1::ListBuildsRequest::default();
    let page = client.wait(client.builds().list_builds(request)).unwrap();
    page.into_inner().builds.len()
}

/// A refusal as a program reads it: the code, the reason of its `ErrorInfo`, and the field of its first
/// `BadRequest` violation or the subject of its first `PreconditionFailure`.
fn told(status: &Status) -> (Code, Reason, String) {
    let problem = Problem::from_status(status);
    let field = problem.fields.first().map(|invalid| invalid.field.clone());
    let subject = problem.unmet.first().map(|unmet| unmet.description.clone());
    let about = field.or(subject).unwrap_or_default();
    (status.code(), problem.reason, about)
}

fn submit(client: &Client, request_id: &str, spec: v1::BuildSpec) -> Result<(), Status> {
    let request = v1::SubmitBuildRequest {
        request_id: request_id.to_owned(),
        spec: Some(spec),
        project: String::new(),
    };
    client.wait(client.builds().submit_build(request)).map(drop)
}

/// A message that no encoder of ours makes.
fn raw_directory(client: &Client, names: &[&str]) -> v1::Digest {
    let file = |name: &&str| reapi::FileNode {
        name: (*name).to_owned(),
        digest: Some(reapi::Digest {
            hash: ObjectId::of(b"").digest.to_hex(),
            size_bytes: 0,
        }),
        ..Default::default()
    };
    let directory = reapi::Directory {
        files: names.iter().map(file).collect(),
        ..Default::default()
    };
    client.put(&directory.encode_to_vec()).into()
}

type Change = Box<dyn Fn(&mut v1::BuildSpec)>;

fn change(change: impl Fn(&mut v1::BuildSpec) + 'static) -> Change {
    Box::new(change)
}

fn limits(set: impl Fn(&mut v1::Limits) + 'static) -> Change {
    change(move |spec| set(spec.limits.get_or_insert_default()))
}

fn source(digest: v1::Digest) -> Change {
    change(move |spec| spec.source = Some(digest.clone()))
}

fn outputs(paths: &'static [&'static str]) -> Change {
    change(|spec| spec.outputs = paths.iter().map(|path| (*path).to_owned()).collect())
}

#[test]
fn every_bad_submission_is_refused_by_field_and_leaves_nothing() {
    let instance = Instance::started();
    let client = instance.client();
    let good: v1::BuildSpec = (&client.spec(&[("in", "1")], &["cp in out"], &["out"])).into();
    let nobodys: v1::Digest = ObjectId::of(b"nobody has sent it").into();
    let input = |tree: &v1::Digest| v1::Input {
        tree: Some(tree.clone()),
        derivation: None,
    };
    let image = input(&nobodys);
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "a digest that is none",
            change(|spec| spec.source.as_mut().unwrap().hash = "xyz".into()),
            "spec.source.hash",
        ),
        (
            "a digest in capitals",
            change(|spec| spec.source.as_mut().unwrap().hash.make_ascii_uppercase()),
            "spec.source.hash",
        ),
        (
            "a size that is none",
            change(|spec| spec.source.as_mut().unwrap().size_bytes = -7),
            "spec.source.size_bytes",
        ),
        (
            "no source",
            change(|spec| spec.source = None),
            "spec.source",
        ),
        ("no command", change(|spec| spec.run.clear()), "spec.run"),
        (
            "an empty command",
            change(|spec| spec.run = vec![String::new()]),
            "spec.run[0]",
        ),
        (
            "a command of blanks",
            change(|spec| spec.run.push(" \n".into())),
            "spec.run[1]",
        ),
        (
            "NUL in a command",
            change(|spec| spec.run = vec!["a\0b".into()]),
            "spec.run[0]",
        ),
        ("no output", outputs(&[]), "spec.outputs"),
        ("an output above", outputs(&["../out"]), "spec.outputs[0]"),
        (
            "an output above, further down",
            outputs(&["a", "b/../../out"]),
            "spec.outputs[1]",
        ),
        (
            "an absolute output",
            outputs(&["/etc/passwd"]),
            "spec.outputs[0]",
        ),
        (
            "an output among further inputs",
            outputs(&["/deps/cargo"]),
            "spec.outputs[0]",
        ),
        ("NUL in an output", outputs(&["a\0b"]), "spec.outputs[0]"),
        ("an output twice", outputs(&["a", "a"]), "spec.outputs"),
        (
            "an output in an output",
            outputs(&["a", "a/b"]),
            "spec.outputs",
        ),
        (
            "a working directory above",
            change(|spec| spec.working_directory = "a/../..".into()),
            "spec.working_directory",
        ),
        (
            "an absolute working directory",
            change(|spec| spec.working_directory = "/build".into()),
            "spec.working_directory",
        ),
        (
            "NUL in a working directory",
            change(|spec| spec.working_directory = "a\0".into()),
            "spec.working_directory",
        ),
        (
            "NUL in a variable",
            change(|spec| drop(spec.env.insert("A".into(), "\0".into()))),
            "spec.env",
        ),
        (
            "a variable without a name",
            change(|spec| drop(spec.env.insert(String::new(), "1".into()))),
            "spec.env",
        ),
        (
            "a variable of the sandbox's",
            change(|spec| drop(spec.env.insert("HOME".into(), "/".into()))),
            "spec.env",
        ),
        (
            "an image that there is not",
            change(|spec| spec.image = "debian".into()),
            "spec.image",
        ),
        ("no image", change(|spec| spec.image.clear()), "spec.image"),
        (
            "a limit of zero",
            limits(|limits| limits.memory_bytes = Some(0)),
            "spec.limits.memory_bytes",
        ),
        (
            "a negative limit",
            limits(|limits| limits.pids = Some(-1)),
            "spec.limits.pids",
        ),
        (
            "a limit beyond any",
            limits(|limits| limits.wall_seconds = Some(i64::MAX)),
            "spec.limits.wall_seconds",
        ),
        (
            "a time before 1970",
            change(|spec| spec.source_date_epoch = Some(-1)),
            "spec.source_date_epoch",
        ),
        (
            "a time beyond the year 9999",
            change(|spec| spec.source_date_epoch = Some(253_402_300_800)),
            "spec.source_date_epoch",
        ),
        (
            "a time beyond any",
            change(|spec| spec.source_date_epoch = Some(i64::MAX)),
            "spec.source_date_epoch",
        ),
        (
            "a network that there is not",
            change(|spec| spec.network = 4711),
            "spec.network",
        ),
        (
            "a tree with names out of order",
            source(raw_directory(&client, &["b", "a"])),
            "spec.source",
        ),
        (
            "a tree with a name twice",
            source(raw_directory(&client, &["a", "a"])),
            "spec.source",
        ),
        (
            "a tree with `.`",
            source(raw_directory(&client, &["."])),
            "spec.source",
        ),
        (
            "a tree with `..`",
            source(raw_directory(&client, &[".."])),
            "spec.source",
        ),
        (
            "a tree with a path for a name",
            source(raw_directory(&client, &["a/b"])),
            "spec.source",
        ),
        (
            "a tree with NUL in a name",
            source(raw_directory(&client, &["a\0"])),
            "spec.source",
        ),
        (
            "a tree that is none",
            source(client.put(b"\xff no directory").into()),
            "spec.source",
        ),
    ];
    let before = (left(&instance), builds(&client));
    for (name, change, field) in cases {
        let mut spec = good.clone();
        change(&mut spec);
        let status = submit(&client, "refused", spec).unwrap_err();
        let (code, reason, found) = told(&status);
        assert_eq!(
            (code, reason),
            (Code::InvalidArgument, Reason::InvalidField),
            "{name}: {status:?}"
        );
        assert!(found.starts_with(field), "{name}: {found}, {status:?}");
        let problem = Problem::from_status(&status);
        assert!(
            !problem.fields[0].reason.is_empty() && status.message().contains(field),
            "{name}"
        );
    }
    // What is well formed and missing is told as missing.
    for (name, change) in [
        ("a source", source(nobodys.clone())),
        (
            "an image",
            change(move |spec| {
                spec.image = "tree".into();
                spec.image_tree = Some(image.clone());
            }),
        ),
        ("a further input", {
            let input = input(&nobodys);
            change(move |spec| drop(spec.inputs.insert("cargo".into(), input.clone())))
        }),
    ] {
        let mut spec = good.clone();
        change(&mut spec);
        let status = submit(&client, "refused", spec).unwrap_err();
        let (code, reason, about) = told(&status);
        assert_eq!(
            (code, reason),
            (Code::FailedPrecondition, Reason::InputMissing),
            "{name}: {status:?}"
        );
        assert!(
            !about.is_empty() && status.message().contains(&nobodys.hash),
            "{name}: {status:?}"
        );
    }
    for request_id in ["", "a b", "a\0", &"x".repeat(1000)] {
        let (code, reason, field) = told(&submit(&client, request_id, good.clone()).unwrap_err());
        assert_eq!(
            (code, reason, &*field),
            (Code::InvalidArgument, Reason::InvalidField, "request_id")
        );
    }
    assert_eq!(
        (left(&instance), builds(&client)),
        before,
        "nothing stays behind"
    );
    // The name that all of them had is still free, and then it is not.
    submit(&client, "refused", good.clone()).unwrap();
    let mut other = good;
    other.run.push("true".into());
    let status = submit(&client, "refused", other).unwrap_err();
    let (code, reason, _) = told(&status);
    assert_eq!(
        (code, reason),
        (Code::AlreadyExists, Reason::RequestIdReused)
    );
    assert_eq!(builds(&client), before.1 + 1);
}

#[test]
fn bad_blobs_and_archives_that_lie_are_refused_by_reason_and_leave_nothing() {
    let instance = Instance::started();
    let client = instance.client();
    let sha1 = reapi::digest_function::Value::Sha1.into();
    for digest_function in [sha1, 4711] {
        let request = reapi::FindMissingBlobsRequest {
            digest_function,
            ..Default::default()
        };
        let status = client
            .wait(client.blobs().find_missing_blobs(request))
            .unwrap_err();
        let due = (
            Code::InvalidArgument,
            Reason::InvalidField,
            "digest_function".to_owned(),
        );
        assert_eq!(told(&status), due);
    }
    for instance_name in ["..", "a/b", "a\0", "/"] {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: instance_name.to_owned(),
            ..Default::default()
        };
        let status = client
            .wait(client.blobs().find_missing_blobs(request))
            .unwrap_err();
        assert_eq!(told(&status).2, "instance_name", "{instance_name}");
    }
    let content = ObjectId::of(b"content");
    let wrong = client.stream_as(content, b"contend").unwrap_err();
    assert_eq!(told(&wrong).1, Reason::DigestMismatch, "{wrong:?}");
    assert_eq!(client.missing(&[content]).len(), 1);
    // Archives go in before, as any blob does.
    let lies: Vec<(&str, ObjectId)> = [
        ("no archive", &b"no archive at all"[..]),
        ("gzip that is cut", &[0x1f, 0x8b, 8, 0, 0]),
        ("nothing", b""),
    ]
    .map(|(name, content)| (name, client.put(content)))
    .into();
    let climbing = {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();
        client.put(&builder.into_inner().unwrap())
    };
    let before = left(&instance);
    let derive = |recipe: &Recipe| {
        let request = v1::DeriveTreeRequest::try_from(recipe).unwrap();
        client
            .wait(client.inputs().derive_tree(request))
            .unwrap_err()
    };
    for (name, archive) in lies.into_iter().chain([("a path above", climbing)]) {
        let status = derive(&Recipe::Tar { archive });
        assert_eq!(
            told(&status).1,
            Reason::DerivationRefused,
            "{name}: {status:?}"
        );
        let status = derive(&Recipe::Oci {
            index: archive,
            platform: Platform::LinuxAmd64,
        });
        assert_eq!(
            told(&status).1,
            Reason::DerivationRefused,
            "{name}: {status:?}"
        );
    }
    let status = derive(&Recipe::Tar { archive: content });
    assert_eq!(told(&status).1, Reason::InputMissing, "{status:?}");
    assert_eq!(left(&instance), before, "nothing stays behind");
}
