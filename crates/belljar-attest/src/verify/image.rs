use std::collections::BTreeMap;

use belljar_core::{BaseImage, BuildSpec, Digest, Invalid, ObjectId, Platform, RelPath, evidence};
use belljar_oci::{Base, Documents, Layer, Made};
use serde::Deserialize as _;

use super::signed::{signed, unreadable};
use super::{VerifyError, View, digest_of};
use crate::Verdict;
use crate::provenance::BASE;

/// An image as somebody has it: what of it is needed to compute it again.
#[derive(Clone, Copy, Debug)]
pub struct ImageCopy<'a> {
    /// Its manifest.
    pub manifest: &'a [u8],
    /// Its uppermost layer.
    pub object: ObjectId,
    /// What is in that one.
    pub layer: &'a Layer,
    /// The time of everything in it, in seconds since 1970.
    pub mtime: u64,
    /// What it lies on, if it does on anything.
    pub base: Option<&'a Base>,
}

/// Checks offline, with nothing but its arguments, that `bundle` holds provenance of the image `copy`, signed by the key
/// `public_key` (PEM); that the files in its uppermost layer are all the artifacts that belong there, and no others; and that
/// its manifest is what becomes of this layer, the base and the specification, by computing it again. That the layers below are
/// those of the manifest is the caller's to look at.
///
/// # Errors
/// The first check that fails, see [`VerifyError`].
pub fn verify_image(
    bundle: &[u8],
    public_key: &str,
    copy: &ImageCopy<'_>,
) -> Result<Verdict, VerifyError> {
    let (bundle, given) = signed(bundle, public_key)?;
    let statement = View::read(bundle.payload()).map_err(VerifyError::NotProvenance)?;
    let artifact = Digest::of(copy.manifest);
    let names = statement.named(&artifact);
    if !names.iter().any(|name| name == evidence::IMAGE) {
        return Err(VerifyError::NotASubject {
            artifact,
            subjects: statement.subject.len(),
        });
    }
    again(&statement, copy).map_err(VerifyError::AnotherImage)?;
    let verdict = statement.verdict(artifact, names, given);
    verdict.map_err(VerifyError::NotProvenance)
}

/// Computes the image again.
fn again(statement: &View, copy: &ImageCopy<'_>) -> Result<(), Invalid> {
    let definition = &statement.predicate.build_definition;
    let spec = BuildSpec::deserialize(&definition.external_parameters).map_err(unreadable)?;
    let output = spec.image_output.as_ref();
    let output = output.ok_or_else(|| Invalid::new("the specification asks for no image"))?;
    files(statement, output.root.as_ref(), copy.layer)?;
    if copy.mtime != spec.source_date_epoch {
        let due = spec.source_date_epoch;
        let why = format!("its files are of the time {}, and {due} is due", copy.mtime);
        return Err(Invalid::new(why));
    }
    let (due, platform) = match output.base {
        BaseImage::Scratch(platform) => (None, platform),
        BaseImage::Image(_) => {
            let named = digest_of(&definition.resolved_dependencies, BASE)?.0;
            (Some(named), Platform::LinuxAmd64)
        }
    };
    let base = copy.base.map(|base| base.named().manifest.digest);
    if base != due {
        return Err(Invalid::new(
            "it lies on another base than the provenance names",
        ));
    }
    let documents = Documents::new(&Made {
        base: copy.base,
        platform,
        config: &output.config,
        layer: copy.object,
        epoch: spec.source_date_epoch,
    })?;
    match documents.manifest == copy.manifest {
        true => Ok(()),
        false => Err(Invalid::new(
            "its manifest is not what becomes of its layer, its base and the specification",
        )),
    }
}

/// Whether the layer has the files that are attested and belong there, and no others.
fn files(statement: &View, root: Option<&RelPath>, layer: &Layer) -> Result<(), Invalid> {
    let mut due = BTreeMap::new();
    for subject in &statement.subject {
        let name = match root {
            None => Some(subject.name.as_str()),
            Some(root) => {
                let below = subject.name.strip_prefix(root.as_str());
                below.and_then(|below| below.strip_prefix('/'))
            }
        };
        if let Some(name) = name.filter(|_| subject.name != evidence::IMAGE) {
            due.insert(name, subject.digest.sha256.as_str());
        }
    }
    for (path, object) in layer.files() {
        let digest = object.digest.to_hex();
        match due.remove(path.as_str()) {
            Some(attested) if attested == digest => {}
            Some(_) => {
                let why = format!("its layer has another `{path}` than is attested");
                return Err(Invalid::new(why));
            }
            None => {
                return Err(Invalid::new(format!(
                    "its layer has `{path}`, which is not attested"
                )));
            }
        }
    }
    match due.pop_first() {
        Some((name, _)) => Err(Invalid::new(format!(
            "its layer lacks `{}`",
            name.escape_debug()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
