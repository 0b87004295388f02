//! A daemon for tests: blobs in memory, and streams of events as a test writes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::{bytestream, rpc};
use belljar_core::ObjectId;
use belljar_wire::v1;
use bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use v1::build_service_server::{BuildService, BuildServiceServer};

use crate::address::Address;
use crate::client::{Client, object_id, reapi_digest};

/// One stream that `WatchBuild` answers with.
pub(crate) type Script = Vec<Result<v1::watch_build_response::Event, Status>>;

/// What the daemon has and has been asked.
#[derive(Default)]
pub(crate) struct State {
    /// Objects, which a test may also spoil.
    pub(crate) blobs: BTreeMap<ObjectId, Vec<u8>>,
    /// Names of what came by `ByteStream.Write`.
    pub(crate) streamed: Vec<String>,
    /// Sizes of the batches that came.
    pub(crate) batches: Vec<usize>,
    /// What it says of itself.
    pub(crate) info: Option<v1::ServerInfo>,
    /// What the next calls of `WatchBuild` answer.
    pub(crate) scripts: VecDeque<Script>,
    /// What `WatchBuild` was asked.
    pub(crate) watched: Vec<v1::WatchBuildRequest>,
    /// How many more streams of blobs break after [`BREAK`] bytes.
    pub(crate) breaks: usize,
    /// Where streams of blobs have begun.
    pub(crate) begun: Vec<usize>,
    /// Uploads that were broken off.
    pub(crate) partial: BTreeMap<String, Vec<u8>>,
    /// How many more questions about them are answered with less than is there: it was still on its way.
    pub(crate) late: usize,
}

/// See [`State::breaks`].
pub(crate) const BREAK: usize = 300_000;

/// A running daemon; ends when it is dropped.
pub(crate) struct Daemon {
    /// What it knows.
    pub(crate) state: Arc<Mutex<State>>,
    /// Connected to it.
    pub(crate) client: Client,
    _dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl Daemon {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let state = Arc::new(Mutex::new(State::default()));
        let service = Service(Arc::clone(&state));
        let incoming = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(BuildServiceServer::new(service.clone()))
                .add_service(ContentAddressableStorageServer::new(service.clone()))
                .add_service(ByteStreamServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        let client = Client::connect(&Address::Socket(socket), None)
            .await
            .unwrap();
        Self {
            state,
            client,
            _dir: dir,
            _tasks: tasks,
        }
    }
}

fn verdict(code: tonic::Code, message: &str) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: code.into(),
        message: message.to_owned(),
        ..Default::default()
    })
}

/// The object that a resource name ends with.
fn named(resource: &str) -> ObjectId {
    let mut parts = resource.rsplit('/');
    let size = parts.next().unwrap().parse().unwrap();
    let digest = belljar_core::Digest::from_hex(parts.next().unwrap()).unwrap();
    ObjectId { digest, size }
}

type Answers<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

fn unused<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in tests"))
}

#[async_trait]
impl BuildService for Service {
    async fn submit_build(
        &self,
        _: Request<v1::SubmitBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        unused()
    }

    async fn get_build(
        &self,
        _: Request<v1::GetBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        unused()
    }

    async fn list_builds(
        &self,
        _: Request<v1::ListBuildsRequest>,
    ) -> Result<Response<v1::ListBuildsResponse>, Status> {
        unused()
    }

    async fn read_log(
        &self,
        _: Request<v1::ReadLogRequest>,
    ) -> Result<Response<v1::ReadLogResponse>, Status> {
        unused()
    }

    type WatchBuildStream = Answers<v1::WatchBuildResponse>;

    async fn watch_build(
        &self,
        request: Request<v1::WatchBuildRequest>,
    ) -> Result<Response<Self::WatchBuildStream>, Status> {
        let mut state = self.0.lock().unwrap();
        state.watched.push(request.into_inner());
        let script = state
            .scripts
            .pop_front()
            .ok_or_else(|| Status::not_found("no script is left"))?;
        let answers = script
            .into_iter()
            .map(|event| event.map(|event| v1::WatchBuildResponse { event: Some(event) }));
        Ok(Response::new(tokio_stream::iter(
            answers.collect::<Vec<_>>(),
        )))
    }

    async fn cancel_build(
        &self,
        _: Request<v1::CancelBuildRequest>,
    ) -> Result<Response<v1::Build>, Status> {
        unused()
    }

    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::ServerInfo>, Status> {
        let info = self.0.lock().unwrap().info.clone();
        info.map_or_else(unused, |info| Ok(Response::new(info)))
    }
}

