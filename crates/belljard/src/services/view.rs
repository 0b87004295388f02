use std::sync::Arc;

use belljar_core::{ObjectId, bounds};
use belljar_engine::directories;
use belljar_engine::life::{Build, Stage};
use belljar_engine::ports::Spawner as _;
use belljar_engine::queue::{Listed, Record};
use belljar_plan::{ImageRecord, OutputKind, Receipt, StepRecord};
use belljar_wire::{
    Artifact, ArtifactKind, BuildRecord, BuildState, BuildSummary, Evidence, ImageArtifact,
    Problem, Reason, StepEnding, StepReport, v1,
};
use prost::Message as _;
use tonic::Status;

use super::internal;
use crate::peers::SpawnerClient;

/// Turns what the engine knows of a build into what the API tells.
#[derive(Clone, Debug)]
pub(crate) struct View(Arc<SpawnerClient>);

/// What the receipt of an attempt tells that it left.
#[derive(Default)]
struct Left {
    artifacts: Vec<Artifact>,
    steps: Vec<StepReport>,
    image: Option<ImageArtifact>,
}

impl View {
    /// Artifacts and steps are read from the receipts that `spawner` knows the place of.
    pub(crate) fn new(spawner: Arc<SpawnerClient>) -> Self {
        Self(spawner)
    }

    /// The message about one build.
    pub(crate) async fn build(&self, record: &Record) -> Result<v1::Build, Status> {
        let left = self.left(record).await?;
        let message = v1::Build::from(&told(record, left));
        // Some room is left for what wraps it.
        if message.encoded_len() > bounds::GRPC_MESSAGE_BYTES - 1024 {
            let text = "the build has more artifacts than fit one message; its receipt lists them";
            return Err(Problem::new(Reason::Exhausted, text).into());
        }
        Ok(message)
    }

    /// The image that a build has left, if it has left one.
    pub(super) async fn image(&self, record: &Record) -> Result<Option<ImageArtifact>, Status> {
        Ok(self.left(record).await?.image)
    }

    /// What the receipt of a build that has ended tells of it.
    async fn left(&self, record: &Record) -> Result<Left, Status> {
        let build = &record.build;
        let (Some(outcome), Some(evidence)) = (build.outcome(), &build.evidence) else {
            return Ok(Left::default());
        };
        if evidence.receipt.is_none() {
            return Ok(Left::default());
        }
        let what = "the receipt of a build could not be read";
        let bytes = self
            .0
            .receipt(&evidence.attempt)
            .await
            .map_err(|e| internal(what, &e))?;
        if Some(ObjectId::of(&bytes)) != evidence.receipt {
            let changed = std::io::Error::other("it is not the one that was published");
            return Err(internal(what, &changed));
        }
        let receipt = Receipt::from_canonical(&bytes).map_err(|e| internal(what, &e))?;
        let steps = receipt.steps.iter().map(step).collect();
        if !outcome.is_success() {
            return Ok(Left {
                steps,
                ..Left::default()
            });
        }
        let image = receipt.image_output.as_ref().map(image);
        let mut artifacts = artifacts(receipt, evidence.trees);
        artifacts.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Left {
            artifacts,
            steps,
            image,
        })
    }
}

/// What was collected; of directories also their `Tree` messages, if the store has `trees`.
fn artifacts(receipt: Receipt, trees: bool) -> Vec<Artifact> {
    // What no collection leaves has no tree.
    let found = directories(&receipt).unwrap_or_default();
    let outputs = receipt.outputs.into_iter().map(|entry| Artifact {
        kind: match entry.kind {
            OutputKind::File {
                object, executable, ..
            } => ArtifactKind::File { object, executable },
            OutputKind::Symlink { target } => ArtifactKind::Symlink { target },
            OutputKind::Directory => {
                let built = found.get(&entry.path);
                let message = built
                    .filter(|_| trees)
                    .map(|built| ObjectId::of(&built.tree()));
                ArtifactKind::Directory {
                    root: built.map(|built| built.root),
                    tree: message,
                }
            }
        },
        path: entry.path,
    });
    outputs.collect()
}

/// What a list tells of one build.
pub(super) fn summary(listed: &Listed) -> BuildSummary {
    let build = &listed.build;
    BuildSummary {
        id: build.id.clone(),
        request_id: listed.request_id.clone(),
        state: state(&build.stage),
        sequence: build.sequence,
        attempt: attempt(build),
        outcome: build.outcome().cloned(),
        evidence: evidence(build),
        created: listed.accepted,
        started: build.started,
        ended: build.ended,
        submitter: listed.submitter.clone(),
        project: listed.project.clone(),
    }
}

/// What is on record about a build.
pub(super) fn evidence(build: &Build) -> Evidence {
    let evidence = build.evidence.as_ref().map(|evidence| Evidence {
        bundle: evidence.bundle.as_ref().map(|bundle| bundle.object),
        receipt: evidence.receipt,
        receipt_bundle: evidence.receipt_bundle,
        spec: Some(evidence.spec),
        plan: Some(evidence.plan),
        audit_trail: Some(evidence.audit_trail),
        log: evidence.log.as_ref().map(|log| log.object),
        key_id: evidence.bundle.as_ref().map(|bundle| bundle.key_id.clone()),
    });
    evidence.unwrap_or_default()
}

/// The number of the current or last attempt; 0 if none has begun.
pub(super) fn attempt(build: &Build) -> u32 {
    build
        .attempt
        .as_ref()
        .map_or(0, belljar_core::AttemptId::number)
}

fn image(image: &ImageRecord) -> ImageArtifact {
    let layers = image.layers.iter();
    ImageArtifact {
        manifest: image.manifest,
        config: image.config,
        index: image.index,
        layers: layers
            .map(|layer| (layer.object, layer.media_type))
            .collect(),
        base: image.base.map(|base| (base.manifest, base.config)),
    }
}

fn told(record: &Record, left: Left) -> BuildRecord {
    let (build, submission) = (&record.build, &record.submission);
    BuildRecord {
        id: build.id.clone(),
        request_id: submission.request_id.clone(),
        spec: submission.spec.clone(),
        state: state(&build.stage),
        sequence: build.sequence,
        attempt: attempt(build),
        outcome: build.outcome().cloned(),
        artifacts: left.artifacts,
        evidence: evidence(build),
        created: submission.accepted,
        started: build.started,
        ended: build.ended,
        submitter: submission.submitter.clone(),
        steps: left.steps,
        project: submission.project.clone(),
        image: left.image,
    }
}

fn step(step: &StepRecord) -> StepReport {
    StepReport {
        ending: match (step.exit_code, step.signal) {
            (Some(code), _) => StepEnding::Exited(code),
            (None, Some(signal)) => StepEnding::Signalled(signal),
            (None, None) => StepEnding::Killed,
        },
        started: step.started,
        wall_micros: step.wall_micros,
        cpu_micros: step.cpu_micros,
        log_offset: step.log_offset,
        log_bytes: step.log_bytes,
    }
}

fn state(stage: &Stage) -> BuildState {
    match stage {
        Stage::Queued => BuildState::Queued,
        Stage::Fetching => BuildState::Fetching,
        Stage::Staging => BuildState::Staging,
        Stage::Launching => BuildState::Launching,
        Stage::Running => BuildState::Running,
        Stage::Collecting { .. } => BuildState::Collecting,
        Stage::Attesting { .. } => BuildState::Attesting,
        Stage::Publishing { .. } => BuildState::Publishing,
        Stage::Destroying { .. } => BuildState::Destroying,
        Stage::Ended { .. } => BuildState::Ended,
    }
}
