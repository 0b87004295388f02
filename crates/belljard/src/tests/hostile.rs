//! Callers that want more than their part, or lie about what they name.

use std::net::Ipv4Addr;

use belljar_core::bounds;
use belljar_tree::{DirectoryNode, FileNode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::tls::{Pair, Served};
use super::*;

const MEMBERS: &str = r#"
    [[project]]
    name = "web"
    [[project.member]]
    principal = "x509:CN=web"
    rights = ["submit", "cancel", "read"]
    [[project.member]]
    principal = "x509:CN=colleague"
    rights = ["submit", "read"]
"#;

/// How long what is not kept waiting may take.
const SOON: Duration = Duration::from_secs(20);

struct Stage {
    _directory: tempfile::TempDir,
    served: Served,
    daemon: Daemon,
}

impl Stage {
    async fn new() -> Self {
        let (directory, site) = site().await;
        let served = Served::new(directory.path());
        let more = format!("{MEMBERS}{}", served.table(directory.path()));
        let daemon = start(&site, &more).await;
        Self {
            _directory: directory,
            served,
            daemon,
        }
    }

    fn pair(&self, name: &str) -> Pair {
        self.served.clients.subject(name)
    }

    async fn channel(&self, name: &str) -> Channel {
        self.served.connect(&self.pair(name)).await.unwrap()
    }

    /// Lets this caller send a blob.
    async fn give(&self, name: &str, content: &[u8]) -> ObjectId {
        let object = ObjectId::of(content);
        let name_of = format!("uploads/u/blobs/{}/{}", object.digest.to_hex(), object.size);
        let mut messages = Vec::new();
        for (at, piece) in content.chunks(1 << 20).enumerate() {
            messages.push(stream::WriteRequest {
                resource_name: name_of.clone(),
                write_offset: i64::try_from(at << 20).unwrap(),
                finish_write: (at << 20) + piece.len() == content.len(),
                data: piece.to_vec(),
            });
        }
        let mut streams = ByteStreamClient::new(self.channel(name).await);
        streams.write(tokio_stream::iter(messages)).await.unwrap();
        object
    }
}

fn read_of(object: ObjectId) -> stream::ReadRequest {
    stream::ReadRequest {
        resource_name: format!("blobs/{}/{}", object.digest.to_hex(), object.size),
        ..Default::default()
    }
}

/// Asks until the answer is another one.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(told) = ask().await {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn a_principal_has_so_many_calls_and_others_have_theirs() {
    let stage = Stage::new().await;
    // Streams of a service that has no bound of its own, on as many connections as it takes.
    let each = bounds::CALLS_PER_CONNECTION;
    let mut held = Vec::new();
    for _ in 0..bounds::CALLS_PER_PRINCIPAL / each {
        let mut health = HealthClient::new(stage.channel("web").await);
        for _ in 0..each {
            let mut watch = health
                .watch(HealthCheckRequest::default())
                .await
                .unwrap()
                .into_inner();
            watch.message().await.unwrap().unwrap();
            held.push(watch);
        }
    }
    assert_eq!(held.len(), bounds::CALLS_PER_PRINCIPAL);
    let mut builds = BuildServiceClient::new(stage.channel("web").await);
    let refused = builds
        .list_builds(v1::ListBuildsRequest::default())
        .await
        .unwrap_err();
    let problem = Problem::from_status(&refused);
    assert_eq!(problem.reason, Reason::Exhausted, "{refused:?}");
    assert!(problem.message.contains("too many calls"), "{refused:?}");
    assert!(problem.retry_after.is_some(), "{refused:?}");
    let mut other = BuildServiceClient::new(stage.channel("colleague").await);
    other
        .list_builds(v1::ListBuildsRequest::default())
        .await
        .unwrap();
    held.pop();
    until("a place is given back", async || {
        let asked = builds.list_builds(v1::ListBuildsRequest::default()).await;
        asked.ok()
    })
    .await;
}

