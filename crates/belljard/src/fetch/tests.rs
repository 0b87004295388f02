use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use belljar_core::{FetchUrl, Mirrors};
use belljar_policy::FetchRules;
use tokio::sync::Notify;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::trouble::Sort;
use super::*;
use crate::peers::Logs;

/// Gives each time another answer, as who wants a checked name to lead elsewhere a moment later.
#[derive(Default)]
struct Rebinding {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Resolve for Arc<Rebinding> {
    fn resolve<'a>(
        &'a self,
        _: &'a ProjectId,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.answers.lock().unwrap().pop_front();
        let next = next.ok_or_else(|| io::Error::other("no such name"));
        Box::pin(std::future::ready(next))
    }
}

fn rebinding(answers: &[&[&str]]) -> Arc<Rebinding> {
    let address = |text: &&str| text.parse().unwrap();
    let answers = answers.iter().map(|all| all.iter().map(address).collect());
    Arc::new(Rebinding {
        answers: Mutex::new(answers.collect()),
        ..Rebinding::default()
    })
}

fn settings(ports: Vec<u16>, private: &[&str]) -> FetchSettings {
    let private = private.iter().map(|text| text.parse().unwrap()).collect();
    FetchSettings {
        rules: FetchRules::new(vec!["any".parse().unwrap()], ports, private, vec![]).unwrap(),
        ca: PathBuf::new(),
        most_bytes: 1000,
        seconds: 20,
        all_seconds: 60,
        redirects: 3,
    }
}

fn tls() -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn wanted(url: &str) -> Wanted {
    let mirrors = Mirrors::new(vec![FetchUrl::new(url).unwrap()]).unwrap();
    Wanted::Url(mirrors, Digest::of(b"x"))
}

/// A store that is not there: nothing that is refused before comes to it.
fn store() -> StoreClient {
    let nowhere = PathBuf::from("/nonexistent");
    StoreClient::new(nowhere.join("socket"), Logs::new(&nowhere))
}

fn project(name: &str) -> ProjectId {
    ProjectId::new(name).unwrap()
}

async fn bring(settings: &FetchSettings, resolver: &Arc<Rebinding>, url: &str) -> Brought {
    let (tls, store, project) = (tls(), store(), project("a"));
    let download = Download {
        project: &project,
        settings,
        tls: &tls,
        resolver,
        store: &store,
    };
    let tries = Tries::default();
    let content = download.bring(&wanted(url), &tries).await;
    Brought {
        tries: tries.told(),
        content,
    }
}

/// A server that sends everybody on, and counts them.
async fn sender(location: impl Fn(u16) -> String) -> (u16, Arc<AtomicUsize>, tasks::Task) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (count, location) = (Arc::new(AtomicUsize::new(0)), location(port));
    let counted = count.clone();
    let task = tasks::start("sender", async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let answer =
                format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, count, task)
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let settings = settings(vec![80], &[]);
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
    ] {
        // Also beside one that everybody can reach.
        for answer in [&[address][..], &["1.1.1.1", address]] {
            let resolver = rebinding(&[answer]);
            let brought = bring(&settings, &resolver, "http://a.example/x").await;
            let trouble = brought.content.unwrap_err();
            assert_eq!(trouble.sort, Sort::Refused, "{}", trouble.why);
            assert_eq!(brought.tries[0].address, None);
        }
    }
}

