use belljar_attest::verify;
use belljar_core::{Digest, ObjectId, Outcome, Unpack};
use belljar_tests::{Instance, Project};
use serde_json::{Value, json};

use crate::server::{Server, content, over_tls, redirect, status};
use crate::zip_file::{Entry, ZipFile};
use crate::{fetch, file, gzip, run, spec, start, started, tar, told};

#[test]
fn a_build_sees_what_was_fetched_and_the_provenance_says_so() {
    let archive = gzip(&tar(&[
        ("x-1/bin/tool", b"#!/bin/sh\necho tool\n"),
        ("x-1/README", b"read\n"),
    ]));
    let server = Server::start(vec![
        ("/x.tar.gz", content(&archive)),
        ("/a/data.bin?v=1", content(b"data\n")),
        ("/down", status("503 Service Unavailable")),
        ("/moved", redirect("/x.tar.gz")),
    ]);
    let instance = started(&server, "");
    let client = instance.client();
    let urls = [server.url("/down"), server.url("/moved")];
    let archived = fetch(&urls, &archive, Unpack::tar(1).unwrap());
    let data = file(&[server.url("/a/data.bin?v=1")], b"data\n");
    let script = "ls -l /deps/*/* >&2; /deps/x/bin/tool > out; cat /deps/x/README /deps/data/file >> out; ! echo > /deps/data/file";
    let spec = spec(&client, script, &[("x", archived), ("data", data)]);
    let build = run(&client, "one", &spec);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let out = b"tool\nread\ndata\n";
    assert!(client.read(ObjectId::of(out)).is_ok());

    // What happened, URL by URL.
    let events = told(&client, &build);
    assert_eq!(events.len(), 2, "{events:?}");
    let tries = events[1]["tries"].as_array().unwrap();
    assert_eq!(events[1]["name"], "x");
    assert_eq!(events[1]["found"]["kind"], "fetched");
    assert_eq!(
        (&tries[0]["status"], &tries[1]["status"]),
        (&json!(503), &json!(200))
    );
    assert!(tries[0]["refused"].as_str().unwrap().contains("503"));
    assert_eq!(tries[1]["final_url"], server.url("/x.tar.gz"));
    assert_eq!(tries[1]["bytes"], archive.len());
    assert_eq!(tries[1]["address"], "127.0.0.1");

    // What is signed: the content by its digest, where it came from only as it was asked for.
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let key = client.server_info().public_key_pem;
    let verdict = verify(&bundle, &key, &Digest::of(out)).unwrap();
    assert!(verdict.inputs.contains_key("x") && verdict.inputs.contains_key("data"));
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload);
    let statement: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    let dependencies = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let due = json!({
        "uri": server.url("/down"),
        "digest": { "sha256": Digest::of(&archive).to_hex() },
        "annotations": {
            "belljar_input": "deps/x",
            "belljar_asserted": ["uri"],
            "belljar_mirrors": [server.url("/moved")],
            "belljar_size": archive.len(),
        },
    });
    assert!(
        dependencies.as_array().unwrap().contains(&due),
        "{dependencies:#}"
    );
}

