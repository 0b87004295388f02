use belljar_core::ObjectId;
use belljar_wire::{ImageArtifact, ImagePush, PushedImage, build_name};
use serde::Serialize;

/// An image; all of it are objects.
#[derive(Debug, Serialize)]
pub(super) struct ImageReport {
    /// Its manifest: the image's digest.
    manifest: ObjectId,
    config: ObjectId,
    /// The lowest first.
    layers: Vec<ObjectId>,
    /// The manifest of what it lies on; none if that is nothing.
    base: Option<ObjectId>,
}

impl From<&ImageArtifact> for ImageReport {
    fn from(image: &ImageArtifact) -> Self {
        let layers = image.layers.iter();
        Self {
            manifest: image.manifest,
            config: image.config,
            layers: layers.map(|(object, _)| *object).collect(),
            base: image.base.map(|(manifest, _)| manifest),
        }
    }
}

/// An image that was pushed.
#[derive(Debug, Serialize)]
pub(crate) struct Pushed {
    schema: &'static str,
    /// Whose image it is: the build's resource name.
    build: String,
    /// Where to, as it was asked for.
    reference: String,
    /// Its manifest.
    image: ObjectId,
    /// The manifest of the artifact with its provenance.
    attestation: ObjectId,
    /// Whether the registry itself lists that as referring to the image; else it is listed under the tag `sha256-…`.
    listed_by_registry: bool,
    /// Bytes that were sent.
    pushed_bytes: u64,
}

impl Pushed {
    /// What came of a wish.
    pub(crate) fn new(push: &ImagePush, pushed: &PushedImage) -> Self {
        Self {
            schema: "belljar.push/v1",
            build: build_name(&push.build),
            reference: push.reference.to_string(),
            image: pushed.image,
            attestation: pushed.attestation,
            listed_by_registry: pushed.listed_by_registry,
            pushed_bytes: pushed.pushed_bytes,
        }
    }
}
