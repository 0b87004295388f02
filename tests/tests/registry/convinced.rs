use std::fs;

use belljar_tests::Part;
use serde_json::json;

use crate::server::{Answer, Asked, Authority, Guard, MANIFEST, Registry};
use crate::{Puller, credentials, image, layer};

const PASSWORD: &str = "robot:correct-horse";

/// Keeps an image under the tag `1`.
fn filled(registry: &Registry) {
    let image = registry.image(&[layer([("release", &b"one"[..], false)])]);
    registry.manifest(&image, MANIFEST, Some("1"));
}

/// What gives this token to who shows user and password.
fn giving(token: &str, wants: Option<&'static str>) -> Answer {
    let body = json!({"token": token, "expires_in": 300}).to_string();
    let mut answer = Answer::of(body.as_bytes(), "application/json");
    answer.wants = wants;
    answer
}

#[test]
fn a_token_is_had_for_the_operators_credentials_and_shown_to_the_registry_alone() {
    let authority = Authority::new();
    let (registry, tokens, content) = (
        authority.registry(),
        authority.registry(),
        authority.registry(),
    );
    filled(&registry);
    let realm = format!("https://{}/token", tokens.host());
    tokens.answer("/token", giving("of-today", Some(PASSWORD)));
    registry.guard(Some(Guard::Token {
        realm,
        token: "of-today",
    }));
    // A layer is somewhere else, as with most registries.
    let found = registry_layer(&registry, &content);
    let (_kept, path) = credentials(&format!("{PASSWORD}\n"));
    let lines = format!(
        "tokens = \"{}\"\nredirects = [\"localhost\"]\ncredentials = {path:?}",
        tokens.host()
    );
    let ports = format!("ports = [443, {}]", content.port());
    let mut puller = Puller::new(&authority, &registry, &lines, &ports);
    let reference = format!("{}/team/c:1", registry.host());
    image(puller.pull(&[&reference, "--name", "c"]));

    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        asked[0].path,
        "/token?service=registry&scope=repository%3Ateam%2Fc%3Apull"
    );
    assert!(
        asked[0]
            .authorization
            .as_ref()
            .unwrap()
            .starts_with("Basic ")
    );
    // The registry itself sees the token and never the password; who has the content sees neither.
    let shown: Vec<_> = registry
        .asked()
        .into_iter()
        .map(|one| one.authorization)
        .collect();
    assert_eq!(shown[0], None);
    assert!(
        shown[1..]
            .iter()
            .all(|one| one.as_deref() == Some("Bearer of-today")),
        "{shown:?}"
    );
    let asked = content.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        (asked[0].path.as_str(), &asked[0].authorization),
        (found.as_str(), &None)
    );

    // Neither is anywhere else.
    let base64 = "cm9ib3Q6Y29ycmVjdC1ob3JzZQ";
    for secret in ["correct-horse", base64, "of-today"] {
        let log = puller.instance.said(Part::Belljard);
        assert!(!log.contains(secret), "{log}");
        let lock = fs::read_to_string(puller.lock()).unwrap();
        assert!(!lock.contains(secret), "{lock}");
    }

    // The file is read for each pull, and a wrong password is no secret, either.
    fs::write(&path, "robot:battery-staple").unwrap();
    let why = puller.refusal(&reference, 2);
    assert!(
        why.contains("no token is given for it") && why.contains("credentials"),
        "{why}"
    );
    assert!(!why.contains("battery-staple"), "{why}");
    fs::remove_file(&path).unwrap();
    let why = puller.refusal(&reference, 8);
    assert!(why.contains("credentials for it cannot be used"), "{why}");
}

/// Has the layer of the image somewhere else. Gives where.
fn registry_layer(registry: &Registry, content: &Registry) -> String {
    let bytes = layer([("release", &b"one"[..], false)]);
    let descriptor = crate::server::descriptor(&bytes, "");
    let at = format!(
        "/v2/team/c/blobs/{}",
        descriptor["digest"].as_str().unwrap()
    );
    let signed = "/layer?signature=for-a-while";
    let location = format!("https://{}{signed}", content.host());
    registry.answer(&at, Answer::redirect(&location));
    content.answer("/layer", Answer::of(&bytes, "application/octet-stream"));
    signed.to_owned()
}

