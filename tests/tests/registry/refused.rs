use belljar_core::Digest;
use belljar_tests::Part;
use serde_json::{Value, json};

use crate::server::{
    ARCHITECTURE, Answer, Authority, CONFIG, INDEX, LAYER, MANIFEST, Registry, descriptor,
};
use crate::{Puller, layer};

/// A small layer.
fn small() -> Vec<u8> {
    layer([("release", &b"small"[..], false)])
}

/// Keeps an image whose manifest was changed.
fn changed(registry: &Registry, tag: &str, change: impl FnOnce(&mut Value)) {
    let mut image = registry.image(&[small()]);
    change(&mut image);
    registry.manifest(&image, MANIFEST, Some(tag));
}

/// Whether anything with this digest is in the store.
fn is_stored(puller: &Puller, content: &[u8]) -> bool {
    let hex = Digest::of(content).to_hex();
    let path = format!("store/objects/sha256/{}/{}", &hex[..2], &hex[2..]);
    puller.instance.state().join(path).exists()
}

/// Images whose documents are not what they should be, each under its tag, and what is said of it.
fn documents(registry: &Registry) -> Vec<(&'static str, &'static str)> {
    let old = json!({"schemaVersion": 1, "name": "team/c", "fsLayers": []});
    let pretty = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    registry.manifest(&old, pretty, Some("schema-1"));
    registry.manifest(&old, MANIFEST, Some("schema-1-as-oci"));
    registry.manifest(&json!({"x": 1}), "text/html; charset=utf-8", Some("page"));
    registry.answer(
        "/v2/team/c/manifests/rubbish",
        Answer::of(b"rubbish", MANIFEST),
    );
    let both = |image: &mut Value| image["manifests"] = json!([]);
    changed(registry, "both", both);
    changed(registry, "typed", |image| image["mediaType"] = json!(INDEX));
    let image = registry.image(&[small()]);
    registry.manifest(&image, INDEX, Some("no-index"));
    changed(registry, "chart", |image| {
        image["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    changed(registry, "no-config", |image| image["config"] = Value::Null);
    changed(registry, "sha512", |image| {
        let digest = format!("sha512:{}", "0".repeat(128));
        image["layers"][0]["digest"] = json!(digest);
    });
    changed(registry, "odd-layer", |image| {
        image["layers"][0]["mediaType"] = json!("application/x-squashfs\u{1b}[31m");
    });
    changed(registry, "foreign", |image| {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        image["layers"][0]["mediaType"] = json!(foreign);
    });
    changed(registry, "urls", |image| {
        image["layers"][0]["urls"] = json!(["https://static.example/layer"]);
    });
    changed(registry, "no-layer", |image| image["layers"] = json!([]));
    changed(registry, "many-layers", |image| {
        let one = image["layers"][0].clone();
        image["layers"] = Value::from(vec![one; 129]);
    });
    changed(registry, "huge-layer", |image| {
        image["layers"][0]["size"] = json!(1 << 20)
    });
    let fat = json!({"schemaVersion": 2, "x": "x".repeat(5 << 20)});
    registry.manifest(&fat, MANIFEST, Some("fat"));
    let mut other = registry.image(&[small()]);
    other["config"] = registry.config("riscv64");
    registry.manifest(&other, MANIFEST, Some("other-platform"));
    vec![
        ("schema-1", "schema 1"),
        ("schema-1-as-oci", "schema 1"),
        (
            "page",
            "`text/html`, which is neither an image index nor an image manifest",
        ),
        ("rubbish", "cannot be read"),
        ("both", "not what the registry says that it is"),
        ("typed", "not what the registry says that it is"),
        ("no-index", "not what the registry says that it is"),
        (
            "chart",
            "it is no image: its configuration is of the media type `application/vnd.cncf.helm.config.v1+json`",
        ),
        ("no-config", "names no configuration"),
        ("sha512", "a digest of another kind"),
        (
            "odd-layer",
            "a layer of the media type `application/x-squashfs\\u{1b}[31m`",
        ),
        (
            "foreign",
            "a foreign layer (`application/vnd.docker.image.rootfs.foreign.diff.tar.gzip`)",
        ),
        ("urls", "a foreign layer"),
        ("many-layers", "129 layers"),
        ("huge-layer", "larger than 65536 bytes"),
        ("fat", "more comes than the 4194304 bytes"),
        ("absent", "the registry has none of this name"),
    ]
}

#[test]
fn documents_that_are_none_are_refused_by_name() {
    let authority = Authority::new();
    let registry = authority.registry();
    let mut puller = Puller::new(&authority, &registry, "", "max_bytes = 65536");
    let cases = documents(&registry);
    for (tag, due) in cases {
        let reference = format!("{}/team/c:{tag}", registry.host());
        let why = puller.refusal(&reference, 2);
        assert!(why.contains(due), "{tag}: {why}");
    }
    assert!(!is_stored(&puller, &small()));
    // What only the store sees.
    for (tag, due) in [
        ("no-layer", "has 0 layers"),
        ("other-platform", "there is one for linux/riscv64"),
    ] {
        let reference = format!("{}/team/c:{tag}", registry.host());
        let told = puller
            .pull(&[&reference, "--name", "refused"])
            .assert_code(2);
        assert!(told.printed.contains(due), "{tag}: {}", told.printed);
    }
    let log = puller.instance.said(Part::Belljard);
    assert!(log.contains("an image was not pulled"), "{log}");
}

#[test]
fn content_that_is_not_what_was_named_never_gets_into_the_store() {
    let authority = Authority::new();
    let registry = authority.registry();
    let mut puller = Puller::new(&authority, &registry, "", "max_bytes = 65536");
    let host = registry.host();
    let image = registry.image(&[small()]);
    let config = image["config"]["digest"].as_str().unwrap().to_owned();
    let layer_at = format!(
        "/v2/team/c/blobs/{}",
        image["layers"][0]["digest"].as_str().unwrap()
    );
    let config_at = format!("/v2/team/c/blobs/{config}");
    let named = registry.manifest(&image, MANIFEST, Some("1"));
    let manifest_at = format!("/v2/team/c/manifests/{}", named["digest"].as_str().unwrap());
    let good = [
        (&layer_at, Answer::of(&small(), LAYER)),
        (
            &config_at,
            Answer::of(
                format!("{{\"architecture\":\"{ARCHITECTURE}\",\"os\":\"linux\"}}").as_bytes(),
                CONFIG,
            ),
        ),
        (
            &manifest_at,
            Answer::of(image.to_string().as_bytes(), MANIFEST),
        ),
    ];
    let mut other = small();
    let last = other.len() - 1;
    other[last] ^= 1;
    let short = &small()[..10];
    let longer = [small(), b"x".to_vec()].concat();
    let mut cut = Answer::of(&small(), LAYER);
    cut.cut = Some(10);
    let mut packed = Answer::of(&small(), LAYER);
    packed.headers.push("content-encoding: gzip".to_owned());
    let mut lying = Answer::of(image.to_string().as_bytes(), MANIFEST);
    lying
        .headers
        .push(format!("docker-content-digest: {}", Digest::of(b"other")));
    let other_config = json!({"os": "linux", "architecture": ARCHITECTURE, "x": 1}).to_string();
    let mut other_image = image.clone();
    other_image["annotations"] = json!({"x": "y"});
    let by_digest = format!("{host}/team/c@{}", named["digest"].as_str().unwrap());
    for (name, at, answer, code, due) in [
        (
            "other layer",
            &layer_at,
            Answer::of(&other, LAYER),
            2,
            "not sha256:",
        ),
        (
            "short layer",
            &layer_at,
            Answer::of(short, LAYER),
            2,
            "it has 10 bytes where",
        ),
        (
            "longer layer",
            &layer_at,
            Answer::of(&longer, LAYER),
            2,
            "bytes where",
        ),
        ("cut layer", &layer_at, cut, 8, "broke off"),
        (
            "packed layer",
            &layer_at,
            packed,
            2,
            "content coding `gzip`",
        ),
        (
            "no layer",
            &layer_at,
            Answer::status("404 Not Found"),
            2,
            "none of this name",
        ),
        (
            "failing",
            &layer_at,
            Answer::status("503 Service Unavailable"),
            8,
            "503",
        ),
        (
            "other config",
            &config_at,
            Answer::of(other_config.as_bytes(), CONFIG),
            2,
            "is due",
        ),
        (
            "other manifest",
            &manifest_at,
            Answer::of(other_image.to_string().as_bytes(), MANIFEST),
            2,
            "is due",
        ),
        ("lying header", &manifest_at, lying, 2, "is due"),
    ] {
        registry.answer(at, answer);
        let why = puller.refusal(&by_digest, code);
        assert!(why.contains(due), "{name}: {why}");
        for (at, answer) in &good {
            registry.answer(at, answer.clone());
        }
        assert!(!is_stored(&puller, &small()), "{name}");
    }
    assert!(!is_stored(&puller, &other) && !is_stored(&puller, &longer));
    assert!(!is_stored(&puller, other_config.as_bytes()));
    // An entry of an index that says another size than there is.
    let mut entry = named.clone();
    entry["size"] = json!(7);
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    registry.manifest(&index, INDEX, Some("sized"));
    let why = puller.refusal(&format!("{host}/team/c:sized"), 2);
    assert!(why.contains("bytes where 7 are due"), "{why}");
    crate::image(puller.pull(&[&by_digest, "--name", "good"]));
}

#[test]
fn indexes_without_end_and_without_choice_are_refused() {
    let authority = Authority::new();
    let registry = authority.registry();
    let mut puller = Puller::new(&authority, &registry, "", "");
    let image = registry.image(&[small()]);
    let mut other = image.clone();
    other["annotations"] = json!({"x": "y"});
    let entries: Vec<Value> = [&image, &other]
        .into_iter()
        .map(|image| registry.manifest(image, MANIFEST, None))
        .collect();
    let two = json!({"schemaVersion": 2, "manifests": entries});
    registry.manifest(&two, INDEX, Some("two"));
    let many = json!({"schemaVersion": 2, "manifests": vec![descriptor(b"x", MANIFEST); 65]});
    registry.manifest(&many, INDEX, Some("many"));
    let mut deep = registry.manifest(&image, MANIFEST, None);
    for depth in 0..7 {
        let index = json!({"schemaVersion": 2, "manifests": [deep]});
        let tag = (depth == 6).then_some("deep");
        deep = registry.manifest(&index, INDEX, tag);
    }
    for (tag, due) in [
        ("two", "is more than one"),
        ("many", "65 manifests"),
        ("deep", "indexes inside each other"),
    ] {
        let reference = format!("{}/team/c:{tag}", registry.host());
        let told = puller
            .pull(&[&reference, "--name", "refused"])
            .assert_code(2);
        assert!(told.printed.contains(due), "{tag}: {}", told.printed);
    }
}

/// Most memory that belljard has had until now, in bytes.
fn peak(puller: &Puller) -> u64 {
    let pid = puller.instance.pid_of(Part::Belljard);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// An index as large as they may be, of entries that take much more memory where all of them is kept.
fn fat(registry: &Registry, number: u8) -> Value {
    let before = format!(
        "{{\"schemaVersion\":2,\"x\":{number},\"manifests\":[{{\"digest\":\"\",\"size\":0,\"urls\":[\"\""
    );
    let after = "]}]}";
    let urls = ((4 << 20) - before.len() - after.len()) / 3;
    let content = [&before, &",\"\"".repeat(urls), after].concat();
    let descriptor = descriptor(content.as_bytes(), INDEX);
    let path = format!(
        "/v2/team/c/manifests/{}",
        descriptor["digest"].as_str().unwrap()
    );
    registry.answer(&path, Answer::of(content.as_bytes(), INDEX));
    descriptor
}

#[test]
fn an_image_of_large_documents_costs_little_memory_and_each_is_pulled_once() {
    let authority = Authority::new();
    let registry = authority.registry();
    let mut puller = Puller::new(&authority, &registry, "", "");
    let host = registry.host();
    let image = registry.image(&[small()]);
    let good = registry.manifest(&image, MANIFEST, Some("1"));
    crate::image(puller.pull(&[&format!("{host}/team/c:1"), "--name", "c"]));
    let before = peak(&puller);
    let indexes: Vec<Value> = (0..4).map(|number| fat(&registry, number)).collect();
    // Named as often as may be; and what is good, beside them.
    let entries = |several: &[Value]| {
        let all = several.iter().cycle().take(50).cloned();
        let all: Vec<Value> = all.chain(vec![good.clone(); 3]).collect();
        json!({"schemaVersion": 2, "manifests": all})
    };
    registry.manifest(&entries(&indexes[..3]), INDEX, Some("fat"));
    registry.manifest(&entries(&indexes), INDEX, Some("too-fat"));
    for (tag, due, pulled) in [
        ("fat", "by a digest of another kind", 3),
        ("too-fat", "more than 16777216 bytes together", 4),
    ] {
        registry.asked();
        let told = puller
            .pull(&[&format!("{host}/team/c:{tag}"), "--name", "refused"])
            .assert_code(2);
        assert!(told.printed.contains(due), "{tag}: {}", told.printed);
        let mut asked: Vec<String> = registry.asked().into_iter().map(|one| one.path).collect();
        let all = asked.len();
        asked.sort();
        asked.dedup();
        assert_eq!(asked.len(), all, "something was asked for twice");
        let named = |index: &&Value| {
            let digest = index["digest"].as_str().unwrap();
            asked.iter().any(|path| path.ends_with(digest))
        };
        assert_eq!(indexes.iter().filter(named).count(), pulled, "{tag}");
    }
    let grown = peak(&puller) - before;
    assert!(grown < 64 << 20, "belljard took {grown} bytes more");
}

#[test]
fn only_what_the_operator_allows_is_pulled_and_nobody_is_led_inside() {
    let authority = Authority::new();
    let (registry, other) = (authority.registry(), authority.registry());
    let lines = "repositories = [\"team/c\", \"mine\"]\nredirects = [\"any\"]";
    let mut puller = Puller::new(&authority, &registry, lines, "max_redirects = 3");
    let host = registry.host();
    for (reference, due) in [
        (
            format!("{}/team/c:1", other.host()),
            "no [[fetch.registry]]",
        ),
        (
            "static.example/team/c:1".to_owned(),
            "no [[fetch.registry]]",
        ),
        (format!("{host}/team/d:1"), "`repositories`"),
        (format!("{host}/team/c/d:1"), "`repositories`"),
    ] {
        let why = puller.refusal(&reference, 7);
        assert!(why.contains(due), "{reference}: {why}");
    }
    assert!(registry.asked().is_empty() && other.asked().is_empty());
    let at = "/v2/team/c/manifests/1";
    for (location, due) in [
        ("https://169.254.169.254/latest", "a link-local address"),
        ("https://10.0.0.1/x", "a private address"),
        ("https://[::ffff:192.168.0.1]/x", "a private address"),
        ("https://127.0.0.1:22/x", "port 22"),
        ("http://localhost/x", "from https to http"),
        ("file:///etc/passwd", "`file` URLs"),
        (
            &format!("https://{}/x", other.host()),
            "which is not allowed",
        ),
        (at, "more than 3 times"),
    ] {
        registry.answer(at, Answer::redirect(location));
        let why = puller.refusal(&format!("{host}/team/c:1"), 2);
        assert!(why.contains(due), "{location}: {why}");
    }
    assert!(other.asked().is_empty());
    // A certificate of another authority.
    let stranger = Authority::new().registry();
    let mut puller = Puller::new(&authority, &stranger, "", "");
    let why = puller.refusal(&format!("{}/team/c:1", stranger.host()), 8);
    assert!(why.contains("TLS"), "{why}");
    assert!(stranger.asked().is_empty());
}

#[test]
fn references_that_say_too_little_are_refused_before_anybody_is_asked() {
    let authority = Authority::new();
    let registry = authority.registry();
    let mut puller = Puller::new(&authority, &registry, "", "");
    for (reference, due) in [
        ("debian:12", "does not begin with the host of a registry"),
        ("docker.io/library/debian", "add a tag"),
        ("docker.io/Library/debian:12", "no name of a repository"),
        ("docker.io/library/debian@md5:0", "is not a digest"),
    ] {
        let told = puller.pull(&[reference, "--name", "x"]).assert_code(2);
        assert!(told.printed.contains(due), "{reference}: {}", told.printed);
    }
    let told = puller.pull(&["--name", "x"]).assert_code(2);
    assert!(
        told.printed
            .contains("belljar image pull REFERENCE --name NAME"),
        "{}",
        told.printed
    );
}
