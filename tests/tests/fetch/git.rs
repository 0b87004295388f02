use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use belljar_attest::verify;
use belljar_core::{Digest, Fetch, FetchUrl, GitFetch, GitId, Mirrors, Outcome};
use belljar_tests::{Client, Instance, Project};
use belljar_wire::{ArtifactKind, BuildRecord};
use serde_json::{Value, json};

use crate::repository::{GitServer, Lie, Repositories, line, pack, result};
use crate::server::said;
use crate::{ended, run, spec, submit, told};

/// A commit, from these repositories.
fn commit(urls: &[String], commit: GitId, submodules: bool) -> Fetch {
    let urls = urls.iter().map(|url| FetchUrl::new(url).unwrap());
    Fetch::Git(GitFetch {
        repositories: Mirrors::new(urls.collect()).unwrap(),
        commit,
        submodules,
    })
}

/// One that fetches from this server.
fn started(server: &GitServer) -> Instance {
    let mut instance = Instance::configured();
    crate::start(&mut instance, server.port(), "");
    instance
}

/// Resolved dependencies that are commits.
fn commits(client: &Client, build: &BuildRecord) -> Vec<Value> {
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let bundle: Value = serde_json::from_slice(&bundle).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, payload);
    let statement: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    let all = statement["predicate"]["buildDefinition"]["resolvedDependencies"].clone();
    let mut all = all.as_array().unwrap().clone();
    all.retain(|dependency| dependency["digest"]["gitCommit"].is_string());
    all
}

/// A repository with a history, whose last commit has all that a tree can have.
fn fill(repositories: &Repositories, name: &str) -> GitId {
    let path = repositories.create(name);
    let text = |count: usize| {
        (0..count)
            .map(|n| format!("{n} of many lines\n"))
            .collect::<String>()
    };
    fs::write(path.join("gone"), text(3000)).unwrap();
    repositories.commit(name);
    fs::remove_file(path.join("gone")).unwrap();
    fs::create_dir_all(path.join("src/deep")).unwrap();
    fs::write(path.join("tool"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(path.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path.join("empty"), "").unwrap();
    // Some of which git makes of others.
    for count in [2000, 2001, 2002] {
        fs::write(path.join(format!("src/deep/{count}")), text(count)).unwrap();
    }
    fs::write(path.join("src/same"), text(2000)).unwrap();
    std::os::unix::fs::symlink("deep/2001", path.join("src/link")).unwrap();
    repositories.commit(name);
    repositories.git(name, &["gc", "--quiet", "--aggressive", "--prune=now"]);
    repositories.head(name)
}

/// What `git archive` says of a commit, as a build lists what it sees: one line for each file and link.
const LISTING: &str = "cd /deps/x && find . -type f -printf '%P %m ' -exec sha256sum -b {} ';' | sed 's/ [^ ]*$//' | sort; \
                       find . -type l -printf '%P -> %l\\n' | sort";

#[test]
fn a_build_sees_the_tree_of_a_commit_and_the_provenance_names_it() {
    let repositories = Repositories::new();
    let head = fill(&repositories, "app");
    let tree = repositories.named("app", "HEAD^{tree}");
    let server = repositories.serve(vec![]);
    let instance = started(&server);
    let client = instance.client();
    let wanted = commit(&[server.url("app")], head, false);
    let script = format!(
        "({LISTING}) > out; /deps/x/tool >> out; ! touch /deps/x/new; ! test -e /deps/x/.git"
    );
    let build = run(&client, "one", &spec(&client, &script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));

    // The same as git itself makes of it.
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("x")).unwrap();
    let archive = repositories.git("app", &["archive", "--format=tar", &head.to_string()]);
    tar::Archive::new(&archive[..])
        .unpack(other.path().join("x"))
        .unwrap();
    let listing = LISTING.replace("/deps", other.path().to_str().unwrap());
    let due = std::process::Command::new("sh")
        .args(["-c", &listing])
        .output()
        .unwrap()
        .stdout;
    let due = String::from_utf8(due)
        .unwrap()
        .replace(" 664 ", " 644 ")
        .replace(" 775 ", " 755 ");
    let ArtifactKind::File { object, .. } = build.artifacts[0].kind.clone() else {
        panic!("{:?}", build.artifacts)
    };
    let out = client.read(object).unwrap();
    assert_eq!(
        String::from_utf8(out.clone()).unwrap(),
        format!("{due}tool\n")
    );

    // One commit, and nothing of what came before it.
    let asked = server.asked();
    let (_, request) = &asked[1];
    assert!(
        request.contains("deepen 1") && request.contains(&format!("want {head}")),
        "{request}"
    );
    let events = told(&client, &build);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["digest"], format!("gitCommit:{head}"));
    assert_eq!(events[0]["found"]["kind"], "fetched");
    assert_eq!(events[0]["tries"][0]["url"], server.url("app"));
    let pack = &events[0]["found"]["content"];

    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    let key = client.server_info().public_key_pem;
    let verdict = verify(&bundle, &key, &Digest::of(&out)).unwrap();
    assert!(verdict.inputs.contains_key("x"));
    let hex = pack["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    let due = json!([{
        "uri": format!("git+{}@{head}", server.url("app")),
        "digest": { "gitCommit": head.to_string(), "gitTree": tree.to_string() },
        "annotations": {
            "belljar_input": "deps/x",
            "belljar_asserted": ["uri"],
            "belljar_pack": hex,
            "belljar_size": pack["size"],
        },
    }]);
    assert_eq!(Value::from(commits(&client, &build)), due);
}

