//! What clients of the Remote Execution API do that Belljar's own do not.

use prost::Message as _;
use reapi::action_cache_client::ActionCacheClient;
use reapi::compressor::Value::Identity;
use tonic::codegen::http::uri::PathAndQuery;

use super::*;

fn encoded(directory: &reapi::Directory) -> (ObjectId, Vec<u8>) {
    let bytes = directory.encode_to_vec();
    (ObjectId::of(&bytes), bytes)
}

fn file(name: &str, node_properties: Option<reapi::NodeProperties>) -> reapi::FileNode {
    reapi::FileNode {
        name: name.to_owned(),
        digest: Some(digest(ObjectId::of(b""))),
        node_properties,
        ..Default::default()
    }
}

/// Properties in every form, with so many that have a name and a value.
fn properties(count: usize) -> Option<reapi::NodeProperties> {
    let mut all = reapi::NodeProperties {
        properties: vec![reapi::NodeProperty::default(); count],
        mtime: Some(Default::default()),
        unix_mode: Some(Default::default()),
    };
    for (time, mode) in all.mtime.iter_mut().zip(&mut all.unix_mode) {
        (time.seconds, time.nanos, mode.value) = (1_700_000_000, 7, 0o755);
    }
    Some(all)
}

impl Daemon {
    async fn keep(&self, blobs: &[(ObjectId, Vec<u8>)]) {
        let each = blobs.iter().cloned();
        let each = each.map(|(object, bytes)| (object, bytes, Identity));
        let verdicts = self.update(each.collect()).await.unwrap();
        assert!(verdicts.iter().all(|(code, _)| *code == 0), "{verdicts:?}");
    }
}

#[tokio::test]
async fn a_tree_is_told_with_the_properties_of_its_nodes() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let below = reapi::Directory {
        files: vec![file("a", properties(1)), file("b", None)],
        node_properties: properties(2),
        ..Default::default()
    };
    let root = reapi::Directory {
        directories: vec![reapi::DirectoryNode {
            name: "below".to_owned(),
            digest: Some(digest(encoded(&below).0)),
        }],
        symlinks: vec![reapi::SymlinkNode {
            name: "link".to_owned(),
            target: "/below/a".to_owned(),
            node_properties: Some(reapi::NodeProperties::default()),
        }],
        ..Default::default()
    };
    daemon.keep(&[encoded(&below), encoded(&root)]).await;
    let told = daemon.tree(encoded(&root).0, 0, String::new()).await;
    assert_eq!(told.unwrap()[0].directories, [root, below]);
}

#[tokio::test]
async fn with_properties_too_a_directory_has_one_encoding() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let of = |files: Vec<reapi::FileNode>| {
        let directory = reapi::Directory {
            files,
            ..Default::default()
        };
        directory.encode_to_vec()
    };
    let unsorted = of(vec![file("b", properties(0)), file("a", None)]);
    let twice = of(vec![file("a", properties(0)), file("a", None)]);
    let path = of(vec![file("a/b", properties(0))]);
    // A field that nobody knows, in properties; and a time that is given twice, of which the last one counts.
    let unknown = [of(vec![]), vec![0x2a, 2, 0x78, 1]].concat();
    let again = [vec![0x2a, 4, 0x12, 2, 8, 1], vec![0x2a, 4, 0x12, 2, 8, 2]].concat();
    for (name, bytes) in [
        ("unsorted", unsorted),
        ("twice", twice),
        ("path", path),
        ("unknown", unknown),
        ("again", again),
    ] {
        let object = ObjectId::of(&bytes);
        daemon.keep(&[(object, bytes)]).await;
        let refused = daemon.tree(object, 0, String::new()).await.unwrap_err();
        assert_eq!(field(&refused), "root_digest", "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn many_properties_make_small_pages() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    // Two bytes each on the wire, and some fifty in memory.
    let each = bounds::BATCH_BYTES / size_of::<reapi::NodeProperty>() / 2;
    let mut kept = Vec::new();
    let mut root = reapi::Directory::default();
    for n in 0..5 {
        let name = format!("d{n}");
        let below = reapi::Directory {
            files: vec![file(&name, properties(each))],
            ..Default::default()
        };
        kept.push(encoded(&below));
        root.directories.push(reapi::DirectoryNode {
            name,
            digest: Some(digest(encoded(&below).0)),
        });
    }
    kept.push(encoded(&root));
    daemon.keep(&kept).await;
    let told = daemon.tree(encoded(&root).0, 0, String::new()).await;
    let counts: Vec<usize> = told.unwrap().iter().map(|p| p.directories.len()).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1]);
}

#[tokio::test]
async fn what_is_not_offered_is_said_by_name() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let mut actions = ActionCacheClient::new(daemon.channel.clone());
    let request = reapi::GetActionResultRequest::default();
    let refused = actions.get_action_result(request).await.unwrap_err();
    let due = |name: &str| format!("{name} is not offered by this server");
    let method = "build.bazel.remote.execution.v2.ActionCache/GetActionResult";
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), due(method));
    for path in [
        "/belljar.v1.BuildService/Nothing",
        "/google.bytestream.ByteStream/Nothing",
        "/x.Y/Nothing",
    ] {
        let mut client = tonic::client::Grpc::new(daemon.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let method = PathAndQuery::from_static(path);
        let answer = client.unary(Request::new(()), method, codec).await;
        let refused = answer.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        assert_eq!(refused.message(), due(&path[1..]));
        assert_eq!(Problem::from_status(&refused).reason, Reason::Unsupported);
    }
}
