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

/// So many calls at once, by one caller; how many were answered, and the slowest of them.
async fn info_for(daemon: &Daemon, many: usize) -> (Vec<v1::ServerInfo>, Duration) {
    let began = std::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..many {
        let mut builds = daemon.builds();
        calls.spawn(async move { builds.get_server_info(v1::GetServerInfoRequest {}).await });
    }
    let mut told = Vec::new();
    while let Some(call) = calls.join_next().await {
        told.push(call.unwrap().unwrap().into_inner());
    }
    (told, began.elapsed())
}

#[tokio::test]
async fn many_who_ask_what_the_server_is_cost_the_other_processes_one_look() {
    let (_directory, site) = site().await;
    let daemon = start(&site, "").await;
    let (told, _) = info_for(&daemon, 200).await;
    assert!(told.iter().all(|info| info == &told[0]) && told.len() == 200);
    for question in [
        "store: confinement",
        "signer: confinement",
        "spawner: probe",
    ] {
        assert_eq!(site.asked(question), 1, "{question}");
    }
}

#[tokio::test]
async fn a_process_that_says_nothing_keeps_many_who_ask_waiting_once() {
    let (_directory, site) = site().await;
    site.script.lock().unwrap().silent = true;
    let daemon = start(&site, "").await;
    let many = 40;
    let (told, took) = info_for(&daemon, many).await;
    assert_eq!(told.len(), many);
    for info in told {
        let signer = info
            .layers
            .iter()
            .find(|layer| layer.name == "process belljar-signer");
        assert_eq!(signer.unwrap().found, "it does not answer");
    }
    // One after the other they would have taken 200 s.
    assert!(took < Duration::from_secs(100), "{took:?}");
    assert!(site.asked("signer: confinement") < many / 2);
}
