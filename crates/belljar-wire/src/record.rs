use belljar_core::{
    BuildId, BuildSpec, Invalid, ObjectId, Outcome, ProjectId, RelPath, RequestId, Timestamp,
};

use crate::numbers::{optional, required};
use crate::{BuildSummary, ImageArtifact, StepReport, v1};

const COLLECTION: &str = "builds/";
const PROJECTS: &str = "projects/";

/// One build as the API tells of it: the parsed form of `belljar.v1.Build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    /// Its id; the resource name is [`build_name`].
    pub id: BuildId,
    /// The client's own name for the submission.
    pub request_id: RequestId,
    /// What it shall do.
    pub spec: BuildSpec,
    /// Where it stands.
    pub state: BuildState,
    /// Counts the changes, from 1.
    pub sequence: u64,
    /// The current or last attempt, from 1; 0 while none has begun.
    pub attempt: u32,
    /// How it ended; there exactly when the state is [`BuildState::Ended`].
    pub outcome: Option<Outcome>,
    /// What was collected, sorted by path.
    pub artifacts: Vec<Artifact>,
    /// What is on record.
    pub evidence: Evidence,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its first attempt began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Who submitted it, such as `unix:uid=0`.
    pub submitter: String,
    /// The steps of the last attempt that ran, in order; none before its receipt is there.
    pub steps: Vec<StepReport>,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The image that became of what was collected.
    pub image: Option<ImageArtifact>,
}

/// Where a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BuildState {
    /// Waits for a free slot.
    Queued,
    /// What it declares by digest is being fetched.
    Fetching,
    /// Its inputs are being verified and mounted.
    Staging,
    /// Its sandbox is being made and read back.
    Launching,
    /// Its steps run.
    Running,
    /// Outputs are being taken and the receipt written.
    Collecting,
    /// The signer is asked.
    Attesting,
    /// Its evidence is being put into the store.
    Publishing,
    /// The remains of the attempt are being removed.
    Destroying,
    /// It has ended.
    Ended,
}

/// One thing that was collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where, below the root of the source tree.
    pub path: RelPath,
    /// What.
    pub kind: ArtifactKind,
}

/// What an artifact is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactKind {
    /// A regular file.
    File {
        /// Its content.
        object: ObjectId,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its target as the server told it: whoever makes the link looks at it first.
        target: String,
    },
    /// A directory.
    Directory {
        /// Of one that lies in no other: its root `Directory` message.
        root: Option<ObjectId>,
        /// Of the same: its `Tree` message, if the store has it.
        tree: Option<ObjectId>,
    },
}

impl ArtifactKind {
    /// A directory of which nothing more is known, such as one that lies in another.
    pub const DIRECTORY: Self = Self::Directory {
        root: None,
        tree: None,
    };
}

/// Objects on record about a build; each none until it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The Sigstore bundle; only of a build that succeeded.
    pub bundle: Option<ObjectId>,
    /// The spawner's receipt of the last attempt.
    pub receipt: Option<ObjectId>,
    /// The Sigstore bundle about the receipt.
    pub receipt_bundle: Option<ObjectId>,
    /// The canonical specification.
    pub spec: Option<ObjectId>,
    /// The canonical plan.
    pub plan: Option<ObjectId>,
    /// The audit trail.
    pub audit_trail: Option<ObjectId>,
    /// The log of the last attempt.
    pub log: Option<ObjectId>,
    /// Id of the signing key.
    pub key_id: Option<String>,
}

/// The resource name of a build: `builds/<id>`.
pub fn build_name(id: &BuildId) -> String {
    format!("{COLLECTION}{id}")
}

/// Reads a resource name.
///
/// # Errors
/// Anything but `builds/` and an id; the field is `name`.
pub fn parse_build_name(name: &str) -> Result<BuildId, Invalid> {
    let refused = || Invalid::field("name", "not the name of a build: `builds/<id>` is due");
    BuildId::new(name.strip_prefix(COLLECTION).ok_or_else(refused)?).map_err(|e| e.within("name"))
}

/// The resource name of a project: `projects/<id>`.
pub fn project_name(id: &ProjectId) -> String {
    format!("{PROJECTS}{id}")
}

/// Reads a resource name.
///
/// # Errors
/// Anything but `projects/` and an id; the field is `project`.
pub fn parse_project_name(name: &str) -> Result<ProjectId, Invalid> {
    let refused = || {
        Invalid::field(
            "project",
            "not the name of a project: `projects/<id>` is due",
        )
    };
    ProjectId::new(name.strip_prefix(PROJECTS).ok_or_else(refused)?)
        .map_err(|e| e.within("project"))
}

impl From<&BuildRecord> for v1::Build {
    fn from(build: &BuildRecord) -> Self {
        Self {
            spec: Some((&build.spec).into()),
            artifacts: build.artifacts.iter().map(Into::into).collect(),
            steps: build.steps.iter().map(Into::into).collect(),
            image: build.image.as_ref().map(Into::into),
            ..Self::from(&BuildSummary::from(build))
        }
    }
}

impl TryFrom<v1::Build> for BuildRecord {
    type Error = Invalid;

