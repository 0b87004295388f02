use std::sync::Arc;

use belljar_core::{BuildSpec, Invalid, Limits, ProjectId, RequestId, bounds};
use belljar_engine::ports::{Clock, Upkeep as _};
use belljar_engine::queue::{Condition, Query, Record, SubmitError, Submitted};
use belljar_engine::{CancelError, Engine, Follow};
use belljar_plan::Verdict;
use belljar_policy::{Class, Decision, Identity, Right, decide};
use belljar_wire::{
    Door, Layer, LayerVerdict, Problem, Reason, ServerInfo, parse_build_name, parse_project_name,
    v1, with_defaults,
};
use tonic::{Request, Response, Status};
use v1::build_service_server::BuildService;

use super::watch::{self, Seen};
use super::{Caller, Host, Processes, Trees, Vault, View, internal, list, readlog};
use crate::peers::{Logs, SignerClient, StoreClient, SystemClock};
use crate::places::Places;
use crate::remote::Certificates;
use crate::rules::Rules;
use crate::tasks::{self, Feed};

/// How long the store may take to say how full it is.
const ROOM: std::time::Duration = std::time::Duration::from_secs(5);

/// `belljar.v1.BuildService`.
pub(crate) struct Builds {
    pub(crate) engine: Engine,
    pub(crate) rules: Rules,
    pub(crate) vault: Vault,
    pub(crate) store: StoreClient,
    pub(crate) trees: Trees,
    pub(crate) host: Host,
    pub(crate) processes: Processes,
    pub(crate) signer: Arc<SignerClient>,
    pub(crate) logs: Logs,
    pub(crate) view: View,
    pub(crate) watchers: Places<Identity>,
    pub(crate) slots: usize,
    pub(crate) defaults: Limits,
    pub(crate) builder_ids: Vec<String>,
    pub(crate) door: crate::remote::Door,
    pub(crate) certificates: Option<Certificates>,
}

#[tonic::async_trait]
impl BuildService for Builds {
    async fn submit_build(
        &self,
        request: Request<v1::SubmitBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        let caller = Caller::of(&request)?;
        let v1::SubmitBuildRequest {
            request_id,
            spec,
            project,
        } = request.into_inner();
        let request_id =
            RequestId::new(request_id).map_err(|e| Problem::invalid(e.within("request_id")))?;
        let missing = || Problem::invalid(Invalid::field("spec", "missing; it is required"));
        let mut spec = spec.ok_or_else(missing)?;
        spec.limits = Some(with_defaults(spec.limits.take(), &self.defaults));
        let spec = BuildSpec::try_from(spec).map_err(|e| Problem::invalid(e.within("spec")))?;
        let project = caller.project("project", named(&project)?, &[Right::Submit])?;
        let identity = caller.identity();
        let admitted = match decide(
            spec,
            identity.clone(),
            project.clone(),
            &self.rules.policy(),
        ) {
            Decision::Admit(admitted) => admitted,
            Decision::Deny { reasons } => return Err(denied(identity, reasons).into()),
        };
        let lacks = self.host.lacks().await;
        if !lacks.is_empty() {
            return Err(Problem::host_lacks(lacks).into());
        }
        self.has_room(identity, &project, &request_id).await?;
        let share = self.vault.of(&caller, project);
        // What is there now still is when the build stands in the queue, and then for its sake. The turn comes first.
        let (turn, held) = (self.trees.turn(&share).await?, share.hold().await);
        self.trees.check(turn, &share, admitted.spec()).await?;
        let now = SystemClock.now();
        let queued = self.engine.submit(admitted, request_id.clone(), now, held);
        let record = match queued.await {
            Ok(Submitted::New(record)) => {
                tracing::info!(build.id = %record.build.id, %identity, project = %record.submission.project, "accepted");
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
        let caller = Caller::of(&request)?;
        let name = &request.get_ref().name;
        let record = self.record(&caller, Right::Read, name).await?;
        Ok(Response::new(self.view.build(&record).await?))
    }

    async fn list_builds(
        &self,
        request: Request<v1::ListBuildsRequest>,
    ) -> Result<Response<v1::ListBuildsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let page = list::builds(&self.engine, &caller, request.into_inner());
        Ok(Response::new(page.await?))
    }

    async fn read_log(
        &self,
        request: Request<v1::ReadLogRequest>,
    ) -> Result<Response<v1::ReadLogResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let record = self.record(&caller, Right::Read, &request.name).await?;
        let piece = readlog::piece(&self.engine, &self.logs, &record.build, &request);
        Ok(Response::new(piece.await?))
    }

    type WatchBuildStream = Feed<Result<v1::WatchBuildResponse, Status>>;