#[test]
fn a_zip_archive_is_unpacked_and_its_programs_run() {
    let mut tool = Entry::file("x-1/bin/tool", b"#!/bin/sh\necho zipped\n");
    tool.mode = 0o100_755;
    tool.later = true;
    let archive = ZipFile::default()
        .add(tool)
        .add(Entry::file("x-1/README", b"read\n"))
        .end_with(b"a comment");
    let server = Server::start(vec![("/x.zip", content(&archive))]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = fetch(&[server.url("/x.zip")], &archive, Unpack::zip(1).unwrap());
    let script = "/deps/x/bin/tool > out; cat /deps/x/README >> out; ! test -x /deps/x/README";
    let build = run(&client, "one", &spec(&client, script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let out = b"zipped\nread\n";
    // By the signer, too: the tree was made of this content, and in this way.
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let key = client.server_info().public_key_pem;
    assert!(verify(&bundle, &key, &Digest::of(out)).is_ok());
}

#[test]
fn what_a_project_has_is_not_fetched_again() {
    let server = Server::start(vec![("/x", content(b"once\n"))]);
    let instance = started(&server, "");
    let client = instance.client();
    let wanted = file(&[server.url("/x")], b"once\n");
    let first = spec(&client, "cat /deps/x/file > out", &[("x", wanted.clone())]);
    let build = run(&client, "one", &first);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let second = spec(
        &client,
        "cat /deps/y/file > out; date >> out",
        &[("y", wanted)],
    );
    let build = run(&client, "two", &second);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let events = told(&client, &build);
    assert_eq!(events[0]["found"]["kind"], "present");
    assert_eq!(events[0]["tries"], json!([]));
    assert_eq!(server.asked(), ["/x"]);
}

#[test]
fn a_project_declares_what_it_needs_and_its_story_is_told() {
    let archive = tar(&[("x-1/data", b"from afar\n")]);
    let server = Server::start(vec![("/x.tar", content(&archive))]);
    let mut instance = Instance::new();
    let port = server.port();
    // The name is resolved as this host does; where that gives ::1 first, nobody is there.
    let settings = format!(
        "allow = [\"localhost\"]\nports = [{port}]\nallow_private = [\"127.0.0.0/8\", \"::1/128\"]\n"
    );
    std::fs::write(instance.state().join("fetch.toml"), settings).unwrap();
    let digest = Digest::of(&archive).to_hex();
    let more = format!(
        "[fetch.x]\nurls = [\"http://localhost:{port}/x.tar\"]\nsha256 = \"{digest}\"\nunpack = true\nstrip_components = 1"
    );
    let project = Project::of(&["cat /deps/x/data > out"], &["out"], &more);
    let run = instance.run(&project);
    run.assert_succeeded();
    run.assert_verified("out");
    assert_eq!(run.file("out"), b"from afar\n");
    let attempt = run.attempt();
    let build = attempt.split('-').next().unwrap().to_owned();
    let story = instance
        .tell("audit show", &[&build])
        .assert_code(0)
        .printed;
    assert!(story.contains("x was fetched: sha256:"), "{story}");
    assert!(
        story.contains(&format!("http://localhost:{port}/x.tar, status 200")),
        "{story}"
    );

    // Another digest, another end.
    let wrong = more.replace(&digest, &Digest::of(b"other").to_hex());
    let project = Project::of(&["cat /deps/x/data > out"], &["out"], &wrong);
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 7, "{}", run.outcome());
    assert!(
        run.outcome().to_string().contains(&digest),
        "{}",
        run.outcome()
    );
}

#[test]
fn a_mistake_in_fetch_toml_is_told_as_standing_there() {
    let mistakes = [
        ("allow = [\"a b\"]", "allow[0]: `a b` is no host"),
        ("alow = [\"any\"]", "unknown field `alow`"),
        ("[[registry]]\nhost = \"A\"", "registry[0].endpoint: `A`"),
        ("[[registry]]\nhosts = \"a\"", "unknown field `hosts`"),
        ("ports = [443, 9]", "ports: port 9"),
        ("ports = \"all\"", "in `ports`"),
    ];
    let mut instance = Instance::new();
    let file = instance.state().join("fetch.toml");
    let file_name = file.to_str().unwrap().to_owned();
    for (text, due) in mistakes {
        std::fs::write(&file, text).unwrap();
        let told = instance.tell("list", &[]).assert_code(10);
        let said = &told.said;
        assert!(said.contains(&format!("{file_name}: ")), "{text}: {said}");
        assert!(said.contains(due), "{text}: {said}");
        assert!(!said.contains("belljard.toml"), "{text}: {said}");
    }
    // As it is without them.
    std::fs::write(&file, "allow = [\"any\"]").unwrap();
    instance.tell("list", &[]).assert_code(0);
}

#[test]
fn over_tls_only_who_is_vouched_for_is_believed() {
    let (port, authority) = over_tls(b"in private\n");
    let (_, other) = over_tls(b"of another authority");
    let url = format!("https://localhost:{port}/x");
    for (name, pem, due) in [("good", authority, None), ("other", other, Some("TLS"))] {
        let mut instance = Instance::configured();
        let ca = instance.state().join("config/ca.pem");
        std::fs::write(&ca, pem).unwrap();
        let ca = format!("ca = {:?}", ca.to_str().unwrap());
        start(&mut instance, port, &ca);
        let client = instance.client();
        let wanted = file(std::slice::from_ref(&url), b"in private\n");
        let spec = spec(&client, "cat /deps/x/file > out", &[("x", wanted)]);
        let build = run(&client, name, &spec);
        let outcome = build.outcome.unwrap();
        match due {
            None => assert_eq!(outcome, Outcome::Succeeded),
            Some(due) => assert!(outcome.to_string().contains(due), "{outcome}"),
        }
    }
}
