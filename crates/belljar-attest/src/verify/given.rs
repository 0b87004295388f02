//! What a build was given of others, as its provenance names it: artifacts of earlier builds, and what its image lies on.

use std::collections::BTreeMap;

use belljar_core::{Digest, Invalid};

use super::digest_of;
use super::view::{Annotations, Descriptor};
use crate::provenance::BASE;
use crate::verdict::VerifiedProducer;

/// The manifest of the image that the build's own lies on, if it does on any.
pub(super) fn base(descriptors: &[Descriptor]) -> Result<Option<Digest>, Invalid> {
    match descriptors.iter().any(|one| one.name == BASE) {
        true => digest_of(descriptors, BASE).map(|(digest, _)| Some(digest)),
        false => Ok(None),
    }
}

/// Who has left what the build was given, by where that was mounted.
pub(super) fn producers(
    descriptors: &[Descriptor],
) -> Result<BTreeMap<String, VerifiedProducer>, Invalid> {
    let mut producers = BTreeMap::new();
    for Descriptor {
        uri, annotations, ..
    } in descriptors
    {
        let Annotations {
            belljar_input: Some(input),
            belljar_builder: Some(builder),
            belljar_provenance: Some(provenance),
            ..
        } = annotations
        else {
            continue;
        };
        let producer = VerifiedProducer {
            build: uri.clone(),
            builder: builder.clone(),
            provenance: Digest::from_hex(provenance).map_err(|e| e.within(input))?,
        };
        if producers.insert(input.clone(), producer).is_some() {
            return Err(Invalid::field(input, "is said to be of two builds"));
        }
    }
    Ok(producers)
}