    async fn watch_build(
        &self,
        request: Request<v1::WatchBuildRequest>,
    ) -> Result<Response<Self::WatchBuildStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let seen = seen(&request).map_err(Problem::invalid)?;
        let record = self.record(&caller, Right::Read, &request.name).await?;
        let watcher = self.watchers.take(caller.identity().clone());
        let watcher = watcher.map_err(|full| {
            let text = format!("too many streams watch: {full}; try again or poll GetBuild");
            Problem::exhausted(text, Some(std::time::Duration::from_secs(1)))
        })?;
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
        let caller = Caller::of(&request)?;
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
        let record = self.record(&caller, Right::Cancel, &name).await?;
        let id = record.build.id;
        let record = match self
            .engine
            .cancel(&id, &caller.identity().to_string(), reason)
            .await
        {
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
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::ServerInfo>, Status> {
        let caller = Caller::of(&request)?;
        let (layers, can_build) = self.host.layers().await;
        let key = self.signer.public_key().await.map_err(|error| {
            tracing::warn!(%error, "the signer could not be asked for its key");
            Problem::unavailable("the signer does not answer; is belljar-signer running?")
        })?;
        let processes = self.processes.layers().await;
        let info = ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            can_build,
            layers: layers.into_iter().chain(processes).map(layer).collect(),
            public_key_pem: key.pem,
            key_id: key.key_id,
            builder_ids: self.builder_ids.clone(),
            default_limits: self.defaults,
            maximum_limits: *self.rules.policy().caps(),
            slots: u32::try_from(self.slots).unwrap_or(u32::MAX),
            principal: caller.identity().to_string(),
            memberships: caller.memberships(),
            door: caller.administers().then(|| self.told_of_the_door()),
        };
        Ok(Response::new((&info).into()))
    }
}

impl Builds {
    /// Whether more than the reserve is left of the store's disk: it is for builds that run. What was accepted before
    /// is one of these.
    async fn has_room(
        &self,
        identity: &Identity,
        project: &ProjectId,
        request_id: &RequestId,
    ) -> Result<(), Status> {
        let Ok(Ok(room)) = tokio::time::timeout(ROOM, self.store.room()).await else {
            // Nothing begins before the store answers; until then the build waits.
            tracing::warn!("it cannot be told how full the store is: it does not answer");
            return Ok(());
        };
        if room.available >= room.reserve || self.is_known(identity, project, request_id).await? {
            return Ok(());
        }
        let why = format!(
            "the store's disk has {} bytes left, of which {} are kept for builds that run. `belljar store status` says \
             what takes the room, `belljar store gc` removes what nobody needs",
            room.available, room.reserve
        );
        Err(Problem::exhausted(why, Some(std::time::Duration::from_secs(60))).into())
    }

    async fn is_known(
        &self,
        identity: &Identity,
        project: &ProjectId,
        request_id: &RequestId,
    ) -> Result<bool, Status> {
        let conditions = vec![
            Condition::OfProjects(vec![project.clone()]),
            Condition::Submitter {
                is: true,
                principal: identity.to_string(),
            },
            Condition::RequestId {
                is: true,
                request_id: request_id.to_string(),
            },
        ];
        let query = Query {
            conditions,
            before: None,
            most: 1,
        };
        let found = self.engine.list(query).await;
        let found = found.map_err(|e| internal("the builds could not be read", &e))?;
        Ok(!found.builds.is_empty())
    }

    /// The build of that name, if the caller has this right to it.
    async fn record(&self, caller: &Caller, right: Right, name: &str) -> Result<Record, Status> {
        let id = parse_build_name(name).map_err(Problem::invalid)?;
        let found = self.engine.get(&id).await;
        let found = found.map_err(|e| internal("the build could not be read", &e))?;
        Ok(caller.record(right, name, found)?)
    }

    fn told_of_the_door(&self) -> Door {
        let certificates = self.certificates.as_ref();
        Door {
            address: certificates.map(|certificates| certificates.address().to_string()),
            certificate_sha256: certificates
                .map(|certificates| certificates.certificate().to_hex()),
            reload_error: self
                .rules
                .error()
                .or_else(|| certificates.and_then(Certificates::error)),
            refusals: self.door.refusals(),
        }
    }
}

/// The project that a submission names, if it names one.
pub(super) fn named(project: &str) -> Result<Option<ProjectId>, Problem> {
    match project {
        "" => Ok(None),
        name => Ok(Some(parse_project_name(name)?)),
    }
}

fn denied(identity: &Identity, reasons: Vec<belljar_policy::Reason>) -> Problem {
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
