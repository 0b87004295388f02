//! OCI images (image-spec v1.1), and Docker's (schema 2), as they lie in an image layout or at a registry.

use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Digest, Fact, ObjectId, Platform, bounds, oci};
use belljar_plan::unpack::Said;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::archive::{self, Counts, Style, shown};
use super::outlet::{Outlet, Stop};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Runs>,
}

/// What an image runs on, in a descriptor or a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Runs {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Runs {
    fn shown(&self) -> String {
        let text = format!("{}/{}", self.os, self.architecture);
        text.escape_debug().take(80).collect()
    }
}

impl Descriptor {
    fn object(&self) -> Result<ObjectId, Stop> {
        let digest: Digest = self
            .digest
            .parse()
            .map_err(|e| Stop::Refused(format!("names a blob by a digest of another kind: {e}")))?;
        Ok(ObjectId {
            digest,
            size: self.size,
        })
    }

    fn is(&self, types: &[&str]) -> bool {
        types.contains(&self.media_type.as_str())
    }
}

/// What of a document says which of the two it is.
#[derive(Debug, Deserialize)]
struct Kind {
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Says the root file system of the image for `platform` that `index` names.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    index: ObjectId,
    platform: Platform,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let mut finder = Finder::new(outlet, platform);
    finder.index(index, 0)?;
    lay(outlet, finder.only()?, dropped)
}

/// The same of an image index or an image manifest, as a registry gives it under one name.
pub(super) fn unpack_named(
    outlet: &Outlet<'_>,
    image: ObjectId,
    platform: Platform,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let mut finder = Finder::new(outlet, platform);
    let kind: Kind = finder.document(image, "image index or manifest")?;
    match (
        kind.manifests,
        kind.config.is_some() || kind.layers.is_some(),
    ) {
        // Such a one is another image to each who reads it (CVE-2021-41190).
        (Some(_), true) => {
            let why = "is an index and a manifest at once, so that nobody knows which image it is";
            return Err(Stop::Refused(why.to_owned()));
        }
        (Some(_), false) => finder.index(image, 0)?,
        (None, _) => finder.image(image)?,
    }
    lay(outlet, finder.only()?, dropped)
}

/// Says the layers of an image, one over the other.
fn lay(
    outlet: &Outlet<'_>,
    (manifest, image): (ObjectId, Manifest),
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let config = image.config.object()?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        if !layer.is(&oci::LAYERS) && !layer.is(&oci::FOREIGN_LAYERS) {
            return Err(Stop::Refused(format!(
                "has a layer of the media type `{}`, which is not read",
                excerpt(&layer.media_type)
            )));
        }
        layers.push(layer.object()?);
    }
    if layers.is_empty() {
        return Err(layered(0));
    }
    let fact = Fact::OciImage {
        manifest,
        config,
        layers: layers.clone(),
    };
    outlet.say(&Said::Fact { fact })?;
    for (number, layer) in (1..).zip(layers) {
        outlet.say(&Said::Layer {})?;
        let content = outlet.need(layer)?;
        archive::unpack(outlet, content, layer.size, Style::Layer, dropped).map_err(|stop| {
            stop.within(&format!("has a layer {number}, {}, which", layer.digest))
        })?;
    }
    Ok(())
}

fn layered(count: usize) -> Stop {
    let most = bounds::OCI_LAYERS;
    Stop::Refused(format!("has {count} layers; 1 to {most} are read"))
}

/// Looks for the image of one platform.
struct Finder<'a, 'c> {
    outlet: &'a Outlet<'c>,
    platform: Platform,
    manifests: usize,
    found: BTreeMap<ObjectId, Manifest>,
    /// What there is for others.
    others: BTreeSet<Runs>,
}

impl<'a, 'c> Finder<'a, 'c> {
    fn new(outlet: &'a Outlet<'c>, platform: Platform) -> Self {
        Self {
            outlet,
            platform,
            manifests: 0,
            found: BTreeMap::new(),
            others: BTreeSet::new(),
        }
    }

    fn index(&mut self, object: ObjectId, depth: usize) -> Result<(), Stop> {
        if depth > bounds::OCI_INDEX_DEPTH {
            return Err(Stop::Refused(format!(
                "has more than {} indexes inside each other",
                bounds::OCI_INDEX_DEPTH
            )));
        }
        let index: Index = self.document(object, "image index")?;
        for descriptor in index.manifests {
            self.manifests += 1;
            if self.manifests > bounds::OCI_CANDIDATES {
                return Err(Stop::Refused(format!(
                    "names more than {} manifests",
                    bounds::OCI_CANDIDATES
                )));
            }
            let object = descriptor.object()?;
            match &descriptor.platform {
                // Of an index inside, such as some tools give it too; its own entries say it better.
                _ if descriptor.is(&oci::INDEXES) => self.index(object, depth + 1)?,
                Some(runs) if !self.fits(runs) => {
                    self.others.insert(runs.clone());
                }
                // Such as an artifact that is no image at all.
                _ if !descriptor.is(&oci::MANIFESTS) => {}
                _ => self.image(object)?,
            }
        }
        Ok(())
    }

    /// Looks at an image whose descriptor does not rule it out. What its own configuration says counts.
    fn image(&mut self, object: ObjectId) -> Result<(), Stop> {
        if self.found.contains_key(&object) {
            return Ok(());
        }
        let manifest: Manifest = self.document(object, "image manifest")?;
        // Others may come before it is known which one it is, and each is kept until then.
        if manifest.layers.len() > bounds::OCI_LAYERS {
            return Err(layered(manifest.layers.len()));
        }
        let runs: Runs = self.document(manifest.config.object()?, "image configuration")?;
        if self.fits(&runs) {
            self.found.insert(object, manifest);
        } else {
            self.others.insert(runs);
        }
        Ok(())
    }

    fn fits(&self, runs: &Runs) -> bool {
        format!("{}/{}", runs.os, runs.architecture) == self.platform.as_str()
    }

    fn document<T: DeserializeOwned>(&self, object: ObjectId, what: &str) -> Result<T, Stop> {
        let bytes = self
            .outlet
            .document(object, bounds::OCI_DOCUMENT_BYTES)
            .map_err(|stop| stop.within(&format!("has an {what}, {}, which", object.digest)))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            Stop::Refused(format!(
                "has an {what}, {}, which is none: {}",
                object.digest,
                // It may repeat what stands there.
                shown(e.to_string().as_bytes())
            ))
        })
    }

    /// The one image that was found.
    fn only(mut self) -> Result<(ObjectId, Manifest), Stop> {
        if self.found.len() > 1 {
            let all: Vec<String> = self.found.keys().map(|o| o.digest.to_string()).collect();
            return Err(Stop::Refused(format!(
                "is more than one: for {} there are {}; keep one of them in the layout",
                self.platform,
                all.join(", ")
            )));
        }
        self.found.pop_first().ok_or_else(|| {
            let others: Vec<String> = self.others.iter().map(Runs::shown).collect();
            Stop::Refused(if others.is_empty() {
                "is none: its index names no image manifest".to_owned()
            } else {
                format!(
                    "is not for {}; there is one for {}",
                    self.platform,
                    others.join(", ")
                )
            })
        })
    }
}

fn excerpt(text: &str) -> String {
    text.escape_debug().take(100).collect()
}
