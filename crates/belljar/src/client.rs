//! The connection to a daemon: gRPC over a unix socket, or over mutual TLS.

mod images;
mod inputs;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_client::ContentAddressableStorageClient;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use belljar_core::{BuildId, BuildSpec, Invalid, ObjectId, ProjectId, RequestId, bounds};
use belljar_wire::v1::build_service_client::BuildServiceClient;
use belljar_wire::v1::evidence_service_client::EvidenceServiceClient;
use belljar_wire::v1::image_service_client::ImageServiceClient;
use belljar_wire::v1::input_service_client::InputServiceClient;
use belljar_wire::v1::store_service_client::StoreServiceClient;
use belljar_wire::{
    BuildEvidence, BuildRecord, BuildSummary, Evidence, Problem, Reason, ServerInfo, build_name,
    evidence_name, project_name, v1,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::address::Address;
use crate::patience::answered;

/// How long a call may take that is answered at once. Streams have no such bound.
const CALL: Duration = Duration::from_secs(60);

/// A connection to a daemon. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    builds: BuildServiceClient<Channel>,
    inputs: InputServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    evidence: EvidenceServiceClient<Channel>,
    store: StoreServiceClient<Channel>,
    /// REAPI's batch calls on blobs.
    pub(crate) blobs: ContentAddressableStorageClient<Channel>,
    /// Blobs as streams.
    pub(crate) streams: ByteStreamClient<Channel>,
    /// Whether the daemon has ever answered.
    pub(crate) heard: Arc<AtomicBool>,
    /// Whose blobs and builds are meant; the caller's only project if none is.
    project: Option<ProjectId>,
}

/// Why a daemon could not be asked, or its answer not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens.
    #[error("no daemon answers at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The files by which the two prove who they are cannot be used.
    #[error("{} cannot be asked with these certificates", server.display())]
    Certificates {
        /// The server.
        server: PathBuf,
        /// Which file, and why.
        source: std::io::Error,
    },
    /// The daemon said no, or was lost.
    #[error("{doing}: {}", said(problem))]
    Call {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        problem: Box<Problem>,
    },
    /// The answer is not one.
    #[error("{doing}: the daemon's answer cannot be used: {invalid}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// What is wrong with it.
        invalid: Invalid,
    },
}

impl Error {
    /// What a failed call's status says.
    pub(crate) fn call(doing: &'static str, status: &Status) -> Self {
        Self::Call {
            doing,
            problem: Box::new(Problem::from_status(status)),
        }
    }

    /// An answer that cannot be used.
    pub(crate) fn answer(doing: &'static str, invalid: Invalid) -> Self {
        Self::Answer { doing, invalid }
    }
}

