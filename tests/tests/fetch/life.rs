use std::time::Duration;

use belljar_core::{Digest, Outcome, Unpack};
use belljar_tests::{Part, overwrite, wait_for};
use belljar_wire::BuildState;

use crate::server::{Answer, Server, content, said};
use crate::{ended, fetch, file, gzip, is_stored, run, spec, started, submit, tar, told};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one half, and the other when it may.
fn in_halves(first: &'static [u8], second: &'static [u8]) -> Answer {
    Box::new(move |stream, server| {
        let length = format!("content-length: {}", first.len() + second.len());
        said(stream, "200 OK", &[&length], first);
        server.wait();
        let _ = std::io::Write::write_all(stream, second);
    })
}

fn is_asked(server: &Server) {
    wait_for("the server is asked", PATIENCE, || {
        (!server.asked().is_empty()).then_some(())
    });
}

#[test]
fn two_builds_that_want_the_same_at_once_ask_once() {
    let server = Server::start(vec![("/x", in_halves(b"half ", b"and half\n"))]);
    let instance = started(&server, "");
    let client = instance.client();
    // What is made of it is no matter.
    let of = |name: &str| {
        let (urls, as_file) = ([server.url("/x")], Unpack::file(name, false).unwrap());
        let script = format!("cat /deps/x/{name} > out; echo {name} >> out");
        let wanted = fetch(&urls, b"half and half\n", as_file);
        spec(&client, &script, &[("x", wanted)])
    };
    let builds = ["one", "two"].map(|name| submit(&client, name, &of(name)));
    for build in &builds {
        client.until(&build.id, |build| build.state == BuildState::Fetching);
    }
    is_asked(&server);
    // The second one joins within this time, or asks, which would be seen.
    std::thread::sleep(Duration::from_millis(500));
    server.let_go();
    let mut shared = 0;
    for build in &builds {
        let build = ended(&client, build);
        assert_eq!(build.outcome, Some(Outcome::Succeeded));
        let told = told(&client, &build);
        shared += usize::from(told[0]["tries"][0]["shared"] == true);
    }
    assert_eq!(server.asked(), ["/x"]);
    assert_eq!(shared, 1);
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_leaves_nothing_half() {
    let server = Server::start(vec![("/x", in_halves(b"half ", b"and half\n"))]);
    let mut instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"half and half\n");
    let spec = spec(&client, "cat /deps/x/file > out", &[("x", wanted)]);
    let build = submit(&client, "one", &spec);
    is_asked(&server);
    instance.kill_part(Part::Belljard);
    assert!(!is_stored(&instance, b"half and half\n"));
    assert!(!is_stored(&instance, b"half "));
    server.let_go();
    instance.start_part(Part::Belljard);
    let client = instance.client();
    let build = ended(&client, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(build.attempt, 2);
    let told = told(&client, &build);
    assert_eq!(told.last().unwrap()["found"]["kind"], "fetched");
    assert_eq!(server.asked(), ["/x", "/x"]);
}

#[test]
fn a_tree_that_has_lost_a_file_is_made_anew_of_what_was_fetched() {
    let archive = gzip(&tar(&[("x/text", b"of the archive\n")]));
    let server = Server::start(vec![("/x.tar.gz", content(&archive))]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = fetch(
        &[server.url("/x.tar.gz")],
        &archive,
        Unpack::tar(1).unwrap(),
    );
    let of = |name: &str| {
        let script = format!("cat /deps/x/text > out; echo {name} >> out");
        run(
            &client,
            name,
            &spec(&client, &script, &[("x", wanted.clone())]),
        )
    };
    assert_eq!(of("one").outcome, Some(Outcome::Succeeded));
    let file = Digest::of(b"of the archive\n");
    let file = belljar_cas::path_of(&instance.state().join("store"), file);
    overwrite(&file, b"of the Archive\n");
    // It is noticed at the end of the first build that may have seen it, and put aside then.
    let noticed = of("two").outcome.unwrap().to_string();
    assert!(noticed.contains("was changed"), "{noticed}");
    assert!(!file.exists());
    let last = of("three");
    assert_eq!(last.outcome, Some(Outcome::Succeeded));
    assert_eq!(told(&client, &last)[0]["found"]["kind"], "present");
    assert_eq!(server.asked(), ["/x.tar.gz"]);
}

#[test]
fn what_was_fetched_and_is_damaged_is_fetched_again() {
    let archive = gzip(&tar(&[("x/text", b"of the archive\n")]));
    let server = Server::start(vec![("/x.tar.gz", content(&archive))]);
    let instance = started(&server, "");
    let client = instance.client();
    let of = |name: &str, strip: u32, path: &str| {
        let unpack = Unpack::tar(strip).unwrap();
        let wanted = fetch(&[server.url("/x.tar.gz")], &archive, unpack);
        let script = format!("cat /deps/x/{path} > out; echo {name} >> out");
        run(&client, name, &spec(&client, &script, &[("x", wanted)]))
    };
    assert_eq!(of("one", 1, "text").outcome, Some(Outcome::Succeeded));
    let stored = belljar_cas::path_of(&instance.state().join("store"), Digest::of(&archive));
    let mut damaged = archive.clone();
    damaged[archive.len() / 2] ^= 1;
    overwrite(&stored, &damaged);
    // Another tree is to be made of it.
    let build = of("two", 0, "x/text");
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let found = told(&client, &build);
    let kinds: Vec<_> = found.iter().map(|one| &one["found"]["kind"]).collect();
    assert_eq!(kinds, ["present", "fetched"]);
    assert_eq!(std::fs::read(&stored).unwrap(), archive);
}

#[test]
fn a_fetch_that_is_cancelled_ends_at_once() {
    let server = Server::start(vec![("/x", in_halves(b"half ", b"and half\n"))]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"half and half\n");
    let spec = spec(&client, "true", &[("x", wanted)]);
    let build = submit(&client, "one", &spec);
    is_asked(&server);
    client.cancel(&build.id, "enough").unwrap();
    let build = ended(&client, &build);
    assert_eq!(build.outcome.unwrap().kind(), "cancelled");
    server.let_go();
    assert!(!is_stored(&instance, b"half and half\n"));
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_not_for_ever() {
    let server = Server::start(vec![(
        "/x",
        crate::server::status("503 Service Unavailable"),
    )]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"x");
    let spec = spec(&client, "true", &[("x", wanted)]);
    let build = run(&client, "one", &spec);
    let outcome = build.outcome.unwrap();
    assert!(outcome.to_string().contains("503"), "{outcome}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn who_joined_a_fetch_gets_it_when_the_first_one_is_cancelled() {
    let server = Server::start(vec![("/x", in_halves(b"half ", b"and half\n"))]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"half and half\n");
    let of = |text: &str| {
        let script = format!("cat /deps/x/file > out; echo {text} >> out");
        spec(&client, &script, &[("x", wanted.clone())])
    };
    let first = submit(&client, "one", &of("one"));
    is_asked(&server);
    let second = submit(&client, "two", &of("two"));
    client.until(&second.id, |build| build.state == BuildState::Fetching);
    // The second one joins within this time, or asks, which would be seen.
    std::thread::sleep(Duration::from_millis(500));
    client.cancel(&first.id, "enough").unwrap();
    assert_eq!(ended(&client, &first).outcome.unwrap().kind(), "cancelled");
    server.let_go();
    let second = ended(&client, &second);
    assert_eq!(second.outcome, Some(Outcome::Succeeded));
    assert_eq!(told(&client, &second)[0]["tries"][0]["shared"], true);
    assert_eq!(server.asked(), ["/x"]);
}
