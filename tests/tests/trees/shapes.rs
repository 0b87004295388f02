use std::collections::BTreeSet;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use belljar_core::{ObjectId, Outcome};
use belljar_tests::{Client, Instance, overwrite};
use belljar_tree::{Directory, DirectoryNode, Name};
use belljar_wire::Reason;
use tonic::{Code, Status};

use crate::{log, object_file, on, run, with};

/// A `Directory` message with one directory in it.
fn one(name: &str, object: ObjectId) -> Vec<u8> {
    let name = Name::new(name).unwrap();
    let node = DirectoryNode { name, object };
    Directory::new(vec![], vec![node], vec![]).unwrap().encode()
}

/// What `GetTree` tells, in all pages.
fn told(client: &Client, root: ObjectId) -> Result<Vec<reapi::Directory>, Status> {
    let request = reapi::GetTreeRequest {
        root_digest: Some(reapi::Digest {
            hash: root.digest.to_hex(),
            size_bytes: root.size.try_into().unwrap(),
        }),
        ..Default::default()
    };
    client.wait(async {
        let mut pages = client.blobs().get_tree(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(page) = pages.message().await? {
            all.extend(page.directories);
        }
        Ok(all)
    })
}

/// A directory in the store that names itself: what the store has under this name is another one by now.
fn naming_itself(instance: &Instance, client: &Client, name: &str) -> ObjectId {
    let below = client.put(&one(name, ObjectId::of(b"")));
    let honest = one(name, below);
    let itself = client.put(&honest);
    let forged = one(name, itself);
    assert_eq!(forged.len(), honest.len());
    overwrite(&object_file(instance, itself), &forged);
    itself
}

#[test]
fn a_directory_that_names_itself_is_found_out_and_walked_by_nobody() {
    let mut instance = Instance::started();
    let client = instance.client();
    let plain = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    // Whoever asks for the tree: what is not what it is called is an error of the store's, and told nobody.
    let itself = naming_itself(&instance, &client, "a");
    let top = client.put(&one("top", naming_itself(&instance, &client, "b")));
    for root in [itself, top] {
        let status = told(&client, root).unwrap_err();
        let words = "an object could not be read; the daemon's log says more";
        assert_eq!((status.code(), status.message()), (Code::Internal, words));
    }
    // A build that names it.
    let itself = naming_itself(&instance, &client, "c");
    let top = client.put(&one("top", naming_itself(&instance, &client, "d")));
    for tree in [itself, top] {
        let spec = with(plain.clone(), &[("x", tree)]);
        let problem = client.submit("refused", &spec).unwrap_err();
        let words = "the trees of a build could not be looked at; the daemon's log says more";
        assert_eq!(
            (problem.reason, &*problem.message),
            (Reason::Internal, words)
        );
    }
    // A build on a tree that was whole when belljard looked: the store looks for itself.
    let below = client.put(&one("e", ObjectId::of(b"")));
    let itself = client.put(&one("e", below));
    let build = run(&client, "whole", &with(plain.clone(), &[("x", itself)]));
    assert_eq!(
        build.outcome,
        Some(Outcome::Succeeded),
        "{}",
        log(&instance, &build)
    );
    assert_eq!(naming_itself(&instance, &client, "e"), itself);
    let top = client.put(&one("top", itself));
    let build = run(&client, "staged", &with(plain.clone(), &[("x", top)]));
    let Some(Outcome::Refused { reasons }) = &build.outcome else {
        panic!("{:?}", build.outcome)
    };
    let words = format!("`top`: {itself} is damaged in the store");
    assert!(
        reasons.iter().any(|why| why.contains(&words)),
        "{reasons:?}"
    );
    // What looks for all that is needed, by the two builds, comes to its end.
    assert_eq!(naming_itself(&instance, &client, "e"), itself);
    instance.tell("store gc", &["--json"]).assert_code(0);
}

#[test]
fn a_tree_of_4096_levels_is_refused_by_its_depth_and_told_to_its_end() {
    let instance = Instance::started();
    let client = instance.client();
    let (mut level, mut blobs) = (ObjectId::of(b""), Vec::new());
    for _ in 0..4096 {
        let data = one("d", level);
        level = ObjectId::of(&data);
        blobs.push((level, data));
    }
    put_all(&client, &blobs);
    let plain = client.spec(&[("in", "1")], &["cp in out"], &["out"]);
    let mut source = plain.clone();
    source.source = level;
    for (spec, field) in [
        (source, "spec.source"),
        (on(plain.clone(), level), "spec.image_tree.tree"),
        (with(plain, &[("x", level)]), "spec.inputs.x.tree"),
    ] {
        let problem = client.submit("deep", &spec).unwrap_err();
        assert_eq!(problem.reason, Reason::InvalidField, "{problem:?}");
        assert_eq!(problem.fields[0].field, field);
        let why = &problem.fields[0].reason;
        assert_eq!(why, "the tree is deeper than 128 directories");
    }
    // Other clients may keep such trees: it is told level by level, once each.
    let all = told(&client, level).unwrap();
    assert_eq!(all.len(), 4097);
    let names = all.iter().flat_map(|directory| &directory.directories);
    let different: BTreeSet<_> = names
        .map(|node| &node.digest.as_ref().unwrap().hash)
        .collect();
    assert_eq!(different.len(), 4096);
}

fn put_all(client: &Client, blobs: &[(ObjectId, Vec<u8>)]) {
    use reapi::batch_update_blobs_request::Request;
    let request = |(object, data): &(ObjectId, Vec<u8>)| Request {
        digest: Some(reapi::Digest {
            hash: object.digest.to_hex(),
            size_bytes: object.size.try_into().unwrap(),
        }),
        data: data.clone(),
        compressor: 0,
    };
    let request = reapi::BatchUpdateBlobsRequest {
        requests: blobs.iter().map(request).collect(),
        ..Default::default()
    };
    let answer = client.wait(client.blobs().batch_update_blobs(request));
    let all = answer.unwrap().into_inner().responses;
    let bad = all
        .iter()
        .filter(|one| one.status.as_ref().is_some_and(|status| status.code != 0));
    assert_eq!((all.len(), bad.count()), (blobs.len(), 0));
}
