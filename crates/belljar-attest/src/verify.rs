use std::collections::{BTreeMap, BTreeSet};

use belljar_core::{Digest, Invalid, canonical_json};
use serde::Deserialize;

use crate::provenance::{AUDIT, INPUTS, RECEIPT, ROOTFS, SOURCE, SPEC};
use crate::statement::PREDICATE_TYPE;
use crate::verdict::{AssertedFacts, VerifiedTree};
use crate::{BuilderConfig, Mode, Verdict};

use signed::{due, head, signed, unreadable};
use view::{Descriptor, Digests, View};

pub use image::{ImageCopy, verify_image};
pub use producer::Proven;
pub use receipt::{is_about_a_receipt, verify_receipt, verify_receipt_of};

/// Why a bundle does not vouch for an artifact.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The given key is none.
    #[error("the public key cannot be used: {0}")]
    Key(Invalid),
    /// The bundle is not one that Belljar writes.
    #[error("the bundle is malformed: {0}")]
    Malformed(Invalid),
    /// The bundle names another key than the given one.
    #[error("the bundle was signed with the key {signed_with}, and the given key is {given}")]
    WrongKey {
        /// The key that the bundle names.
        signed_with: String,
        /// The given key.
        given: String,
    },
    /// The signature is not that key's over the statement in the bundle.
    #[error(
        "the signature does not fit: the statement or the signature was changed, or another key signed it"
    )]
    BadSignature,
    /// Signed, but not a provenance statement that this version understands.
    #[error("the signed statement is not Belljar's provenance: {0}")]
    NotProvenance(Invalid),
    /// Signed, but not a statement about a receipt that this version understands.
    #[error("the signed statement is not about a receipt: {0}")]
    NotAReceipt(Invalid),
    /// Signed provenance of something else.
    #[error(
        "the statement does not name this artifact ({artifact}); it is about {subjects} others"
    )]
    NotASubject {
        /// The artifact's digest.
        artifact: Digest,
        /// How many subjects there are.
        subjects: usize,
    },
    /// Signed provenance of this image, which is not the image that becomes of what it is about.
    #[error("the image is not what its provenance says: {0}")]
    AnotherImage(Invalid),
}

impl VerifyError {
    /// A short stable word for machines.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Key(_) => "unusable_key",
            Self::Malformed(_) => "malformed",
            Self::WrongKey { .. } => "wrong_key",
            Self::BadSignature => "bad_signature",
            Self::NotProvenance(_) => "not_provenance",
            Self::NotAReceipt(_) => "not_a_receipt",
            Self::NotASubject { .. } => "not_a_subject",
            Self::AnotherImage(_) => "another_image",
        }
    }
}

/// Checks offline, with nothing but its arguments, that `bundle` (a file's bytes) holds provenance of the
/// artifact with the SHA-256 digest `artifact`, signed by the key `public_key` (PEM).
///
/// The payload is decoded once, and it is these bytes that the signature is checked over and that are read.
/// A verdict says by *which* builder: whether that one is to be trusted for this artifact is the caller's
/// decision.
///
/// # Errors
/// The first check that fails, see [`VerifyError`].
pub fn verify(bundle: &[u8], public_key: &str, artifact: &Digest) -> Result<Verdict, VerifyError> {
    verify_all(bundle, public_key, artifact, &[])
}

/// As [`verify`], of `artifact` and of each of `others` at once: there may be ten thousand of them, and a bundle is
/// read once. The verdict is about `artifact`.
///
/// # Errors
/// As [`verify`].
pub fn verify_all(
    bundle: &[u8],
    public_key: &str,
    artifact: &Digest,
    others: &[Digest],
) -> Result<Verdict, VerifyError> {
    let (bundle, given) = signed(bundle, public_key)?;
    let statement = View::read(bundle.payload()).map_err(VerifyError::NotProvenance)?;
    let known: BTreeSet<&str> = statement
        .subject
        .iter()
        .map(|subject| subject.digest.sha256.as_str())
        .collect();
    let mut artifacts = std::iter::once(artifact).chain(others);
    if let Some(other) = artifacts.find(|digest| !known.contains(digest.to_hex().as_str())) {
        return Err(VerifyError::NotASubject {
            artifact: *other,
            subjects: statement.subject.len(),
        });
    }
    let subjects = statement.named(artifact);
    statement
        .verdict(*artifact, subjects, given)
        .map_err(VerifyError::NotProvenance)
}

impl View {
    fn read(payload: &[u8]) -> Result<Self, Invalid> {
        let (value, predicate_type) = head(payload)?;
        due("predicateType", &predicate_type, PREDICATE_TYPE)?;
        let view = Self::deserialize(value).map_err(unreadable)?;
        let names: BTreeSet<&str> = view
            .subject
            .iter()
            .map(|subject| subject.name.as_str())
            .collect();
        if names.len() != view.subject.len() {
            return Err(Invalid::field("subject", "two subjects have one name"));
        }
        for subject in &view.subject {
            Digest::from_hex(&subject.digest.sha256)
                .map_err(|e| e.within("subject.digest.sha256"))?;
        }
        Ok(view)
    }

    /// The names under which the artifact is a subject.
    fn named(&self, artifact: &Digest) -> Vec<String> {
        let hex = artifact.to_hex();
        let same = self
            .subject
            .iter()
            .filter(|subject| subject.digest.sha256 == hex);
        same.map(|subject| subject.name.clone()).collect()
    }