#[test]
fn submodules_are_fetched_by_their_commits_from_where_gitmodules_says() {
    let repositories = Repositories::new();
    for (name, file, text) in [("inner", "deep", "inner\n"), ("middle", "mid", "middle\n")] {
        let path = repositories.create(name);
        fs::write(path.join(file), text).unwrap();
        repositories.commit(name);
    }
    let add = |name: &str, url: &str, at: &str| {
        repositories.git(name, &["submodule", "--quiet", "add", url, at]);
        repositories.commit(name)
    };
    let inner = repositories.head("inner");
    let local = |name: &str| repositories.path(name).to_str().unwrap().to_owned();
    add("middle", &local("inner"), "in/ner");
    let relative = |name: &str, at: &str, url: &str| {
        let key = format!("submodule.{at}.url");
        repositories.git(name, &["config", "--file", ".gitmodules", &key, url]);
        repositories.commit(name)
    };
    let middle = relative("middle", "in/ner", "../inner");
    repositories.create("outer");
    add("outer", &local("middle"), "sub");
    let server = repositories.serve(vec![]);
    let outer = relative("outer", "sub", &server.url("middle"));
    let instance = started(&server);
    let client = instance.client();

    // Without them an empty directory stands there, as git has it.
    let wanted = commit(&[server.url("outer")], outer, false);
    let script = "test -d /deps/x/sub && test -z \"$(ls /deps/x/sub)\" && echo none > out";
    let build = run(&client, "none", &spec(&client, script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(commits(&client, &build).len(), 1);

    let wanted = commit(&[server.url("outer")], outer, true);
    let script = "cat /deps/x/sub/mid /deps/x/sub/in/ner/deep > out";
    let build = run(&client, "all", &spec(&client, script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let events = told(&client, &build);
    let found = events.iter().map(|event| {
        let kind = event["found"]["kind"].as_str().unwrap();
        (event["submodule"].as_str().unwrap_or_default(), kind)
    });
    let due = [
        ("", "present"),
        ("sub", "fetched"),
        ("sub/in/ner", "fetched"),
    ];
    assert_eq!(found.collect::<Vec<_>>(), due);
    let key = client.server_info().public_key_pem;
    let bundle = client.read(build.evidence.bundle.unwrap()).unwrap();
    assert!(verify(&bundle, &key, &Digest::of(b"middle\ninner\n")).is_ok());
    let named = commits(&client, &build);
    let named = named.iter().map(|one| {
        let at = one["annotations"]["belljar_submodule"].as_str();
        (
            at.unwrap_or_default(),
            one["uri"].as_str().unwrap().to_owned(),
        )
    });
    let uri = |name: &str, commit: GitId| format!("git+{}@{commit}", server.url(name));
    let due = [
        ("", uri("outer", outer)),
        ("sub", uri("middle", middle)),
        ("sub/in/ner", uri("inner", inner)),
    ];
    assert_eq!(named.collect::<Vec<_>>(), due);
}

#[test]
fn a_submodule_that_may_not_be_fetched_ends_the_build() {
    let repositories = Repositories::new();
    let path = repositories.create("outer");
    let module = "0123456789abcdef0123456789abcdef01234567";
    let cacheinfo = format!("160000,{module},sub");
    repositories.git(
        "outer",
        &["update-index", "--add", "--cacheinfo", &cacheinfo],
    );
    let server = repositories.serve(vec![]);
    let instance = started(&server);
    let client = instance.client();
    for (name, url, due) in [
        (
            "inside",
            Some("http://10.0.0.1/x"),
            "not allow to fetch from `10.0.0.1`",
        ),
        ("ssh", Some("git@127.0.0.1:x"), "not an absolute URL"),
        ("file", Some("/etc"), "not an absolute URL"),
        ("above", Some("../../../x"), "above the root"),
        ("missing", Some("../missing"), "404"),
        ("nowhere", None, "does not say where it can be had"),
    ] {
        let text = url.map_or_else(String::new, |url| {
            format!("[submodule \"s\"]\npath = sub\nurl = {url}\n")
        });
        fs::write(path.join(".gitmodules"), text).unwrap();
        repositories.git("outer", &["add", ".gitmodules"]);
        repositories.git("outer", &["commit", "--quiet", "-m", name]);
        let wanted = commit(&[server.url("outer")], repositories.head("outer"), true);
        let build = run(&client, name, &spec(&client, "true", &[("x", wanted)]));
        let outcome = build.outcome.unwrap().to_string();
        assert!(
            outcome.contains(due) && outcome.contains("`sub`"),
            "{name}: {outcome}"
        );
    }

    // Nor does it help that the project has that commit, by what it may fetch.
    fs::write(repositories.create("inner").join("x"), "x").unwrap();
    let inner = repositories.commit("inner");
    let wanted = commit(&[server.url("inner")], inner, false);
    let script = "cp /deps/x/x out";
    let build = run(&client, "inner", &spec(&client, script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let cacheinfo = format!("160000,{inner},sub");
    repositories.git("outer", &["update-index", "--cacheinfo", &cacheinfo]);
    let outer = |name: &str, url: &str| {
        let text = format!("[submodule \"s\"]\npath = sub\nurl = {url}\n");
        fs::write(path.join(".gitmodules"), text).unwrap();
        repositories.git("outer", &["add", ".gitmodules"]);
        repositories.git("outer", &["commit", "--quiet", "-m", "known"]);
        let wanted = commit(&[server.url("outer")], repositories.head("outer"), true);
        let script = "cp /deps/x/sub/x out";
        run(&client, name, &spec(&client, script, &[("x", wanted)]))
    };
    let denied = outer("denied", "http://denied.example/x");
    let outcome = denied.outcome.unwrap().to_string();
    let due = "not allow to fetch from `denied.example`";
    assert!(outcome.contains(due), "{outcome}");
    let asked = server.asked().len();
    let known = outer("known", &server.url("elsewhere"));
    assert_eq!(known.outcome, Some(Outcome::Succeeded));
    assert_eq!(told(&client, &known)[1]["found"]["kind"], "present");
    assert_eq!(server.asked().len(), asked + 2);
}

#[test]
fn a_mirror_that_lies_is_passed_over() {
    let repositories = Repositories::new();
    let head = fill(&repositories, "app");
    repositories.create("other");
    fs::write(repositories.path("other").join("x"), "x").unwrap();
    let other = repositories.commit("other");
    let packed = |name: &str, commit: GitId| {
        let wanted = format!("{commit}\n");
        let arguments = ["pack-objects", "--revs", "--stdout", "--quiet"];
        repositories.git_with(name, &arguments, wanted.as_bytes())
    };
    let server = repositories.serve(vec![
        (
            "/other/git-upload-pack".to_owned(),
            pack(packed("other", other)),
        ),
        (
            "/whole/git-upload-pack".to_owned(),
            pack(packed("app", head)),
        ),
        (
            "/gone/info/refs".to_owned(),
            Box::new(|stream, _| said(stream, "503 Service Unavailable", &[], b"")),
        ),
    ]);
    repositories.create("whole");
    let instance = started(&server);
    let client = instance.client();
    let urls = ["gone", "missing", "other", "whole", "app"].map(|name| server.url(name));
    let script = "/deps/x/tool > out";
    let build = run(
        &client,
        "one",
        &spec(&client, script, &[("x", commit(&urls, head, false))]),
    );
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    let events = told(&client, &build);
    let tries = events[0]["tries"].as_array().unwrap();
    let due = [
        Some("503"),
        Some("404"),
        Some("has not got that commit"),
        Some("history is not fetched"),
        None,
    ];
    assert_eq!(tries.len(), due.len(), "{tries:#?}");
    for (one, due) in tries.iter().zip(due) {
        match due {
            Some(due) => assert!(one["refused"].as_str().unwrap().contains(due), "{one}"),
            None => assert!(one["refused"].is_null(), "{one}"),
        }
    }
    // What the project has is not fetched again, from wherever.
    let asked = server.asked().len();
    let wanted = commit(&[server.url("elsewhere")], head, false);
    let script = "/deps/x/tool > out; date >> out";
    let build = run(&client, "two", &spec(&client, script, &[("x", wanted)]));
    assert_eq!(build.outcome, Some(Outcome::Succeeded));
    assert_eq!(told(&client, &build)[0]["found"]["kind"], "present");
    assert_eq!(server.asked().len(), asked);
    // But not from where nothing may be fetched.
    let urls = ["http://169.254.169.254/app".to_owned()];
    let wanted = commit(&urls, head, false);
    let build = run(&client, "three", &spec(&client, "true", &[("x", wanted)]));
    let outcome = build.outcome.clone().unwrap().to_string();
    assert!(outcome.contains("must not be connected to"), "{outcome}");
    let events = told(&client, &build);
    assert_eq!(events[0]["found"]["kind"], "nothing");
    assert_eq!(events[0]["tries"][0]["url"], urls[0]);
}

#[test]
fn what_servers_answer_instead_of_a_commit_is_refused() {
    let repositories = Repositories::new();
    let head = fill(&repositories, "app");
    let advertisement = "content-type: application/x-git-upload-pack-advertisement";
    let lies: Vec<(&str, Lie, &str)> = vec![
        (
            "page",
            Box::new(|stream, _| said(stream, "200 OK", &["content-type: text/html"], b"<html>")),
            "answers with `text/html`",
        ),
        (
            "old",
            Box::new(move |stream, _| {
                let refs = [
                    line(b"# service=git-upload-pack\n"),
                    b"0000".to_vec(),
                    line(b"0123 HEAD\0thin-pack\n"),
                ]
                .concat();
                said(stream, "200 OK", &[advertisement], &refs);
            }),
            "does not speak version 2",
        ),
        (
            "deep",
            Box::new(move |stream, _| {
                let refs = [
                    line(b"version 2\n"),
                    line(b"fetch=filter\n"),
                    b"0000".to_vec(),
                ]
                .concat();
                said(stream, "200 OK", &[advertisement], &refs);
            }),
            "without its history",
        ),
        (
            "sha256",
            Box::new(move |stream, _| {
                let refs = [
                    line(b"version 2\n"),
                    line(b"fetch=shallow\n"),
                    line(b"object-format=sha256\n"),
                    b"0000".to_vec(),
                ]
                .concat();
                said(stream, "200 OK", &[advertisement], &refs);
            }),
            "otherwise than by SHA-1",
        ),
        (
            "noise",
            Box::new(move |stream, _| {
                said(stream, "200 OK", &[advertisement], b"zzzz what is this")
            }),
            "not made of pkt-lines",
        ),
        (
            "endless",
            Box::new(move |stream, _| {
                said(
                    stream,
                    "200 OK",
                    &[advertisement],
                    &line(&[b'x'; 60_000]).repeat(3),
                );
            }),
            "more comes than the 65536 bytes",
        ),
        (
            "inside",
            Box::new(|stream, _| {
                said(
                    stream,
                    "302 Found",
                    &["location: http://169.254.169.254/info/refs?service=git-upload-pack"],
                    b"",
                )
            }),
            "169.254.169.254",
        ),
        (
            "aside",
            Box::new(|stream, _| said(stream, "302 Found", &["location: /app/HEAD"], b"")),
            "so there is no repository",
        ),
    ];
    let packs: Vec<(&str, Lie, &str)> = vec![
        (
            "moved",
            Box::new(|stream, _| {
                said(
                    stream,
                    "302 Found",
                    &["location: /app/git-upload-pack"],
                    b"",
                )
            }),
            "sends elsewhere what it is asked for",
        ),
        (
            "cut",
            Box::new(|stream, git| {
                let honest = git();
                let _ = std::io::Write::write_all(stream, &honest[..honest.len() - 100]);
            }),
            "broke off",
        ),
        (
            "early",
            Box::new(|stream, _| {
                result(stream, &[line(b"packfile\n"), line(b"\x01PACK")].concat())
            }),
            "broke off before its end",
        ),
        (
            "more",
            Box::new(|stream, _| {
                result(
                    stream,
                    &[
                        line(b"packfile\n"),
                        line(b"\x01PACK"),
                        b"0000".to_vec(),
                        line(b"x"),
                    ]
                    .concat(),
                )
            }),
            "not what git's protocol has",
        ),
        (
            "none",
            Box::new(|stream, _| result(stream, b"0000")),
            "gives no pack",
        ),
        (
            "says",
            Box::new(|stream, _| result(stream, &line(b"ERR go away \x1b[31m\n"))),
            "it says: go away \\u{1b}[31m",
        ),
        (
            "later",
            Box::new(|stream, _| {
                result(
                    stream,
                    &[line(b"packfile\n"), line(b"\x03out of memory")].concat(),
                )
            }),
            "it says: out of memory",
        ),
        (
            "huge",
            Box::new(|stream, _| {
                said(
                    stream,
                    "200 OK",
                    &[
                        "content-type: application/x-git-upload-pack-result",
                        "content-length: 99999999999",
                    ],
                    &[line(b"packfile\n"), line(b"\x01PACK")].concat(),
                )
            }),
            "broke off",
        ),
    ];
    let (mut all, mut dues) = (Vec::new(), Vec::new());
    for (place, lies) in [("info/refs", lies), ("git-upload-pack", packs)] {
        for (name, lie, due) in lies {
            repositories.create(name);
            dues.push((name, due));
            all.push((format!("/{name}/{place}"), lie));
        }
    }
    // The one that is honest for a while has the commit.
    repositories.git("cut", &["fetch", "--quiet", "../app", "main"]);
    let server = repositories.serve(all);
    let instance = started(&server);
    let client = instance.client();
    for (name, due) in dues {
        let wanted = commit(&[server.url(name)], head, false);
        let build = run(&client, name, &spec(&client, "true", &[("x", wanted)]));
        let outcome = build.outcome.clone().unwrap().to_string();
        assert!(outcome.contains(due), "{name}: {outcome}");
        assert!(
            told(&client, &build)[0]["found"]["kind"] == "nothing",
            "{name}"
        );
    }
}

#[test]
fn a_commit_that_is_not_there_is_said_so() {
    let repositories = Repositories::new();
    fill(&repositories, "app");
    let server = repositories.serve(vec![]);
    let instance = started(&server);
    let client = instance.client();
    let missing = GitId::new("0123456789abcdef0123456789abcdef01234567").unwrap();
    let wanted = commit(&[server.url("app")], missing, false);
    let build = run(&client, "one", &spec(&client, "true", &[("x", wanted)]));
    let outcome = build.outcome.unwrap().to_string();
    assert!(outcome.contains("not our ref"), "{outcome}");
}

#[test]
fn two_builds_that_want_one_commit_at_once_ask_once() {
    let repositories = Repositories::new();
    let head = fill(&repositories, "app");
    let slow: Lie = Box::new(|stream, git| {
        std::thread::sleep(std::time::Duration::from_secs(3));
        let _ = std::io::Write::write_all(stream, &git());
    });
    let server = repositories.serve(vec![("/app/git-upload-pack".to_owned(), slow)]);
    let instance = started(&server);
    let client = instance.client();
    let of = |text: &str| {
        let script = format!("/deps/x/tool > out; echo {text} >> out");
        spec(
            &client,
            &script,
            &[("x", commit(&[server.url("app")], head, false))],
        )
    };
    let builds = ["one", "two"].map(|name| submit(&client, name, &of(name)));
    let mut shared = 0;
    for build in &builds {
        let build = ended(&client, build);
        assert_eq!(build.outcome, Some(Outcome::Succeeded));
        shared += usize::from(told(&client, &build)[0]["tries"][0]["shared"] == true);
    }
    assert_eq!((server.packs(), shared), (1, 1));
}

#[test]
fn a_project_declares_a_commit_and_its_story_is_told() {
    let repositories = Repositories::new();
    let head = fill(&repositories, "app");
    let server = repositories.serve(vec![]);
    let mut instance = Instance::new();
    let port = server.port();
    let settings =
        format!("allow = [\"127.0.0.1\"]\nports = [{port}]\nallow_private = [\"127.0.0.0/8\"]\n");
    fs::write(instance.state().join("fetch.toml"), settings).unwrap();
    let more = format!(
        "[fetch.x]\ngit = \"{}\"\ncommit = \"{head}\"",
        server.url("app")
    );
    let project = Project::of(&["/deps/x/tool > out"], &["out"], &more);
    let run = instance.run(&project);
    run.assert_succeeded();
    run.assert_verified("out");
    let attempt = run.attempt();
    let build = attempt.split('-').next().unwrap().to_owned();
    let story = instance
        .tell("audit show", &[&build])
        .assert_code(0)
        .printed;
    assert!(story.contains("x was fetched: sha256:"), "{story}");
    assert!(
        story.contains(&format!("{}, status 200", server.url("app"))),
        "{story}"
    );
}