/// A connection on which frames of HTTP/2 are sent as they stand (RFC 9113).
struct Frames(UnixStream);

impl Frames {
    async fn connect(site: &Site) -> Self {
        let stream = UnixStream::connect(site.socket("belljard")).await.unwrap();
        let mut this = Self(stream);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        this.0.write_all(preface).await.unwrap();
        this.send(4, 0, 0, &[]).await;
        this
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// Begins a call, with these bytes of its request.
    async fn call(&mut self, stream: u32, path: &str, bytes: &[u8]) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            // Literal, neither indexed nor compressed (RFC 7541, 6.2.2); all are shorter than 127 bytes.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        self.send(1, 4, stream, &block).await;
        self.send(0, 0, stream, bytes).await;
    }

    /// Waits for the beginning of an answer that is its end, too, as refusals are. Gives its stream.
    async fn refused(&mut self) -> u32 {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).await.unwrap();
            if (head[3], head[4] & 1) == (1, 1) {
                return u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            }
        }
    }
}

#[tokio::test]
async fn half_requests_cost_their_caller_alone() {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let more = format!("{MEMBERS}{}", served.table(directory.path()));
    let daemon = start(&site, &more).await;
    let stage = Stage {
        _directory: directory,
        served,
        daemon,
    };
    // Uploads, each of which has begun a message of the largest size.
    let begun = |number: u32| {
        let most = u32::try_from(bounds::GRPC_MESSAGE_BYTES).unwrap();
        let first = stream::WriteRequest {
            resource_name: format!("uploads/{number}/blobs/{}/5", "0".repeat(64)),
            ..Default::default()
        };
        let first = prost::Message::encode_to_vec(&first);
        [&[0][..], &most.to_be_bytes(), &first].concat()
    };
    let path = "/google.bytestream.ByteStream/Write";
    let fit = bounds::REQUEST_BYTES_PER_PRINCIPAL / bounds::GRPC_MESSAGE_BYTES;
    let fit = u32::try_from(fit).unwrap();
    let mut held = Vec::new();
    for connection in 0..2 {
        let mut frames = Frames::connect(&site).await;
        for number in 0..fit / 2 {
            frames.call(2 * number + 1, path, &begun(number)).await;
        }
        let answered = timeout(Duration::from_millis(500), frames.refused()).await;
        assert!(answered.is_err(), "{connection}: {answered:?}");
        held.push(frames);
    }
    let mut frames = Frames::connect(&site).await;
    frames.call(1, path, &begun(fit)).await;
    let refused = timeout(SOON, frames.refused()).await;
    assert_eq!(refused.expect("one too many"), 1);
    // Others are served, and this caller is told.
    let given = timeout(SOON, stage.give("colleague", b"of another")).await;
    given.expect("nobody else waits for that");
    let small = v1::ListBuildsRequest::default();
    let listed = stage.daemon.builds().list_builds(small.clone()).await;
    let refused = listed.unwrap_err();
    let problem = Problem::from_status(&refused);
    assert_eq!(problem.reason, Reason::Exhausted, "{refused:?}");
    drop(held);
    until("places are given back", async || {
        let listed = stage.daemon.builds().list_builds(small.clone()).await;
        listed.ok()
    })
    .await;
}

#[tokio::test]
async fn uploads_that_go_no_further_keep_others_from_none() {
    let stage = Stage::new().await;
    let channel = stage.channel("web").await;
    let mut held = Vec::new();
    for number in 0..bounds::UPLOADS + 8 {
        let mut streams = ByteStreamClient::new(channel.clone());
        let first = stream::WriteRequest {
            resource_name: format!("uploads/{number}/blobs/{}/5", "0".repeat(64)),
            ..Default::default()
        };
        let messages = tokio_stream::iter([first]).chain(tokio_stream::pending());
        held.push(tasks::start("upload", async move {
            drop(streams.write(messages).await);
        }));
    }
    // As many as one may have are under way, and the others wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let given = timeout(SOON, stage.give("colleague", b"of another")).await;
    given.expect("nobody else waits for that");
}

