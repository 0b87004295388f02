//! Callers that come in crowds: each has its own bound, and others are served all the same.

use std::net::Ipv4Addr;

use belljar_core::bounds;
use tokio::net::TcpStream;
use v1::watch_build_response::Event;

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
    rights = ["read"]
"#;

async fn served() -> (tempfile::TempDir, Site, Served, Daemon) {
    let (directory, site) = site().await;
    let served = Served::new(directory.path());
    let more = format!("{MEMBERS}{}", served.table(directory.path()));
    let daemon = start(&site, &more).await;
    (directory, site, served, daemon)
}

async fn answers(served: &Served, pair: &Pair, from: Ipv4Addr) -> bool {
    let Ok(channel) = served.connect_from(Some(pair), &[b"h2"], from).await else {
        return false;
    };
    let info = v1::GetServerInfoRequest {};
    let told = BuildServiceClient::new(channel).get_server_info(info).await;
    told.is_ok()
}

/// Waits until it is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

#[tokio::test]
async fn an_address_that_begins_handshakes_and_never_ends_one_keeps_out_nobody_else() {
    let (_directory, _site, served, _daemon) = served().await;
    let pair = served.clients.subject("web");
    let (home, away) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut silent = Vec::new();
    for _ in 0..bounds::HANDSHAKES_PER_ADDRESS {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    // Those are taken in the order in which they came.
    assert!(!answers(&served, &pair, home).await, "one too many");
    assert!(answers(&served, &pair, away).await);
    drop(silent);
    until("its places are given back", async || {
        answers(&served, &pair, home).await
    })
    .await;
}

#[tokio::test]
async fn a_principal_has_so_many_connections_and_others_have_theirs() {
    let (_directory, _site, served, _daemon) = served().await;
    let (web, other) = (
        served.clients.subject("web"),
        served.clients.subject("colleague"),
    );
    let mut held = Vec::new();
    for _ in 0..bounds::CONNECTIONS_PER_PRINCIPAL {
        let channel = served.connect(&web).await.unwrap();
        let info = v1::GetServerInfoRequest {};
        let mut builds = BuildServiceClient::new(channel);
        builds.get_server_info(info).await.unwrap();
        held.push(builds);
    }
    let away = Ipv4Addr::new(127, 0, 0, 2);
    assert!(!answers(&served, &web, away).await, "from no address");
    assert!(answers(&served, &other, Ipv4Addr::LOCALHOST).await);
    drop(held);
    until("its places are given back", async || {
        answers(&served, &web, away).await
    })
    .await;
}

#[tokio::test]
async fn a_principal_watches_so_much_and_others_watch_too() {
    let (_directory, site, served, _daemon) = served().await;
    site.script.lock().unwrap().runs_on = true;
    let channel = served
        .connect(&served.clients.subject("web"))
        .await
        .unwrap();
    let other = served.clients.subject("colleague");
    let other = served.connect(&other).await.unwrap();
    let object = ObjectId::of(&tree());
    let batch = reapi::BatchUpdateBlobsRequest {
        requests: vec![reapi::batch_update_blobs_request::Request {
            digest: Some(digest(object)),
            data: tree(),
            compressor: 0,
        }],
        ..reapi::BatchUpdateBlobsRequest::default()
    };
    ContentAddressableStorageClient::new(channel.clone())
        .batch_update_blobs(batch)
        .await
        .unwrap();
    let mut builds = BuildServiceClient::new(channel);
    let request = v1::SubmitBuildRequest {
        request_id: "r".to_owned(),
        spec: Some(spec(object)),
        project: String::new(),
    };
    let name = builds
        .submit_build(request)
        .await
        .unwrap()
        .into_inner()
        .name;
    let request = v1::WatchBuildRequest {
        name,
        ..v1::WatchBuildRequest::default()
    };
    let mut watches = Vec::new();
    for _ in 0..bounds::WATCHERS_PER_PRINCIPAL {
        let mut events = builds
            .watch_build(request.clone())
            .await
            .unwrap()
            .into_inner();
        let first = events.message().await.unwrap().unwrap().event.unwrap();
        assert!(matches!(first, Event::Build(_)), "{first:?}");
        watches.push(events);
    }
    let refused = builds.watch_build(request.clone()).await.unwrap_err();
    let problem = Problem::from_status(&refused);
    assert_eq!(problem.reason, Reason::Exhausted, "{refused:?}");
    let mut other = BuildServiceClient::new(other);
    assert!(other.watch_build(request.clone()).await.is_ok());
    watches.pop();
    until("a place is given back", async || {
        builds.watch_build(request.clone()).await.is_ok()
    })
    .await;
}
