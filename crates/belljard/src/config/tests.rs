use super::*;
use belljar_core::{FetchUrl, ProjectId};
use belljar_policy::{Right, Rights, Way};
use proptest::prelude::*;

#[path = "../../../../fuzz/changes.rs"]
mod changes;

use changes::changed;

const GOOD: &str = r#"
    socket = "/s/run/belljard/belljard.sock"
    store_socket = "/s/run/store/store.sock"
    spawner_socket = "/s/run/spawner/spawner.sock"
    signer_socket = "/s/run/signer/signer.sock"
    store_root = "/s/store"
    receipts = "/s/receipts"
    evidence = "/s/evidence"
    state = "/s/daemon"
    slots = 2
    allowed_uids = [0]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("b.toml"), text).map_err(|e| crate::tasks::chain(&e))
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.policy.caps(), &Limits::CEILING);
    let config = parse(&format!("{GOOD}\n[caps]\npids = 64")).unwrap();
    assert_eq!(config.policy.caps().get().pids, 64);
    assert_eq!(config.defaults.get().pids, 64, "no default beyond its cap");
    let more = "[caps]\npids = 64\n[defaults]\npids = 32\ngrace_seconds = 1";
    let config = parse(&format!("{GOOD}\n{more}")).unwrap();
    let defaults = config.defaults.get();
    assert_eq!((defaults.pids, defaults.grace_seconds), (32, 1));
    assert_eq!(defaults.wall_seconds, Limits::DEFAULT.get().wall_seconds);
    assert!(config.tls.is_none());
    let config = parse(&GOOD.replace("[0]", "[1000]")).unwrap();
    assert_eq!(
        [0, 1000, 7].map(|uid| rights(&config, &format!("unix:uid={uid}"), "default")),
        [Rights::ALL, Rights::ALL, Rights::NONE]
    );
    let config = parse(&GOOD.replace("allowed_uids = [0]", "")).unwrap();
    assert_eq!(rights(&config, "unix:uid=0", "default"), Rights::ALL);
}

fn rights(config: &Config, who: &str, project: &str) -> Rights {
    let grants = config.policy.grants(&who.parse().unwrap());
    grants.with(&ProjectId::new(project).unwrap())
}

const TLS: &str = r#"
    [[project]]
    name = "web"
    [[project.member]]
    principal = "spiffe://td/web/*"
    rights = ["read", "submit"]
    [[project]]
    name = "default"
    [[project.member]]
    principal = "x509:CN=ops"
    rights = ["administer"]
    [tls]
    listen = "[::1]:8980"
    certificate = "/t/cert"
    key = "/t/key"
    client_ca = "/t/ca"
"#;

#[test]
fn projects_and_their_members() {
    let config = parse(&format!("{GOOD}{TLS}")).unwrap();
    assert_eq!(config.tls.as_ref().unwrap().listen.port(), 8980);
    for (who, project, due) in [
        ("spiffe://td/web/ci", "web", vec!["submit", "read"]),
        ("spiffe://td/web/ci", "default", vec![]),
        ("x509:CN=ops", "default", vec!["administer"]),
        (
            "unix:uid=0",
            "default",
            vec!["submit", "cancel", "read", "administer"],
        ),
        ("unix:uid=0", "web", vec![]),
    ] {
        let due: Rights = due
            .into_iter()
            .map(|name| Right::named(name).unwrap())
            .collect();
        assert_eq!(rights(&config, who, project), due, "{who} {project}");
    }
}