#[test]
fn nobody_else_gets_credentials_whoever_asks_for_them() {
    let authority = Authority::new();
    let (registry, thief) = (authority.registry(), authority.registry());
    filled(&registry);
    thief.answer("/token", giving("stolen", None));
    thief.guard(Some(Guard::Basic("nobody:knows")));
    let (_kept, path) = credentials(PASSWORD);
    let ports = format!("ports = [443, {}]", thief.port());
    let lines = format!("redirects = [\"any\"]\ncredentials = {path:?}");
    let mut puller = Puller::new(&authority, &registry, &lines, &ports);
    let reference = format!("{}/team/c:1", registry.host());
    for (realm, due) in [
        (
            format!("https://{}/token", thief.host()),
            "which is neither itself nor `tokens`",
        ),
        (format!("http://{}/token", registry.host()), "by http"),
        (
            "https://169.254.169.254/token".to_owned(),
            "which is neither itself nor `tokens`",
        ),
    ] {
        registry.guard(Some(Guard::Token { realm, token: "x" }));
        let why = puller.refusal(&reference, 2);
        assert!(why.contains(due), "{why}");
    }
    // Nor by a redirect.
    registry.guard(None);
    let location = format!("https://{}/v2/team/c/manifests/1", thief.host());
    registry.answer("/v2/team/c/manifests/1", Answer::redirect(&location));
    let why = puller.refusal(&reference, 2);
    assert!(why.contains("which wants credentials"), "{why}");
    // Nor by one from where tokens are given.
    let realm = format!("https://{}/token", registry.host());
    registry.guard(Some(Guard::Token { realm, token: "x" }));
    let location = format!("https://{}/token", thief.host());
    registry.answer("/token", Answer::redirect(&location));
    puller.refusal(&reference, 2);
    let asked = thief.asked();
    assert!(
        asked.iter().all(|one| one.authorization.is_none()),
        "{asked:?}"
    );
    assert!(
        asked.iter().all(|one| one.path.starts_with("/v2/")),
        "{asked:?}"
    );
    // What gives tokens gives what is none.
    for body in [
        "",
        "{}",
        "{\"token\": \"\"}",
        "{\"token\": \"a b\"}",
        "{\"token\": \"a\\r\\nx: y\"}",
    ] {
        registry.answer("/token", Answer::of(body.as_bytes(), "application/json"));
        let why = puller.refusal(&reference, 2);
        assert!(why.contains("something else than a token"), "{body}: {why}");
    }
    let much = "x".repeat(70_000);
    registry.answer("/token", Answer::of(much.as_bytes(), "application/json"));
    let why = puller.refusal(&reference, 2);
    assert!(why.contains("65536 bytes"), "{why}");
}

#[test]
fn user_and_password_are_shown_where_they_are_asked_for() {
    let authority = Authority::new();
    let registry = authority.registry();
    filled(&registry);
    registry.guard(Some(Guard::Basic(PASSWORD)));
    let reference = format!("{}/team/c:1", registry.host());
    let mut without = Puller::new(&authority, &registry, "", "");
    let why = without.refusal(&reference, 2);
    assert!(why.contains("the operator has no `credentials`"), "{why}");
    let (_kept, path) = credentials(PASSWORD);
    let lines = format!("credentials = {path:?}");
    let mut puller = Puller::new(&authority, &registry, &lines, "");
    image(puller.pull(&[&reference, "--name", "c"]));
    registry.guard(Some(Guard::Basic("robot:another")));
    let why = puller.refusal(&reference, 2);
    assert!(why.contains("are not good for this repository"), "{why}");
    // A registry that everybody may read asks for nothing, and is shown nothing.
    registry.guard(None);
    registry.asked();
    image(puller.pull(&[&reference, "--name", "c", "--update"]));
    assert!(
        registry
            .asked()
            .iter()
            .all(|one| one.authorization.is_none())
    );
}

