use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use belljar_core::Digest;
use belljar_tests::{Part, Project, Run, wait_for};
use serde_json::{Value, json};

use crate::server::{Answer, Authority, Guard, INDEX, Registry, SLOW, Takes};
use crate::{Puller, credentials, page};

/// How long somebody may take to ask, or to notice that nobody asks any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// A registry that takes what is pushed to `out/*`, and a build that has left an image.
fn built(authority: &Authority, takes: Takes, lines: &str) -> (Registry, Puller, Run) {
    let registry = authority.registry();
    registry.takes(takes);
    let lines = format!("push = [\"out/*\"]\n{lines}");
    let mut puller = Puller::new(authority, &registry, &lines, "");
    let script = "mkdir -p root; echo hello > root/hello";
    let project = Project::of(
        &[script],
        &["root"],
        "[output.oci]\nbase = \"scratch\"\nroot = \"root\"",
    );
    let run = puller.instance.run(&project);
    run.assert_succeeded();
    (registry, puller, run)
}

impl Puller {
    /// `belljar image push --json`.
    fn push(&mut self, run: &Run, reference: &str) -> belljar_tests::Told {
        let build = run.json["build"].as_str().unwrap().to_owned();
        self.instance
            .tell("image push", &["--json", &build, reference])
    }
}

fn why(told: belljar_tests::Told, code: i32) -> String {
    let said = told.assert_code(code).json("belljar.error/v1");
    said["error"].as_str().unwrap().to_owned()
}

fn at(registry: &Registry, path: &str) -> Value {
    let content = registry.content(path);
    let content = content.unwrap_or_else(|| panic!("{path}: {:?}", registry.has()));
    serde_json::from_slice(&content).unwrap()
}

/// How often a method was used, of what was asked since the last time.
fn count(registry: &Registry, method: &str) -> usize {
    registry
        .asked()
        .iter()
        .filter(|one| one.method == method)
        .count()
}

#[test]
fn an_image_and_its_provenance_are_pushed_and_once_only() {
    let authority = Authority::new();
    for takes in [Takes::AndLists, Takes::Plainly] {
        let (registry, mut puller, run) = built(&authority, takes, "");
        let reference = format!("{}/out/app:1", registry.host());
        let pushed = puller
            .push(&run, &reference)
            .assert_code(0)
            .json("belljar.push/v1");
        page::Shapes::read().check(&pushed);
        assert_eq!(pushed["image"], run.json["image"]["manifest"]);
        assert_eq!(pushed["listed_by_registry"], takes == Takes::AndLists);
        let digest = pushed["image"]["digest"].as_str().unwrap();
        let manifest = at(&registry, &format!("/v2/out/app/manifests/{digest}"));
        assert_eq!(at(&registry, "/v2/out/app/manifests/1"), manifest);
        // The tag came last: who finds the image by it finds what refers to it.
        let asked = registry.asked();
        assert_eq!(asked.last().unwrap().path, "/v2/out/app/manifests/1");

        // What refers to it is the bundle, to the byte, as cosign looks for it.
        let attestation = pushed["attestation"]["digest"].as_str().unwrap();
        let referrer = at(&registry, &format!("/v2/out/app/manifests/{attestation}"));
        assert_eq!(referrer["subject"]["digest"], digest);
        assert_eq!(
            referrer["artifactType"],
            "application/vnd.dev.sigstore.bundle.v0.3+json"
        );
        let bundle = referrer["layers"][0]["digest"].as_str().unwrap();
        let bundle = registry
            .content(&format!("/v2/out/app/blobs/{bundle}"))
            .unwrap();
        assert_eq!(bundle, run.file("image.oci.sigstore.json"));
        let tag = format!("/v2/out/app/manifests/{}", digest.replace(':', "-"));
        match takes {
            Takes::AndLists => assert!(registry.content(&tag).is_none()),
            Takes::Plainly => {
                let list = at(&registry, &tag);
                assert_eq!(list["manifests"][0]["digest"], attestation);
                assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
            }
        }

        // Once more: the same comes of it, and no content is sent.
        let again = puller
            .push(&run, &reference)
            .assert_code(0)
            .json("belljar.push/v1");
        assert_eq!(
            (&again["image"], &again["attestation"]),
            (&pushed["image"], &pushed["attestation"])
        );
        assert_eq!(count(&registry, "POST"), 0);
        // Each is on record.
        let audit = puller.instance.said(Part::Belljard);
        assert_eq!(audit.matches("an image was pushed").count(), 2, "{audit}");
    }
}