impl Client {
    /// Connects to the daemon at `address`, for `project` or the caller's only one.
    ///
    /// # Errors
    /// When nobody listens there, or the certificates cannot be used.
    pub(crate) async fn connect(
        address: &Address,
        project: Option<&ProjectId>,
    ) -> Result<Self, Error> {
        let channel = match address {
            Address::Socket(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                // The authority is sent as it stands; a unix socket has no host name.
                let endpoint = Endpoint::from_static("http://localhost");
                endpoint.connect_with_connector(connector).await
            }
            Address::Server(server) => {
                server.check().map_err(|source| Error::Certificates {
                    server: address.name().to_owned(),
                    source,
                })?;
                let (endpoint, server) = (server.endpoint(), server.clone());
                let connector = tower::service_fn(move |_| {
                    let server = server.clone();
                    async move { server.connect().await.map(TokioIo::new) }
                });
                endpoint.connect_with_connector(connector).await
            }
        };
        let channel = channel.map_err(|source| Error::Connect {
            socket: address.name().to_owned(),
            source,
        })?;
        Ok(Self {
            builds: BuildServiceClient::new(channel.clone())
                .max_decoding_message_size(bounds::BUILD_MESSAGE_BYTES),
            inputs: InputServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel.clone()),
            evidence: EvidenceServiceClient::new(channel.clone()),
            store: StoreServiceClient::new(channel.clone()),
            blobs: ContentAddressableStorageClient::new(channel.clone()),
            streams: ByteStreamClient::new(channel),
            heard: Arc::default(),
            project: project.cloned(),
        })
    }

    /// The same connection, for the blobs of this project.
    pub(crate) fn of(&self, project: &ProjectId) -> Self {
        Self {
            project: Some(project.clone()),
            ..self.clone()
        }
    }

    /// The instance name of blobs: the project, or nothing.
    pub(crate) fn instance(&self) -> String {
        self.project
            .as_ref()
            .map(ProjectId::to_string)
            .unwrap_or_default()
    }

    /// A resource name of blobs: with the instance before it, if there is one.
    pub(crate) fn resource(&self, rest: &str) -> String {
        match &self.project {
            Some(project) => format!("{project}/{rest}"),
            None => rest.to_owned(),
        }
    }

    /// What the daemon is and can do.
    pub(crate) async fn server_info(&self) -> Result<ServerInfo, Error> {
        let doing = "asking the daemon what it is";
        let info = answered(&self.heard, doing, || {
            let request = call(v1::GetServerInfoRequest {});
            let mut client = self.builds.clone();
            async move { client.get_server_info(request).await }
        });
        info.await?
            .try_into()
            .map_err(|invalid| Error::answer(doing, invalid))
    }

    /// Submits a build.
    pub(crate) async fn submit(
        &self,
        request_id: &RequestId,
        spec: &BuildSpec,
    ) -> Result<BuildRecord, Error> {
        let doing = "submitting the build";
        let request = v1::SubmitBuildRequest {
            request_id: request_id.to_string(),
            spec: Some(spec.into()),
            project: self.project.as_ref().map(project_name).unwrap_or_default(),
        };
        // The same request id is the same build.
        let answer = answered(&self.heard, doing, || {
            let request = call(request.clone());
            let mut client = self.builds.clone();
            async move { client.submit_build(request).await }
        });
        record(doing, answer.await?)
    }

    /// Asks for the end of a build.
    pub(crate) async fn cancel(&self, build: &BuildId, reason: &str) -> Result<BuildRecord, Error> {
        let doing = "cancelling the build";
        let request = v1::CancelBuildRequest {
            name: build_name(build),
            reason: reason.to_owned(),
        };
        let answer = self.builds.clone().cancel_build(call(request)).await;
        record(
            doing,
            answer
                .map_err(|status| Error::call(doing, &status))?
                .into_inner(),
        )
    }

    /// Follows a build.
    pub(crate) async fn watch(
        &self,
        request: v1::WatchBuildRequest,
    ) -> Result<tonic::Streaming<v1::WatchBuildResponse>, Status> {
        Ok(self.builds.clone().watch_build(request).await?.into_inner())
    }
}

/// Reading what is known of builds.
impl Client {
    /// One build as it stands.
    pub(crate) async fn get(&self, build: &BuildId) -> Result<BuildRecord, Error> {
        let doing = "asking for the build";
        let name = build_name(build);
        let request = v1::GetBuildRequest { name };
        let answer = answered(&self.heard, doing, || {
            let request = call(request.clone());
            let mut client = self.builds.clone();
            async move { client.get_build(request).await }
        });
        record(doing, answer.await?)
    }

    /// A page of the list of builds, and the token for the next one.
    pub(crate) async fn list(
        &self,
        request: v1::ListBuildsRequest,
    ) -> Result<(Vec<BuildSummary>, String), Error> {
        let doing = "listing builds";
        let page = answered(&self.heard, doing, || {
            let request = call(request.clone());
            let mut client = self.builds.clone();
            async move { client.list_builds(request).await }
        });
        let page = page.await?;
        let builds = page.builds.into_iter().map(BuildSummary::try_from);
        let builds = builds.collect::<Result<_, _>>();
        let builds = builds.map_err(|invalid| Error::answer(doing, invalid))?;
        Ok((builds, page.next_page_token))
    }

