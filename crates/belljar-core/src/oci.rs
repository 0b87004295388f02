//! Media types of images (OCI image-spec v1.1), and Docker's (schema 2), which differ in the names of these alone.

use serde::{Deserialize, Serialize};

/// Of image indexes.
pub const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Of image manifests.
pub const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Of image configurations.
pub const CONFIGURATIONS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Of layers that a registry has itself. How they are compressed is seen from their first bytes.
pub const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// Of layers that a registry need not have, because somebody else gives them away. No more than [`LAYERS`] when they are
/// there all the same.
pub const FOREIGN_LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Of manifests of before 2016 (schema 1), whose digests do not say what is in the image.
pub const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Of the manifest of an image that becomes of outputs.
pub const MANIFEST: &str = MANIFESTS[0];
/// Of the index of an image layout.
pub const INDEX: &str = INDEXES[0];
/// Of the configuration of an image that becomes of outputs.
pub const CONFIGURATION: &str = CONFIGURATIONS[0];

/// How the content of a layer is packed, by its media type; Docker's types mean the same and are read as these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LayerType {
    /// A tar archive.
    #[serde(rename = "application/vnd.oci.image.layer.v1.tar")]
    Tar,
    /// The same by gzip.
    #[serde(rename = "application/vnd.oci.image.layer.v1.tar+gzip")]
    Gzip,
    /// The same by zstd.
    #[serde(rename = "application/vnd.oci.image.layer.v1.tar+zstd")]
    Zstd,
}

impl LayerType {
    /// The type of that name, OCI's or Docker's.
    pub fn named(media_type: &str) -> Option<Self> {
        let place = LAYERS.iter().position(|known| *known == media_type)?;
        [Self::Tar, Self::Gzip, Self::Zstd, Self::Tar, Self::Gzip]
            .get(place)
            .copied()
    }

    /// OCI's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => LAYERS[0],
            Self::Gzip => LAYERS[1],
            Self::Zstd => LAYERS[2],
        }
    }
}
