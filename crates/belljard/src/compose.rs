//! How the daemon is put together. What happens to a build:
//!
//! 1. Its inputs come in over [`ByteStreams`] and [`Blobs`] and go to the store's process.
//! 2. [`Builds`] parses a submission, lets policy decide, checks host and inputs, and has it queued.
//! 3. The engine's driver takes it from the queue and asks spawner, signer and store, step by step.
//! 4. [`Builds`] tells of it, [`ByteStreams`] and [`Blobs`] hand out its artifacts and evidence.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bazel_remote_apis::build::bazel::remote::execution::v2::capabilities_server::CapabilitiesServer;
use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_server::ContentAddressableStorageServer;
use bazel_remote_apis::google::bytestream::byte_stream_server::ByteStreamServer;
use belljar_cas::{BlobSource, LayoutError, Reader};
use belljar_core::bounds;
use belljar_engine::ports::Ports;
use belljar_engine::queue::{OpenError, Queue, QueueError};
use belljar_engine::{Settings, engine};
use belljar_wire::v1::build_service_server::BuildServiceServer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::config::Config;
use crate::peers::{Logs, SignerClient, SpawnerClient, StoreClient, SystemClock};
use crate::services::{Blobs, Builds, ByteStreams, Gate, Host, ServerCapabilities, View};
use crate::tasks;

/// Why the daemon ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("belljard must not run as root; start it as its own user, without capabilities")]
    Root,
    #[error("the queue cannot be opened")]
    Queue(#[from] OpenError),
    #[error("{}: the directory for audit trails cannot be made", path.display())]
    Audit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store's objects cannot be read; belljar-store must have started, and share a group with belljard")]
    Store(#[from] LayoutError),
    #[error("{}: the socket cannot be opened", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
    #[error("the engine stopped")]
    Engine(#[source] QueueError),
    #[error("serving failed")]
    Serve(#[from] tonic::transport::Error),
    #[error("the engine's task ended unexpectedly")]
    EngineGone,
}

/// The daemon: serves until a signal ends it. Running builds are found again at the next start.
pub(crate) async fn run(config: Config) -> Result<(), RunError> {
    if belljar_sys::process::effective_uid() == 0 {
        return Err(RunError::Root);
    }
    let mut terminated = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let ended = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    serve(config, ended).await
}

/// Puts everything together and serves until `ended`.
pub(crate) async fn serve(config: Config, ended: impl Future<Output = ()>) -> Result<(), RunError> {
    let audit = config.state.join("audit");
    make_directory(&audit)?;
    let queue = Queue::open(&config.state.join("queue.sqlite"))?;

    // The other processes.
    let logs = Logs::new(&config.store_root);
    let store = StoreClient::new(config.store_socket, logs.clone());
    let spawner = Arc::new(SpawnerClient::start(config.spawner_socket, config.receipts));
    let signer = Arc::new(SignerClient::new(config.signer_socket, config.evidence));
    let source: Arc<dyn BlobSource> = Arc::new(Reader::new(&config.store_root)?);

    // The engine.
    let ports = Ports {
        spawner: spawner.clone(),
        store: store.clone(),
        signer: signer.clone(),
        clock: SystemClock,
    };
    let slots = config.slots;
    let (engine, driver) = engine(queue, ports, Settings { slots, audit });
    let (stopped, driver_stopped) = tokio::sync::oneshot::channel();
    let _driving = tasks::start("engine", async move {
        // Nobody waits any more while the daemon ends.
        let _ = stopped.send(driver.run().await);
    });

    // The services, each behind the gate.
    let policy = Arc::new(config.policy);
    let gate = Gate::new(policy.clone());
    let builds = BuildServiceServer::new(Builds {
        engine,
        policy,
        source: source.clone(),
        host: Host::new(spawner.clone()),
        signer,
        logs,
        view: View::new(spawner),
        watchers: Arc::new(Semaphore::new(bounds::WATCHERS)),
        slots,
        builder_ids: config.builder_ids,
    });
    let blobs = ContentAddressableStorageServer::new(Blobs::new(source.clone(), store.clone()));
    let streams = ByteStreamServer::new(ByteStreams::new(source, store));
    let capabilities = CapabilitiesServer::new(ServerCapabilities);
    let most = bounds::GRPC_MESSAGE_BYTES;
    let server = Server::builder()
        .concurrency_limit_per_connection(bounds::CALLS_PER_CONNECTION)
        .add_service(InterceptedService::new(
            builds.max_decoding_message_size(most),
            gate.clone(),
        ))
        .add_service(InterceptedService::new(
            blobs.max_decoding_message_size(most),
            gate.clone(),
        ))
        .add_service(InterceptedService::new(
            streams.max_decoding_message_size(most),
            gate.clone(),
        ))
        .add_service(InterceptedService::new(
            capabilities.max_decoding_message_size(most),
            gate,
        ));

    let serving = server.serve_with_incoming(listen(&config.socket)?);
    tracing::info!(socket = %config.socket.display(), slots, "belljard serves");
    let result = tokio::select! {
        served = serving => served.map_err(RunError::from),
        stopped = driver_stopped => match stopped {
            Ok(Err(error)) => Err(RunError::Engine(error)),
            Ok(Ok(())) | Err(_) => Err(RunError::EngineGone),
        },
        () = ended => Ok(()),
    };
    // Nobody shall connect to a socket that nobody serves.
    if let Err(error) = std::fs::remove_file(&config.socket) {
        tracing::debug!(%error, "the socket was not removed");
    }
    tracing::info!("belljard ends; builds that run are found again at the next start");
    result
}

fn make_directory(path: &Path) -> Result<(), RunError> {
    let made = std::fs::create_dir_all(path).and_then(|()| {
        // What the trails say is for belljard alone; their published part is in the store.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    });
    made.map_err(|source| RunError::Audit {
        path: path.to_owned(),
        source,
    })
}

/// Listens at `path`, in place of a socket that an earlier daemon left. Everybody may connect: who is
/// served is decided by the gate, which tells whom it turns away why.
fn listen(path: &Path) -> Result<Incoming, RunError> {
    let failed = |source| RunError::Listen {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(Incoming {
        listener,
        slots: Arc::new(Semaphore::new(bounds::PEER_CONNECTIONS)),
    })
}

/// Connections as they come in; at the bound one more is closed at once.
struct Incoming {
    listener: UnixListener,
    slots: Arc<Semaphore>,
}

/// A connection, which holds its place as long as it lives.
struct Accepted {
    stream: UnixStream,
    _slot: OwnedSemaphorePermit,
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let stream = match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, _))) => stream,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            };
            match self.slots.clone().try_acquire_owned() {
                Ok(slot) => return Poll::Ready(Some(Ok(Accepted { stream, _slot: slot }))),
                Err(_) => tracing::warn!(
                    most = bounds::PEER_CONNECTIONS,
                    "too many connections; one more was closed"
                ),
            }
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
