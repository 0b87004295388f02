use std::sync::Arc;

use belljar_cas::BlobSource;
use belljar_core::{BuildSpec, Image, Input, Invalid, Limits, ObjectId, RequestId, bounds};
use belljar_engine::ports::Clock;
use belljar_engine::queue::{Record, SubmitError, Submitted};
use belljar_engine::{CancelError, Engine, Follow};
use belljar_plan::Verdict;
use belljar_policy::{Class, Decision, Identity, Policy, decide};
use belljar_wire::{
    Layer, LayerVerdict, Problem, Reason, ServerInfo, parse_build_name, v1, with_defaults,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};
use v1::build_service_server::BuildService;

use super::access::{Access, Right};
use super::gate::identity;
use super::watch::{self, Seen};
use super::{Host, View, internal, list, readlog};
use crate::peers::{Logs, SignerClient, SystemClock};
use crate::tasks::{self, Feed};

/// `belljar.v1.BuildService`.
pub(crate) struct Builds {
    pub(crate) engine: Engine,
    pub(crate) policy: Arc<Policy>,
    pub(crate) source: Arc<dyn BlobSource>,
    pub(crate) host: Host,
    pub(crate) signer: Arc<SignerClient>,
    pub(crate) logs: Logs,
    pub(crate) view: View,
    pub(crate) access: Access,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) slots: usize,
    pub(crate) defaults: Limits,
    pub(crate) builder_ids: Vec<String>,
}

#[tonic::async_trait]
impl BuildService for Builds {
    async fn submit_build(
        &self,
        request: Request<v1::SubmitBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        let identity = identity(&request)?;
        let v1::SubmitBuildRequest { request_id, spec } = request.into_inner();
        let request_id =
            RequestId::new(request_id).map_err(|e| Problem::invalid(e.within("request_id")))?;
        let missing = || Problem::invalid(Invalid::field("spec", "missing; it is required"));
        let mut spec = spec.ok_or_else(missing)?;
        spec.limits = Some(with_defaults(spec.limits.take(), &self.defaults));
        let spec = BuildSpec::try_from(spec).map_err(|e| Problem::invalid(e.within("spec")))?;
        let trees = trees(&spec);
        let admitted = match decide(spec, identity, &self.policy) {
            Decision::Admit(admitted) => admitted,
            Decision::Deny { reasons } => return Err(denied(identity, reasons).into()),
        };
        let lacks = self.host.lacks().await;
        if !lacks.is_empty() {
            return Err(Problem::host_lacks(lacks).into());
        }
        for (field, tree) in trees {
            if !self.contains(tree).await? {
                return Err(Problem::input_missing(&field, tree).into());
            }
        }
        let now = SystemClock.now();
        let record = match self.engine.submit(admitted, request_id.clone(), now).await {
            Ok(Submitted::New(record)) => {
                tracing::info!(build.id = %record.build.id, %identity, "accepted");
                record
            }
            Ok(Submitted::Known(record)) => record,
            Err(SubmitError::OtherBody) => {
                return Err(Problem::request_id_reused(&request_id).into());
            }
            Err(error @ SubmitError::Full) => {
                let later = std::time::Duration::from_secs(5);
                return Err(Problem::exhausted(error.to_string(), Some(later)).into());
            }
            Err(SubmitError::Spec(invalid)) => {
                return Err(Problem::invalid(invalid.within("spec")).into());
            }
            Err(error @ SubmitError::Queue(_)) => {
                return Err(internal("the build could not be queued", &error));
            }
        };
        Ok(Response::new(self.view.build(&record).await?))
    }

    async fn get_build(
        &self,
        request: Request<v1::GetBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        let caller = identity(&request)?;
        let name = &request.get_ref().name;
        let record = self.record(caller, Right::Read, name).await?;
        Ok(Response::new(self.view.build(&record).await?))
    }

    async fn list_builds(
        &self,
        request: Request<v1::ListBuildsRequest>,
    ) -> Result<Response<v1::ListBuildsResponse>, Status> {
        let caller = identity(&request)?;
        let page = list::builds(&self.engine, &self.access, caller, request.into_inner());
        Ok(Response::new(page.await?))
    }

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<v1::ReadLogResponse>, Status> {
        let caller = identity(&request)?;
        let request = request.into_inner();
        let record = self.record(caller, Right::Read, &request.name).await?;
        let piece = readlog::piece(&self.logs, &record.build, &request);
        Ok(Response::new(piece.await?))
    }

    type WatchBuildStream = Feed<Result<v1::WatchBuildResponse, Status>>;

    async fn watch_build(
        &self,
        request: Request<v1::WatchBuildRequest>,
    ) -> Result<Response<Self::WatchBuildStream>, Status> {
        let caller = identity(&request)?;
        let request = request.into_inner();
        let seen = seen(&request).map_err(Problem::invalid)?;
        let record = self.record(caller, Right::Read, &request.name).await?;
        let Ok(watcher) = self.watchers.clone().try_acquire_owned() else {
            let text = format!(
                "{} streams watch already; try again or poll GetBuild",
                bounds::WATCHERS
            );
            return Err(Problem::exhausted(text, Some(std::time::Duration::from_secs(1))).into());
        };
        let follow: Option<Follow> = self
            .engine
            .follow(&record.build.id)
            .await
            .map_err(|e| internal("the build could not be read", &e))?;
        let follow = follow.ok_or_else(|| Problem::not_found(&request.name))?;
        let (view, logs) = (self.view.clone(), self.logs.clone());
        Ok(Response::new(tasks::feed(
            "watch",
            4,
            move |sender| async move {
                watch::tell(follow, view, logs, seen, sender).await;
                drop(watcher);
            },
        )))
    }

