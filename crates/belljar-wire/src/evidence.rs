use belljar_core::{BuildId, Invalid, Outcome};

use crate::numbers::{optional, small, unsigned};
use crate::{Evidence, build_name, parse_build_name, v1};

const SUFFIX: &str = "/evidence";

/// What is on record about one build: the parsed form of `belljar.v1.BuildEvidence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildEvidence {
    /// The build.
    pub build: BuildId,
    /// The last attempt, from 1; 0 if none has begun.
    pub attempt: u32,
    /// How the build ended, if it has.
    pub outcome: Option<Outcome>,
    /// The objects of the store.
    pub evidence: Evidence,
    /// The bundle itself; empty if there is none, or if it was too large to come along.
    pub bundle: Vec<u8>,
}

/// The resource name of a build's evidence: `builds/<id>/evidence`.
pub fn evidence_name(build: &BuildId) -> String {
    format!("{}{SUFFIX}", build_name(build))
}

/// Reads a resource name.
///
/// # Errors
/// Anything but `builds/`, an id and `/evidence`; the field is `name`.
pub fn parse_evidence_name(name: &str) -> Result<BuildId, Invalid> {
    let refused = || {
        Invalid::field(
            "name",
            "not the name of a build's evidence: `builds/<id>/evidence` is due",
        )
    };
    parse_build_name(name.strip_suffix(SUFFIX).ok_or_else(refused)?).map_err(|_| refused())
}

impl From<&BuildEvidence> for v1::BuildEvidence {
    fn from(of: &BuildEvidence) -> Self {
        Self {
            name: evidence_name(&of.build),
            build: build_name(&of.build),
            attempt: small(of.attempt),
            outcome: of.outcome.as_ref().map(Into::into),
            evidence: Some((&of.evidence).into()),
            bundle: of.bundle.clone(),
        }
    }
}

impl TryFrom<v1::BuildEvidence> for BuildEvidence {
    type Error = Invalid;

    fn try_from(of: v1::BuildEvidence) -> Result<Self, Invalid> {
        let build = parse_evidence_name(&of.name)?;
        if of.build != build_name(&build) {
            return Err(Invalid::field("build", "another build than in `name`"));
        }
        Ok(Self {
            build,
            attempt: unsigned("attempt", of.attempt.into())?,
            outcome: optional("outcome", of.outcome, Outcome::try_from)?,
            evidence: of
                .evidence
                .unwrap_or_default()
                .try_into()
                .map_err(|e: Invalid| e.within("evidence"))?,
            bundle: of.bundle,
        })
    }
}
