use std::fs;

use belljar_core::{Derivation, Recipe};
use belljar_tests::{Instance, Part, Project, TreeOf};
use serde_json::{Value, json};

use crate::server::{ARCHITECTURE, Authority, INDEX, MANIFEST, Registry};
use crate::{Puller, image, layer};

/// What was asked for, without what stands before it.
fn asked(registry: &Registry) -> Vec<String> {
    let asked = registry.asked().into_iter();
    asked
        .map(|one| one.path.replace("/v2/team/c/", ""))
        .collect()
}

/// An image that a shell runs on, with a file that the second layer takes away.
fn with_shell(registry: &Registry) -> Value {
    let root = TreeOf::root_file_system();
    let below = [("srv/secret", &b"gone later"[..], false)];
    let lower = layer(root.files().chain(below));
    let upper = layer([
        ("srv/.wh.secret", &b""[..], false),
        ("srv/release", &b"one\n"[..], false),
    ]);
    registry.image(&[lower, upper])
}

/// An index of images for many, of which this is one.
fn index(registry: &Registry, image: &Value, tag: &str) -> Value {
    let other = if ARCHITECTURE == "arm64" {
        "amd64"
    } else {
        "arm64"
    };
    let mut own = registry.manifest(image, MANIFEST, None);
    own["platform"] = json!({"os": "linux", "architecture": ARCHITECTURE});
    // Nobody has what these name.
    let mut manifests = vec![];
    for (os, architecture) in [
        ("linux", other),
        ("windows", ARCHITECTURE),
        ("unknown", "unknown"),
    ] {
        let text = format!("{os}/{architecture}");
        let mut one = crate::server::descriptor(text.as_bytes(), MANIFEST);
        one["platform"] = json!({"os": os, "architecture": architecture});
        manifests.push(one);
    }
    manifests.insert(1, own);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    registry.manifest(&index, INDEX, Some(tag))
}

#[test]
fn a_build_runs_on_an_image_of_an_index_and_the_provenance_names_it() {
    let authority = Authority::new();
    let registry = authority.registry();
    let named = index(&registry, &with_shell(&registry), "12");
    let mut puller = Puller::new(&authority, &registry, "", "");
    let reference = format!("{}/team/c:12", registry.host());
    let pulled = image(puller.pull(&[&reference, "--name", "c"]));
    let digest = named["digest"].as_str().unwrap();
    let due = json!({
        "file": null,
        "reference": format!("{reference}@{digest}"),
        "object": {"digest": digest, "size": named["size"]},
    });
    assert_eq!(pulled["source"], due);
    assert!(
        pulled["dropped"]["owners"].as_u64().unwrap() > 3,
        "{pulled}"
    );
    // Index, manifest, configuration, two layers: nothing of what is for others.
    let first = asked(&registry);
    assert_eq!(
        (first.len(), first[0].as_str()),
        (5, "manifests/12"),
        "{first:?}"
    );

    // What the store says of it.
    let record = puller.instance.object(&pulled["derivation"]);
    let record = Derivation::from_canonical(&record).unwrap();
    let Recipe::Pulled {
        repository,
        image: from,
        ..
    } = &record.recipe
    else {
        panic!("{record:?}");
    };
    assert_eq!(
        repository.to_string(),
        format!("{}/team/c", registry.host())
    );
    assert_eq!(from.digest.to_string(), digest);
    assert_eq!(record.from.len(), 5);

    let text =
        "image = \"c\"\nrun = [\"cat /srv/release > out; ls /srv >> out\"]\noutputs = [\"out\"]\n";
    puller.dir.write("belljar.toml", text);
    let run = puller.instance.run(&puller.dir);
    run.assert_succeeded();
    run.assert_verified("out");
    assert_eq!(run.file("out"), b"one\nrelease\n");
    let statement = run.statement("out");
    let dependencies = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    let dependencies = dependencies.as_array().unwrap();
    let found = dependencies.iter().find(|one| {
        let uri = one["uri"].as_str().unwrap_or_default();
        uri.starts_with("pkg:oci/c@sha256%3A")
    });
    let found = found.unwrap_or_else(|| panic!("{dependencies:#?}"));
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert_eq!(found["digest"]["sha256"], hex);
    let place = format!(
        "repository_url={}/team/c",
        registry.host().replace(':', "%3A")
    );
    assert!(
        found["uri"].as_str().unwrap().ends_with(&place),
        "{found:#}"
    );
    let annotations = &found["annotations"];
    assert_eq!(annotations["belljar_asserted"], json!(["uri"]));
    assert_eq!(annotations["belljar_input"], "rootfs");

    // The log of belljard has who pulled what.
    let log = puller.instance.said(Part::Belljard);
    assert!(
        log.contains("an image was pulled") && log.contains(digest),
        "{log}"
    );

    // Whoever has the lock gets the same, and layers that the project has are not pulled again.
    let again = image(puller.pull(&["--name", "c"]));
    assert_eq!(again, pulled);
    assert_eq!(
        asked(&registry),
        [&[format!("manifests/{digest}")], &first[1..3]].concat()
    );
}

