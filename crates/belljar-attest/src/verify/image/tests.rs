use std::collections::BTreeMap;

use belljar_core::oci::{LAYERS, MANIFEST};
use belljar_core::{Derivation, Fact, ImageConfig, ImageOutput, Input, Recipe};
use belljar_plan::{OutputEntry, Plan};
use serde_json::json;

use super::*;
use crate::{BuilderConfig, Key, Producers, Statement, fixture};

/// An image, the bundle about it, and the key.
struct Signed {
    bundle: Vec<u8>,
    key: String,
    documents: Documents,
    layer: Layer,
    object: ObjectId,
    base: Option<Base>,
}

impl Signed {
    /// What comes of a copy that was changed.
    fn said<'a>(&'a self, change: impl FnOnce(&mut ImageCopy<'a>)) -> Result<Verdict, VerifyError> {
        let mut copy = ImageCopy {
            manifest: &self.documents.manifest,
            object: self.object,
            layer: &self.layer,
            mtime: fixture::spec().source_date_epoch,
            base: self.base.as_ref(),
        };
        change(&mut copy);
        verify_image(&self.bundle, &self.key, &copy)
    }
}

/// A base's documents.
fn base(text: &str) -> Base {
    let config = json!({ "rootfs": { "diff_ids": ["x"] }, "history": [], "note": text });
    let config = serde_json::to_vec(&config).unwrap();
    let object = ObjectId::of(&config);
    let manifest = json!({
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": object.digest, "size": object.size },
        "layers": [{ "mediaType": LAYERS[1], "digest": ObjectId::of(b"below").digest, "size": 5 }],
        "mediaType": MANIFEST,
    });
    Base::new(&serde_json::to_vec(&manifest).unwrap(), &config).unwrap()
}

fn signed(on: Option<Base>, root: Option<&str>) -> Signed {
    let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
    let record = on.as_ref().map(|base| Derivation {
        facts: vec![Fact::OciImage {
            manifest: base.named().manifest,
            config: base.named().config,
            layers: base.layers().iter().map(|layer| layer.object).collect(),
        }],
        recipe: Recipe::Oci {
            index: ObjectId::of(b"index"),
            platform: Platform::LinuxAmd64,
        },
        ..fixture::derivation("base")
    });
    let root = root.map(fixture::path);
    spec.image_output = Some(ImageOutput {
        base: match &record {
            None => BaseImage::Scratch(Platform::LinuxArm64),
            Some(record) => BaseImage::Image(Input {
                tree: record.tree,
                derivation: Some(ObjectId::of(&record.canonical().unwrap())),
            }),
        },
        root: root.clone(),
        config: ImageConfig::default(),
    });
    receipt.derivations.extend(record);
    receipt.spec = spec.digest().unwrap();
    receipt.plan = Plan::compile(&spec).digest().unwrap();
    let layer = Layer::of(&receipt.outputs, root.as_ref()).unwrap();
    let object = ObjectId {
        size: layer.size(),
        ..ObjectId::of(b"layer")
    };
    let output = spec.image_output.as_ref().unwrap();
    let documents = Documents::new(&Made {
        base: on.as_ref(),
        platform: Platform::LinuxArm64,
        config: &output.config,
        layer: object,
        epoch: spec.source_date_epoch,
    });
    let documents = documents.unwrap();
    receipt.image_output = Some(documents.record());
    let builder = BuilderConfig::new("urn:belljar:embedded").unwrap();
    let statement = Statement::provenance(
        &spec,
        &receipt,
        &fixture::asserted(),
        &Producers::default(),
        &builder,
    );
    let key = Key::from_pkcs8(&Key::generate_pkcs8().unwrap()).unwrap();
    Signed {
        bundle: key.attest(&statement.unwrap()).unwrap().to_json().unwrap(),
        key: key.public().to_pem(),
        documents,
        layer,
        object,
        base: on,
    }
}

fn another(said: Result<Verdict, VerifyError>) -> String {
    match said {
        Err(VerifyError::AnotherImage(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_is_what_is_computed_again() {
    for (on, root) in [(None, None), (Some(base("a")), None), (None, Some("share"))] {
        let signed = signed(on, root);
        let verdict = signed.said(|_| {}).unwrap();
        assert_eq!(verdict.artifact, Digest::of(&signed.documents.manifest));
        assert_eq!(verdict.subjects, ["image.oci"]);
    }
}

#[test]
fn each_part_of_an_image_counts() {
    let with = |change: &dyn Fn(&mut BTreeMap<&str, OutputEntry>)| {
        let mut outputs = BTreeMap::new();
        let entries = fixture::receipt().outputs;
        for entry in &entries {
            outputs.insert(entry.path.as_str(), entry.clone());
        }
        change(&mut outputs);
        let outputs: Vec<_> = outputs.into_values().collect();
        Layer::of(&outputs, None).unwrap()
    };
    for on in [None, Some(base("a"))] {
        let signed = signed(on, None);
        let other = with(&|all| drop(all.insert("app", fixture::file("app", b"other"))));
        assert!(another(signed.said(|copy| copy.layer = &other)).contains("another `app`"));
        let fewer = with(&|all| drop(all.remove("app")));
        assert!(another(signed.said(|copy| copy.layer = &fewer)).contains("lacks `app`"));
        let more = with(&|all| drop(all.insert("more", fixture::file("more", b"x"))));
        assert!(
            another(signed.said(|copy| copy.layer = &more))
                .contains("`more`, which is not attested")
        );
        assert!(another(signed.said(|copy| copy.mtime += 1)).contains("of the time"));
        let due = "its manifest is not what becomes";
        assert!(another(signed.said(|copy| copy.object = ObjectId::of(b"x"))).contains(due));
        let elsewhere = base("b");
        let due = "lies on another base";
        assert!(another(signed.said(|copy| copy.base = Some(&elsewhere))).contains(due));
        if signed.base.is_some() {
            assert!(another(signed.said(|copy| copy.base = None)).contains(due));
        }
        let manifest = signed.said(|copy| copy.manifest = b"{}");
        assert!(matches!(manifest, Err(VerifyError::NotASubject { .. })));
        // A file that is attested is no image, whatever is said to be in it.
        let file = signed.said(|copy| copy.manifest = fixture::ARTIFACT);
        assert!(matches!(file, Err(VerifyError::NotASubject { .. })));
    }
}
