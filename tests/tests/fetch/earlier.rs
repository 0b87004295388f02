use std::fs;
use std::time::Duration;

use belljar_attest::verify;
use belljar_core::{
    ArtifactFetch, ArtifactForm, BuilderId, Digest, Fetch, ObjectId, Outcome, RelPath, Unpack,
    bounds,
};
use belljar_tests::{Client, Instance, Part, Project, wait_for};
use belljar_tree::{Leaf, SymlinkTarget};
use belljar_wire::{ArtifactKind, BuildRecord};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{is_stored, run, spec, told};

/// What an earlier build has left, by its digest.
fn artifact(digest: Digest, form: ArtifactForm) -> ArtifactFetch {
    ArtifactFetch {
        artifact: digest,
        form,
        build: None,
        builder: None,
    }
}

fn file(content: &[u8], name: &str, executable: bool) -> ArtifactFetch {
    let unpack = Unpack::file(name, executable).unwrap();
    artifact(Digest::of(content), ArtifactForm::File(unpack))
}

/// The predicate's resolved dependencies with an attempt that left them.
fn producers(client: &Client, build: &BuildRecord) -> Vec<Value> {
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload);
    let statement: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    let all = statement["predicate"]["buildDefinition"]["resolvedDependencies"].clone();
    let mut all = all.as_array().unwrap().clone();
    all.retain(|dependency| dependency["annotations"]["belljar_attempt"].is_string());
    all
}

/// How a build of this ended.
fn refusal(client: &Client, name: &str, fetch: ArtifactFetch) -> String {
    let spec = spec(client, "echo never > out", &[("x", Fetch::Artifact(fetch))]);
    let build = run(client, name, &spec);
    assert_eq!(told(client, &build)[0]["found"]["kind"], "nothing");
    match build.outcome.unwrap() {
        Outcome::Refused { reasons } => reasons.join("; "),
        other => panic!("{other}"),
    }
}

const TOOL: &[u8] = b"#!/bin/sh\necho tool\n";

/// A build that leaves a program, an archive and a directory.
fn first(client: &Client, request: &str) -> BuildRecord {
    let script = "printf '#!/bin/sh\\necho tool\\n' > tool; mkdir -p cache/a/b cache/empty; echo one > cache/a/b/one; \
                  echo two > cache/two; cp cache/two cache/same; : > cache/a/stamp; chmod +x cache/two; ln -s a/b/one cache/link; \
                  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf all.tar cache";
    let spec = client.spec(&[], &[script], &["tool", "cache", "all.tar"]);
    let build = run(client, request, &spec);
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    build
}

/// The tree of its directory.
fn cache() -> Digest {
    let path = |text: &str| RelPath::new(text).unwrap();
    let file = |text: &str, executable| Leaf::File {
        object: ObjectId::of(text.as_bytes()),
        executable,
    };
    let built = belljar_tree::build([
        (path("a/b/one"), file("one\n", false)),
        (path("a/stamp"), file("", false)),
        (path("same"), file("two\n", false)),
        (path("two"), file("two\n", true)),
        (
            path("link"),
            Leaf::Symlink {
                target: SymlinkTarget::new("a/b/one").unwrap(),
            },
        ),
        (path("empty"), Leaf::EmptyDirectory),
    ]);
    built.unwrap().root.digest
}