#[test]
fn the_lock_keeps_the_digest_when_a_tag_moves() {
    let authority = Authority::new();
    let registry = authority.registry();
    let with = |content: &[u8], tag| {
        let image = registry.image(&[layer([("release", content, false)])]);
        registry.manifest(&image, MANIFEST, Some(tag))
    };
    let before = with(b"one", "latest");
    // In embedded mode, by what the operator has in the state directory.
    let mut instance = Instance::new();
    let ca = instance.state().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let host = registry.host();
    let text = format!(
        "allow_private = [\"127.0.0.0/8\", \"::1/128\"]\nca = {ca:?}\n[[registry]]\nhost = \"{host}\"\nrepositories = [\"team/*\"]\n"
    );
    fs::write(instance.state().join("fetch.toml"), text).unwrap();
    let dir = Project::bare();
    let lock = dir.path().join("belljar.lock");
    let mut pull = |more: &[&str]| {
        let lock = ["--json", "--name", "c", "--lock", lock.to_str().unwrap()];
        let told = instance.tell("image pull", &[more, &lock].concat());
        (told.said.clone(), image(told))
    };
    let reference = format!("{host}/team/c:latest");
    let (_, first) = pull(&[&reference]);
    assert_eq!(first["source"]["object"]["digest"], before["digest"]);

    let after = with(b"two", "latest");
    assert_ne!(before, after);
    let (said, second) = pull(&[&reference]);
    assert_eq!(second, first);
    assert!(
        said.contains("--update looks what `latest` means today"),
        "{said}"
    );
    let (_, third) = pull(&["--update"]);
    assert_eq!(third["source"]["object"]["digest"], after["digest"]);
    assert_ne!(third["tree"], first["tree"]);
    let locked = fs::read_to_string(&lock).unwrap();
    let named = format!("{reference}@{}", after["digest"].as_str().unwrap());
    assert!(locked.contains(&named), "{locked}");

    // By its digest the one before is still to be had, as long as the registry has it; it is the same record.
    let (_, old) = pull(&[&format!(
        "{host}/team/c@{}",
        before["digest"].as_str().unwrap()
    )]);
    assert_eq!(
        (&old["tree"], &old["derivation"]),
        (&first["tree"], &first["derivation"])
    );
}

#[test]
fn a_lock_alone_is_told_how_to_get_its_image() {
    let authority = Authority::new();
    let registry = authority.registry();
    let image_of = registry.image(&[layer([("release", &b"one"[..], false)])]);
    registry.manifest(&image_of, MANIFEST, Some("1"));
    let mut puller = Puller::new(&authority, &registry, "", "");
    let reference = format!("{}/team/c:1", registry.host());
    image(puller.pull(&[&reference, "--name", "c"]));
    let text = "image = \"c\"\nrun = [\"true\"]\noutputs = [\"out\"]\n";
    puller.dir.write("belljar.toml", text);
    // On a machine that has never heard of it.
    let mut other = Instance::new();
    let run = other.run(&puller.dir);
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(
        run.said.contains("belljar image pull --name c")
            || run.json.to_string().contains("belljar image pull --name c"),
        "{run}"
    );
}
