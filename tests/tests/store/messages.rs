//! REAPI `Tree` messages of the directories that builds leave, as a client reads them that nobody here wrote.

use std::collections::BTreeMap;
use std::fs;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{ObjectId, Outcome};
use belljar_tests::{Client, Instance, Part, Project, tool};
use belljar_wire::{ArtifactKind, BuildRecord};
use prost::Message as _;
use reapi::{BatchReadBlobsRequest, Directory, Tree};

use crate::{LEASE, can_be_fetched, name, started, sweep};

/// `x` lies in `d` and in both `a` and `b`, which are equal; `one` and `two` are equal as well.
const SCRIPT: &str = "mkdir -p d/a/x d/b/x d/x d/empty nest/deep one two none; \
    echo same | tee d/a/x/f d/b/x/f d/x/f one/f > two/f; printf '#!/bin/sh\\n' > d/tool; chmod 755 d/tool; \
    ln -s a/x/f d/link; ln -s ../tool d/a/link; ln -s ../tool d/b/link; echo y > nest/deep/y; echo file > file";
const OUTPUTS: [&str; 6] = ["d", "nest/deep", "one", "t*", "none", "file"];

/// Root and `Tree` message of each directory that is told to have them.
fn directories(build: &BuildRecord) -> BTreeMap<&str, (ObjectId, ObjectId)> {
    let told = build.artifacts.iter().filter_map(|artifact| {
        let (root, tree) = match &artifact.kind {
            ArtifactKind::Directory { root, tree } => ((*root)?, (*tree)?),
            _ => return None,
        };
        Some((artifact.path.as_str(), (root, tree)))
    });
    told.collect()
}

fn id(digest: Option<&reapi::Digest>) -> ObjectId {
    let digest = digest.unwrap();
    ObjectId {
        digest: belljar_core::Digest::from_hex(&digest.hash).unwrap(),
        size: digest.size_bytes.try_into().unwrap(),
    }
}

fn of(directory: &Directory) -> ObjectId {
    ObjectId::of(&directory.encode_to_vec())
}

/// What is in a tree, a line for each entry: read in one pass, as REAPI promises of one that is sorted.
fn listed(tree: &Tree) -> Vec<String> {
    let root = tree.root.as_ref().unwrap();
    let mut due: BTreeMap<ObjectId, Vec<String>> = [(of(root), vec![String::new()])].into();
    let mut lines = Vec::new();
    for directory in std::iter::once(root).chain(&tree.children) {
        // Each is there once, and whatever names it came before.
        let places = due.remove(&of(directory)).expect("named before, and once");
        for place in &places {
            for file in &directory.files {
                let kind = if file.is_executable {
                    "program"
                } else {
                    "file"
                };
                let size = id(file.digest.as_ref()).size;
                lines.push(format!("{place}{}: {kind} of {size}", file.name));
            }
            for link in &directory.symlinks {
                lines.push(format!("{place}{} -> {}", link.name, link.target));
            }
            for below in &directory.directories {
                lines.push(format!("{place}{}/", below.name));
                let places = due.entry(id(below.digest.as_ref())).or_default();
                places.push(format!("{place}{}/", below.name));
            }
        }
    }
    assert!(due.is_empty(), "{due:?} are missing");
    lines.sort();
    lines
}

fn read(client: &Client, object: ObjectId) -> Tree {
    let streamed = client.read(object).unwrap();
    assert_eq!(ObjectId::of(&streamed), object);
    let digest = reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: object.size.try_into().unwrap(),
    };
    let request = BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let answer = client.wait(client.blobs().batch_read_blobs(request));
    let batch = answer.unwrap().into_inner().responses.remove(0);
    assert_eq!(batch.data, streamed);
    Tree::decode(&streamed[..]).unwrap()
}

fn built(client: &Client) -> BuildRecord {
    let spec = client.spec(&[("in", "")], &[SCRIPT], &OUTPUTS);
    let build = client.submit("r", &spec).unwrap();
    let build = client.until(&build.id, |build| build.outcome.is_some());
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    build
}

