use std::io::Write as _;
use std::time::Duration;

use belljar_core::{Digest, Fetch, Outcome, Unpack};
use belljar_tests::{Instance, Part};
use belljar_wire::v1::SubmitBuildRequest;
use belljar_wire::{BuildRecord, Reason};

use crate::server::{Server, content, redirect, said};
use crate::{ended, fetch, file, gzip, is_stored, run, spec, started, tar, told};

/// How a build ends that wants this.
fn end(instance: &Instance, request: &str, wanted: Fetch) -> (Outcome, serde_json::Value) {
    let client = instance.client();
    let spec = spec(&client, "cat /deps/x/* > out", &[("x", wanted)]);
    let build = run(&client, request, &spec);
    let told = told(&client, &build);
    (build.outcome.unwrap(), told.last().cloned().unwrap())
}

#[test]
fn nothing_is_fetched_where_the_operator_has_not_said_so() {
    let instance = Instance::started();
    let client = instance.client();
    let wanted = file(&["https://static.example/x".to_owned()], b"x");
    let spec = spec(&client, "true", &[("x", wanted)]);
    let problem = client.submit("one", &spec).unwrap_err();
    assert_eq!(problem.reason, Reason::Denied);
    assert_eq!(problem.fields[0].field, "spec.fetches.x.urls[0]");
    let why = &problem.fields[0].reason;
    assert!(
        why.contains("[fetch]") && why.contains("belljard.toml"),
        "{why}"
    );
}

