//! OCI images that become of a build's outputs (OCI image-spec v1.1): layer, configuration, manifest and index are functions
//! of the base, of the outputs and of what the specification says. Who has these computes the same digest of the manifest.
//!
//! Pure: content is named by digest, and whoever has it puts it between the headers that are made here.

mod base;
mod documents;
mod layer;
mod read;
mod referrer;
mod tar;

pub use base::{Base, named};
pub use documents::{Documents, LAYOUT, MANIFEST, Made, index, manifest};
pub use layer::{Layer, Node, Part};
pub use read::LayerReader;
pub use referrer::{ARTIFACT_TYPE, EMPTY, fallback_tag, is_about_another, referrer, with_referrer};