/// cosign, which nobody here wrote, finds the provenance beside the image and verifies it. It comes from a suite that moves:
/// where there is none that is said, as by the suite `evidence`.
#[test]
fn cosign_finds_the_provenance_beside_the_image() {
    let told = std::env::var("BELLJAR_TEST_COSIGN");
    let told = told.expect("BELLJAR_TEST_COSIGN; `cargo xtask test` provides it");
    if let Some(why) = told.strip_prefix("absent: ") {
        eprintln!("cosign is not asked: {why}");
        return;
    }
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::Plainly, "");
    registry.answer("/v2/", Answer::of(b"{}", "application/json"));
    let reference = format!("{}/out/app:1", registry.host());
    puller.push(&run, &reference).assert_code(0);
    let other = puller.instance.run(&Project::of(
        &["mkdir root; echo other > root/hello"],
        &["root"],
        "[output.oci]\nbase = \"scratch\"\nroot = \"root\"",
    ));
    let home = tempfile::tempdir().unwrap();
    let (ca, foreign) = (home.path().join("ca.pem"), home.path().join("foreign.pub"));
    fs::write(&ca, authority.pem()).unwrap();
    let key = Authority::new();
    let own = run.output().join("builder.pub");
    let verify = |key: &Path| {
        let output = Command::new(&told)
            .args(["verify-attestation", "--type", "slsaprovenance1"])
            .arg("--insecure-ignore-tlog=true")
            .arg("--key")
            .arg(key)
            .arg(&reference)
            .env("HOME", home.path())
            .env("SSL_CERT_FILE", &ca)
            .output();
        output.unwrap()
    };
    let good = verify(&own);
    assert!(good.status.success(), "{good:?}");
    let said = String::from_utf8(good.stdout).unwrap();
    let statement: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(statement["payloadType"], "application/vnd.in-toto+json");
    fs::write(&foreign, key.public_pem()).unwrap();
    assert!(!verify(&foreign).status.success(), "another key");
    // The tag is moved to another image, which nobody has attested there.
    let digest = other.json["image"]["manifest"]["digest"].as_str().unwrap();
    puller
        .push(&other, &format!("{}/out/other:1", registry.host()))
        .assert_code(0);
    let manifest = registry
        .content(&format!("/v2/out/other/manifests/{digest}"))
        .unwrap();
    for name in ["1", digest] {
        let answer = Answer::of(&manifest, crate::server::MANIFEST);
        registry.answer(&format!("/v2/out/app/manifests/{name}"), answer);
    }
    assert!(!verify(&own).status.success(), "another image");
}

#[test]
fn what_was_pushed_is_pulled_and_run_on() {
    let authority = Authority::new();
    let registry = authority.registry();
    registry.takes(Takes::AndLists);
    let mut puller = Puller::new(&authority, &registry, "push = [\"out/*\"]", "");
    // An image with a shell, out of a build.
    let root = belljar_tests::TreeOf::root_file_system();
    for (path, content, program) in root.files() {
        match program {
            true => puller
                .dir
                .write_executable(&format!("root/{path}"), content),
            false => puller.dir.write(&format!("root/{path}"), content),
        };
    }
    let text = "image = \"host\"\nrun = [\"echo made > root/release\"]\noutputs = [\"root\"]\n[output.oci]\nbase = \"scratch\"\nroot = \"root\"\n";
    puller.dir.write("belljar.toml", text);
    let run = puller.instance.run(&puller.dir);
    run.assert_succeeded();
    let reference = format!("{}/out/app:1", registry.host());
    puller.push(&run, &reference).assert_code(0);
    let pulled = crate::image(puller.pull(&[&reference, "--name", "own"]));
    assert_eq!(pulled["source"]["object"], run.json["image"]["manifest"]);
    let on = "image = \"own\"\nrun = [\"cat /release > out\"]\noutputs = [\"out\"]\n";
    fs::remove_dir_all(puller.dir.path().join("root")).unwrap();
    puller.dir.write("belljar.toml", on);
    let run = puller.instance.run(&puller.dir);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"made\n");
    assert_eq!(
        run.statement("out")["predicate"]["buildDefinition"]["internalParameters"]["hermetic"],
        true
    );
}