#[test]
fn a_host_that_is_not_named_is_refused_when_it_is_asked_for() {
    let server = Server::start(vec![]);
    let instance = started(&server, "");
    let client = instance.client();
    for (request, url) in [
        ("host", "http://other.example/x"),
        ("port", "http://127.0.0.1:81/x"),
    ] {
        let wanted = file(&[url.to_owned()], b"x");
        let spec = spec(&client, "true", &[("x", wanted)]);
        let problem = client.submit(request, &spec).unwrap_err();
        assert_eq!(problem.reason, Reason::Denied, "{url}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn what_servers_send_instead_never_gets_into_the_store() {
    let good = b"what is due".as_slice();
    let bomb = gzip(&vec![0; 1 << 20]);
    let answer = bomb.clone();
    let server = Server::start(vec![
        ("/other", content(b"something else")),
        (
            "/cut",
            Box::new(move |stream, _| said(stream, "200 OK", &["content-length: 100"], good)),
        ),
        (
            "/longer",
            Box::new(move |stream, _| {
                said(
                    stream,
                    "200 OK",
                    &["content-length: 11"],
                    b"what is due, and more",
                )
            }),
        ),
        (
            "/huge",
            Box::new(|stream, _| said(stream, "200 OK", &["content-length: 99999999999"], b"x")),
        ),
        (
            "/endless",
            Box::new(|stream, _| {
                said(
                    stream,
                    "200 OK",
                    &["transfer-encoding: chunked", "x-content-length: none"],
                    b"",
                );
                while stream.write_all(b"400\r\n").is_ok()
                    && stream.write_all(&[b'x'; 0x400]).is_ok()
                    && stream.write_all(b"\r\n").is_ok()
                {}
            }),
        ),
        (
            "/packed",
            Box::new(move |stream, _| said(stream, "200 OK", &["content-encoding: gzip"], &answer)),
        ),
        ("/loop", redirect("/loop")),
        (
            "/metadata",
            redirect("http://169.254.169.254/latest/meta-data/"),
        ),
        ("/elsewhere", redirect("http://other.example/x")),
        ("/file", redirect("file:///etc/passwd")),
        (
            "/rubbish",
            Box::new(|stream, _| drop(stream.write_all(b"SSH-2.0-x\r\n\r\n"))),
        ),
    ]);
    let instance = started(
        &server,
        "max_bytes = 65536\ntimeout_seconds = 20\nmax_redirects = 3",
    );
    for (path, kind, due) in [
        ("/other", "refused", "not sha256:"),
        ("/cut", "infrastructure", "broke off"),
        ("/huge", "refused", "65536 may be fetched"),
        ("/endless", "refused", "65536 may be fetched"),
        ("/packed", "infrastructure", "content coding `gzip`"),
        ("/loop", "refused", "more than 3 times"),
        ("/metadata", "refused", "link-local"),
        ("/elsewhere", "refused", "other.example"),
        ("/file", "refused", "`file` URLs"),
        ("/missing", "infrastructure", "404"),
        ("/rubbish", "infrastructure", "no answer that can be read"),
    ] {
        let (outcome, told) = end(&instance, &path[1..], file(&[server.url(path)], good));
        assert_eq!(outcome.kind(), kind, "{path}: {outcome}");
        assert!(outcome.to_string().contains(due), "{path}: {outcome}");
        assert!(
            told["tries"][0]["refused"].as_str().unwrap().contains(due),
            "{told}"
        );
    }
    assert!(!is_stored(&instance, good));
    assert!(!is_stored(&instance, b"something else"));
    assert!(!is_stored(&instance, &bomb));
    // Of a length that lies there is only as much as it says.
    let (outcome, _) = end(&instance, "longer", file(&[server.url("/longer")], good));
    assert_eq!(outcome, Outcome::Succeeded);
    assert!(!is_stored(&instance, b"what is due, and more"));
}

#[test]
fn who_dribbles_is_left() {
    let server = Server::start(vec![(
        "/slow",
        Box::new(|stream, _| {
            said(stream, "200 OK", &["content-length: 1000"], b"");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }),
    )]);
    let instance = started(&server, "timeout_seconds = 2");
    let (outcome, told) = end(&instance, "slow", file(&[server.url("/slow")], b"x"));
    assert!(
        outcome.to_string().contains("longer than the 2 s"),
        "{outcome}"
    );
    assert!(told["tries"][0]["bytes"].as_u64().unwrap() < 1000);
}

#[test]
fn archives_that_are_none_or_made_to_harm_are_refused_by_name() {
    let zip = b"PK\x03\x04 and so on".to_vec();
    let bomb = gzip(&tar(&[("x/zeros", &vec![0; 300 << 20])]));
    let above = tar(&[("x", b"a file where a directory is due")]);
    let cut = gzip(&tar(&[("x/y", b"content")]));
    let cut = cut[..cut.len() / 2].to_vec();
    let all = [
        ("/zip", zip),
        ("/bomb", bomb),
        ("/above", above),
        ("/cut", cut),
    ];
    let answers = all.iter().map(|(path, bytes)| (*path, content(bytes)));
    let server = Server::start(answers.collect());
    let instance = started(&server, "");
    for ((path, bytes), due) in all.iter().zip([
        "ZIP",
        "made to fill disks",
        "no more components",
        "the archive",
    ]) {
        let wanted = fetch(&[server.url(path)], bytes, Unpack::tar(1).unwrap());
        let (outcome, told) = end(&instance, &path[1..], wanted);
        assert_eq!(outcome.kind(), "refused", "{path}: {outcome}");
        assert!(outcome.to_string().contains(due), "{path}: {outcome}");
        assert_eq!(told["found"]["kind"], "fetched", "{told}");
        assert_eq!(told["digest"], Digest::of(bytes).to_string());
    }
}

#[test]
fn what_another_project_has_is_fetched_all_the_same() {
    let server = Server::start(vec![("/x", content(b"of the first\n"))]);
    let mut instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"of the first\n");
    let wanting = spec(&client, "cat /deps/x/file > out", &[("x", wanted)]);
    let build = run(&client, "one", &wanting);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(server.asked(), ["/x"]);
    // Root, as a member of another project, too.
    let path = instance.state().join("config/belljard.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let member = "[[project]]\nname = \"other\"\n[[project.member]]\nprincipal = \"unix:uid=0\"\nrights = [\"submit\", \"read\"]\n";
    std::fs::write(&path, format!("{text}\n{member}")).unwrap();
    instance.end_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = instance.client();
    let request = SubmitBuildRequest {
        request_id: "two".to_owned(),
        spec: Some((&wanting).into()),
        project: "projects/other".to_owned(),
    };
    let submitted = client.wait(client.builds().submit_build(request));
    let build = BuildRecord::try_from(submitted.unwrap().into_inner()).unwrap();
    let build = ended(&client, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(server.asked(), ["/x", "/x"]);
}
