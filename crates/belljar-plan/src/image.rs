use belljar_core::oci::LayerType;
use belljar_core::{ObjectId, Sha512Digest};
use serde::{Deserialize, Serialize};

/// An image that the store made of what it had collected (OCI image-spec v1.1). All of it are objects of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// Its manifest, whose digest is the image's.
    pub manifest: ObjectId,
    /// The manifest's second digest.
    pub sha512: Sha512Digest,
    /// Its configuration.
    pub config: ObjectId,
    /// The index of an image layout with it.
    pub index: ObjectId,
    /// Its layers, the lowest first: the base's, and one of the outputs.
    pub layers: Vec<ImageLayer>,
    /// What it lies on, if it does on anything.
    pub base: Option<ImageBase>,
}

/// The image that another one lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBase {
    /// Its manifest.
    pub manifest: ObjectId,
    /// Its configuration.
    pub config: ObjectId,
}

/// A layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLayer {
    /// Its content.
    pub object: ObjectId,
    /// How that is packed.
    pub media_type: LayerType,
}

impl ImageRecord {
    /// Everything that it is made of, and what its base is told by.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        let documents = [self.manifest, self.config, self.index];
        let layers = self.layers.iter().map(|layer| layer.object);
        let base = self.base.iter();
        let base = base.flat_map(|base| [base.manifest, base.config]);
        documents.into_iter().chain(layers).chain(base)
    }
}
