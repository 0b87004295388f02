use std::collections::BTreeMap;
use std::fmt;

use belljar_core::{Digest, Timestamp};
use serde::Serialize;

/// What a verified bundle says about one artifact. Everything in it is covered by the signature; what the
/// signer had only belljard's word for is under `asserted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The artifact.
    pub artifact: Digest,
    /// Its paths in the build, one unless the build made the same content several times.
    pub subjects: Vec<String>,
    /// `builder.id`. Who relies on a verdict compares it with the one that is expected.
    pub builder: String,
    /// What that builder's sandboxes are, in words.
    pub builder_description: &'static str,
    /// `buildType`.
    pub build_type: String,
    /// Whether everything that the build could read is named by digest.
    pub hermetic: bool,
    /// `invocationId`: which attempt at which build.
    pub invocation: String,
    /// When the spawner accepted the attempt.
    pub started: Timestamp,
    /// When everything of it was gone.
    pub finished: Timestamp,
    /// Digest of the canonical specification, which is in the statement as `externalParameters`.
    pub spec: Digest,
    /// Digest of the source tree's root.
    pub source: Digest,
    /// The root file system; none if it was the host's.
    pub image: Option<VerifiedTree>,
    /// Further inputs by name.
    pub inputs: BTreeMap<String, VerifiedTree>,
    /// Which earlier builds have left what it was given, by where that was mounted.
    pub producers: BTreeMap<String, VerifiedProducer>,
    /// Digest of the manifest of the image that its own lies on, if it does on any.
    pub base: Option<Digest>,
    /// Digest of the receipt.
    pub receipt: Digest,
    /// OpenSSH fingerprint of the key that signed.
    pub key_id: String,
    /// What only belljard vouches for.
    pub asserted: AssertedFacts,
}

/// A tree that a build could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedTree {
    /// Digest of its root.
    pub tree: Digest,
    /// Digest of the store's own record of what it made the tree from, if it made it.
    pub derivation: Option<Digest>,
}

/// An earlier build that has left what a build was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedProducer {
    /// Its `invocationId`.
    pub build: String,
    /// Its `builder.id`: the sandbox of the later build does not make this one's stronger.
    pub builder: String,
    /// Digest of the bundle with its provenance.
    pub provenance: Digest,
}

impl fmt::Display for VerifiedProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (build, builder) = (self.build.escape_debug(), self.builder.escape_debug());
        write!(f, "left by {build}, built by {builder}")
    }
}

impl fmt::Display for VerifiedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.derivation {
            Some(record) => write!(f, "{}, made as {record} says", self.tree),
            None => write!(f, "{}", self.tree),
        }
    }
}

/// Facts in a statement that the signer could not check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssertedFacts {
    /// The project that it was built for; none in statements of before there were projects.
    pub project: Option<String>,
    /// Who submitted the build.
    pub submitter: String,
    /// How that was established.
    pub authenticated_by: String,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Digest of the audit trail's first `audit_entries` lines.
    pub audit_trail: Digest,
    /// How many lines.
    pub audit_entries: u64,
}

impl Verdict {
    /// What it was given, one line for each.
    fn given(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, input) in &self.inputs {
            writeln!(f, "input          {}: {input}", name.escape_debug())?;
        }
        for (place, producer) in &self.producers {
            writeln!(f, "earlier build  {}: {producer}", place.escape_debug())?;
        }
        match &self.base {
            Some(base) => writeln!(f, "image lies on  {base}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Text of the statement is shown escaped: a terminal must not obey it.
        let subjects: Vec<String> = self
            .subjects
            .iter()
            .map(|name| name.escape_debug().to_string())
            .collect();
        let hermetic = if self.hermetic {
            "yes: every file that the build could read is in a tree that is named here"
        } else {
            "no: the build could read files that no digest names"
        };
        writeln!(
            f,
            "artifact       {} ({})",
            subjects.join(", "),
            self.artifact
        )?;
        writeln!(f, "built by       {}", self.builder.escape_debug())?;
        writeln!(f, "               {}", self.builder_description)?;
        writeln!(f, "hermetic       {hermetic}")?;
        writeln!(f, "build          {}", self.invocation.escape_debug())?;
        writeln!(f, "when           {} to {}", self.started, self.finished)?;
        writeln!(f, "specification  {}", self.spec)?;
        writeln!(f, "source tree    {}", self.source)?;
        match &self.image {
            Some(image) => writeln!(f, "root files     {image}")?,
            None => writeln!(f, "root files     of the host, by path")?,
        }
        self.given(f)?;
        writeln!(f, "receipt        {}", self.receipt)?;
        writeln!(f, "signed by      {}", self.key_id)?;
        let AssertedFacts {
            project,
            submitter,
            authenticated_by,
            accepted,
            ..
        } = &self.asserted;
        let (submitter, authenticated_by) =
            (submitter.escape_debug(), authenticated_by.escape_debug());
        if let Some(project) = project {
            writeln!(
                f,
                "asserted only  for the project {}",
                project.escape_debug()
            )?;
        }
        write!(
            f,
            "asserted only  submitted by {submitter} ({authenticated_by}) at {accepted}"
        )
    }
}