#[test]
fn mistakes_in_projects_and_tls_name_their_field() {
    for (from, to, due) in [
        ("\"web\"", "\"Web\"", "project[0].name"),
        ("\"web\"", "\"blobs\"", "project[0].name"),
        (
            "\"web\"",
            "\"default\"",
            "project[1]: the project `default` is there twice",
        ),
        (
            "spiffe://td/web/*",
            "spiffe://td/*/web",
            "project[0].member[0].principal",
        ),
        (
            "spiffe://td/web/*",
            "nobody",
            "project[0].member[0].principal",
        ),
        (
            "\"submit\"]",
            "\"submit\", \"all\"]",
            "project[0].member[0].rights",
        ),
        (
            "\"submit\"]",
            "\"submit\", \"read\"]",
            "project[0].member[0].rights",
        ),
        (
            "[\"administer\"]",
            "[]",
            "project[1]: project `default`: `x509:CN=ops` has no right",
        ),
        (
            "x509:CN=ops",
            "unix:uid=0",
            "project[1]: project `default`: `unix:uid=0` is named twice",
        ),
        ("rights =", "right =", "right"),
        ("[::1]:8980", "localhost:8980", "tls.listen"),
        ("/t/key", "key", "tls.key"),
        ("client_ca", "client_cas", "client_cas"),
        ("client_ca = \"/t/ca\"", "", "client_ca"),
    ] {
        let error = parse(&format!("{GOOD}{}", TLS.replacen(from, to, 1))).unwrap_err();
        assert!(error.contains(due), "{to}: {error}");
    }
}

#[test]
fn artifacts_are_those_of_the_own_project_unless_others_are_named() {
    let with = |of: &str| {
        let text = TLS.replacen("\"web\"", &format!("\"web\"\nartifacts_of = {of}"), 1);
        parse(&format!("{GOOD}{text}"))
    };
    let lenders = |config: &Config, of: &str| {
        let of = ProjectId::new(of).unwrap();
        let lenders = config.policy.access().lenders(&of).into_iter();
        lenders.map(String::from).collect::<Vec<_>>()
    };
    let plain = parse(&format!("{GOOD}{TLS}")).unwrap();
    assert!(lenders(&plain, "web").is_empty());
    // A project that comes later in the file may be named, too.
    let lent = with("[\"default\"]").unwrap();
    assert_eq!(lenders(&lent, "web"), ["default"]);
    assert!(lenders(&lent, "default").is_empty());
    for (of, due) in [
        ("[\"A\"]", "project[0].artifacts_of[0]: "),
        (
            "[\"web\"]",
            "project[0].artifacts_of: project `web`: it has its own artifacts anyway",
        ),
        (
            "[\"none\"]",
            "project[0].artifacts_of: project `web`: there is no project `none`",
        ),
        (
            "[\"default\", \"default\"]",
            "project[0].artifacts_of: project `web`: `default` is named twice",
        ),
        ("true", "artifacts_of"),
    ] {
        let error = with(of).unwrap_err();
        assert!(error.contains(due), "{of}: {error}");
    }
}

#[test]
fn what_the_store_keeps_has_limits_that_make_sense() {
    let config = parse(GOOD).unwrap().store;
    assert_eq!((config.high_percent, config.low_percent), (85, 70));
    let retention = config.keeping.retention;
    assert_eq!(
        (retention.seconds, retention.builds),
        (Some(90 * 86_400), None)
    );
    let text =
        "[store]\nlease_seconds = 7\n[store.retention]\nbuilds = 3\n[store.project.web]\nbytes = 9";
    let keeping = parse(&format!("{GOOD}{text}")).unwrap().store.keeping;
    assert_eq!((keeping.lease, keeping.retention.builds), (7, Some(3)));
    assert_eq!(keeping.retention.seconds, None);
    let web = keeping.projects[&ProjectId::new("web").unwrap()];
    assert_eq!((web.bytes, web.builds), (Some(9), None));
    for (bad, due) in [
        ("[store]\nlease_seconds = 0", "store.lease_seconds"),
        ("[store]\nhigh_percent = 0", "store.high_percent"),
        ("[store]\nhigh_percent = 60", "store.low_percent"),
        ("[store]\nevery_seconds = 0", "store.every_seconds"),
        ("[store]\nevery = 1", "every"),
        ("[store.retention]\nbuilds = 0", "store.retention.builds"),
        ("[store.project.web]\ndays = 1", "days"),
        ("[store.project.web]\nbytes = 0", "store.project.web.bytes"),
        ("[store.project.Web]\nbytes = 1", "store.project"),
    ] {
        let error = parse(&format!("{GOOD}{bad}")).unwrap_err();
        assert!(error.contains(due), "{bad}: {error}");
    }
}