#[test]
fn a_build_is_given_what_an_earlier_one_left_and_the_provenance_names_it() {
    let instance = Instance::started();
    let client = instance.client();
    let producer = first(&client, "first");
    let archive = producer
        .artifacts
        .iter()
        .find_map(|artifact| match artifact.kind {
            ArtifactKind::File { object, .. } if artifact.path.as_str() == "all.tar" => {
                Some(object)
            }
            _ => None,
        });
    let archive = archive.unwrap().digest;

    let script = "/deps/tool/run > out; cat /deps/seed/link /deps/seed/two >> out; test -d /deps/seed/empty; \
                  test -x /deps/seed/two; ! test -x /deps/seed/a/b/one; cat /deps/tar/a/b/one >> out; \
                  ! echo > /deps/seed/two; ! touch /deps/seed/new";
    let tar = artifact(archive, ArtifactForm::File(Unpack::tar(1).unwrap()));
    let fetches = [
        ("tool", file(TOOL, "run", true)),
        ("seed", artifact(cache(), ArtifactForm::Directory)),
        ("tar", tar),
    ];
    let fetches = fetches.map(|(name, fetch)| (name, Fetch::Artifact(fetch)));
    let build = run(&client, "second", &spec(&client, script, &fetches));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let out = b"tool\none\ntwo\none\n";
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let key = client.server_info().public_key_pem;
    let verdict = verify(&bundle, &key, &Digest::of(out)).unwrap();
    assert!(verdict.inputs.contains_key("seed") && verdict.inputs.contains_key("tool"));

    // Who has left it is in the trail, and signed.
    let attempt = format!("{}-1", producer.id);
    let provenance = producer.evidence.bundle.unwrap().digest;
    let events = told(&client, &build);
    assert_eq!(events.len(), 3);
    for event in &events {
        assert_eq!(event["found"]["kind"], "left", "{event}");
        assert_eq!(event["found"]["by"], attempt.as_str());
        assert_eq!(event["found"]["project"], "default");
        assert_eq!(event["found"]["provenance"], provenance.to_string());
    }
    let producers = producers(&client, &build);
    assert_eq!(producers.len(), 3, "{producers:?}");
    let builder = verify(
        &client.read(producer.evidence.bundle.unwrap()).unwrap(),
        &key,
        &Digest::of(TOOL),
    );
    let builder = builder.unwrap();
    let due = json!({
        "uri": builder.invocation,
        "digest": { "sha256": cache().to_hex() },
        "annotations": {
            "belljar_input": "deps/seed",
            "belljar_attempt": attempt,
            "belljar_builder": builder.builder,
            "belljar_provenance": provenance.to_hex(),
            "belljar_message": "build.bazel.remote.execution.v2.Directory",
            "belljar_output": "cache",
            "belljar_receipt": producer.evidence.receipt.unwrap().digest.to_hex(),
            "belljar_project": "default",
            "belljar_asserted": ["annotations.belljar_project"],
            "belljar_size": events[0]["found"]["tree"]["size"],
        },
    });
    assert_eq!(events[0]["name"], "seed");
    assert!(producers.contains(&due), "{producers:#?}\n{due:#}");
    let tool = producers
        .iter()
        .find(|found| found["annotations"]["belljar_input"] == "deps/tool");
    assert_eq!(tool.unwrap()["digest"]["sha256"], Digest::of(TOOL).to_hex());
}

