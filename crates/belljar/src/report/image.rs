use belljar_core::ObjectId;
use belljar_wire::ImageArtifact;
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