    fn try_from(mut build: v1::Build) -> Result<Self, Invalid> {
        let (spec, artifacts) = (build.spec.take(), std::mem::take(&mut build.artifacts));
        let steps = std::mem::take(&mut build.steps);
        let artifacts = (0_usize..).zip(artifacts).map(|(index, artifact)| {
            Artifact::try_from(artifact).map_err(|e| e.within(format!("artifacts[{index}]")))
        });
        let steps = (0_usize..).zip(steps).map(|(index, step)| {
            StepReport::try_from(step).map_err(|e| e.within(format!("steps[{index}]")))
        });
        let image = optional("image", build.image.take(), ImageArtifact::try_from)?;
        let rest = BuildSummary::try_from(build)?;
        Ok(Self {
            id: rest.id,
            request_id: rest.request_id,
            spec: required("spec", spec)?
                .try_into()
                .map_err(|e: Invalid| e.within("spec"))?,
            state: rest.state,
            sequence: rest.sequence,
            attempt: rest.attempt,
            outcome: rest.outcome,
            artifacts: artifacts.collect::<Result<_, _>>()?,
            evidence: rest.evidence,
            created: rest.created,
            started: rest.started,
            ended: rest.ended,
            submitter: rest.submitter,
            steps: steps.collect::<Result<_, _>>()?,
            project: rest.project,
            image,
        })
    }
}

impl From<BuildState> for v1::build::State {
    fn from(state: BuildState) -> Self {
        match state {
            BuildState::Queued => Self::Queued,
            BuildState::Fetching => Self::Fetching,
            BuildState::Staging => Self::Staging,
            BuildState::Launching => Self::Launching,
            BuildState::Running => Self::Running,
            BuildState::Collecting => Self::Collecting,
            BuildState::Attesting => Self::Attesting,
            BuildState::Publishing => Self::Publishing,
            BuildState::Destroying => Self::Destroying,
            BuildState::Ended => Self::Ended,
        }
    }
}

impl BuildState {
    /// The name of the state in `Build.State`, such as `RUNNING`.
    pub fn name(self) -> &'static str {
        v1::build::State::from(self).as_str_name()
    }
}

/// The state of that name.
pub(crate) fn state_named(name: &str) -> Option<BuildState> {
    let found = v1::build::State::from_str_name(name)?;
    state(found.into()).ok()
}

pub(crate) fn state(value: i32) -> Result<BuildState, Invalid> {
    use v1::build::State;
    Ok(match State::try_from(value) {
        Ok(State::Queued) => BuildState::Queued,
        Ok(State::Fetching) => BuildState::Fetching,
        Ok(State::Staging) => BuildState::Staging,
        Ok(State::Launching) => BuildState::Launching,
        Ok(State::Running) => BuildState::Running,
        Ok(State::Collecting) => BuildState::Collecting,
        Ok(State::Attesting) => BuildState::Attesting,
        Ok(State::Publishing) => BuildState::Publishing,
        Ok(State::Destroying) => BuildState::Destroying,
        Ok(State::Ended) => BuildState::Ended,
        Ok(State::Unspecified) | Err(_) => {
            return Err(Invalid::field(
                "state",
                format!("{value} is not a known state"),
            ));
        }
    })
}

impl From<&Artifact> for v1::Artifact {
    fn from(artifact: &Artifact) -> Self {
        use v1::artifact::{self, Kind};
        Self {
            path: artifact.path.to_string(),
            kind: Some(match &artifact.kind {
                ArtifactKind::File { object, executable } => Kind::File(artifact::File {
                    digest: Some((*object).into()),
                    executable: *executable,
                }),
                ArtifactKind::Symlink { target } => Kind::Symlink(artifact::Symlink {
                    target: target.clone(),
                }),
                ArtifactKind::Directory { root, tree } => Kind::Directory(artifact::Directory {
                    root_directory_digest: root.map(Into::into),
                    tree_digest: tree.map(Into::into),
                }),
            }),
        }
    }
}

impl TryFrom<v1::Artifact> for Artifact {
    type Error = Invalid;

    fn try_from(artifact: v1::Artifact) -> Result<Self, Invalid> {
        use v1::artifact::{self, Kind};
        Ok(Self {
            path: RelPath::new(artifact.path).map_err(|e| e.within("path"))?,
            kind: match required("kind", artifact.kind)? {
                Kind::File(file) => ArtifactKind::File {
                    object: required("file.digest", file.digest)?
                        .try_into()
                        .map_err(|e: Invalid| e.within("file.digest"))?,
                    executable: file.executable,
                },
                Kind::Symlink(artifact::Symlink { target }) => ArtifactKind::Symlink { target },
                Kind::Directory(directory) => ArtifactKind::Directory {
                    root: object(
                        "directory.root_directory_digest",
                        directory.root_directory_digest,
                    )?,
                    tree: object("directory.tree_digest", directory.tree_digest)?,
                },
            },
        })
    }
}

impl From<&Evidence> for v1::Evidence {
    fn from(evidence: &Evidence) -> Self {
        Self {
            bundle: evidence.bundle.map(Into::into),
            receipt: evidence.receipt.map(Into::into),
            receipt_bundle: evidence.receipt_bundle.map(Into::into),
            spec: evidence.spec.map(Into::into),
            plan: evidence.plan.map(Into::into),
            audit_trail: evidence.audit_trail.map(Into::into),
            log: evidence.log.map(Into::into),
            key_id: evidence.key_id.clone().unwrap_or_default(),
        }
    }
}

fn object(field: &str, digest: Option<v1::Digest>) -> Result<Option<ObjectId>, Invalid> {
    optional(field, digest, ObjectId::try_from)
}

impl TryFrom<v1::Evidence> for Evidence {
    type Error = Invalid;

    fn try_from(evidence: v1::Evidence) -> Result<Self, Invalid> {
        Ok(Self {
            bundle: object("bundle", evidence.bundle)?,
            receipt: object("receipt", evidence.receipt)?,
            receipt_bundle: object("receipt_bundle", evidence.receipt_bundle)?,
            spec: object("spec", evidence.spec)?,
            plan: object("plan", evidence.plan)?,
            audit_trail: object("audit_trail", evidence.audit_trail)?,
            log: object("log", evidence.log)?,
            key_id: Some(evidence.key_id).filter(|id| !id.is_empty()),
        })
    }
}