#[test]
fn nothing_is_pushed_but_what_was_built_to_where_the_operator_allows() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::AndLists, "");
    let host = registry.host();
    let other = Digest::of(b"another image");
    let plain = puller.instance.run(&Project::script("echo x > out"));
    let failed = puller.instance.run(&Project::of(
        &["exit 3"],
        &["out"],
        "[output.oci]\nbase = \"scratch\"",
    ));
    registry.asked();
    for (run, reference, code, due) in [
        (&run, format!("{host}/team/c:1"), 7, "is not among `push`"),
        (
            &run,
            "r.example/out/app:1".to_owned(),
            7,
            "does not allow to push to `r.example`",
        ),
        (
            &run,
            "out/app:1".to_owned(),
            2,
            "does not begin with the host",
        ),
        (
            &run,
            format!("{host}/out/app:sha256-{}", other.to_hex()),
            2,
            "choose another one",
        ),
        (
            &run,
            format!("{host}/out/app:1@{other}"),
            2,
            "the image of the build is sha256:",
        ),
        (&plain, format!("{host}/out/app:1"), 2, "has left no image"),
        (&failed, format!("{host}/out/app:1"), 2, "has left no image"),
    ] {
        let why = why(puller.push(run, &reference), code);
        assert!(why.contains(due), "{reference}: {why}");
    }
    let told = puller.instance.tell(
        "image push",
        &[
            "--json",
            "01jd8q6z8r4x7j2m5t9v0w3y6b",
            &format!("{host}/out/app:1"),
        ],
    );
    assert!(why(told, 2).contains("01jd8q6z8r4x7j2m5t9v0w3y6b"));
    assert!(registry.asked().is_empty(), "nobody was asked");
}

#[test]
fn of_an_image_that_is_gone_it_is_said_what_helps() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::AndLists, "");
    let digest = run.json["image"]["manifest"]["digest"].as_str().unwrap();
    let (start, rest) = digest.strip_prefix("sha256:").unwrap().split_at(2);
    let objects = puller.instance.state().join("store/objects/sha256");
    fs::remove_file(objects.join(start).join(rest)).unwrap();
    let why = why(
        puller.push(&run, &format!("{}/out/app:1", registry.host())),
        2,
    );
    assert!(
        why.contains("no longer kept") && why.contains(digest) && why.contains("belljar store pin"),
        "{why}"
    );
    assert!(registry.asked().is_empty());
}

#[test]
fn a_push_that_broke_off_is_gone_on_with_and_leaves_no_tag() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::AndLists, "");
    let reference = format!("{}/out/app:1", registry.host());
    let denied = json!({"errors": [{"code": "DENIED", "message": "quota\u{1b}[2J"}]}).to_string();
    let mut full = Answer::of(denied.as_bytes(), "application/json");
    full.status = "403 Forbidden";
    for (start, answer, code, due) in [
        (
            "POST /v2/out/app/blobs",
            Answer::status("503 Service Unavailable"),
            8,
            "status 503",
        ),
        ("PUT /v2/out/app/manifests/sha256", full, 2, "DENIED, quota"),
        (
            "PUT /v2/out/app/manifests/1",
            Answer::status("400 Bad Request"),
            2,
            "status 400",
        ),
        (
            "HEAD /v2/out/app/blobs",
            Answer::status("500 Internal Server Error"),
            8,
            "status 500",
        ),
    ] {
        registry.trouble(Some((start, answer)));
        let why = why(puller.push(&run, &reference), code);
        assert!(
            why.contains(due) && !why.contains('\u{1b}'),
            "{start}: {why}"
        );
        assert!(
            registry.content("/v2/out/app/manifests/1").is_none(),
            "{start}"
        );
    }
    registry.trouble(None);
    registry.asked();
    puller.push(&run, &reference).assert_code(0);
    assert_eq!(
        count(&registry, "POST"),
        0,
        "what had come was not sent again"
    );
    assert!(registry.content("/v2/out/app/manifests/1").is_some());
    // One that keeps content elsewhere says so where it has it: nobody goes there, and nothing is sent.
    let mut kept = Answer::status("307 Temporary Redirect");
    kept.headers
        .push("location: https://elsewhere.example/blob".to_owned());
    registry.trouble(Some(("HEAD /v2/out/app/blobs", kept)));
    registry.asked();
    puller.push(&run, &reference).assert_code(0);
    assert_eq!(count(&registry, "POST"), 0);
}