#[test]
fn every_refusal_names_file_and_field() {
    let with = |from: &str, to: &str| parse(&GOOD.replace(from, to)).unwrap_err();
    for (error, due) in [
        (
            with("/s/run/belljard/belljard.sock", "127.0.0.1:8080"),
            "TCP comes with mutual TLS",
        ),
        (
            with("/s/run/belljard/belljard.sock", "tcp://0.0.0.0:1"),
            "TCP comes with mutual TLS",
        ),
        (
            with("/s/run/belljard/belljard.sock", "localhost:1"),
            "TCP comes with mutual TLS",
        ),
        (with("slots", "listen = \"0.0.0.0:1\"\nslots"), "listen"),
        (with("/s/daemon", "daemon"), "state"),
        (with("slots = 2", "slots = 65"), "slots"),
        (with("slots", "slot"), "slot"),
        (
            with("allowed_uids = [0]", "allowed_uids = [0]\n[caps]\npids = 0"),
            "caps.pids",
        ),
        (
            with("allowed_uids = [0]", "allowed_uids = [0]\n[caps]\nfoo = 0"),
            "foo",
        ),
        (
            with(
                "allowed_uids = [0]",
                "allowed_uids = [0]\n[caps]\npids = 9\n[defaults]\npids = 10",
            ),
            "defaults.pids: 10 is beyond the cap of 9",
        ),
    ] {
        assert!(error.starts_with("b.toml"), "{error}");
        assert!(error.contains(due), "{error}");
    }
}

#[test]
fn fetching_is_off_unless_hosts_are_named() {
    let config = parse(GOOD).unwrap();
    assert!(config.fetch.is_none() && config.policy.fetches().is_none());
    let with = |lines: &str| parse(&format!("{GOOD}\n[fetch]\nca = \"/ca.pem\"\n{lines}"));
    let fetch = with("allow = [\"*.example.org\"]").unwrap();
    let rules = fetch.policy.fetches().unwrap();
    assert_eq!(rules.ports(), [443, 80]);
    let settings = fetch.fetch.unwrap();
    assert_eq!(
        (settings.most_bytes, settings.seconds, settings.redirects),
        (
            bounds::FETCH_BYTES,
            bounds::FETCH_SECONDS,
            bounds::FETCH_REDIRECTS
        )
    );
    for (lines, due) in [
        ("", "fetch.allow: nothing can be fetched from nowhere"),
        (
            "allow = []",
            "fetch.allow: nothing can be fetched from nowhere",
        ),
        (
            "allow = [\"a\", \"https://b\"]",
            "fetch.allow[1]: `https://b` is no host",
        ),
        ("allow = [\"any\"]\nports = []", "fetch.ports"),
        ("allow = [\"any\"]\nports = [443, 9]", "fetch.ports: port 9"),
        (
            "allow = [\"any\"]\nallow_private = [\"0.0.0.0/0\"]",
            "fetch.allow_private[0]",
        ),
        (
            "allow = [\"any\"]\nmax_bytes = 0",
            "fetch.max_bytes: 0 is not between",
        ),
        (
            "allow = [\"any\"]\nmax_bytes = 4294967297",
            "fetch.max_bytes",
        ),
        (
            "allow = [\"any\"]\ntimeout_seconds = 601",
            "fetch.timeout_seconds",
        ),
        (
            "allow = [\"any\"]\nmax_redirects = 9",
            "fetch.max_redirects",
        ),
        ("allow = [\"any\"]\nproxy = \"x\"", "unknown field `proxy`"),
    ] {
        let refusal = with(lines).map(|_| ()).unwrap_err();
        assert!(refusal.contains(due), "{lines}: {refusal}");
    }
    let relative = parse(&format!(
        "{GOOD}\n[fetch]\nallow = [\"any\"]\nca = \"ca.pem\""
    ));
    let refusal = relative.map(|_| ()).unwrap_err();
    assert!(refusal.contains("fetch.ca"), "{refusal}");
}