#[tokio::test]
async fn what_was_looked_at_is_connected_to_and_not_asked_for_again() {
    let (port, count, _task) = sender(|_| "https://b.example/".to_owned()).await;
    let settings = settings(vec![port], &["127.0.0.0/8"]);
    // Whoever asks a second time would get to 127.0.0.2, where nobody is.
    let resolver = rebinding(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let url = format!("http://a.example:{port}/x");
    let brought = bring(&settings, &resolver, &url).await;
    assert_eq!(brought.tries[0].address.as_deref(), Some("127.0.0.1"));
    assert_eq!(brought.tries[0].status, Some(302));
    let asked = resolver.asked.load(Ordering::SeqCst);
    assert_eq!((asked, count.load(Ordering::SeqCst)), (1, 1));
    // The port of where it was sent is none of those that are allowed.
    assert!(brought.content.unwrap_err().why.contains("port 443"));
}

#[tokio::test]
async fn a_name_is_looked_at_again_when_a_redirect_leads_to_it() {
    let (port, count, _task) = sender(|port| format!("http://a.example:{port}/y")).await;
    let settings = settings(vec![port], &["127.0.0.0/8"]);
    let resolver = rebinding(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let url = format!("http://a.example:{port}/x");
    let brought = bring(&settings, &resolver, &url).await;
    let trouble = brought.content.unwrap_err();
    assert!(
        trouble.why.contains("10.0.0.1 is a private address"),
        "{}",
        trouble.why
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let _task = tasks::start("server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let settings = settings(vec![port], &["127.0.0.0/8"]);
    let resolver = rebinding(&[&["127.0.0.1"]]);
    let url = format!("https://a.example:{port}/x");
    let brought = bring(&settings, &resolver, &url).await;
    let why = brought.content.unwrap_err().why;
    assert!(why.contains("TLS:") && why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn who_joins_gets_what_the_first_one_gets_and_nobody_is_left_behind() {
    let flights = Arc::new(Flights::default());
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let join = |name: &'static str, seconds: u64| {
        let (flights, go, begun) = (flights.clone(), go.clone(), begun.clone());
        let key = (project(name), wanted("https://a.example/x"));
        async move {
            let work = |tries: Tries| {
                begun.fetch_add(1, Ordering::SeqCst);
                tries.begin(&FetchTry::default());
                async move {
                    go.notified().await;
                    Err(Trouble::refused("x"))
                }
            };
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let late = || Trouble::lasting("late");
            flights.join(key, deadline, late, work).await
        }
    };
    let (one, two, other) = (join("a", 60), join("a", 60), join("b", 60));
    // Whose time is over is told what was being tried.
    let late = join("a", 0);
    let letting_go = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        go.notify_waiters();
        go.notify_one();
    };
    let (one, two, late, other, ()) = tokio::join!(one, two, late, other, letting_go);
    assert_eq!(late.content.unwrap_err().sort, Sort::Lasting);
    assert_eq!(late.tries[0].refused.as_deref(), Some("late"));
    // A project of its own asks on its own: what others fetch is nobody's business.
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    for brought in [&one, &two, &other] {
        assert_eq!(brought.content, Err(Trouble::refused("x")));
    }
    let shared = [one, two, other].map(|brought| brought.tries[0].shared);
    assert_eq!(shared, [false, true, false]);
    // It was over: who comes now begins anew.
    go.notify_one();
    join("a", 60).await;
    assert_eq!(begun.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_address_of_this_machine_is_told_from_others() {
    let all = [
        ("127.0.0.1:80", true),
        // Which the kernel would send to from another one.
        ("127.0.0.2:80", true),
        ("192.0.2.1:80", false),
    ];
    for (address, own) in all {
        let address = address.parse().unwrap();
        assert_eq!(resolve::is_own(address).await.unwrap(), own, "{address}");
    }
}

#[tokio::test]
async fn names_that_are_never_resolved_keep_few_threads_and_those_of_their_project_only() {
    let turns = Turns::new(3, 2);
    let (hanging, stuck) = std::sync::mpsc::channel::<()>();
    let stuck = Arc::new(Mutex::new(stuck));
    let begun = Arc::new(AtomicUsize::new(0));
    let look = |name: &'static str| {
        let (turns, stuck, begun) = (turns.clone(), stuck.clone(), begun.clone());
        async move {
            let project = project(name);
            let looking = resolve::threaded(&turns, &project, move || {
                begun.fetch_add(1, Ordering::SeqCst);
                // As a name server that is silent: until the test lets go.
                let _ = stuck.lock().unwrap_or_else(|e| e.into_inner()).recv();
                Ok(())
            });
            tokio::time::timeout(Duration::from_millis(200), looking).await
        }
    };
    // Nobody waits for them any more, as after a timeout or a cancelled build; the threads are still there.
    for _ in 0..4 {
        assert!(look("a").await.is_err());
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    let other = resolve::threaded(&turns, &project("b"), || Ok(7)).await;
    assert_eq!(other.unwrap(), 7);
    drop(hanging);
    let after = resolve::threaded(&turns, &project("a"), || Ok(8)).await;
    assert_eq!(after.unwrap(), 8);
}

#[test]
fn one_that_may_pass_is_worth_another_try() {
    let all = |troubles: &[Trouble]| {
        let named = troubles
            .iter()
            .map(|trouble| (String::new(), trouble.clone()));
        Trouble::all(named.collect()).map(|trouble| trouble.sort)
    };
    let (refused, lasting, passing) = (
        Trouble::refused("a"),
        Trouble::lasting("b"),
        Trouble::passing("c"),
    );
    assert_eq!(all(&[]), None);
    assert_eq!(
        all(&[refused.clone(), lasting.clone()]),
        Some(Sort::Lasting)
    );
    assert_eq!(all(&[passing, refused, lasting]), Some(Sort::Passing));
}

#[test]
fn what_servers_say_does_not_make_reasons_long() {
    let url = format!("https://a.example/{}", "x".repeat(2000));
    let trouble = || (url.clone(), Trouble::lasting("é".repeat(100_000)));
    let all = Trouble::all((0..bounds::FETCH_MIRRORS).map(|_| trouble()).collect()).unwrap();
    let each = bounds::FETCH_URL_SHOWN_BYTES + bounds::FETCH_REASON_BYTES + 16;
    assert!(all.why.len() <= bounds::FETCH_MIRRORS * each);
    assert!(all.why.contains("é…"));
}

#[test]
fn who_dribbles_is_told_from_who_is_slow() {
    let second = Duration::from_secs(1);
    let mut slow = download::Pace::default();
    for _ in 0..1000 {
        assert_eq!(slow.took(second, bounds::PACE_BYTES / 29), Ok(()));
    }
    let mut dribbling = download::Pace::default();
    let left = (1..1000).find(|_| dribbling.took(second, 100).is_err());
    assert_eq!(left, Some(bounds::FETCH_IDLE_SECONDS));
}