#[test]
fn nothing_goes_to_where_a_registry_sends_and_it_keeps_what_it_was_given() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::AndLists, "");
    // A registry that wants content to be sent elsewhere, where the operator's credentials would go, or to what is another's.
    let host = registry.host();
    let (other, plain) = (authority.registry(), format!("http://{host}/upload"));
    let port = format!("https://{}/upload", other.host());
    let bare = format!("//{}/upload", other.host());
    let user = format!("https://{host}@elsewhere.example/upload");
    for (location, due) in [
        (
            "https://elsewhere.example/upload",
            "to be sent to `elsewhere.example`",
        ),
        (&port, "to be sent to `localhost:"),
        (&bare, "to be sent to `localhost:"),
        (&plain, "it sends from https to http"),
        (&user, "where nothing is"),
        (
            "/v2/secret/private/blobs/uploads/1",
            "none of the repository `out/other`",
        ),
        (
            "/v2/out/other/blobs/uploads/../../../../secret/blobs/uploads/1",
            "none of the repository",
        ),
    ] {
        let mut elsewhere = Answer::status("202 Accepted");
        elsewhere.headers.push(format!("location: {location}"));
        registry.trouble(Some(("POST /v2/out/other/blobs", elsewhere)));
        let why = why(puller.push(&run, &format!("{host}/out/other:1")), 2);
        assert!(why.contains(due), "{location}: {why}");
    }
    // One that sends elsewhere with what is pushed: nobody goes there.
    for start in [
        "POST /v2/out/other/blobs",
        "PUT /v2/out/other/blobs",
        "PUT /v2/out/other/manifests",
    ] {
        registry.trouble(Some((start, Answer::redirect(&port))));
        let why = why(puller.push(&run, &format!("{host}/out/other:1")), 2);
        assert!(why.contains("status 307"), "{start}: {why}");
    }
    assert!(other.asked().is_empty());
    // One that says that it keeps something else than it was given.
    let mut lying = Answer::status("201 Created");
    let else_ = Digest::of(b"something else");
    lying
        .headers
        .push(format!("docker-content-digest: {else_}"));
    registry.trouble(Some(("PUT /v2/out/other/manifests", lying)));
    let told = why(puller.push(&run, &format!("{host}/out/other:1")), 2);
    assert!(told.contains("the registry keeps sha256:"), "{told}");
    assert!(registry.content("/v2/out/other/manifests/1").is_none());
}

#[test]
fn a_registry_that_lists_what_refers_to_another_image_does_not_list_this_ones() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::Plainly, "");
    let mut another = Answer::status("201 Created");
    let other = Digest::of(b"another image");
    another.headers.push(format!("oci-subject: {other}"));
    registry.trouble(Some(("PUT /v2/out/app/manifests/sha256:", another)));
    let pushed = puller
        .push(&run, &format!("{}/out/app:1", registry.host()))
        .assert_code(0)
        .json("belljar.push/v1");
    assert_eq!(pushed["listed_by_registry"], false);
    let digest = pushed["image"]["digest"].as_str().unwrap();
    let tag = format!("/v2/out/app/manifests/{}", digest.replace(':', "-"));
    assert_eq!(
        at(&registry, &tag)["manifests"][0]["digest"],
        pushed["attestation"]["digest"]
    );
}

/// Whoever hangs up ends the call, and what is at the registry by then stays there.
#[test]
fn who_hangs_up_in_the_middle_is_on_record_with_what_was_pushed_or_pulled() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::AndLists, "");
    let reference = format!("{}/out/app:1", registry.host());
    let build = run.json["build"].as_str().unwrap();
    let lock = puller.lock();
    let pull = ["--name", "x", "--lock", lock.to_str().unwrap()];
    let tag = "/v2/out/app/manifests/1";
    for (command, arguments, held, due) in [
        (
            "image push",
            [&[build, reference.as_str()][..], &[]].concat(),
            format!("PUT {tag}"),
            "an image was not pushed to the end",
        ),
        (
            "image pull",
            [&[reference.as_str()][..], &pull].concat(),
            format!("GET {tag}"),
            "an image was not pulled",
        ),
    ] {
        registry.hold(Some(&held));
        let mut caller = puller.instance.command(command);
        let mut caller = caller.args(&arguments).spawn().unwrap();
        wait_for(&held, PATIENCE, || {
            let asked = registry.asked();
            let named = |one: &crate::server::Asked| format!("{} {}", one.method, one.path);
            asked.iter().any(|one| named(one) == held).then_some(())
        });
        caller.kill().unwrap();
        caller.wait().unwrap();
        let line = wait_for(due, PATIENCE, || {
            let said = puller.instance.said(Part::Belljard);
            said.lines()
                .find(|line| line.contains(due))
                .map(str::to_owned)
        });
        assert!(
            line.contains("audit") && line.contains(&reference) && line.contains("has hung up"),
            "{line}"
        );
        registry.hold(None);
    }
    assert!(registry.content(tag).is_some(), "it had been pushed");
    assert!(
        !puller
            .instance
            .said(Part::Belljard)
            .contains("an image was pushed")
    );
    // And it can be done once more.
    puller.push(&run, &reference).assert_code(0);
}