#[test]
fn registries_are_asked_as_they_are_named_and_by_whom() {
    let with = |lines: &str| parse(&format!("{GOOD}\n[fetch]\nca = \"/ca.pem\"\n{lines}"));
    let config = with(
        "ports = [443]\n[[fetch.registry]]\nhost = \"docker.io\"\nendpoint = \"registry-1.docker.io\"\ntokens = \"auth.docker.io:444\"\nredirects = [\"*.cdn.example\"]\nrepositories = [\"library/*\"]\nprojects = [\"web\"]\ncredentials = \"/c\"\n[[fetch.registry]]\nhost = \"r.example:5000\"",
    );
    let config = config.unwrap();
    // Nothing is fetched by URL by that.
    assert!(config.fetch.is_none() && config.policy.fetches().is_none());
    let web = ProjectId::new("web").unwrap();
    let known = |repository: &str| {
        let repository = repository.parse().unwrap();
        config
            .registries
            .decide(&web, &repository, Way::Pull)
            .cloned()
    };
    let docker = known("docker.io/library/debian").unwrap();
    assert_eq!(docker.places.endpoint.host(), "registry-1.docker.io");
    assert_eq!(docker.places.credentials, Some("/c".into()));
    assert_eq!(docker.network.rules.ports(), [443, 443, 444]);
    for (url, allowed) in [
        ("https://registry-1.docker.io/v2/", true),
        ("https://auth.docker.io:444/token", true),
        ("https://x.cdn.example/layer", true),
        ("https://docker.io/v2/", false),
        ("https://r.example:5000/v2/", false),
    ] {
        let url = FetchUrl::new(url).unwrap();
        assert_eq!(docker.network.rules.allows(&url).is_ok(), allowed, "{url}");
    }
    assert!(known("docker.io/other").is_err());
    let plain = known("r.example:5000/any").unwrap();
    assert_eq!(plain.network.rules.ports(), [443, 5000]);
    assert_eq!(plain.places.credentials, None);
    for (lines, due) in [
        ("", "missing field `host`"),
        ("host = \"r\"", "fetch.registry[0].host"),
        (
            "host = \"r.example:9\"",
            "fetch.registry[0].endpoint: port 9",
        ),
        (
            "host = \"r.example\"\nendpoint = \"https://x\"",
            "fetch.registry[0].endpoint",
        ),
        (
            "host = \"r.example\"\ntokens = \"A\"",
            "fetch.registry[0].tokens",
        ),
        (
            "host = \"r.example\"\nrepositories = [\"A\"]",
            "fetch.registry[0].repositories[0]",
        ),
        (
            "host = \"r.example\"\nprojects = [\"A\"]",
            "fetch.registry[0].projects[0]",
        ),
        (
            "host = \"r.example\"\nredirects = [\"*\"]",
            "fetch.registry[0].redirects[0]",
        ),
        (
            "host = \"r.example\"\ncredentials = \"c\"",
            "fetch.registry[0].credentials: the path is not absolute",
        ),
        (
            "host = \"r.example\"\npassword = \"c\"",
            "unknown field `password`",
        ),
        (
            "host = \"r.example\"\n[[fetch.registry]]\nhost = \"r.example\"",
            "fetch.registry[1].host: was given already",
        ),
    ] {
        let refusal = with(&format!("[[fetch.registry]]\n{lines}"));
        let refusal = refusal.map(|_| ()).unwrap_err();
        assert!(refusal.contains(due), "{lines}: {refusal}");
    }
}

/// With what else it may have.
fn whole() -> String {
    format!("{GOOD}[caps]\npids = 64\n[defaults]\npids = 32\n{TLS}")
}

proptest! {
    /// A good file with bytes of it gone, put in or replaced: whatever is accepted keeps to the rules.
    #[test]
    fn a_changed_file_is_refused_or_as_good(text in changed(whole(), |text| parse(text).is_ok())) {
        let Ok(config) = parse(&text) else { return Ok(()) };
        prop_assert!(config.slots <= bounds::CONCURRENT_SANDBOXES);
        let paths = [
            &config.socket,
            &config.store_socket,
            &config.spawner_socket,
            &config.signer_socket,
            &config.store_root,
            &config.receipts,
            &config.evidence,
            &config.state,
        ];
        prop_assert!(paths.into_iter().all(|path| path.is_absolute()));
        prop_assert!(config.defaults.within(config.policy.caps()).is_ok());
        prop_assert!(config.policy.caps().within(&Limits::CEILING).is_ok());
        if let Some(tls) = &config.tls {
            let files = [&tls.certificate, &tls.key, &tls.client_ca];
            prop_assert!(files.into_iter().all(|path| path.is_absolute()));
        }
    }
}
