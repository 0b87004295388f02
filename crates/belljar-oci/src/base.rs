use belljar_core::oci::LayerType;
use belljar_core::{Invalid, ObjectId, bounds, oci};
use belljar_plan::{ImageBase, ImageLayer};
use serde::Deserialize;
use serde_json::{Map, Value};

/// An image that a layer is laid on.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    pub(crate) named: ImageBase,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<ImageLayer>,
    pub(crate) config: Map<String, Value>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

impl Descriptor {
    fn object(&self) -> Result<ObjectId, Invalid> {
        let digest = self.digest.parse()?;
        Ok(ObjectId {
            digest,
            size: self.size,
        })
    }
}

/// Fields of a configuration that are told of an image here, by where they stand. Readers that are written in Go, as most are,
/// take a name in letters of the other case for the same field, and of two the last one counts.
const TOLD: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "architecture",
            "config",
            "created",
            "history",
            "os",
            "rootfs",
        ],
    ),
    (
        "config",
        &["Cmd", "Entrypoint", "Env", "Labels", "User", "WorkingDir"],
    ),
    ("rootfs", &["diff_ids", "type"]),
];

/// Most bytes of a manifest or a configuration.
pub(crate) const MOST: u64 = bounds::OCI_DOCUMENT_BYTES;

impl Base {
    /// It by its digests.
    pub fn named(&self) -> ImageBase {
        self.named
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> &[ImageLayer] {
        &self.layers
    }

    /// What a manifest names, of OCI or of Docker (schema 2): its configuration, and its layers, the lowest first.
    ///
    /// # Errors
    /// When it is none, or has layers that not every registry has.
    pub fn named_by(manifest: &[u8]) -> Result<(ObjectId, Vec<ImageLayer>), Invalid> {
        // With the one that comes over them there are not too many.
        named(manifest, bounds::OCI_LAYERS - 1)
    }

    /// The image of a manifest and its configuration.
    ///
    /// # Errors
    /// When they do not go together.
    pub fn new(manifest: &[u8], config: &[u8]) -> Result<Self, Invalid> {
        let (due, layers) = Self::named_by(manifest)?;
        if ObjectId::of(config) != due {
            return Err(Invalid::field(
                "config",
                "not the one that the manifest names",
            ));
        }
        small(config)?;
        let config: Map<String, Value> =
            serde_json::from_slice(config).map_err(|e| Invalid::field("config", e.to_string()))?;
        if !config.values().all(is_exact) {
            let why = "has a number beyond 2^53, which canonical JSON (RFC 8785) would round";
            return Err(Invalid::field("config", why));
        }
        unambiguous(&config)?;
        let rootfs = config
            .get("rootfs")
            .and_then(|rootfs| rootfs.get("diff_ids"));
        let diff_ids = rootfs.and_then(Value::as_array).map_or(0, Vec::len);
        if diff_ids != layers.len() {
            let why = format!("{diff_ids} of them, and there are {} layers", layers.len());
            return Err(Invalid::field("config.rootfs.diff_ids", why));
        }
        Ok(Self {
            named: ImageBase {
                manifest: ObjectId::of(manifest),
                config: due,
            },
            layers,
            config,
        })
    }
}

/// What a manifest with at most so many layers names: its configuration, and its layers, the lowest first.
///
/// # Errors
/// When it is none of an image.
pub fn named(manifest: &[u8], most: usize) -> Result<(ObjectId, Vec<ImageLayer>), Invalid> {
    small(manifest)?;
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|e| Invalid::new(e.to_string()))?;
    if !oci::CONFIGURATIONS.contains(&manifest.config.media_type.as_str()) {
        let media_type: String = manifest
            .config
            .media_type
            .escape_debug()
            .take(100)
            .collect();
        let why = format!("of the media type `{media_type}`, which is no image's");
        return Err(Invalid::field("config", why));
    }
    if manifest.layers.len() > most {
        let has = manifest.layers.len();
        let why = format!("{has} of them; {most} are allowed");
        return Err(Invalid::field("layers", why));
    }
    let layers = manifest.layers.iter().map(|layer| {
        let media_type: String = layer.media_type.escape_debug().take(100).collect();
        let media_type = LayerType::named(&layer.media_type).ok_or_else(|| {
            let why = format!("one of the media type `{media_type}`, which nothing is laid on");
            Invalid::field("layers", why)
        })?;
        let object = layer.object().map_err(|e| e.within("layers"))?;
        Ok(ImageLayer { object, media_type })
    });
    let layers = layers.collect::<Result<_, Invalid>>()?;
    let config = manifest.config.object().map_err(|e| e.within("config"))?;
    Ok((config, layers))
}

/// Whether each field that is told of an image has its one name, so that what is said of it is what all readers find.
fn unambiguous(config: &Map<String, Value>) -> Result<(), Invalid> {
    for (place, names) in TOLD {
        let object = match place {
            "" => Some(config),
            place => config.get(place).and_then(Value::as_object),
        };
        for key in object.into_iter().flat_map(Map::keys) {
            let alike = |name: &&&str| **name != key && folded(name) == folded(key);
            if let Some(name) = names.iter().find(alike) {
                let key: String = key.escape_debug().take(100).collect();
                let why = format!(
                    "has `{key}`, which many readers take for `{name}`: to them the image would be another one than its \
                     specification says"
                );
                let place = if place.is_empty() { "" } else { "." }.to_owned() + place;
                return Err(Invalid::field(format!("config{place}"), why));
            }
        }
    }
    Ok(())
}

/// A name without the difference between small and capital letters, as Go folds it: also of those that have a third form (U+017F,
/// U+212A).
fn folded(name: &str) -> String {
    name.to_lowercase().to_uppercase()
}

/// Whether all numbers in it stay what they are in canonical JSON. It is no deeper than its reader allows.
fn is_exact(value: &Value) -> bool {
    const MOST: u64 = 1 << 53;
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number <= MOST,
            (None, Some(number)) => number.unsigned_abs() <= MOST,
            (None, None) => number
                .as_f64()
                .is_some_and(|number| number.abs() <= 9_007_199_254_740_992.0),
        },
        Value::Array(all) => all.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn small(document: &[u8]) -> Result<(), Invalid> {
    match document.len() as u64 > MOST {
        true => Err(Invalid::new(format!("has more than {MOST} bytes"))),
        false => Ok(()),
    }
}
