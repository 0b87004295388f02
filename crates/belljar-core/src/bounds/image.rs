//! Images of root file systems, those that builds make, and the registries that they are pulled from and pushed to.

use super::OUTPUT_NAMES_BYTES;

/// Most entries at the top of a tree that is a root file system: each is a Landlock rule.
pub const IMAGE_TOP_ENTRIES: usize = 128;
/// Most root file systems in the list of those that the spawner admits.
pub const ALLOWED_IMAGES: usize = 1024;
/// Largest JSON document of an OCI image (index, manifest), in bytes: OCI's own advice to registries.
pub const OCI_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most layers of one OCI image.
pub const OCI_LAYERS: usize = 128;
/// Most indexes of an OCI image inside each other that are followed.
pub const OCI_INDEX_DEPTH: usize = 4;
/// Most manifests that are looked at to find the one of an OCI image for a platform.
pub const OCI_CANDIDATES: usize = 64;
/// Longest text in a descriptor of an image that is kept, in bytes: a media type has at most 255 (RFC 6838, section 4.2).
pub const OCI_WORD_BYTES: usize = 255;
/// Longest name of a repository of a registry with its host, in bytes.
pub const REPOSITORY_BYTES: usize = 255;
/// Longest tag of an image, in bytes.
pub const TAG_BYTES: usize = 128;
/// Most arguments of an image's entry point, of its command, and most labels.
pub const IMAGE_LIST: usize = 256;
/// Longest argument or label of an image, in bytes.
pub const IMAGE_TEXT_BYTES: usize = 4096;
/// Most entries of the layer that becomes of outputs, with the directories between them: four times as many as there may be
/// outputs.
pub const LAYER_ENTRIES: usize = 40_000;
/// Longest all paths and link targets of such a layer may be together, in bytes.
pub const LAYER_NAMES_BYTES: usize = 4 * OUTPUT_NAMES_BYTES;
/// Most images that are being pulled at once, and most that are being pushed.
pub const PULLS: usize = 4;
/// Most of them for one principal.
pub const PULLS_PER_PRINCIPAL: usize = 2;
/// Longest that pulling one image may take, with the tree that is made of it, or pushing one, in seconds.
pub const PULL_SECONDS: u64 = 3600;
/// Most bytes that all documents of one image may have at a registry together (16 MiB); each is pulled once.
pub const PULL_DOCUMENT_BYTES: u64 = 16 << 20;
/// Most bytes that one image may have at a registry, all its layers together (16 GiB).
pub const PULL_BYTES: u64 = 16 << 30;
/// Most registries that a configuration names.
pub const REGISTRIES: usize = 100;
/// Largest answer of who gives tokens for a registry, in bytes.
pub const TOKEN_ANSWER_BYTES: usize = 64 * 1024;
/// Longest token, and longest user and password, for a registry, in bytes.
pub const TOKEN_BYTES: usize = 16 * 1024;