    fn verdict(
        self,
        artifact: Digest,
        subjects: Vec<String>,
        key_id: String,
    ) -> Result<Verdict, Invalid> {
        let (definition, run) = (self.predicate.build_definition, self.predicate.run_details);
        let (builder, mode) = mode(&run.builder.id, &definition.build_type)?;
        let internal = definition.internal_parameters;
        let image = rootfs(&definition.resolved_dependencies)?;
        for (fits, other) in [
            (mode.fits(internal.hermetic), "builder.id"),
            (
                internal.hermetic == image.is_some(),
                "the root file system among resolvedDependencies",
            ),
        ] {
            if !fits {
                let why = format!("contradicts {other}");
                return Err(Invalid::field("internalParameters.hermetic", why));
            }
        }
        let spec = digest_of(&run.byproducts, SPEC)?.0;
        let parameters = canonical_json(&definition.external_parameters)
            .map_err(|e| Invalid::new(e.to_string()))?;
        if Digest::of(&parameters) != spec {
            return Err(Invalid::field(
                "externalParameters",
                "not the specification that the byproducts name",
            ));
        }
        let (audit_trail, audit_entries) = digest_of(&run.byproducts, AUDIT)?;
        Ok(Verdict {
            artifact,
            subjects,
            builder,
            builder_description: mode.describe(),
            build_type: definition.build_type,
            hermetic: internal.hermetic,
            invocation: run.metadata.invocation_id,
            started: run.metadata.started_on,
            finished: run.metadata.finished_on,
            spec,
            source: digest_of(&definition.resolved_dependencies, SOURCE)?.0,
            image,
            inputs: inputs(&definition.resolved_dependencies)?,
            producers: given::producers(&definition.resolved_dependencies)?,
            base: given::base(&definition.resolved_dependencies)?,
            receipt: digest_of(&run.byproducts, RECEIPT)?.0,
            key_id,
            asserted: AssertedFacts {
                project: internal.asserted.project,
                submitter: internal.asserted.submitter,
                authenticated_by: internal.asserted.authenticated_by,
                accepted: internal.asserted.accepted,
                audit_trail,
                audit_entries,
            },
        })
    }
}

/// The builder's id and its mode, if both ids are of this version and of one builder.
fn mode(id: &str, build_type: &str) -> Result<(String, Mode), Invalid> {
    let (base, mode) = Mode::in_id(id).ok_or_else(|| {
        let reason = format!(
            "`{}` is not known to this version; a newer one may know it",
            id.escape_debug()
        );
        Invalid::field("builder.id", reason)
    })?;
    match build_type.strip_suffix(BuilderConfig::BUILD_TYPE) {
        Some(same) if same == base => Ok((id.to_owned(), mode)),
        _ => Err(Invalid::field(
            "buildType",
            format!(
                "`{}` is not known to this version; a newer one may know it",
                build_type.escape_debug()
            ),
        )),
    }
}

/// The root file system, if it is a tree.
fn rootfs(descriptors: &[Descriptor]) -> Result<Option<VerifiedTree>, Invalid> {
    let mut named = descriptors.iter().filter(|d| d.name == ROOTFS);
    match (named.next(), named.next()) {
        (Some(descriptor), None) if descriptor.digest.sha256.is_some() => {
            tree(descriptor).map(Some)
        }
        (Some(_), None) => Ok(None),
        _ => Err(Invalid::field(ROOTFS, "exactly one is due")),
    }
}

/// The further inputs, by name.
fn inputs(descriptors: &[Descriptor]) -> Result<BTreeMap<String, VerifiedTree>, Invalid> {
    let mut inputs = BTreeMap::new();
    for descriptor in descriptors {
        let Some(name) = descriptor.name.strip_prefix(INPUTS) else {
            continue;
        };
        if inputs.insert(name.to_owned(), tree(descriptor)?).is_some() {
            return Err(Invalid::field(&descriptor.name, "is there twice"));
        }
    }
    Ok(inputs)
}

fn tree(descriptor: &Descriptor) -> Result<VerifiedTree, Invalid> {
    let named = |e: Invalid| e.within(&descriptor.name);
    let digest = descriptor.digest.sha256.as_ref();
    let digest =
        digest.ok_or_else(|| Invalid::field(&descriptor.name, "a sha256 digest is due"))?;
    let derivation = descriptor.annotations.belljar_derivation.as_deref();
    Ok(VerifiedTree {
        tree: Digest::from_hex(digest).map_err(named)?,
        derivation: derivation
            .map(Digest::from_hex)
            .transpose()
            .map_err(named)?,
    })
}

/// Digest, and number of entries, of the one descriptor with this name.
fn digest_of(descriptors: &[Descriptor], name: &str) -> Result<(Digest, u64), Invalid> {
    let mut named = descriptors
        .iter()
        .filter(|descriptor| descriptor.name == name);
    match (named.next(), named.next()) {
        (
            Some(Descriptor {
                digest: Digests {
                    sha256: Some(digest),
                },
                annotations,
                ..
            }),
            None,
        ) => {
            let digest = Digest::from_hex(digest).map_err(|e| e.within(name))?;
            Ok((digest, annotations.belljar_entries))
        }
        _ => Err(Invalid::field(
            name,
            "exactly one with a sha256 digest is due",
        )),
    }
}

mod given;
mod image;
mod producer;
mod receipt;
mod signed;
#[cfg(test)]
mod tests;
mod view;
