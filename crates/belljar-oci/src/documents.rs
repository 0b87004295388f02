use std::collections::{BTreeMap, BTreeSet};

use belljar_core::oci::LayerType;
use belljar_core::{
    Digest, ImageConfig, Invalid, ObjectId, Platform, Sha512Digest, Timestamp, canonical_json, oci,
};
use belljar_plan::{ImageBase, ImageLayer, ImageRecord};
use serde_json::{Map, Value, json};

use crate::Base;
use crate::base::MOST;

/// The file that says what an image layout is, byte for byte (`oci-layout`).
pub const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";
/// The media type of what [`manifest`] gives.
pub const MANIFEST: &str = oci::MANIFEST;
/// What the image is called in its layout, for tools that want a name.
const NAME: &str = "latest";
/// Who made the uppermost layer, for its history.
const MAKER: &str = "belljar: the outputs of a build";

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// What its layer lies on.
    pub base: Option<&'a Base>,
    /// What it runs on, if there is no base that says so.
    pub platform: Platform,
    /// How it is run.
    pub config: &'a ImageConfig,
    /// Its own layer: a tar archive.
    pub layer: ObjectId,
    /// Seconds since 1970, of its creation.
    pub epoch: u64,
}

/// The documents of an image, each in its one encoding (RFC 8785).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// Its layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its manifest, whose digest is the image's.
    pub manifest: Vec<u8>,
    /// The index of a layout that has this image (`index.json`).
    pub index: Vec<u8>,
    /// What it lies on.
    pub base: Option<ImageBase>,
}

impl Documents {
    /// Those of an image that is made of this.
    ///
    /// # Errors
    /// When the base's configuration is written so that nothing can be laid on it.
    pub fn new(made: &Made<'_>) -> Result<Self, Invalid> {
        let config = config(made)?;
        let own = ImageLayer {
            object: made.layer,
            media_type: LayerType::Tar,
        };
        let below = made
            .base
            .iter()
            .flat_map(|base| base.layers.iter().copied());
        let layers: Vec<_> = below.chain([own]).collect();
        let base = made.base.map(Base::named);
        let manifest = manifest(
            ObjectId::of(&config),
            &layers,
            base.map(|base| base.manifest.digest),
        )?;
        let index = index(ObjectId::of(&manifest))?;
        Ok(Self {
            layers,
            config,
            manifest,
            index,
            base,
        })
    }

    /// The image by the digests of its documents and layers.
    pub fn record(&self) -> ImageRecord {
        ImageRecord {
            manifest: ObjectId::of(&self.manifest),
            sha512: Sha512Digest::of(&self.manifest),
            config: ObjectId::of(&self.config),
            index: ObjectId::of(&self.index),
            layers: self.layers.clone(),
            base: self.base,
        }
    }
}

/// The manifest of an image with this configuration and these layers, over a base of this manifest.
///
/// # Errors
/// Never: what it says can always be written.
pub fn manifest(
    config: ObjectId,
    layers: &[ImageLayer],
    base: Option<Digest>,
) -> Result<Vec<u8>, Invalid> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor(layer.media_type.as_str(), layer.object))
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "config": descriptor(oci::CONFIGURATION, config),
        "layers": layers,
    });
    if let Some(base) = base {
        manifest["annotations"] = json!({ "org.opencontainers.image.base.digest": base });
    }
    encoded(&manifest)
}

/// The index of an image layout with the one image of this manifest.
///
/// # Errors
/// As [`manifest`].
pub fn index(manifest: ObjectId) -> Result<Vec<u8>, Invalid> {
    let mut image = descriptor(oci::MANIFEST, manifest);
    image["annotations"] = json!({ "org.opencontainers.image.ref.name": NAME });
    encoded(&json!({
        "schemaVersion": 2,
        "mediaType": oci::INDEX,
        "manifests": [image],
    }))
}

pub(crate) fn descriptor(media_type: &str, ObjectId { digest, size }: ObjectId) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

