use std::fs;

use serde_json::{Value, json};

use crate::server::{Authority, MANIFEST};
use crate::{Puller, image, layer};

/// A base with a shell, a merged `bin`, and two layers, at `team/c:base`.
fn pulled(authority: &Authority) -> (crate::server::Registry, Puller, Value) {
    let registry = authority.registry();
    let lower = layer([
        ("usr/bin/tool", &b"a tool"[..], true),
        ("etc/passwd", &b"root"[..], false),
    ]);
    let upper = layer([("srv/release", &b"one\n"[..], false)]);
    let upper = crate::with_link(&upper, "bin", "usr/bin");
    let base = registry.base(&[lower, upper]);
    registry.manifest(&base, MANIFEST, Some("base"));
    let mut puller = Puller::new(authority, &registry, "", "");
    let reference = format!("{}/team/c:base", registry.host());
    image(puller.pull(&[&reference, "--name", "base"]));
    (registry, puller, base)
}

fn manifest(script: &str, lines: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "image = \"host\"\nrun = [{script}]\noutputs = [\"root\"]\n[output.oci]\nbase = \"base\"\nroot = \"root\"\n{lines}\n"
    )
}

#[test]
fn one_layer_comes_over_those_of_an_image_that_was_pulled() {
    let authority = Authority::new();
    let (_registry, mut puller, base) = pulled(&authority);
    let script = "mkdir -p root/usr/bin root/etc/app root/new; echo 1 > root/usr/bin/app; chmod +x root/usr/bin/app; echo c > root/etc/app/c; ln -s x root/new/l; echo p > root/etc/passwd";
    puller.dir.write(
        "belljar.toml",
        manifest(
            script,
            "entrypoint = [\"/usr/bin/app\"]\nenv = { LANG = \"C\" }",
        ),
    );
    let run = puller.instance.run(&puller.dir);
    run.assert_succeeded();
    run.assert_verified("image.oci");
    let blob = |digest: &Value| {
        let hex = digest.as_str().unwrap().replace("sha256:", "");
        run.file(&format!("image.oci/blobs/sha256/{hex}"))
    };
    let parsed = |digest: &Value| serde_json::from_slice::<Value>(&blob(digest)).unwrap();
    let own = parsed(&run.json["image"]["manifest"]["digest"]);
    let layers = own["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    // The base's, as they are.
    for (layer, due) in layers.iter().zip(base["layers"].as_array().unwrap()) {
        assert_eq!(layer, due);
    }
    let digest = run.json["image"]["base"]["digest"].clone();
    assert_eq!(
        own["annotations"]["org.opencontainers.image.base.digest"],
        digest
    );
    let config = parsed(&own["config"]["digest"]);
    assert_eq!(
        config["config"]["Env"],
        json!(["PATH=/bin", "BASE=yes", "LANG=C"])
    );
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/app"]));
    assert_eq!(config["config"]["User"], "7");
    assert!(config["config"].get("Cmd").is_none());
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    // Directories that the base has are as they are there.
    let content = blob(&layers[2]["digest"]);
    let mut archive = tar::Archive::new(&content[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    let due = [
        "etc/app/",
        "etc/app/c",
        "etc/passwd",
        "new/",
        "new/l",
        "usr/bin/app",
    ];
    assert_eq!(names, due);
    // The base is among what the build depends on, by the digest of its manifest, and where it was is only asserted.
    let statement = run.statement("image.oci");
    let dependencies = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        .as_array()
        .unwrap()
        .clone();
    let named = |name: &str| dependencies.iter().find(|one| one["name"] == name);
    let hex = digest.as_str().unwrap().replace("sha256:", "");
    assert_eq!(named("image base").unwrap()["digest"]["sha256"], hex);
    assert_eq!(run.json["verdict"]["base"], digest);
    assert!(
        dependencies
            .iter()
            .any(|one| one["annotations"]["belljar_input"] == "image base"
                && one["uri"].as_str().unwrap().starts_with("pkg:oci/"))
    );
    // Twice the same.
    let again = puller.instance.run(&puller.dir);
    assert_eq!(again.json["image"], run.json["image"]);
    assert_ne!(again.json["build"], run.json["build"]);
}

#[test]
fn what_would_take_something_of_the_base_away_is_refused_by_name() {
    let authority = Authority::new();
    let (registry, mut puller, _) = pulled(&authority);
    for (script, due) in [
        (
            "mkdir -p root/bin; echo > root/bin/app",
            ["`bin`", "where the base has a symbolic link to `usr/bin`"],
        ),
        (
            "mkdir -p root/etc; echo > root/etc/passwd; rm -r root/etc; echo > root/etc",
            ["`etc`", "where the base has a directory"],
        ),
        (
            "mkdir -p root/etc/passwd; echo > root/etc/passwd/x",
            ["`etc/passwd`", "where the base has a file"],
        ),
        (
            "mkdir -p root/usr; ln -s x root/usr/bin",
            ["`usr/bin`", "where the base has a directory"],
        ),
    ] {
        puller.dir.write(
            "belljar.toml",
            manifest(&format!("mkdir -p root; touch root/f; {script}"), ""),
        );
        let run = puller.instance.run(&puller.dir);
        assert_eq!(run.exit_code, 5, "{run}");
        let why = run.outcome()["why"].as_str().unwrap();
        assert!(due.iter().all(|due| why.contains(due)), "{script}: {why}");
    }
    // A base that is an archive has no layers.
    let archive = puller.dir.path().join("base.tar");
    fs::write(&archive, {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "x", &b"x"[..]).unwrap();
        builder.into_inner().unwrap()
    })
    .unwrap();
    let lock = puller.lock();
    let arguments = [
        "--name",
        "archive",
        "--lock",
        lock.to_str().unwrap(),
        archive.to_str().unwrap(),
    ];
    puller
        .instance
        .tell("image import", &arguments)
        .assert_code(0);
    let text =
        manifest("mkdir root; touch root/x", "").replace("base = \"base\"", "base = \"archive\"");
    puller.dir.write("belljar.toml", text);
    let run = puller.instance.run(&puller.dir);
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(
        run.said.contains("made of no OCI image")
            || run.json["error"]
                .as_str()
                .unwrap()
                .contains("made of no OCI image"),
        "{run}"
    );
    // Without a configuration that tells of the layers nothing is laid on it.
    let bare = registry.image(&[layer([("x", &b"x"[..], false)])]);
    registry.manifest(&bare, MANIFEST, Some("bare"));
    let reference = format!("{}/team/c:bare", registry.host());
    image(puller.pull(&[&reference, "--name", "bare"]));
    let text =
        manifest("mkdir root; touch root/x", "").replace("base = \"base\"", "base = \"bare\"");
    puller.dir.write("belljar.toml", text);
    let run = puller.instance.run(&puller.dir);
    assert_eq!(run.exit_code, 5, "{run}");
    let why = run.outcome()["why"].as_str().unwrap();
    assert!(why.contains("diff_ids"), "{why}");
}
