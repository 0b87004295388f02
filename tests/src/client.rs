use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use bazel_remote_apis::google::bytestream::{ReadRequest, WriteRequest};
use belljar_core::{
    BuildId, BuildSpec, Image, Inputs, Limits, Network, ObjectId, Outputs, Recipe, RelPath, Script,
    Steps,
};
use belljar_tree::Leaf;
use belljar_wire::v1::build_service_client::BuildServiceClient;
use belljar_wire::v1::evidence_service_client::EvidenceServiceClient;
use belljar_wire::v1::input_service_client::InputServiceClient;
use belljar_wire::{BuildRecord, DerivedTree, Problem, ServerInfo, build_name, v1};
use hyper_util::rt::TokioIo;
use reapi::batch_update_blobs_request::Request as Blob;
use reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::wait_for;

/// How long a build may take to reach a state.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the API, for what the command line has no word for. Calls block.
#[derive(Debug)]
pub struct Client {
    runtime: RefCell<Runtime>,
    channel: Channel,
    builds: BuildServiceClient<Channel>,
    inputs: InputServiceClient<Channel>,
    blobs: ContentAddressableStorageClient<Channel>,
    streams: ByteStreamClient<Channel>,
}

impl Client {
    /// Connects to belljard's socket.
    pub(crate) fn connect(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        Self::over(Endpoint::from_static("http://localhost").connect_with_connector(connector))
    }

    /// One that calls over a connection of another kind.
    ///
    /// # Panics
    /// When there is none.
    pub fn over(
        connecting: impl Future<Output = Result<Channel, tonic::transport::Error>>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let channel = runtime.block_on(connecting).expect("belljard listens");
        Self {
            runtime: RefCell::new(runtime),
            builds: BuildServiceClient::new(channel.clone()),
            inputs: InputServiceClient::new(channel.clone()),
            blobs: ContentAddressableStorageClient::new(channel.clone()),
            streams: ByteStreamClient::new(channel.clone()),
            channel,
        }
    }