#[test]
fn each_directory_that_a_build_left_is_one_message_with_all_that_is_in_it() {
    let instance = started("", "");
    let client = instance.client();
    let build = built(&client);
    let directories = directories(&build);
    let names: Vec<_> = directories.keys().copied().collect();
    assert_eq!(names, ["d", "nest/deep", "none", "one", "two"]);
    let trees: BTreeMap<_, _> = directories
        .iter()
        .map(|(name, (root, tree))| {
            let tree = read(&client, *tree);
            assert_eq!(of(tree.root.as_ref().unwrap()), *root);
            (*name, tree)
        })
        .collect();
    assert_eq!(directories["one"], directories["two"]);
    // The root, `a` (which is `b`), `x` and the empty one.
    assert_eq!(trees["d"].children.len(), 3);
    assert_eq!(
        listed(&trees["d"]),
        [
            "a/",
            "a/link -> ../tool",
            "a/x/",
            "a/x/f: file of 5",
            "b/",
            "b/link -> ../tool",
            "b/x/",
            "b/x/f: file of 5",
            "empty/",
            "link -> a/x/f",
            "tool: program of 10",
            "x/",
            "x/f: file of 5",
        ]
    );
    assert_eq!(listed(&trees["nest/deep"]), ["y: file of 2"]);
    assert_eq!(listed(&trees["none"]), Vec::<String>::new());
    assert_eq!(listed(&trees["two"]), ["f: file of 5"]);
    // Everything that is in it is the project's, too.
    let objects: Vec<_> = directories.values().map(|(_, tree)| *tree).collect();
    assert!(client.missing(&objects).is_empty());
}

#[test]
fn a_message_of_a_directory_stays_as_long_as_what_is_in_it() {
    let mut instance = started("", "[store.retention]\nbuilds = 1");
    let run = instance.run(&Project::of(&[SCRIPT], &OUTPUTS, ""));
    run.assert_succeeded();
    let told = run.json["artifacts"].as_array().unwrap();
    let told = told.iter().find(|entry| entry["path"] == "d").unwrap();
    let build = name(&run).strip_prefix("builds/").unwrap().to_owned();
    let client = instance.client();
    let record = client
        .get(&belljar_core::BuildId::new(build).unwrap())
        .unwrap();
    let (root, tree) = directories(&record)["d"];
    let json = |object: ObjectId| serde_json::to_value(object).unwrap();
    assert_eq!(
        (&told["tree"], &told["tree_digest"]),
        (&json(root), &json(tree))
    );
    let path = belljar_cas::path_of(&instance.state().join("store"), tree.digest);
    for _ in 0..2 {
        std::thread::sleep(LEASE);
        sweep(&mut instance, &["--all"]);
        assert!(path.exists());
    }
    assert!(can_be_fetched(&mut instance, &name(&run)));
    assert_eq!(read(&client, tree).children.len(), 3);
    // No build is found by it: it is no artifact.
    let filter = format!("artifact = \"{}\"", tree.digest);
    let found = instance.tell("list", &["--filter", &filter, "--json"]);
    assert_eq!(
        found.assert_code(0).json("belljar.list/v1")["builds"],
        serde_json::json!([])
    );
    // It goes with its build.
    instance
        .run(&Project::script("echo newer > out"))
        .assert_succeeded();
    std::thread::sleep(LEASE);
    sweep(&mut instance, &["--all"]);
    assert!(!path.exists());
    assert!(client.read(tree).is_err());
}

/// What belljard has to know of them is in its queue and in the receipts.
#[test]
fn messages_are_given_to_their_project_again_and_none_is_told_of_an_older_build() {
    let mut instance = started("", "");
    let client = instance.client();
    let build = built(&client);
    let (root, tree) = directories(&build)["d"];
    let daemon = instance.state().join("daemon");
    instance.end_part(Part::Belljard);
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(daemon.join(format!("ownership.sqlite{end}"))).ok();
    }
    instance.start_part(Part::Belljard);
    let again = instance.client();
    assert_eq!(read(&again, tree).children.len(), 3);
    // As an earlier belljard has written it down.
    older(&mut instance);
    let client = instance.client();
    let record = client.get(&build.id).unwrap();
    let artifact = record.artifacts.iter().find(|one| one.path.as_str() == "d");
    let due = ArtifactKind::Directory {
        root: Some(root),
        tree: None,
    };
    assert_eq!(artifact.unwrap().kind, due);
}

fn older(instance: &mut Instance) {
    instance.end_part(Part::Belljard);
    let script = "import sqlite3; queue = sqlite3.connect('queue.sqlite'); \
        queue.execute(\"UPDATE builds SET state = json_remove(state, '$.evidence.trees')\"); queue.commit()";
    tool(&instance.state().join("daemon"), "python3", &["-c", script]);
    instance.start_part(Part::Belljard);
}