#[test]
fn what_is_no_list_of_referrers_is_not_replaced() {
    let authority = Authority::new();
    let (registry, mut puller, run) = built(&authority, Takes::Plainly, "");
    let reference = format!("{}/out/app:1", registry.host());
    let digest = run.json["image"]["manifest"]["digest"].as_str().unwrap();
    let tag = format!("/v2/out/app/manifests/{}", digest.replace(':', "-"));
    let large = vec![b' '; (4 << 20) + 1];
    for (there, due) in [
        (&b"nonsense"[..], "is no list of referrers"),
        (b"{\"manifests\":7}", "is no list of referrers"),
        (&large, "more comes than"),
    ] {
        registry.answer(&tag, Answer::of(there, INDEX));
        let why = why(puller.push(&run, &reference), 2);
        assert!(why.contains(due), "{why}");
        assert_eq!(registry.content(&tag).unwrap(), there);
        assert!(registry.content("/v2/out/app/manifests/1").is_none());
    }
}

#[test]
fn the_operators_credentials_are_used_and_for_pushing_asked_for() {
    let authority = Authority::new();
    let (_dir, file) = credentials("pusher:hunter2");
    let (registry, mut puller, run) = built(
        &authority,
        Takes::AndLists,
        &format!("credentials = {file:?}"),
    );
    let reference = format!("{}/out/app:1", registry.host());
    registry.guard(Some(Guard::Basic("pusher:hunter2")));
    puller.push(&run, &reference).assert_code(0);
    let realm = format!("https://{}/token", registry.host());
    registry.guard(Some(Guard::Token {
        realm,
        token: "a-token",
    }));
    let mut answer = Answer::of(b"{\"token\":\"a-token\"}", "application/json");
    answer.wants = Some("pusher:hunter2");
    registry.answer("/token", answer);
    registry.asked();
    let again = format!("{}/out/more:1", registry.host());
    puller.push(&run, &again).assert_code(0);
    let asked = registry.asked();
    let token = asked
        .iter()
        .find(|one| one.path.starts_with("/token"))
        .unwrap();
    assert!(
        token
            .path
            .ends_with("scope=repository%3Aout%2Fmore%3Apull%2Cpush"),
        "{token:?}"
    );
    // A token of somewhere else would have the credentials go there.
    let elsewhere = authority.registry();
    let realm = format!("https://{}/token", elsewhere.host());
    registry.guard(Some(Guard::Token {
        realm,
        token: "b-token",
    }));
    let told = why(
        puller.push(&run, &format!("{}/out/third:1", registry.host())),
        2,
    );
    assert!(told.contains("it sends for a token to"), "{told}");
    assert!(elsewhere.asked().is_empty());
    registry.guard(Some(Guard::Basic("pusher:other")));
    let why = why(
        puller.push(&run, &format!("{}/out/third:1", registry.host())),
        2,
    );
    assert!(
        why.contains("`credentials`") && !why.contains("hunter2"),
        "{why}"
    );
    let audit = puller.instance.said(Part::Belljard);
    assert!(
        audit.contains("an image was not pushed") && !audit.contains("hunter2"),
        "{audit}"
    );
}

#[test]
fn a_registry_that_dribbles_has_no_more_time_than_one_url_may_take() {
    let authority = Authority::new();
    let slow = |status: &'static str| Answer {
        status,
        headers: vec![format!("content-type: {INDEX}"), SLOW.to_owned()],
        ..Answer::of(&[b' '; 400], INDEX)
    };
    let registry = authority.registry();
    registry.takes(Takes::Plainly);
    let mut puller = Puller::new(
        &authority,
        &registry,
        "push = [\"out/*\"]",
        "timeout_seconds = 1",
    );
    let more = "[output.oci]\nbase = \"scratch\"\nroot = \"root\"";
    let project = Project::of(&["mkdir root; echo hello > root/hello"], &["root"], more);
    let run = puller.instance.run(&project);
    run.assert_succeeded();
    let reference = format!("{}/out/app:1", registry.host());
    for (place, status, due) in [
        (
            "PUT /v2/out/app/manifests/",
            "500 Internal Server Error",
            "status 500",
        ),
        (
            "GET /v2/out/app/manifests/sha256-",
            "200 OK",
            "longer than the 1 s",
        ),
    ] {
        registry.trouble(Some((place, slow(status))));
        let begun = Instant::now();
        let why = why(puller.push(&run, &reference), 8);
        assert!(why.contains(due), "{why}");
        assert!(begun.elapsed() < PATIENCE, "{place}");
    }
}
