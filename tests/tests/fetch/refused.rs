use std::io::Write as _;
use std::time::Duration;

use belljar_core::{BuildSpec, Digest, Fetch, Outcome, Unpack, bounds};
use belljar_tests::{Client, Instance, Part};
use belljar_wire::v1::SubmitBuildRequest;
use belljar_wire::{BuildRecord, Reason};

use crate::server::{Server, content, redirect, said};
use crate::zip_file::{Entry, ZipFile};
use crate::{ended, fetch, file, gzip, is_stored, run, spec, started, tar, told};

/// How a build ends that wants this.
fn end(instance: &Instance, request: &str, wanted: Fetch) -> (Outcome, serde_json::Value) {
    let client = instance.client();
    let spec = spec(&client, "cat /deps/x/* > out", &[("x", wanted)]);
    let build = run(&client, request, &spec);
    let told = told(&client, &build);
    (build.outcome.unwrap(), told.last().cloned().unwrap())
}

/// Root is a member of another project, too, when this returns.
fn with_another_project(instance: &mut Instance) -> Client {
    let path = instance.state().join("config/belljard.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let member = "[[project]]\nname = \"other\"\n[[project.member]]\nprincipal = \"unix:uid=0\"\nrights = [\"submit\", \"read\"]\n";
    std::fs::write(&path, format!("{text}\n{member}")).unwrap();
    instance.end_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    instance.client()
}

fn submit_for(client: &Client, project: &str, request: &str, spec: &BuildSpec) -> BuildRecord {
    let request = SubmitBuildRequest {
        request_id: request.to_owned(),
        spec: Some(spec.into()),
        project: format!("projects/{project}"),
    };
    let submitted = client.wait(client.builds().submit_build(request));
    BuildRecord::try_from(submitted.unwrap().into_inner()).unwrap()
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
fn who_dribbles_from_many_mirrors_is_left_in_the_end() {
    let slow = |stream: &mut std::net::TcpStream, _: &Server| {
        said(stream, "200 OK", &["content-length: 1000"], b"");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let paths = ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"];
    let server = Server::start(
        paths
            .map(|path| (path, Box::new(slow) as crate::server::Answer))
            .into(),
    );
    let instance = started(&server, "timeout_seconds = 2\ntotal_seconds = 5");
    let urls = paths.map(|path| server.url(path));
    let (outcome, told) = end(&instance, "slow", file(&urls, b"x"));
    // Not again: it would take as long.
    assert_eq!(outcome.kind(), "infrastructure", "{outcome}");
    assert!(
        outcome.to_string().contains("longer than the 5 s"),
        "{outcome}"
    );
    let tries = told["tries"].as_array().unwrap();
    assert!((2..=4).contains(&tries.len()), "{told}");
    for told in tries {
        assert!(
            told["refused"].as_str().unwrap().contains("longer"),
            "{told}"
        );
    }
    assert!(server.asked().len() <= 4, "{:?}", server.asked());
}

#[test]
fn what_servers_say_at_length_is_told_briefly() {
    let long = "y".repeat(50_000);
    let coding = format!("content-encoding: {long}");
    let elsewhere = format!("{}://x", "s".repeat(1900));
    let server = Server::start(vec![
        (
            "/coding",
            Box::new(move |stream, _| said(stream, "200 OK", &[&coding], b"x")),
        ),
        ("/scheme", redirect(&elsewhere)),
        (
            "/headers",
            Box::new(|stream, _| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(b"x-more: and more\r\n").is_ok() {}
            }),
        ),
        (
            "/informs",
            Box::new(|stream, _| {
                while stream
                    .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                    .is_ok()
                {}
            }),
        ),
        (
            "/range",
            Box::new(|stream, _| {
                said(
                    stream,
                    "206 Partial Content",
                    &["content-range: bytes 0-0/9"],
                    b"x",
                )
            }),
        ),
        ("/same", crate::server::status("304 Not Modified")),
        (
            "/both",
            Box::new(|stream, _| {
                said(
                    stream,
                    "200 OK",
                    &["content-length: 1", "content-length: 2"],
                    b"x",
                )
            }),
        ),
    ]);
    let instance = started(&server, "timeout_seconds = 3");
    for (path, due) in [
        ("/coding", "content coding"),
        ("/scheme", "URLs are not fetched"),
        ("/headers", "no answer that can be read"),
        ("/informs", "longer than the 3 s"),
        ("/range", "status 206"),
        ("/same", "status 304"),
        ("/both", "no answer that can be read"),
    ] {
        let (outcome, told) = end(&instance, &path[1..], file(&[server.url(path)], b"x"));
        let text = outcome.to_string();
        assert!(text.contains(due), "{path}: {text}");
        assert!(text.len() < 1500, "{path}: {} bytes", text.len());
        let why = told["tries"][0]["refused"].as_str().unwrap();
        assert!(why.contains(due) && why.len() < 700, "{path}: {why}");
    }
    assert!(!is_stored(&instance, b"x"));
}

#[test]
fn what_is_denied_is_refused_beside_what_is_allowed() {
    let server = Server::start(vec![("/x", content(b"x"))]);
    let instance = started(&server, "deny = [\"127.0.0.0/8\"]");
    let (outcome, _) = end(&instance, "denied", file(&[server.url("/x")], b"x"));
    assert_eq!(outcome.kind(), "refused", "{outcome}");
    assert!(
        outcome.to_string().contains("`deny` of [fetch]"),
        "{outcome}"
    );
    assert!(server.asked().is_empty());
}

#[test]
fn one_project_does_not_take_all_places() {
    let hanging = |stream: &mut std::net::TcpStream, server: &Server| {
        said(stream, "200 OK", &["content-length: 5"], b"a");
        server.wait();
        let _ = stream.write_all(b"fter");
    };
    let paths = ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"];
    let mut answers: Vec<(&str, crate::server::Answer)> = paths
        .map(|path| (path, Box::new(hanging) as crate::server::Answer))
        .into();
    answers.push(("/other", content(b"other")));
    let server = Server::start(answers);
    let mut instance = Instance::configured();
    // Nothing but the fetches are to wait.
    let path = instance.state().join("config/belljard.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let slots = text.lines().find(|line| line.starts_with("slots"));
    std::fs::write(&path, text.replace(slots.unwrap(), "slots = 12")).unwrap();
    crate::start(&mut instance, server.port(), "");
    let client = instance.client();
    let wanting = |path: &str, content: &[u8]| {
        let wanted = file(&[server.url(path)], content);
        spec(&client, "cat /deps/x/file > out", &[("x", wanted)])
    };
    let (specs, other) = (
        paths.map(|path| wanting(path, b"after")),
        wanting("/other", b"other"),
    );
    let client = with_another_project(&mut instance);
    let builds = specs
        .iter()
        .zip(paths)
        .map(|(spec, path)| submit_for(&client, "default", &format!("of{}", &path[1..]), spec));
    let builds: Vec<_> = builds.collect();
    // As many as one may have are asked, and no more.
    belljar_tests::wait_for("the server is asked", Duration::from_secs(60), || {
        (server.asked().len() >= bounds::FETCHES_PER_PROJECT).then_some(())
    });
    let other = ended(&client, &submit_for(&client, "other", "other", &other));
    assert_eq!(other.outcome, Some(Outcome::Succeeded));
    assert_eq!(server.asked().len(), bounds::FETCHES_PER_PROJECT + 1);
    for build in &builds {
        client.cancel(&build.id, "enough").unwrap();
    }
    server.let_go();
    for build in &builds {
        ended(&client, build);
    }
}

#[test]
fn archives_that_are_none_or_made_to_harm_are_refused_by_name() {
    let zip = b"PK\x03\x04 and so on".to_vec();
    let mut link = Entry::file("link", b"/etc/passwd");
    link.mode = 0o120_777;
    let link = ZipFile::default().add(link).end();
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
    for (path, bytes, due) in [
        ("/zip-link", link, "symbolic link"),
        ("/zip-tar", tar(&[("x", b"y")]), "no ZIP archive"),
    ] {
        let server = Server::start(vec![(path, content(&bytes))]);
        let instance = started(&server, "");
        let wanted = fetch(&[server.url(path)], &bytes, Unpack::zip(0).unwrap());
        let (outcome, _) = end(&instance, &path[1..], wanted);
        assert_eq!(outcome.kind(), "refused", "{path}: {outcome}");
        assert!(outcome.to_string().contains(due), "{path}: {outcome}");
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
    let client = with_another_project(&mut instance);
    let build = submit_for(&client, "other", "two", &wanting);
    let build = ended(&client, &build);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(server.asked(), ["/x", "/x"]);
}
