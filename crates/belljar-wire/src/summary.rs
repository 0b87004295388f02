use belljar_core::{BuildId, Invalid, Outcome, ProjectId, RequestId, Timestamp};

use crate::numbers::{optional, proto_time, required, signed, small, timestamp, unsigned};
use crate::record::state;
use crate::{
    BuildRecord, BuildState, Evidence, build_name, parse_build_name, parse_project_name,
    project_name, v1,
};

/// One build as `ListBuilds` tells of it: a [`BuildRecord`] less specification and artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSummary {
    /// Its id.
    pub id: BuildId,
    /// The client's own name for the submission.
    pub request_id: RequestId,
    /// Where it stands.
    pub state: BuildState,
    /// Counts the changes, from 1.
    pub sequence: u64,
    /// The current or last attempt, from 1; 0 while none has begun.
    pub attempt: u32,
    /// How it ended; there exactly when the state is [`BuildState::Ended`].
    pub outcome: Option<Outcome>,
    /// What is on record.
    pub evidence: Evidence,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its first attempt began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Who submitted it.
    pub submitter: String,
    /// The project that it belongs to.
    pub project: ProjectId,
}

impl From<&BuildRecord> for BuildSummary {
    fn from(build: &BuildRecord) -> Self {
        Self {
            id: build.id.clone(),
            request_id: build.request_id.clone(),
            state: build.state,
            sequence: build.sequence,
            attempt: build.attempt,
            outcome: build.outcome.clone(),
            evidence: build.evidence.clone(),
            created: build.created,
            started: build.started,
            ended: build.ended,
            submitter: build.submitter.clone(),
            project: build.project.clone(),
        }
    }
}

impl From<&BuildSummary> for v1::Build {
    fn from(build: &BuildSummary) -> Self {
        Self {
            name: build_name(&build.id),
            request_id: build.request_id.to_string(),
            spec: None,
            state: v1::build::State::from(build.state).into(),
            sequence: signed(build.sequence),
            attempt: small(build.attempt),
            outcome: build.outcome.as_ref().map(Into::into),
            artifacts: Vec::new(),
            evidence: Some((&build.evidence).into()),
            create_time: Some(proto_time(build.created)),
            start_time: build.started.map(proto_time),
            end_time: build.ended.map(proto_time),
            submitter: build.submitter.clone(),
            steps: Vec::new(),
            project: project_name(&build.project),
            image: None,
        }
    }
}

impl TryFrom<v1::Build> for BuildSummary {
    type Error = Invalid;

    /// Specification and artifacts are not looked at.
    fn try_from(build: v1::Build) -> Result<Self, Invalid> {
        let state = state(build.state)?;
        let outcome = optional("outcome", build.outcome, Outcome::try_from)?;
        if outcome.is_some() != (state == BuildState::Ended) {
            return Err(Invalid::field(
                "outcome",
                "a build has an outcome exactly when it has ended",
            ));
        }
        Ok(Self {
            id: parse_build_name(&build.name)?,
            request_id: RequestId::new(build.request_id).map_err(|e| e.within("request_id"))?,
            state,
            sequence: unsigned("sequence", build.sequence)?,
            attempt: unsigned("attempt", build.attempt.into())?,
            outcome,
            evidence: build
                .evidence
                .unwrap_or_default()
                .try_into()
                .map_err(|e: Invalid| e.within("evidence"))?,
            created: timestamp(required("create_time", build.create_time)?)
                .map_err(|e| e.within("create_time"))?,
            started: optional("start_time", build.start_time, timestamp)?,
            ended: optional("end_time", build.end_time, timestamp)?,
            submitter: build.submitter,
            project: parse_project_name(&build.project)?,
        })
    }
}