    async fn cancel_build(
        &self,
        request: Request<v1::CancelBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        let identity = identity(&request)?;
        let v1::CancelBuildRequest { name, reason } = request.into_inner();
        if reason.len() > bounds::CANCEL_REASON_BYTES {
            let why = format!(
                "{} bytes; {} are allowed",
                reason.len(),
                bounds::CANCEL_REASON_BYTES
            );
            return Err(Problem::invalid(Invalid::field("reason", why)).into());
        }
        let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
        let record = self.record(identity, Right::Cancel, &name).await?;
        let id = record.build.id;
        let record = match self.engine.cancel(&id, &identity.to_string(), reason).await {
            Ok(record) => record.ok_or_else(|| Problem::not_found(&name))?,
            Err(CancelError::Closed) => {
                return Err(Problem::unavailable("the daemon is shutting down").into());
            }
            Err(error @ CancelError::Queue(_)) => {
                return Err(internal("the build could not be read", &error));
            }
        };
        Ok(Response::new(self.view.build(&record).await?))
    }

    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::ServerInfo>, Status> {
        let report = self.host.report().await.map_err(|error| {
            tracing::warn!(%error, "the host could not be probed");
            Problem::unavailable("the spawner does not answer; is belljar-spawner running?")
        })?;
        let key = self.signer.public_key().await.map_err(|error| {
            tracing::warn!(%error, "the signer could not be asked for its key");
            Problem::unavailable("the signer does not answer; is belljar-signer running?")
        })?;
        let info = ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            can_build: report.suffices(),
            layers: report.layers.into_iter().map(layer).collect(),
            public_key_pem: key.pem.clone(),
            key_id: key.key_id.clone(),
            builder_ids: self.builder_ids.clone(),
            default_limits: self.defaults,
            maximum_limits: *self.policy.caps(),
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
        };
        Ok(Response::new((&info).into()))
    }
}

impl Builds {
    /// The build of that name, if the caller has this right to it.
    async fn record(&self, caller: Identity, right: Right, name: &str) -> Result<Record, Status> {
        let id = parse_build_name(name).map_err(Problem::invalid)?;
        let found = self.engine.get(&id).await;
        let found = found.map_err(|e| internal("the build could not be read", &e))?;
        Ok(self.access.record(caller, right, name, found)?)
    }

    async fn contains(&self, object: ObjectId) -> Result<bool, Status> {
        let source = self.source.clone();
        let found = spawn_blocking(move || source.contains(object));
        let found = found
            .await
            .map_err(|e| internal("the store could not be read", &e))?;
        found.map_err(|e| internal("the store could not be read", &e))
    }
}

/// Everything that the store must have before a build is queued, by field: the tops of trees, and records of
/// what they were made from.
fn trees(spec: &BuildSpec) -> Vec<(String, ObjectId)> {
    let mut trees = vec![("spec.source".to_owned(), spec.source)];
    let mut add = |field: String, input: &Input| {
        trees.push((format!("{field}.tree"), input.tree));
        trees.extend(
            input
                .derivation
                .map(|record| (format!("{field}.derivation"), record)),
        );
    };
    if let Image::Tree(image) = &spec.image {
        add("spec.image_tree".to_owned(), image);
    }
    for (name, input) in spec.inputs.iter() {
        add(format!("spec.inputs.{name}"), input);
    }
    trees
}

fn denied(identity: Identity, reasons: Vec<belljar_policy::Reason>) -> Problem {
    let sentences: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    tracing::warn!(%identity, ?sentences, "denied");
    let mut problem = Problem::denied(sentences.iter().map(String::as_str));
    problem.reason = Reason::Denied;
    let submission = reasons
        .into_iter()
        .filter(|reason| reason.class == Class::Submission);
    let field = |reason: belljar_policy::Reason| {
        Invalid::field(format!("spec.{}", reason.field), reason.sentence)
    };
    problem.fields = submission.map(field).collect();
    problem
}

fn seen(request: &v1::WatchBuildRequest) -> Result<Seen, Invalid> {
    let negative = |field: &str| Invalid::field(field, "it is negative");
    let log = match &request.log_position {
        Some(position) => {
            let attempt =
                u32::try_from(position.attempt).map_err(|_| negative("log_position.attempt"))?;
            let offset =
                u64::try_from(position.offset).map_err(|_| negative("log_position.offset"))?;
            Some((attempt, offset))
        }
        None => None,
    };
    Ok(Seen {
        sequence: u64::try_from(request.after_sequence).map_err(|_| negative("after_sequence"))?,
        log,
    })
}

fn layer(layer: belljar_plan::LayerReport) -> Layer {
    Layer {
        name: layer.name,
        found: layer.found,
        verdict: match layer.verdict {
            Verdict::Enforced => LayerVerdict::Enforced,
            Verdict::Lowered => LayerVerdict::Lowered,
            Verdict::Missing => LayerVerdict::Missing,
        },
        hint: layer.hint,
    }
}
