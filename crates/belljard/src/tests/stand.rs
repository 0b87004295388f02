//! The daemon of a test, over the faked peers of a site, and what is asked of it most often.

use super::*;

/// A running daemon; it ends when this is dropped.
pub(super) struct Daemon {
    pub(super) channel: Channel,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) result: oneshot::Receiver<Result<(), RunError>>,
    pub(super) _task: Task,
}

pub(super) async fn start(site: &Site, more: &str) -> Daemon {
    let root = site.root.display();
    let text = format!(
        "socket = \"{root}/run/belljard.sock\"\nstore_socket = \"{root}/run/store.sock\"\n\
         spawner_socket = \"{root}/run/spawner.sock\"\nsigner_socket = \"{root}/run/signer.sock\"\n\
         store_root = \"{root}/store\"\nreceipts = \"{root}/receipts\"\nevidence = \"{root}/evidence\"\n\
         state = \"{root}/daemon\"\nslots = 2\nallowed_uids = [{}]\n{more}",
        belljar_sys::process::effective_uid()
    );
    let (stop, stopped) = oneshot::channel();
    let (done, result) = oneshot::channel();
    let task = tasks::start("daemon", async move {
        let mut stopped = stopped;
        let result = loop {
            let config = Config::parse(Path::new("b.toml"), &text).unwrap();
            let ended = async { drop((&mut stopped).await) };
            let own = Own {
                confined: Vec::new(),
                manager: Manager::nobody(),
            };
            match compose::serve(config, own, ended).await {
                // Connections of an earlier daemon in this process may not have noticed its end yet.
                Err(RunError::Queue(OpenError::InUse { .. })) => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                result => break result,
            }
        };
        drop(done.send(result));
    });
    let socket = site.socket("belljard");
    let connect = move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_static("http://belljard");
    let channel = loop {
        match endpoint
            .connect_with_connector(tower::service_fn(connect.clone()))
            .await
        {
            Ok(channel) => break channel,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    Daemon {
        channel,
        stop,
        result,
        _task: task,
    }
}

impl Daemon {
    pub(super) fn builds(&self) -> BuildServiceClient<Channel> {
        BuildServiceClient::new(self.channel.clone())
    }

    pub(super) fn blobs(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    pub(super) fn streams(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    pub(super) async fn write(
        &self,
        object: ObjectId,
        content: &[u8],
        piece: usize,
    ) -> Result<i64, Status> {
        let name = format!("uploads/u/blobs/{}/{}", object.digest.to_hex(), object.size);
        let mut messages = Vec::new();
        let mut offset = 0;
        for data in content.chunks(piece) {
            messages.push(stream::WriteRequest {
                resource_name: if offset == 0 {
                    name.clone()
                } else {
                    String::new()
                },
                write_offset: offset,
                finish_write: false,
                data: data.to_vec(),
            });
            offset += i64::try_from(data.len()).unwrap();
        }
        messages.last_mut().unwrap().finish_write = true;
        let written = self.streams().write(tokio_stream::iter(messages)).await?;
        Ok(written.into_inner().committed_size)
    }

    pub(super) async fn read(&self, object: ObjectId) -> Result<Vec<u8>, Status> {
        self.read_named(
            format!("blobs/{}/{}", object.digest.to_hex(), object.size),
            0,
        )
        .await
    }

    pub(super) async fn read_named(
        &self,
        resource_name: String,
        read_offset: i64,
    ) -> Result<Vec<u8>, Status> {
        let request = stream::ReadRequest {
            resource_name,
            read_offset,
            read_limit: 0,
        };
        let mut pieces = self.streams().read(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = pieces.message().await? {
            content.extend(piece.data);
        }
        Ok(content)
    }

    pub(super) async fn submit(
        &self,
        request: &str,
        spec: v1::BuildSpec,
    ) -> Result<BuildRecord, Status> {
        let request = v1::SubmitBuildRequest {
            request_id: request.to_owned(),
            spec: Some(spec),
            project: String::new(),
        };
        Ok(self
            .builds()
            .submit_build(request)
            .await?
            .into_inner()
            .try_into()
            .unwrap())
    }

    /// Follows a build to its end: the states it went through, and the log of each attempt.
    pub(super) async fn watch(&self, build: &BuildRecord) -> (Vec<BuildRecord>, Vec<Vec<u8>>) {
        let request = v1::WatchBuildRequest {
            name: belljar_wire::build_name(&build.id),
            ..v1::WatchBuildRequest::default()
        };
        let mut events = self
            .builds()
            .watch_build(request)
            .await
            .unwrap()
            .into_inner();
        let (mut states, mut logs): (Vec<BuildRecord>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        let mut steps = Vec::new();
        while let Some(event) = events.message().await.unwrap() {
            match event.event.unwrap() {
                v1::watch_build_response::Event::Build(build) => {
                    states.push(build.try_into().unwrap())
                }
                v1::watch_build_response::Event::LogChunk(chunk) => {
                    let attempt = usize::try_from(chunk.attempt).unwrap();
                    logs.resize(logs.len().max(attempt), Vec::new());
                    let log = &mut logs[attempt - 1];
                    assert_eq!(
                        log.len(),
                        usize::try_from(chunk.offset).unwrap(),
                        "a gap in the log"
                    );
                    log.extend(chunk.data);
                }
                v1::watch_build_response::Event::StepStarted(step) => {
                    let attempt = usize::try_from(step.attempt).unwrap();
                    let log = logs.get(attempt - 1).map_or(0, Vec::len);
                    assert_eq!(
                        log,
                        usize::try_from(step.log_offset).unwrap(),
                        "told where it begins in the log"
                    );
                    steps.push(step.step);
                }
            }
        }
        // A build that was launched has told of both of its steps, each attempt anew.
        assert!(
            steps.chunks(2).all(|of_attempt| of_attempt == [0, 1]),
            "{steps:?}"
        );
        assert_eq!(steps.is_empty(), logs.is_empty());
        (states, logs)
    }
}

pub(super) fn spec(source: ObjectId) -> v1::BuildSpec {
    v1::BuildSpec {
        image: "host".to_owned(),
        source: Some(source.into()),
        run: vec!["make".to_owned()],
        outputs: vec!["app".to_owned()],
        ..v1::BuildSpec::default()
    }
}

pub(super) fn digest(object: ObjectId) -> reapi::Digest {
    reapi::Digest {
        hash: object.digest.to_hex(),
        size_bytes: i64::try_from(object.size).unwrap(),
    }
}

/// The message of a directory with a link in it, which depends on nothing else.
pub(super) fn tree() -> Vec<u8> {
    let link = SymlinkNode {
        name: Name::new("link").unwrap(),
        target: SymlinkTarget::new("target").unwrap(),
        properties: None,
    };
    Directory::new(vec![], vec![], vec![link]).unwrap().encode()
}

pub(super) async fn site() -> (tempfile::TempDir, Site) {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(directory.path());
    (directory, site)
}

/// The field that a status names.
pub(super) fn field(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    Problem::from_status(status).fields.remove(0).field
}