#[test]
fn of_several_builds_the_first_is_named_or_the_one_that_is_asked_for() {
    let instance = Instance::started();
    let client = instance.client();
    let both = ["first", "again"].map(|request| first(&client, request));
    let by = |request: &str, narrow: &dyn Fn(&mut ArtifactFetch)| {
        let mut fetch = file(TOOL, "run", true);
        narrow(&mut fetch);
        let wanted = [("x", Fetch::Artifact(fetch))];
        let script = format!("/deps/x/run > out; echo {request} >> out");
        let build = run(&client, request, &spec(&client, &script, &wanted));
        assert_eq!(build.outcome, Some(Outcome::Succeeded));
        let by = producers(&client, &build)[0]["annotations"]["belljar_attempt"].clone();
        by.as_str().unwrap().split('-').next().unwrap().to_owned()
    };
    let [one, two] = both.each_ref().map(|build| build.id.to_string());
    assert_eq!(by("any", &|_| {}), one);
    assert_eq!(by("same", &|_| {}), one);
    let second = both[1].id.clone();
    assert_eq!(
        by("named", &|fetch| fetch.build = Some(second.clone())),
        two
    );
    let key = client.server_info().public_key_pem;
    let bundle = client.read(both[0].evidence.bundle.unwrap()).unwrap();
    let builder = verify(&bundle, &key, &Digest::of(TOOL)).unwrap().builder;
    let due = BuilderId::new(builder.as_str()).unwrap();
    assert_eq!(
        by("builder", &|fetch| fetch.builder = Some(due.clone())),
        one
    );
    // Another builder's is not taken for that.
    let mut other = file(TOOL, "run", true);
    other.builder = Some(BuilderId::new("urn:other/builders/hermetic/v1").unwrap());
    let why = refusal(&client, "other", other.clone());
    let due = format!("it is by the builder {builder}, not by urn:other/builders/hermetic/v1");
    assert!(why.contains(&due), "{why}");
    // Where there may be more of them than were looked at, that is said, and what helps.
    let hint = "name another one by `build`";
    assert!(!why.contains(hint), "{why}");
    for number in both.len()..bounds::PRODUCERS {
        first(&client, &format!("more-{number}"));
    }
    let why = refusal(&client, "others", other);
    assert!(why.contains(&due) && why.contains(hint), "{why}");
}

#[test]
fn what_nobody_has_left_with_provenance_that_holds_is_refused_and_leaves_nothing() {
    let mut instance = Instance::configured();
    instance.start();
    let client = instance.client();
    let script = "printf 'of a failure' > out; exit 3";
    let failed = run(&client, "failed", &client.spec(&[], &[script], &["out"]));
    assert!(matches!(failed.outcome, Some(Outcome::Failed { .. })));
    // Something that was only uploaded is no artifact, neither is a directory that is no output of its own.
    client.put(b"uploaded");
    for (name, content) in [("a", &b"of a failure"[..]), ("b", b"uploaded"), ("c", b"")] {
        let why = refusal(&client, name, file(content, "x", false));
        let due = format!(
            "no build that succeeded, of the project `default`, or of one that lends to it, has left {}",
            Digest::of(content)
        );
        assert!(why.contains(&due), "{why}");
    }
    let producer = first(&client, "first");
    let mut named = file(TOOL, "x", false);
    named.build = Some(failed.id);
    let why = refusal(&client, "d", named);
    assert!(why.contains("is no build that succeeded"), "{why}");
    // A file's digest is no directory's, nor the other way round.
    let why = refusal(
        &client,
        "e",
        artifact(Digest::of(TOOL), ArtifactForm::Directory),
    );
    assert!(
        why.contains("its receipt does not name the directory; a file is had without"),
        "{why}"
    );
    let why = refusal(
        &client,
        "f",
        artifact(
            cache(),
            ArtifactForm::File(Unpack::file("x", false).unwrap()),
        ),
    );
    assert!(
        why.contains(
            "its provenance does not name the file; a directory is had by `directory = true`"
        ),
        "{why}"
    );

    // Provenance that was changed, or is another's, or is gone.
    let attempt = format!("{}-1", producer.id);
    let path = instance
        .state()
        .join(format!("evidence/{attempt}.sigstore.json"));
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 40;
    let mut changed = text.clone().into_bytes();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    fs::write(&path, &changed).unwrap();
    let why = refusal(&client, "g", file(TOOL, "x", false));
    assert!(
        why.contains("its provenance is not what was signed"),
        "{why}"
    );
    fs::write(&path, &good).unwrap();
    // Nothing of all this is left: only what a build was given has a tree.
    let tree = belljar_tree::build([(
        RelPath::new("x").unwrap(),
        Leaf::File {
            object: ObjectId::of(TOOL),
            executable: false,
        },
    )]);
    let root = &tree.unwrap().directories[0].1;
    assert!(!is_stored(&instance, root));
    let wanted = [("x", Fetch::Artifact(file(TOOL, "x", false)))];
    let build = run(&client, "h", &spec(&client, "cat /deps/x/x > out", &wanted));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert!(is_stored(&instance, root));
}

