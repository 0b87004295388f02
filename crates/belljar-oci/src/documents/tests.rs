use belljar_core::{ImageFields, bounds};
use proptest::prelude::*;

use super::*;

fn config(fields: ImageFields) -> ImageConfig {
    ImageConfig::new(fields).unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn made<'a>(base: Option<&'a Base>, config: &'a ImageConfig) -> Documents {
    let made = Made {
        base,
        platform: Platform::LinuxAmd64,
        config,
        layer: ObjectId::of(b"layer"),
        epoch: 315_532_800,
    };
    Documents::new(&made).unwrap()
}

/// A base of Docker's, with one layer, and its two documents.
fn docker() -> (Vec<u8>, Vec<u8>) {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "variant": "v2",
        "created": "2024-01-01T00:00:00Z",
        "container_config": { "Hostname": "x" },
        "docker_version": "20",
        "config": {
            "Env": ["PATH=/usr/bin", "LANG=C"],
            "Cmd": ["bash"],
            "Entrypoint": ["/entry"],
            "Labels": null,
            "Healthcheck": { "Interval": 30_000_000_000_u64 },
        },
        "history": [{ "created_by": "base" }],
        "rootfs": { "type": "layers", "diff_ids": ["sha256:00"] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor(oci::CONFIGURATIONS[1], ObjectId::of(&config)),
        "layers": [descriptor(oci::LAYERS[4], ObjectId::of(b"below"))],
    });
    (serde_json::to_vec(&manifest).unwrap(), config)
}

#[test]
fn an_image_from_scratch() {
    let fields = ImageFields {
        entrypoint: strings(&["/app"]),
        env: BTreeMap::from([
            ("B".to_owned(), "2".to_owned()),
            ("A".to_owned(), "1".to_owned()),
        ]),
        user: "65532".to_owned(),
        ..ImageFields::default()
    };
    let documents = made(None, &config(fields));
    let text = String::from_utf8(documents.config).unwrap();
    let layer = ObjectId::of(b"layer");
    assert_eq!(
        text,
        format!(
            "{{\"architecture\":\"amd64\",\"config\":{{\"Entrypoint\":[\"/app\"],\"Env\":[\"A=1\",\"B=2\"],\"User\":\"65532\"}},\
             \"created\":\"1980-01-01T00:00:00Z\",\"history\":[{{\"created\":\"1980-01-01T00:00:00Z\",\"created_by\":\"{MAKER}\"}}],\
             \"os\":\"linux\",\"rootfs\":{{\"diff_ids\":[\"{}\"],\"type\":\"layers\"}}}}",
            layer.digest
        )
    );
    let manifest: Value = serde_json::from_slice(&documents.manifest).unwrap();
    assert_eq!(
        manifest["config"]["digest"],
        ObjectId::of(text.as_bytes()).digest.to_string()
    );
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], oci::LAYERS[0]);
    assert!(manifest.get("annotations").is_none());
    let index: Value = serde_json::from_slice(&documents.index).unwrap();
    let due = ObjectId::of(&documents.manifest);
    assert_eq!(index["manifests"][0]["digest"], due.digest.to_string());
    assert_eq!(index["manifests"][0]["size"], due.size);
}

#[test]
fn a_layer_comes_over_those_of_a_base() {
    let (manifest, base_config) = docker();
    let base = Base::new(&manifest, &base_config).unwrap();
    let fields = ImageFields {
        entrypoint: strings(&["/app"]),
        env: BTreeMap::from([
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("X".to_owned(), "=".to_owned()),
        ]),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        ..ImageFields::default()
    };
    let documents = made(Some(&base), &config(fields));
    let own: Value = serde_json::from_slice(&documents.config).unwrap();
    let layer = ObjectId::of(b"layer").digest.to_string();
    assert_eq!(own["rootfs"]["diff_ids"], json!(["sha256:00", layer]));
    assert_eq!(
        own["config"]["Env"],
        json!(["PATH=/usr/bin", "LANG=C.UTF-8", "X=="])
    );
    assert_eq!(own["config"]["Entrypoint"], json!(["/app"]));
    assert_eq!(own["config"]["Labels"], json!({ "a": "b" }));
    assert_eq!(own["config"]["Healthcheck"]["Interval"], 30_000_000_000_u64);
    assert!(
        own["config"].get("Cmd").is_none(),
        "it was for another program"
    );
    assert_eq!(own["variant"], "v2");
    assert_eq!(own["history"].as_array().unwrap().len(), 2);
    assert!(own.get("container_config").is_none() && own.get("docker_version").is_none());
    let manifest_of: Value = serde_json::from_slice(&documents.manifest).unwrap();
    let due = Digest::of(&manifest).to_string();
    assert_eq!(
        manifest_of["annotations"]["org.opencontainers.image.base.digest"],
        due
    );
    // By OCI's name: the content is the same.
    assert_eq!(manifest_of["layers"][0]["mediaType"], oci::LAYERS[1]);
    assert_eq!(manifest_of["layers"][1]["digest"], layer);
    let again = super::manifest(
        ObjectId::of(&documents.config),
        &documents.layers,
        Some(Digest::of(&manifest)),
    );
    assert_eq!(again, Ok(documents.manifest));
    // Nothing said: the base's, but for its layers.
    let plain = made(Some(&base), &ImageConfig::default());
    let own: Value = serde_json::from_slice(&plain.config).unwrap();
    assert_eq!(own["config"]["Cmd"], json!(["bash"]));
    assert_eq!(own["config"]["Labels"], Value::Null);
}