#[tokio::test]
async fn whoever_takes_no_downloads_keeps_others_from_none() {
    let stage = Stage::new().await;
    let large = stage.give("web", &vec![7; 8 << 20]).await;
    let small = stage.give("colleague", b"small").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let channel = stage.channel("web").await;
        for _ in 0..bounds::DOWNLOADS / 2 {
            let mut streams = ByteStreamClient::new(channel.clone());
            held.push(tasks::start("download", async move {
                if let Ok(answer) = streams.read(read_of(large)).await {
                    let _untaken = answer;
                    std::future::pending().await
                }
            }));
        }
    }
    // As many as one may have are under way, and the others wait.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut streams = ByteStreamClient::new(stage.channel("colleague").await);
    let read = timeout(SOON, async {
        let mut pieces = streams.read(read_of(small)).await?.into_inner();
        pieces.message().await
    });
    let read = read.await.expect("nobody else waits for that").unwrap();
    assert_eq!(read.unwrap().data, b"small");
}

#[tokio::test]
async fn members_of_no_project_have_few_connections() {
    let stage = Stage::new().await;
    let from = |name: &str, address| {
        let pair = stage.pair(name);
        let served = &stage.served;
        async move {
            let channel = served.connect_from(Some(&pair), &[b"h2"], address).await;
            let mut builds = BuildServiceClient::new(channel.ok()?);
            let told = builds.list_builds(v1::ListBuildsRequest::default()).await;
            let code = told.err().map_or(Code::Ok, |status| status.code());
            (code != Code::Unavailable && code != Code::Unknown).then_some((builds, code))
        }
    };
    let (home, away) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut held = Vec::new();
    for _ in 0..bounds::CONNECTIONS_PER_STRANGER {
        let (builds, code) = from("stranger", home).await.expect("told why");
        assert_eq!(code, Code::PermissionDenied);
        held.push(builds);
    }
    assert!(from("stranger", home).await.is_none(), "one too many");
    let others = bounds::STRANGERS / bounds::CONNECTIONS_PER_STRANGER - 1;
    for other in 0..others {
        for _ in 0..bounds::CONNECTIONS_PER_STRANGER {
            let (builds, _) = from(&format!("stranger{other}"), away).await.unwrap();
            held.push(builds);
        }
    }
    assert!(from("another", away).await.is_none(), "all are taken");
    let (_, code) = from("web", home).await.expect("a member has its own");
    assert_eq!(code, Code::Ok);
    drop(held);
    until("a place is given back", async || {
        from("stranger", home).await
    })
    .await;
}

#[tokio::test]
async fn a_message_that_becomes_large_in_memory_is_no_directory() {
    let stage = Stage::new().await;
    // Two bytes for each entry here, and some hundred in memory.
    let bomb = [0x0a, 0x00].repeat(bounds::DIRECTORY_BYTES / 2);
    let object = stage.give("web", &bomb).await;
    // The same in what is never looked at: properties of a directory.
    let inner = [0x0a, 0x00].repeat(1 << 20);
    let length = [0x80, 0x80, 0x80, 0x01];
    let hidden = [&[0x2a][..], &length[..], &inner[..]].concat();
    let hidden = stage.give("web", &hidden).await;
    let channel = stage.channel("web").await;
    for root in [object, hidden] {
        let request = reapi::GetTreeRequest {
            root_digest: Some(digest(root)),
            ..Default::default()
        };
        let mut blobs = ContentAddressableStorageClient::new(channel.clone());
        let mut pages = blobs.get_tree(request).await.unwrap().into_inner();
        let refused = pages.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let fields = Problem::from_status(&refused).fields;
        assert_eq!(fields[0].field, "root_digest", "{refused:?}");
        let request = v1::SubmitBuildRequest {
            request_id: "bomb".to_owned(),
            spec: Some(spec(root)),
            project: String::new(),
        };
        let mut builds = BuildServiceClient::new(channel.clone());
        let refused = builds.submit_build(request).await.unwrap_err();
        let fields = Problem::from_status(&refused).fields;
        assert_eq!(fields[0].field, "spec.source", "{refused:?}");
    }
}