#[test]
fn a_token_that_has_run_out_is_had_again_and_one_for_everybody_without_credentials() {
    let authority = Authority::new();
    let registry = authority.registry();
    filled(&registry);
    let realm = format!("https://{}/token", registry.host());
    let guard = |token| {
        Some(Guard::Token {
            realm: realm.clone(),
            token,
        })
    };
    registry.guard(guard("first"));
    registry.answer("/token", giving("first", None));
    let mut puller = Puller::new(&authority, &registry, "", "");
    let reference = format!("{}/team/c:1", registry.host());
    image(puller.pull(&[&reference, "--name", "c"]));
    // Of another time.
    registry.guard(guard("second"));
    let why = puller.refusal(&reference, 2);
    assert!(why.contains("the operator has no `credentials`"), "{why}");
    registry.answer("/token", giving("second", None));
    image(puller.pull(&[&reference, "--name", "c"]));
}

/// Who is sent to can send back, and would choose what the registry is asked for in the operator's name.
#[test]
fn credentials_are_shown_for_the_one_repository_and_not_where_others_send_to() {
    let authority = Authority::new();
    let (registry, content) = (authority.registry(), authority.registry());
    filled(&registry);
    registry.guard(Some(Guard::Basic(PASSWORD)));
    let manifest = registry.image(&[layer([("release", &b"one"[..], false)])]);
    let manifest = Answer::of(manifest.to_string().as_bytes(), MANIFEST);
    for place in ["/v2/secret/manifests/1", "/signed/manifest"] {
        registry.answer(place, manifest.clone());
    }
    let (_kept, path) = credentials(PASSWORD);
    let lines = format!("redirects = [\"localhost\"]\ncredentials = {path:?}");
    let ports = format!("ports = [443, {}]", content.port());
    let mut puller = Puller::new(&authority, &registry, &lines, &ports);
    let (here, there) = (registry.host(), content.host());
    let reference = format!("{here}/team/c:sent");
    let at = "/v2/team/c/manifests/sent";
    let secret = format!("https://{here}/v2/secret/manifests/1");
    let none = "none of the repository `team/c`";
    for (first, second, due) in [
        (format!("https://{there}/x"), secret.as_str(), none),
        (
            format!("https://{there}/x"),
            &format!("https://{here}/v2/team/c/manifests/1"),
            "which wants credentials",
        ),
        (secret.clone(), "", none),
        (secret.replace("localhost", "LocalHost"), "", none),
        (
            format!("https://{here}/v2/team/c/manifests/../../../secret/manifests/1"),
            "",
            none,
        ),
        (
            format!("https://{here}/v2/team/c/manifests/%2e%2e/%2e%2e/%2e%2e/secret/manifests/1"),
            "",
            none,
        ),
        ("/v2/team/c/d/manifests/1".to_owned(), "", none),
        ("../../secret/manifests/1".to_owned(), "", none),
        (
            secret.replace("localhost", "localhost."),
            "",
            "where nothing is pulled from",
        ),
        (
            secret.replace("https://", "https://robot@"),
            "",
            "where nothing is pulled from",
        ),
        (
            secret.replace("https://", "http://"),
            "",
            "from https to http",
        ),
    ] {
        registry.answer(at, Answer::redirect(&first));
        content.answer("/x", Answer::redirect(second));
        registry.asked();
        let why = puller.refusal(&reference, 2);
        assert!(why.contains(due), "{first}, {second}: {why}");
        let asked = registry.asked();
        let shown = |one: &&Asked| one.authorization.is_some();
        let paths: Vec<_> = asked.iter().filter(shown).map(|one| &one.path).collect();
        assert_eq!(paths, [at], "{first}, {second}: {asked:?}");
        assert!(asked.iter().all(|one| !one.path.contains("secret")));
    }
    let asked = content.asked();
    assert!(asked.iter().all(|one| one.authorization.is_none()));
    // Within the repository, and to a place that says by itself what it is good for.
    for (location, shown) in [("1", true), ("/signed/manifest", false)] {
        registry.answer(at, Answer::redirect(location));
        registry.asked();
        image(puller.pull(&[&reference, "--name", "c", "--update"]));
        let asked = registry.asked();
        let last = asked.iter().find(|one| one.path.ends_with(location));
        assert_eq!(
            last.unwrap().authorization.is_some(),
            shown,
            "{location}: {asked:?}"
        );
    }
}
