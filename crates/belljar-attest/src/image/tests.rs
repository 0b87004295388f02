use belljar_core::{
    Derivation, Fact, ImageConfig, ImageFields, ImageOutput, Input, Platform, Recipe,
};
use belljar_plan::{ImageLayer, Plan};

use super::*;
use crate::{BuilderConfig, Producers, Statement, fixture};

const SCRATCH: BaseImage = BaseImage::Scratch(Platform::LinuxAmd64);

/// A base that the store has made a tree of: its record.
fn base() -> (BaseImage, Derivation) {
    let object = |text: &str| ObjectId::of(text.as_bytes());
    let record = Derivation {
        facts: vec![Fact::OciImage {
            manifest: object("manifest"),
            config: object("config"),
            layers: vec![object("low"), object("high")],
        }],
        recipe: Recipe::Oci {
            index: ObjectId::of(b"index"),
            platform: Platform::LinuxAmd64,
        },
        ..fixture::derivation("base")
    };
    let input = Input {
        tree: record.tree,
        derivation: Some(ObjectId::of(&record.canonical().unwrap())),
    };
    (BaseImage::Image(input), record)
}

/// A run that left an image on this base.
fn attested(base: BaseImage, record: Option<Derivation>) -> (BuildSpec, Receipt) {
    let (mut spec, mut receipt) = (fixture::spec(), fixture::receipt());
    let fields = ImageFields {
        entrypoint: vec!["/app".to_owned()],
        ..ImageFields::default()
    };
    spec.image_output = Some(ImageOutput {
        base,
        root: None,
        config: ImageConfig::new(fields).unwrap(),
    });
    receipt.spec = spec.digest().unwrap();
    receipt.plan = Plan::compile(&spec).digest().unwrap();
    let layer = Layer::of(&receipt.outputs, None).unwrap();
    let own = ObjectId {
        size: layer.size(),
        ..ObjectId::of(b"layer")
    };
    let named = record.as_ref().and_then(|record| record.image());
    let (manifest, below) = named.map_or((None, &[][..]), |(manifest, _, layers)| {
        (Some(manifest.digest), layers)
    });
    let layer = |object: &ObjectId| ImageLayer {
        object: *object,
        media_type: LayerType::Tar,
    };
    let layers: Vec<_> = below.iter().chain([&own]).map(layer).collect();
    let config = match manifest {
        None => scratch(&spec, Platform::LinuxAmd64, own).unwrap().1,
        Some(_) => ObjectId::of(b"configuration"),
    };
    let mut image = ImageRecord {
        manifest: config,
        sha512: Sha512Digest::of(b""),
        config,
        index: config,
        layers,
        base: named.map(|(manifest, config, _)| ImageBase { manifest, config }),
    };
    (image.manifest, image.sha512, image.index) = documents(&image, manifest).unwrap();
    receipt.image_output = Some(image);
    receipt.derivations.extend(record);
    (spec, receipt)
}

fn builder() -> BuilderConfig {
    BuilderConfig::new("https://builds.acme.example").unwrap()
}

fn statement(spec: &BuildSpec, receipt: &Receipt) -> Result<serde_json::Value, String> {
    let statement = Statement::provenance(
        spec,
        receipt,
        &fixture::asserted(),
        &Producers::default(),
        &builder(),
    );
    let statement = statement.map_err(|reasons| reasons.join("; "))?;
    Ok(serde_json::from_slice(statement.payload()).unwrap())
}

#[test]
fn the_manifest_is_a_subject_and_the_base_a_dependency() {
    let (base, record) = base();
    for (base, record) in [(SCRATCH, None), (base, Some(record))] {
        let (spec, receipt) = attested(base, record);
        let statement = statement(&spec, &receipt).unwrap();
        let subjects = statement["subject"].as_array().unwrap();
        let image = subjects
            .iter()
            .find(|subject| subject["name"] == "image.oci")
            .unwrap();
        let due = receipt.image_output.as_ref().unwrap();
        assert_eq!(image["digest"]["sha256"], due.manifest.digest.to_hex());
        assert_eq!(image["digest"]["sha512"], due.sha512.to_hex());
        let dependencies = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let named = dependencies.as_array().unwrap().iter();
        let named: Vec<_> = named.filter(|one| one["name"] == "image base").collect();
        match base {
            BaseImage::Scratch(_) => assert!(named.is_empty()),
            BaseImage::Image(_) => {
                let due = ObjectId::of(b"manifest").digest.to_hex();
                assert_eq!(named[0]["digest"]["sha256"], due);
                assert_eq!(named.len(), 1);
            }
        }
        let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
        assert_eq!(
            parameters["image_output"]["config"]["entrypoint"][0],
            "/app"
        );
    }
}

