//! Verification of earlier builds whose artifacts a build is given.

use std::collections::BTreeSet;

use belljar_core::{Digest, Invalid};

use super::{VerifyError, View, signed};

/// What the provenance of an earlier build says, as far as it matters to one that is given something of it. There is none
/// without a signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    provenance: Digest,
    artifacts: BTreeSet<Digest>,
    receipt: Digest,
    builder: String,
    invocation: String,
    project: Option<String>,
}

impl Proven {
    /// Checks that `bundle` (a file's bytes) holds provenance that was signed by the key `public_key` (PEM), as
    /// [`super::verify`] does for one artifact.
    ///
    /// # Errors
    /// As [`super::verify`].
    pub fn verify(bundle: &[u8], public_key: &str) -> Result<Self, VerifyError> {
        let provenance = Digest::of(bundle);
        let (bundle, key_id) = signed(bundle, public_key)?;
        Self::read(bundle.payload(), provenance, key_id).map_err(VerifyError::NotProvenance)
    }

    fn read(payload: &[u8], provenance: Digest, key_id: String) -> Result<Self, Invalid> {
        let statement = View::read(payload)?;
        let subjects = statement.subject.iter();
        let artifacts = subjects.map(|subject| {
            let digest = Digest::from_hex(&subject.digest.sha256);
            digest.map_err(|e| e.within("subject.digest.sha256"))
        });
        let artifacts: BTreeSet<Digest> = artifacts.collect::<Result<_, _>>()?;
        let first = artifacts.first().copied();
        let first = first.ok_or_else(|| Invalid::field("subject", "there is none"))?;
        // Reads all of it, whichever artifact it is about.
        let verdict = statement.verdict(first, Vec::new(), key_id)?;
        Ok(Self {
            provenance,
            artifacts,
            receipt: verdict.receipt,
            builder: verdict.builder,
            invocation: verdict.invocation,
            project: verdict.asserted.project,
        })
    }

    /// The bundle file.
    pub fn provenance(&self) -> Digest {
        self.provenance
    }

    /// Whether the build has left a regular file with this content.
    pub fn left(&self, artifact: Digest) -> bool {
        self.artifacts.contains(&artifact)
    }

    /// The receipt of its attempt.
    pub fn receipt(&self) -> Digest {
        self.receipt
    }

    /// `builder.id`.
    pub fn builder(&self) -> &str {
        &self.builder
    }

    /// `invocationId`.
    pub fn invocation(&self) -> &str {
        &self.invocation
    }

    /// The project that it belonged to; asserted.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }
}