pub(crate) fn encoded(document: &Value) -> Result<Vec<u8>, Invalid> {
    let bytes = canonical_json(document).map_err(|e| Invalid::new(e.to_string()))?;
    match bytes.len() as u64 > MOST {
        true => Err(Invalid::new(format!("would have more than {MOST} bytes"))),
        false => Ok(bytes),
    }
}

/// The configuration: the base's, with what is said otherwise, and with one layer more.
fn config(made: &Made<'_>) -> Result<Vec<u8>, Invalid> {
    let created = Timestamp::from_millis(made.epoch.saturating_mul(1000)).to_string();
    // In whole seconds, as other tools write it.
    let created = created.replace(".000Z", "Z");
    let mut config = match made.base {
        Some(base) => base.config.clone(),
        None => scratch(made.platform),
    };
    // What Docker says about how the base was made is not about this image.
    for key in [
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
    ] {
        config.remove(key);
    }
    config.insert("created".to_owned(), created.clone().into());
    run(&mut config, made.config)?;
    let layer = Value::from(made.layer.digest.to_string());
    list(object(&mut config, "rootfs")?, "diff_ids")?.push(layer);
    // The history of a base that has none would not go with its layers.
    if made.base.is_none() || config.contains_key("history") {
        let own = json!({ "created": created, "created_by": MAKER });
        list(&mut config, "history")?.push(own);
    }
    encoded(&config.into())
}

fn scratch(platform: Platform) -> Map<String, Value> {
    let (os, architecture) = platform.as_str().split_once('/').unwrap_or_default();
    let fields = [
        ("os", json!(os)),
        ("architecture", json!(architecture)),
        ("rootfs", json!({ "type": "layers", "diff_ids": [] })),
    ];
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// How the image is run.
fn run(config: &mut Map<String, Value>, said: &ImageConfig) -> Result<(), Invalid> {
    let said = said.get();
    let run = object(config, "config")?;
    if !said.entrypoint.is_empty() {
        run.insert("Entrypoint".to_owned(), json!(said.entrypoint));
        // It was for another program.
        run.remove("Cmd");
    }
    if !said.command.is_empty() {
        run.insert("Cmd".to_owned(), json!(said.command));
    }
    for (key, text) in [
        ("User", &said.user),
        ("WorkingDir", &said.working_directory),
    ] {
        if !text.is_empty() {
            run.insert(key.to_owned(), json!(text));
        }
    }
    if !said.env.is_empty() {
        variables(list(run, "Env")?, &said.env);
    }
    if !said.labels.is_empty() {
        let labels = object(run, "Labels")?;
        let own = said.labels.iter();
        labels.extend(own.map(|(name, value)| (name.clone(), json!(value))));
    }
    Ok(())
}

/// Sets variables: in the place of the base's, or behind them. Each stands there once: of two that the base has, the second would
/// be the one that counts to many who read them.
fn variables(env: &mut Vec<Value>, said: &BTreeMap<String, String>) {
    let name = |value: &Value| {
        let (name, _) = value.as_str()?.split_once('=')?;
        Some(name.to_owned())
    };
    let mut set = BTreeSet::new();
    env.retain_mut(|value| {
        let Some((name, own)) = name(value).and_then(|name| said.get_key_value(&name)) else {
            return true;
        };
        *value = format!("{name}={own}").into();
        set.insert(name)
    });
    let more = said.iter().filter(|(name, _)| !set.contains(name));
    env.extend(more.map(|(name, value)| format!("{name}={value}").into()));
}

/// The object of that name; a new one where there is none.
fn object<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Result<&'a mut Map<String, Value>, Invalid> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    let why = || Invalid::field(format!("config.{name}"), "is no object");
    value.as_object_mut().ok_or_else(why)
}

/// The list of that name; a new one where there is none.
fn list<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, Invalid> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    let why = || Invalid::field(format!("config.{name}"), "is no list");
    value.as_array_mut().ok_or_else(why)
}

#[cfg(test)]
mod tests;