    /// Waits for what a raw call answers, as in `client.wait(client.builds().list_builds(request))`.
    pub fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.borrow_mut().block_on(call)
    }

    /// For raw calls of `BuildService`.
    pub fn builds(&self) -> BuildServiceClient<Channel> {
        self.builds.clone()
    }

    /// For raw calls of `EvidenceService`.
    pub fn evidence(&self) -> EvidenceServiceClient<Channel> {
        EvidenceServiceClient::new(self.channel.clone())
    }

    /// For raw calls about blobs.
    pub fn blobs(&self) -> ContentAddressableStorageClient<Channel> {
        self.blobs.clone()
    }

    /// For raw calls of `ByteStream`.
    pub fn streams(&self) -> ByteStreamClient<Channel> {
        self.streams.clone()
    }

    /// For raw calls of `InputService`.
    pub fn inputs(&self) -> InputServiceClient<Channel> {
        self.inputs.clone()
    }

    /// For other services.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What the server is.
    pub fn server_info(&self) -> ServerInfo {
        let answer = self.wait(
            self.builds
                .clone()
                .get_server_info(v1::GetServerInfoRequest {}),
        );
        answer
            .expect("an answer")
            .into_inner()
            .try_into()
            .expect("a good answer")
    }

    /// Submits a build.
    ///
    /// # Errors
    /// What the server says.
    pub fn submit(&self, request_id: &str, spec: &BuildSpec) -> Result<BuildRecord, Problem> {
        self.submit_raw(request_id, spec.into())
    }

    /// Submits a message as it stands.
    ///
    /// # Errors
    /// What the server says.
    pub fn submit_raw(
        &self,
        request_id: &str,
        spec: v1::BuildSpec,
    ) -> Result<BuildRecord, Problem> {
        let request = v1::SubmitBuildRequest {
            request_id: request_id.to_owned(),
            spec: Some(spec),
            project: String::new(),
        };
        record(self.wait(self.builds.clone().submit_build(request)))
    }

    /// A build as it stands.
    ///
    /// # Errors
    /// What the server says.
    pub fn get(&self, build: &BuildId) -> Result<BuildRecord, Problem> {
        let name = build_name(build);
        record(self.wait(self.builds.clone().get_build(v1::GetBuildRequest { name })))
    }

    /// Asks for its end.
    ///
    /// # Errors
    /// What the server says.
    pub fn cancel(&self, build: &BuildId, reason: &str) -> Result<BuildRecord, Problem> {
        let request = v1::CancelBuildRequest {
            name: build_name(build),
            reason: reason.to_owned(),
        };
        record(self.wait(self.builds.clone().cancel_build(request)))
    }

    /// Waits until it is as `due`.
    pub fn until(&self, build: &BuildId, due: impl Fn(&BuildRecord) -> bool) -> BuildRecord {
        wait_for(&format!("{build} is as it is due"), PATIENCE, || {
            let now = self
                .get(build)
                .unwrap_or_else(|problem| panic!("{problem:?}"));
            due(&now).then_some(now)
        })
    }

    /// A specification of a build of these files, which are uploaded, with default limits.
    pub fn spec(&self, files: &[(&str, &str)], run: &[&str], outputs: &[&str]) -> BuildSpec {
        let scripts = run.iter().map(|step| Script::new(*step).expect("a script"));
        let outputs: BTreeSet<_> = outputs
            .iter()
            .map(|path| RelPath::new(*path).expect("a path"))
            .collect();
        BuildSpec {
            image: Image::Host,
            source: self.upload(files),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(scripts.collect()).expect("steps"),
            env: [].into(),
            outputs: Outputs::new(outputs).expect("outputs"),
            limits: Limits::DEFAULT,
            network: Network::None,
            source_date_epoch: BuildSpec::DEFAULT_EPOCH,
        }
    }

    /// Uploads a tree of files. Gives its root.
    pub fn upload(&self, files: &[(&str, &str)]) -> ObjectId {
        let leaves = files.iter().map(|(path, content)| {
            let object = self.put(content.as_bytes());
            let leaf = Leaf::File {
                object,
                executable: false,
            };
            (RelPath::new(*path).expect("a path"), leaf)
        });
        let built = belljar_tree::build(leaves.collect::<Vec<_>>()).expect("a tree");
        for (object, bytes) in &built.directories {
            assert_eq!(self.put(bytes), *object);
        }
        built.root
    }

    /// Uploads a blob.
    pub fn put(&self, bytes: &[u8]) -> ObjectId {
        let object = ObjectId::of(bytes);
        assert_eq!(self.put_as(object, bytes), Code::Ok);
        object
    }

    /// Uploads a blob of any size.
    pub fn put_large(&self, bytes: &[u8]) -> ObjectId {
        const SMALL: usize = 1 << 20;
        if bytes.len() <= SMALL {
            return self.put(bytes);
        }
        let object = ObjectId::of(bytes);
        let committed = self.stream_as(object, bytes).expect("taken");
        assert_eq!(u64::try_from(committed).ok(), Some(object.size));
        object
    }

    /// Uploads bytes under an id that may be another blob's. Gives the verdict.
    pub fn put_as(&self, object: ObjectId, bytes: &[u8]) -> Code {
        let request = reapi::BatchUpdateBlobsRequest {
            requests: vec![Blob {
                digest: Some(digest(object)),
                data: bytes.to_vec(),
                compressor: 0,
            }],
            ..Default::default()
        };
        let answer = self.wait(self.blobs.clone().batch_update_blobs(request));
        let responses = answer.expect("an answer").into_inner().responses;
        let [response] = responses.as_slice() else {
            panic!("one blob, {} answers", responses.len());
        };
        response
            .status
            .as_ref()
            .map_or(Code::Ok, |status| Code::from_i32(status.code))
    }

    /// Uploads bytes as a stream under an id that may be another blob's.
    ///
    /// # Errors
    /// What the server says.
    pub fn stream_as(&self, object: ObjectId, bytes: &[u8]) -> Result<i64, Status> {
        let request = WriteRequest {
            resource_name: format!(
                "uploads/0d9c5d5e-3f3b-4f5e-8d5c-1f6f0e1c2b3a/blobs/{}/{}",
                object.digest.to_hex(),
                object.size
            ),
            write_offset: 0,
            finish_write: true,
            data: bytes.to_vec(),
        };
        let answer = self.wait(self.streams.clone().write(tokio_stream::iter([request])));
        answer.map(|answer| answer.into_inner().committed_size)
    }

    /// Has a tree made.
    ///
    /// # Errors
    /// What the server says.
    pub fn derive(&self, recipe: &Recipe) -> Result<DerivedTree, Problem> {
        match self.wait(
            self.inputs
                .clone()
                .derive_tree(v1::DeriveTreeRequest::try_from(recipe).unwrap()),
        ) {
            Ok(derived) => Ok(derived.into_inner().try_into().expect("a good answer")),
            Err(status) => Err(Problem::from_status(&status)),
        }
    }

    /// Which of these the server does not have.
    pub fn missing(&self, objects: &[ObjectId]) -> Vec<String> {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: objects.iter().copied().map(digest).collect(),
            ..Default::default()
        };
        let answer = self.wait(self.blobs.clone().find_missing_blobs(request));
        let missing = answer.expect("an answer").into_inner().missing_blob_digests;
        missing.into_iter().map(|digest| digest.hash).collect()
    }

    /// Content of an object.
    ///
    /// # Errors
    /// What the server says.
    pub fn read(&self, object: ObjectId) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            resource_name: format!("blobs/{}/{}", object.digest.to_hex(), object.size),
            ..Default::default()
        };
        self.wait(async {
            let mut stream = self.streams.clone().read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.message().await? {
                bytes.extend(piece.data);
            }
            Ok(bytes)
        })
    }
}

fn record(answer: Result<tonic::Response<v1::Build>, Status>) -> Result<BuildRecord, Problem> {
    match answer {
        Ok(build) => Ok(build.into_inner().try_into().expect("a good answer")),
        Err(status) => Err(Problem::from_status(&status)),
    }
}

fn digest(object: ObjectId) -> reapi::Digest {
    reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).expect("a size"),
    }
}