#[tokio::test]
async fn what_is_there_is_not_there_by_another_size() {
    let stage = Stage::new().await;
    let daemon = &stage.daemon;
    let file = ObjectId::of(b"content");
    daemon.write(file, b"content", 100).await.unwrap();
    let with_file = |name: &str, object| {
        let name = Name::new(name).unwrap();
        let node = FileNode {
            name,
            object,
            executable: false,
            properties: None,
        };
        Directory::new(vec![node], vec![], vec![]).unwrap()
    };
    let above = |name: &str, object| {
        let name = Name::new(name).unwrap();
        let node = DirectoryNode { name, object };
        Directory::new(vec![], vec![node], vec![]).unwrap()
    };
    let lie = |object: ObjectId| ObjectId {
        size: object.size + 1,
        ..object
    };
    let give = async |directory: Directory| {
        let bytes = directory.encode();
        let object = ObjectId::of(&bytes);
        daemon.write(object, &bytes, 1 << 20).await.unwrap();
        object
    };
    let inner = give(with_file("f", file)).await;
    let root = give(above("d", inner)).await;
    // What is good is known from now on.
    daemon.submit("good", spec(root)).await.unwrap();
    let file_lies = give(with_file("f", lie(file))).await;
    let directory_lies = give(above("d", lie(inner))).await;
    for (what, root, missing) in [
        ("root", lie(root), lie(root)),
        ("directory", directory_lies, lie(inner)),
        ("file", file_lies, lie(file)),
    ] {
        let refused = daemon.submit(what, spec(root)).await.unwrap_err();
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.reason, Reason::InputMissing, "{what}: {refused:?}");
        let due = format!("blobs/{}/{}", missing.digest.to_hex(), missing.size);
        assert_eq!(problem.unmet[0].subject, due, "{what}");
    }
}

/// Its first field is no text, as that of most messages is.
const NO_TEXT: &[u8] = b"\xff\x1b[2J";

#[tokio::test]
async fn a_request_that_is_no_message_is_the_callers_fault() {
    let stage = Stage::new().await;
    let mut grpc = tonic::client::Grpc::new(stage.channel("web").await);
    let codec = || tonic_prost::ProstCodec::<Vec<u8>, ()>::default();
    for path in [
        "/belljar.v1.BuildService/SubmitBuild",
        "/belljar.v1.BuildService/GetBuild",
        "/belljar.v1.BuildService/WatchBuild",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
        "/google.bytestream.ByteStream/Read",
        "/google.bytestream.ByteStream/Write",
    ] {
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        grpc.ready().await.unwrap();
        let refused = if path.as_str().ends_with("Write") {
            let pieces = tokio_stream::iter([NO_TEXT.to_vec()]);
            let request = Request::new(pieces);
            grpc.client_streaming(request, path.clone(), codec()).await
        } else {
            let request = Request::new(NO_TEXT.to_vec());
            grpc.unary(request, path.clone(), codec()).await
        };
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}: {refused:?}");
        let problem = Problem::from_status(&refused);
        assert_eq!(problem.reason, Reason::InvalidField, "{path}: {refused:?}");
        let said = refused.message();
        assert!(
            said.starts_with("the request is no such message: "),
            "{path}: {said}"
        );
        assert!(!said.contains("[2J"), "{path}: {said}");
    }
    // Others are served, and what they complain of stays what it is.
    let mut builds = BuildServiceClient::new(stage.channel("web").await);
    let name = "builds/01jd8q6z8r4x7j2m5t9v0w3y6b".to_owned();
    let missing = builds.get_build(v1::GetBuildRequest { name }).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
}
