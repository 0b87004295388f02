//! belljard or the store dies while what a build declares by its digest is fetched, at every point of that: it is
//! fetched again, or is there, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use belljar_core::{
    ArtifactFetch, ArtifactForm, Digest, Fetch, FetchUrl, Fetches, InputName, Mirrors, Script,
    Steps, Unpack, UrlFetch,
};
use belljar_tests::trace::{Event, Kill, When};
use belljar_tests::{Instance, Part};

use crate::points::is_chatter;
use crate::site::{LEAVES, Order, Site};

/// Every call from the beginning of the fetch until the build's trees are staged that lasts or that others see.
pub(crate) const FETCH: &[(Part, &str)] = &[
    (Part::Belljard, "queue fetching: sync"),
    (Part::Belljard, "answer receive: send"),
    (Part::Belljard, "content: send"),
    (Part::Belljard, "answer whole: send"),
    (Part::Belljard, "answer given: send"),
    (Part::Belljard, "ownership: write"),
    (Part::Belljard, "ownership: sync"),
    (Part::Belljard, "store, derive: send"),
    (Part::Belljard, "trail fetched: write"),
    (Part::Belljard, "trail fetched: sync"),
    (Part::Store, "answer space: send"),
    (Part::Store, "answer receiving: send"),
    (Part::Store, "object content: create"),
    (Part::Store, "object content: write"),
    (Part::Store, "all files: sync"),
    (Part::Store, "object: link"),
    (Part::Store, "answer received: send"),
    (Part::Store, "answer start: send"),
    (Part::Store, "answer unpack: send"),
    (Part::Store, "answer derivation_wants: send"),
    (Part::Store, "answer content: send"),
    (Part::Store, "process: signal"),
    (Part::Store, "mark of a record: create"),
    (Part::Store, "derivations: sync"),
    (Part::Store, "answer derived: send"),
    (Part::Store, "image: link"),
];

/// Gives `fetched PATH` for every path, as long as the test lasts.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            let content = content(head.split(' ').nth(1).unwrap_or_default());
            let length = content.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{content}").as_bytes());
        }
    });
    port
}

fn content(path: &str) -> String {
    format!("fetched {path}\n")
}