    /// A piece of a log. The status is the caller's to judge: it may pass.
    pub(crate) async fn read_log(
        &self,
        request: v1::ReadLogRequest,
    ) -> Result<v1::ReadLogResponse, Status> {
        let answer = self.builds.clone().read_log(call(request)).await?;
        Ok(answer.into_inner())
    }

    /// What is on record about a build.
    pub(crate) async fn evidence(&self, build: &BuildId) -> Result<Evidence, Error> {
        let doing = "asking for the evidence";
        let answer = answered(&self.heard, doing, || {
            let request = call(v1::GetEvidenceRequest {
                name: evidence_name(build),
            });
            let mut client = self.evidence.clone();
            async move { client.get_evidence(request).await }
        });
        let evidence = BuildEvidence::try_from(answer.await?);
        let evidence = evidence.map_err(|invalid| Error::answer(doing, invalid))?;
        Ok(evidence.evidence)
    }

    /// The whole audit trail of a build as it stands.
    pub(crate) async fn audit_trail(&self, build: &BuildId) -> Result<Vec<u8>, Error> {
        let doing = "reading the audit trail";
        let mut trail: Vec<u8> = Vec::new();
        loop {
            let request = v1::ReadAuditTrailRequest {
                name: build_name(build),
                offset: i64::try_from(trail.len()).unwrap_or(i64::MAX),
                limit: 0,
            };
            let answer = answered(&self.heard, doing, || {
                let request = call(request.clone());
                let mut client = self.evidence.clone();
                async move { client.read_audit_trail(request).await }
            });
            let piece = answer.await?.data;
            if piece.is_empty() {
                return Ok(trail);
            }
            trail.extend(piece);
            if trail.len() > bounds::AUDIT_TRAIL_BYTES {
                let why = format!("it has more than {} bytes", bounds::AUDIT_TRAIL_BYTES);
                return Err(Error::answer(doing, Invalid::new(why)));
            }
        }
    }
}

/// What a problem says; of one that is not Belljar's own, that it is the connection's.
fn said(problem: &Problem) -> String {
    match problem.reason {
        Reason::Foreign(code) => format!(
            "the daemon was lost, or is none of Belljar's ({code:?}: {})",
            problem.message
        ),
        _ => problem.message.clone(),
    }
}

/// A request that is to be answered soon.
pub(crate) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}

/// A build out of an answer.
pub(crate) fn record(doing: &'static str, build: v1::Build) -> Result<BuildRecord, Error> {
    build
        .try_into()
        .map_err(|invalid| Error::answer(doing, invalid))
}

/// REAPI's form of an object's id.
pub(crate) fn reapi_digest(object: ObjectId) -> reapi::Digest {
    reapi::Digest {
        hash: object.digest.to_hex(),
        // Sizes stay below `bounds::BLOB_BYTES`.
        size_bytes: i64::try_from(object.size).unwrap_or(i64::MAX),
    }
}

/// The way back, for answers.
pub(crate) fn object_id(
    doing: &'static str,
    digest: Option<reapi::Digest>,
) -> Result<ObjectId, Error> {
    let refused = |invalid: Invalid| Error::answer(doing, invalid.within("digest"));
    let digest = digest.ok_or_else(|| refused(Invalid::new("missing")))?;
    let size = u64::try_from(digest.size_bytes)
        .map_err(|_| refused(Invalid::field("size_bytes", "negative")))?;
    let digest = belljar_core::Digest::from_hex(&digest.hash).map_err(refused)?;
    Ok(ObjectId { digest, size })
}

/// SHA-256, the one digest function.
pub(crate) fn sha256() -> i32 {
    reapi::digest_function::Value::Sha256.into()
}