#[test]
fn nothing_is_laid_on_what_is_no_image() {
    let (manifest, config) = docker();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&manifest).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    for (manifest, due) in [
        (b"nonsense".to_vec(), "expected"),
        (
            changed(&|m| m["layers"][0]["mediaType"] = oci::FOREIGN_LAYERS[0].into()),
            "layers: one of the media type",
        ),
        (
            changed(&|m| m["config"]["mediaType"] = "application/x".into()),
            "config: of the media type",
        ),
        (
            changed(&|m| m["layers"][0]["digest"] = "sha512:00".into()),
            "layers: ",
        ),
        (
            changed(&|m| m["layers"] = vec![m["layers"][0].clone(); bounds::OCI_LAYERS].into()),
            "layers: 128",
        ),
        (
            changed(&|m| m["layers"] = json!([])),
            "config.rootfs.diff_ids: 1",
        ),
        (
            changed(&|m| m["config"]["size"] = 7.into()),
            "config: not the one",
        ),
        (vec![b' '; usize::try_from(MOST).unwrap() + 1], "more than"),
    ] {
        let refused = Base::new(&manifest, &config).unwrap_err().to_string();
        assert!(refused.contains(due), "{refused}");
    }
    // Numbers that would become others.
    for (number, fine) in [
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("-9007199254740993", false),
        ("0.5", true),
        ("1e300", false),
    ] {
        let text = format!("{{\"x\": [{{\"y\": {number}}}], \"rootfs\": {{\"diff_ids\": []}}}}");
        let manifest = changed(&|m| {
            m["layers"] = json!([]);
            m["config"] = descriptor(oci::CONFIGURATION, ObjectId::of(text.as_bytes()));
        });
        let read = Base::new(&manifest, text.as_bytes());
        assert_eq!(read.is_ok(), fine, "{number}: {read:?}");
    }
    // And what cannot be changed is told.
    let value = json!({ "config": [], "rootfs": { "diff_ids": [] } });
    let config = serde_json::to_vec(&value).unwrap();
    let manifest = changed(&|m| {
        m["layers"] = json!([]);
        m["config"] = descriptor(oci::CONFIGURATION, ObjectId::of(&config));
    });
    let base = Base::new(&manifest, &config).unwrap();
    let made = Made {
        base: Some(&base),
        platform: Platform::LinuxAmd64,
        config: &ImageConfig::default(),
        layer: ObjectId::of(b"layer"),
        epoch: 0,
    };
    assert_eq!(
        Documents::new(&made).unwrap_err().to_string(),
        "config.config: is no object"
    );
}

/// A base without layers, of this configuration.
fn of(config: &Value) -> Result<Base, Invalid> {
    let mut config = config.clone();
    config["rootfs"]["diff_ids"] = json!([]);
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "config": descriptor(oci::CONFIGURATION, ObjectId::of(&config)),
        "layers": [],
    });
    Base::new(&serde_json::to_vec(&manifest).unwrap(), &config)
}

#[test]
fn what_is_said_of_an_image_no_base_says_otherwise_in_other_letters() {
    for (config, due) in [
        (
            json!({ "config": { "entrypoint": ["/x"] } }),
            "config.config: has `entrypoint`, which many readers take for `Entrypoint`",
        ),
        (
            json!({ "config": { "USER": "root" } }),
            "config.config: has `USER`",
        ),
        (
            json!({ "config": { "User": "1", "u\u{17f}er": "root" } }),
            "config.config: has `u\u{17f}er`",
        ),
        (
            json!({ "config": { "wor\u{212a}ingDir": "/" } }),
            "which many readers take for `WorkingDir`",
        ),
        (
            json!({ "config": { "env": [] } }),
            "config.config: has `env`",
        ),
        (
            json!({ "Config": { "User": "root" } }),
            "config: has `Config`",
        ),
        (
            json!({ "rootfs": { "Diff_IDs": [] } }),
            "config.rootfs: has `Diff_IDs`",
        ),
    ] {
        let refused = of(&config).unwrap_err().to_string();
        assert!(refused.contains(due), "{refused}");
    }
    // What is not told here, and names of the base's own.
    for config in [
        json!({ "Author": "x", "x": { "config": 1, "Config": 2 } }),
        json!({ "config": { "Labels": { "user": "x", "User": "y" }, "healthcheck": {}, "ArgsEscaped": true } }),
        json!({ "config": null }),
    ] {
        assert!(of(&config).is_ok(), "{config}");
    }
}

#[test]
fn a_variable_that_is_set_stands_there_once() {
    let env = json!(["PATH=/one", "A=1", "PATH=/two", "A=2", 7, "PATH", "=x"]);
    let base = of(&json!({ "config": { "Env": env } })).unwrap();
    let fields = ImageFields {
        env: BTreeMap::from([
            ("B".to_owned(), "3".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ]),
        ..ImageFields::default()
    };
    let documents = made(Some(&base), &config(fields));
    let own: Value = serde_json::from_slice(&documents.config).unwrap();
    let due = json!(["PATH=/bin", "A=1", "A=2", 7, "PATH", "=x", "B=3"]);
    assert_eq!(own["config"]["Env"], due);
}

proptest! {
    #[test]
    fn hostile_documents_never_panic(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (manifest, config) = docker();
        let _ = Base::new(&bytes, &config);
        let _ = Base::new(&manifest, &bytes);
        let config = text.into_bytes();
        let manifest = json!({
            "config": descriptor(oci::CONFIGURATION, ObjectId::of(&config)),
            "layers": [],
        });
        let _ = Base::new(&serde_json::to_vec(&manifest).unwrap(), &config);
    }
}