#[async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let state = self.0.lock().unwrap();
        let mut missing = request.into_inner().blob_digests;
        missing.retain(|digest| {
            !state
                .blobs
                .contains_key(&object_id("test", Some(digest.clone())).unwrap())
        });
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests: missing,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        let requests = request.into_inner().requests;
        state.batches.push(requests.len());
        let responses = requests.into_iter().map(|one| {
            let object = object_id("test", one.digest.clone()).unwrap();
            let status = if ObjectId::of(&one.data) == object {
                state.blobs.insert(object, one.data);
                verdict(tonic::Code::Ok, "")
            } else {
                verdict(tonic::Code::InvalidArgument, "other content")
            };
            reapi::batch_update_blobs_response::Response {
                digest: one.digest,
                status,
            }
        });
        let responses = responses.collect();
        Ok(Response::new(reapi::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let state = self.0.lock().unwrap();
        let responses = request.into_inner().digests.into_iter().map(|digest| {
            let found = state
                .blobs
                .get(&object_id("test", Some(digest.clone())).unwrap());
            reapi::batch_read_blobs_response::Response {
                digest: Some(digest),
                data: found.cloned().unwrap_or_default(),
                status: match found {
                    Some(_) => verdict(tonic::Code::Ok, ""),
                    None => verdict(tonic::Code::NotFound, "not here"),
                },
                ..Default::default()
            }
        });
        Ok(Response::new(reapi::BatchReadBlobsResponse {
            responses: responses.collect(),
        }))
    }

    type GetTreeStream = Answers<reapi::GetTreeResponse>;

    async fn get_tree(
        &self,
        _: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        unused()
    }

    async fn split_blob(
        &self,
        _: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        unused()
    }

    type GetChunkMappingStream = Answers<reapi::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<reapi::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        unused()
    }

    async fn splice_blob(
        &self,
        _: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        unused()
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<reapi::RegisterChunkMappingRequest>>,
    ) -> Result<Response<reapi::RegisterChunkMappingResponse>, Status> {
        unused()
    }
}

#[async_trait]
impl ByteStream for Service {
    type ReadStream = Answers<bytestream::ReadResponse>;

    async fn read(
        &self,
        request: Request<bytestream::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let object = named(&request.resource_name);
        let mut state = self.0.lock().unwrap();
        let offset = usize::try_from(request.read_offset).unwrap();
        state.begun.push(offset);
        let broken = state.breaks > 0;
        state.breaks = state.breaks.saturating_sub(1);
        let blob = state
            .blobs
            .get(&object)
            .ok_or_else(|| Status::not_found("not here"))?;
        let mut pieces: Vec<_> = blob[offset..]
            .chunks(100_000)
            .map(|piece| {
                Ok(bytestream::ReadResponse {
                    data: piece.to_vec(),
                })
            })
            .collect();
        if broken {
            pieces.truncate(BREAK / 100_000);
            pieces.push(Err(Status::unavailable("gone")));
        }
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn write(
        &self,
        request: Request<Streaming<bytestream::WriteRequest>>,
    ) -> Result<Response<bytestream::WriteResponse>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap();
        let name = first.resource_name.clone();
        let offset = usize::try_from(first.write_offset).unwrap();
        let (mut content, broken) = {
            let mut state = self.0.lock().unwrap();
            state.begun.push(offset);
            let broken = state.breaks > 0;
            state.breaks = state.breaks.saturating_sub(1);
            (state.partial.remove(&name).unwrap_or_default(), broken)
        };
        if offset != content.len() {
            let why = format!("{offset} where {} is due", content.len());
            self.0.lock().unwrap().partial.insert(name, content);
            let invalid = belljar_core::Invalid::field("write_offset", why);
            return Err(belljar_wire::Problem::invalid(invalid).into());
        }
        let (mut next, mut finished) = (Some(first), false);
        while let Some(piece) = next {
            assert_eq!(usize::try_from(piece.write_offset).unwrap(), content.len());
            content.extend_from_slice(&piece.data);
            if broken && content.len() >= offset + BREAK {
                self.0.lock().unwrap().partial.insert(name, content);
                return Err(Status::unavailable("gone"));
            }
            finished = piece.finish_write;
            next = stream.message().await?;
        }
        let object = named(&name);
        if !finished || ObjectId::of(&content) != object {
            return Err(Status::invalid_argument("incomplete, or other content"));
        }
        let mut state = self.0.lock().unwrap();
        state.streamed.push(name);
        state.blobs.insert(object, content);
        Ok(Response::new(bytestream::WriteResponse {
            committed_size: reapi_digest(object).size_bytes,
        }))
    }

    async fn query_write_status(
        &self,
        request: Request<bytestream::QueryWriteStatusRequest>,
    ) -> Result<Response<bytestream::QueryWriteStatusResponse>, Status> {
        let name = request.into_inner().resource_name;
        let mut state = self.0.lock().unwrap();
        let less = if state.late > 0 { 100_000 } else { 0 };
        state.late = state.late.saturating_sub(1);
        let partial = state.partial.get(&name).map_or(0, Vec::len) - less;
        let complete = state.blobs.get(&named(&name)).map(Vec::len);
        Ok(Response::new(bytestream::QueryWriteStatusResponse {
            committed_size: i64::try_from(complete.unwrap_or(partial)).unwrap(),
            complete: complete.is_some(),
        }))
    }
}