/// A build that never was.
const NEVER: &str = "builds/01jd8q6z8r4x7j2m5t9v0w3y6a";

/// Members of two further projects, which root is.
fn of_projects(lent: &str) -> String {
    let project = |name: &str, more: &str| {
        format!(
            "\n[[project]]\nname = \"{name}\"\n{more}\n[[project.member]]\nprincipal = \"unix:uid=0\"\nrights = [\"submit\", \"read\"]\n"
        )
    };
    [
        project("base", ""),
        project("web", lent),
        project("other", ""),
    ]
    .concat()
}

#[test]
fn another_projects_artifact_is_not_there_unless_the_operator_lends_it() {
    let mut instance = Instance::configured();
    let path = instance.state().join("config/belljard.toml");
    let plain = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{plain}{}", of_projects(""))).unwrap();
    instance.start();
    let made = Project::of(&["echo seed > seed"], &["seed"], "");
    let run = instance.run_with(&made, &["--project", "base"]);
    run.assert_succeeded();
    let by = run.json["build"].as_str().unwrap().to_owned();
    let digest = Digest::of(b"seed\n");
    let more = format!("[fetch.x]\nartifact = \"{digest}\"\nfile_name = \"seed\"");
    let wanted = Project::of(&["cat /deps/x/seed > out"], &["out"], &more);
    let none = Digest::of(b"what never was");
    let never = more.replace(&digest.to_hex(), &none.to_hex());
    let never = Project::of(&["cat /deps/x/seed > out"], &["out"], &never);
    let of = |digest: &Digest, more: &str| {
        let more = format!("[fetch.x]\nartifact = \"{digest}\"\n{more}");
        Project::of(&["cat /deps/x/seed > out"], &["out"], &more)
    };
    let build = |build: &str| format!("file_name = \"seed\"\nbuild = \"{build}\"");
    let named = (of(&digest, &build(&by)), of(&none, &build(NEVER)));
    let more = "directory = true";
    let directories = (of(&digest, more), of(&none, more));
    let refused = |instance: &mut Instance, project: &Project, of: &str| {
        let run = instance.run_with(project, &["--project", of]);
        assert_eq!(run.exit_code, 7, "{}", run.outcome());
        run.outcome().to_string()
    };
    // The words are those for what never was.
    for of in ["web", "default"] {
        let one = refused(&mut instance, &wanted, of);
        let two = refused(&mut instance, &never, of);
        assert_eq!(one.replace(&digest.to_hex(), &none.to_hex()), two);
        // Nor does it help to know which build has left it, or to take it for a directory.
        for (one, two) in [&named, &directories] {
            let one = refused(&mut instance, one, of);
            let two = refused(&mut instance, two, of);
            assert_eq!(
                one.replace(&digest.to_hex(), &none.to_hex())
                    .replace(&by, NEVER),
                two
            );
        }
    }
    // Lent, from SIGHUP on; to that project only, and in that direction.
    let lent = of_projects("artifacts_of = [\"base\"]");
    fs::write(&path, format!("{plain}{lent}")).unwrap();
    let pid = i32::try_from(instance.pid_of(Part::Belljard)).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    wait_for("the rules are read again", Duration::from_secs(60), || {
        let said = instance.said(Part::Belljard);
        said.contains("who may do what was read again")
            .then_some(())
    });
    let run = instance.run_with(&wanted, &["--project", "web"]);
    run.assert_succeeded();
    run.assert_verified("out");
    assert_eq!(run.file("out"), b"seed\n");
    refused(&mut instance, &wanted, "other");
    refused(&mut instance, &wanted, "default");
    // The trail says whose it was.
    let trail = String::from_utf8(run.file("audit.jsonl")).unwrap();
    let from = "\"project\":\"base\",\"provenance\"";
    assert!(trail.contains(from), "{trail}");
}