#[test]
fn another_image_than_becomes_of_the_outputs_is_not_attested() {
    let (on, record) = base();
    type Change = fn(&mut Receipt, &mut ImageRecord);
    let changes: [(&str, Change, &str); 10] = [
        (
            "base",
            |_, image| {
                image.base = match image.base {
                    None => Some(ImageBase {
                        manifest: image.config,
                        config: image.config,
                    }),
                    Some(_) => None,
                }
            },
            "base",
        ),
        (
            "manifest",
            |_, image| image.manifest = ObjectId::of(b"x"),
            "manifest",
        ),
        (
            "sha512",
            |_, image| image.sha512 = Sha512Digest::of(b"x"),
            "manifest",
        ),
        (
            "index",
            |_, image| image.index = ObjectId::of(b"x"),
            "manifest",
        ),
        (
            "config",
            |_, image| image.config = ObjectId::of(b"x"),
            "manifest",
        ),
        ("no layer", |_, image| image.layers.clear(), "no layer"),
        (
            "layer twice",
            |_, image| image.layers.push(image.layers[0]),
            "lie",
        ),
        (
            "packed",
            |_, image| image.layers.last_mut().unwrap().media_type = LayerType::Gzip,
            "packed",
        ),
        ("no record", |receipt, _| receipt.derivations.clear(), ""),
        (
            "name",
            |receipt, _| receipt.outputs.push(fixture::file("image.oci", b"x")),
            "image.oci",
        ),
    ];
    for (base, record) in [(SCRATCH, None), (on, Some(record))] {
        for (case, change, due) in &changes {
            let (spec, mut receipt) = attested(base, record.clone());
            let mut image = receipt.image_output.take().unwrap();
            change(&mut receipt, &mut image);
            receipt.image_output = Some(image);
            match statement(&spec, &receipt) {
                // There is none.
                Ok(_) => assert!(*case == "no record" && base == SCRATCH, "{case}"),
                Err(why) => assert!(why.contains(due), "{case}: {why}"),
            }
        }
        let (spec, mut receipt) = attested(base, record.clone());
        receipt.image_output = None;
        let why = statement(&spec, &receipt).unwrap_err();
        assert!(why.contains("image: "), "{why}");
    }
}

#[test]
fn an_image_that_nobody_asked_for_is_not_attested() {
    let (_, with) = attested(SCRATCH, None);
    let (spec, mut receipt) = (fixture::spec(), fixture::receipt());
    receipt.image_output = with.image_output;
    let why = statement(&spec, &receipt).unwrap_err();
    assert!(why.contains("image: "), "{why}");
}

#[test]
fn a_layer_of_another_size_or_other_layers_below_are_not_attested() {
    // Whoever makes the documents fit, too.
    for (own, low) in [(1, false), (0, true)] {
        let (on, record) = base();
        let scratch = !low;
        let (base, record) = if scratch {
            (SCRATCH, None)
        } else {
            (on, Some(record))
        };
        let (spec, mut receipt) = attested(base, record.clone());
        let mut image = receipt.image_output.take().unwrap();
        let last = image.layers.len() - 1;
        image.layers[last].object.size += own;
        if low {
            image.layers[0].object = ObjectId::of(b"another");
        } else {
            image.config = self::scratch(&spec, Platform::LinuxAmd64, image.layers[0].object)
                .unwrap()
                .1;
        }
        let manifest = record
            .as_ref()
            .and_then(|record| record.image())
            .map(|(m, _, _)| m.digest);
        (image.manifest, image.sha512, image.index) = documents(&image, manifest).unwrap();
        receipt.image_output = Some(image);
        let why = statement(&spec, &receipt).unwrap_err();
        let due = if low {
            "does not lie on"
        } else {
            "another size"
        };
        assert!(why.contains(due), "{why}");
    }
}
