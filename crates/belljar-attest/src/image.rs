//! The image that became of the outputs, as the receipt has it: its documents are functions of what the specification and the
//! receipt say, and are computed here once more.

use belljar_core::oci::LayerType;
use belljar_core::{BaseImage, BuildSpec, Digest, Invalid, ObjectId, Platform, Sha512Digest};
use belljar_oci::{Documents, Layer, Made};
use belljar_plan::{ImageBase, ImageRecord, Receipt};

use crate::derivations;

/// What speaks against this being the image that the specification asks for. That there is one if one is asked for is among
/// the shortfalls.
pub(crate) fn mismatches(spec: &BuildSpec, receipt: &Receipt) -> Vec<String> {
    let (Some(output), Some(image)) = (&spec.image_output, &receipt.image_output) else {
        return Vec::new();
    };
    let Some((own, below)) = image.layers.split_last() else {
        return vec!["the image has no layer".to_owned()];
    };
    let mut against = Vec::new();
    let mut unless = |holds: bool, why: &str| {
        if !holds {
            against.push(why.to_owned());
        }
    };
    unless(
        own.media_type == LayerType::Tar,
        "the layer of the outputs is packed otherwise than they are",
    );
    let below: Vec<ObjectId> = below.iter().map(|layer| layer.object).collect();
    let layer = Layer::of(&receipt.outputs, output.root.as_ref()).map(|layer| layer.size());
    let (base, size) = match output.base {
        BaseImage::Scratch(platform) => {
            unless(
                below.is_empty() && image.base.is_none(),
                "an image from scratch lies on a base, or on other layers",
            );
            let due = scratch(spec, platform, own.object);
            unless(
                due == Ok((image.manifest, image.config)),
                "the image from scratch is another one than becomes of its layer",
            );
            (None, layer)
        }
        BaseImage::Image(_) => {
            let record = derivations::base_record(spec, receipt);
            let named = record.and_then(|record| record.image());
            let base = named.map(|(manifest, config, _)| ImageBase { manifest, config });
            unless(
                named.map(|(_, _, layers)| layers) == Some(below.as_slice()),
                "the image does not lie on the layers of the base that the specification names",
            );
            unless(
                base.is_some() && image.base == base,
                "the image's base is not the one that the specification names",
            );
            // Directories that the base has are left out.
            (base, layer.map(|_| own.object.size))
        }
    };
    unless(
        size == Ok(own.object.size),
        "the layer of the outputs has another size than they give",
    );
    let base = base.map(|base| base.manifest.digest);
    unless(
        documents(image, base) == Ok((image.manifest, image.sha512, image.index)),
        "the image's manifest is not that of its configuration and layers",
    );
    against
}

/// Manifest and configuration of the image from scratch that becomes of this layer.
fn scratch(
    spec: &BuildSpec,
    platform: Platform,
    layer: ObjectId,
) -> Result<(ObjectId, ObjectId), Invalid> {
    let Some(output) = &spec.image_output else {
        return Err(Invalid::new("no image was asked for"));
    };
    let documents = Documents::new(&Made {
        base: None,
        platform,
        config: &output.config,
        layer,
        epoch: spec.source_date_epoch,
    })?;
    let [manifest, config] = [&documents.manifest, &documents.config].map(|one| ObjectId::of(one));
    Ok((manifest, config))
}

/// Manifest, with its second digest, and index of an image with this configuration and these layers.
fn documents(
    image: &ImageRecord,
    base: Option<Digest>,
) -> Result<(ObjectId, Sha512Digest, ObjectId), Invalid> {
    let manifest = belljar_oci::manifest(image.config, &image.layers, base)?;
    let index = belljar_oci::index(ObjectId::of(&manifest))?;
    Ok((
        ObjectId::of(&manifest),
        Sha512Digest::of(&manifest),
        ObjectId::of(&index),
    ))
}

#[cfg(test)]
mod tests;