fn fetches_from(port: u16) -> impl FnOnce(&Instance) {
    move |instance| {
        let path = instance.state().join("config/belljard.toml");
        let mut file = fs::File::options().append(true).open(path).unwrap();
        let text = format!(
            "\n[fetch]\nallow = [\"127.0.0.1\"]\nports = [{port}]\nallow_private = [\"127.0.0.0/8\"]\n"
        );
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// A build that has something fetched that nobody has yet.
fn order(site: &mut Site, port: u16) -> Order {
    let mut order = site.order();
    let path = format!("/{}", order.output.trim());
    let url = FetchUrl::new(&format!("http://127.0.0.1:{port}{path}")).unwrap();
    let fetch = Fetch::Urls(UrlFetch {
        urls: Mirrors::new(vec![url]).unwrap(),
        digest: Digest::of(content(&path).as_bytes()),
        unpack: Unpack::file("file", false).unwrap(),
    });
    let name = InputName::new("x").unwrap();
    order.spec.fetches = Fetches::new([(name, fetch)].into()).unwrap();
    let steps = ["grep -q fetched /deps/x/file", LEAVES, "echo said"];
    let steps = steps.map(|step| Script::new(step).unwrap());
    order.spec.run = Steps::new(steps.into()).unwrap();
    order
}

fn dies(part: Part) {
    let port = serve();
    let mut site = Site::traced_as(&[part], false, fetches_from(port));
    for (_, name) in FETCH.iter().filter(|(of, _)| *of == part) {
        for when in [When::Before, When::After] {
            let kill = Kill {
                name: (*name).to_owned(),
                occurrence: 1,
                when,
            };
            let order = order(&mut site, port);
            let (orders, died) = site.run(&[(part, kill.clone())], vec![order]);
            assert!(died, "{part:?} has not died: {kill:?}");
            let attempts = orders[0].ended.as_ref().unwrap().attempt;
            assert!(attempts <= 2, "{kill:?}: {attempts} attempts");
        }
    }
}

#[test]
fn belljard_dies_while_something_is_fetched() {
    dies(Part::Belljard);
}

#[test]
fn the_store_dies_while_something_is_fetched() {
    dies(Part::Store);
}

/// What of [`FETCH`] there is also where nothing comes over a network.
const LEFT: &[(Part, &str)] = &[
    (Part::Belljard, "queue fetching: sync"),
    (Part::Belljard, "answer given: send"),
    (Part::Belljard, "ownership: write"),
    (Part::Belljard, "ownership: sync"),
    (Part::Belljard, "store, derive: send"),
    (Part::Belljard, "trail fetched: write"),
    (Part::Belljard, "trail fetched: sync"),
    (Part::Store, "answer derivation_wants: send"),
    (Part::Store, "answer content: send"),
    (Part::Store, "mark of a record: create"),
    (Part::Store, "derivations: sync"),
    (Part::Store, "answer derived: send"),
    (Part::Store, "image: link"),
];

/// A build that is given what another one has left just before.
fn given(site: &mut Site) -> Order {
    let first = site.order();
    let (first, _) = site.run(&[], vec![first]);
    let mut order = site.order();
    let fetch = Fetch::Artifact(ArtifactFetch {
        artifact: Digest::of(first[0].output.as_bytes()),
        form: ArtifactForm::File(Unpack::file("file", false).unwrap()),
        build: None,
        builder: None,
    });
    let name = InputName::new("x").unwrap();
    order.spec.fetches = Fetches::new([(name, fetch)].into()).unwrap();
    let steps = ["test -s /deps/x/file", LEAVES, "echo said"];
    let steps = steps.map(|step| Script::new(step).unwrap());
    order.spec.run = Steps::new(steps.into()).unwrap();
    order
}

#[test]
fn belljard_or_the_store_dies_while_a_build_is_given_what_another_one_left() {
    let parts = [Part::Belljard, Part::Store];
    let mut site = Site::traced_as(&parts, false, |_| {});
    for (part, name) in LEFT {
        for when in [When::Before, When::After] {
            let kill = Kill {
                name: (*name).to_owned(),
                occurrence: 1,
                when,
            };
            let order = given(&mut site);
            let (orders, died) = site.run(&[(*part, kill.clone())], vec![order]);
            assert!(died, "{part:?} has not died: {kill:?}");
            let attempts = orders[0].ended.as_ref().unwrap().attempt;
            assert!(attempts <= 2, "{kill:?}: {attempts} attempts");
        }
    }
}

/// Names of what a process did from `first` to `last`, and not before.
fn between(events: &[Event], first: &str, last: &str) -> BTreeSet<String> {
    let names = events.iter().filter_map(|event| event.name.clone());
    let names: Vec<String> = names.filter(|name| !is_chatter(name)).collect();
    let at = |due: &str| names.iter().position(|name| name == due);
    let (Some(first), Some(last)) = (at(first), at(last)) else {
        panic!("neither {first} nor {last}: {names:?}");
    };
    let before: BTreeSet<String> = names[..first].iter().cloned().collect();
    let during: BTreeSet<String> = names[first..last].iter().cloned().collect();
    during.difference(&before).cloned().collect()
}

#[test]
fn every_call_of_a_fetch_is_a_point() {
    let port = serve();
    let mut site = Site::traced_as(&Part::ALL, false, fetches_from(port));
    let order = order(&mut site, port);
    let from = site.told();
    site.run(&[], vec![order]);
    for (part, first, last) in [
        (
            Part::Belljard,
            "queue fetching: sync",
            "queue staging: sync",
        ),
        (Part::Store, "answer space: send", "answer staged: send"),
    ] {
        let index = Part::ALL.iter().position(|one| *one == part).unwrap();
        let seen = between(&site.events(part)[from[index]..], first, last);
        let due = FETCH.iter().filter(|(of, _)| *of == part);
        let due: BTreeSet<String> = due.map(|(_, name)| (*name).to_owned()).collect();
        assert_eq!(seen, due, "{part:?}");
    }
}

#[test]
fn the_table_of_fetches_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/crash-points.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = FETCH
        .iter()
        .map(|(part, name)| format!("| {} | {name} |\n", part.executable()));
    let rows: String = rows.collect();
    assert!(
        page.contains(&rows),
        "docs/crash-points.md has to have these rows:\n{rows}"
    );
}
