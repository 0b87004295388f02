//! How the daemon is put together. What happens to a build:
//!
//! 1. Its inputs come in over [`ByteStreams`] and [`Blobs`], go to the store's process, and belong to its project.
//!    [`TreeMaker`] has the store make trees of archives and images, also of those that it pulls from a registry.
//! 2. [`Builds`] parses a submission, lets policy decide, checks host and inputs, and has it queued.
//! 3. The engine's driver takes it from the queue, has [`Fetching`] fetch what it declares by digest, and asks spawner, signer
//!    and store, step by step.
//! 4. [`Builds`] and [`EvidenceRecords`] tell of it, [`ByteStreams`] and [`Blobs`] hand out its artifacts and
//!    evidence.
//! 5. [`sweeping`] gives up builds that are not to be kept any more, and has removed what nobody needs; so does
//!    [`StoreKeeper`](crate::services::StoreKeeper) when it is asked.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2::capabilities_server::CapabilitiesServer;
use bazel_remote_apis::build::bazel::remote::execution::v2::content_addressable_storage_server::ContentAddressableStorageServer;
use belljar_cas::LayoutError;
use belljar_core::bounds;
use belljar_engine::garbage::Hold;
use belljar_engine::ownership::{Ownership, OwnershipError, RebuildError, rebuild};
use belljar_engine::queue::{OpenError, Queue, QueueError};
use belljar_engine::{Engine, Settings, engine};
use belljar_plan::ConfinedStep;
use belljar_sys::systemd::Manager;
use belljar_wire::bytestream::byte_stream_server::ByteStreamServer;
use belljar_wire::v1::build_service_server::BuildServiceServer;
use belljar_wire::v1::evidence_service_server::EvidenceServiceServer;
use belljar_wire::v1::image_service_server::ImageServiceServer;
use belljar_wire::v1::input_service_server::InputServiceServer;
use belljar_wire::v1::store_service_server::StoreServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::server::Router;

use crate::config::Config;
use crate::confinement::Own;
use crate::fetch::pull::Puller;
use crate::fetch::{self, Earlier, Fetching, Open, System};
use crate::grpc::{Gated, described, server};
use crate::listen::listen;
use crate::peers::{Peers, SpawnerClient, StoreClient, Trails};
use crate::places::Places;
use crate::remote::{self, Certificates, Door, Remote, TlsError};
use crate::rules::Rules;
use crate::services::{
    Blobs, Builds, ByteStreams, EvidenceRecords, Gate, Host, Objects, Processes, Pusher, Reception,
    ServerCapabilities, TreeMaker, View, health, no_service,
};
use crate::stored::Stored;
use crate::sweeping;
use crate::tasks::{self, Task};

/// Why the daemon ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("belljard must not run as root; start it as its own user, without capabilities")]
    Root,
    #[error("the queue cannot be opened")]
    Queue(#[from] OpenError),
    #[error("what belongs to whom cannot be looked up")]
    Ownership(#[from] OwnershipError),
    #[error("what earlier builds left cannot be given to their projects")]
    Rebuild(#[from] RebuildError),
    #[error("tls: certificate, key or client_ca cannot be used")]
    Tls(#[from] TlsError),
    #[error("fetch.ca: {}: the certificates of authorities cannot be used", path.display())]
    Authorities {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("fetch.ca: the certificates of authorities cannot be used for registries")]
    Registries(#[source] io::Error),
    #[error("tls.listen: {address} cannot be listened at")]
    Remote {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{}: the directory for audit trails cannot be made", path.display())]
    Audit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the store's objects cannot be read; belljar-store must have started, and share a group with belljard"
    )]
    Store(#[from] LayoutError),
    #[error("{}: the socket cannot be opened", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the service manager cannot be told")]
    Manager(#[source] io::Error),
    #[error("signals cannot be waited for")]
    Signals(#[source] io::Error),
    #[error("the engine stopped")]
    Engine(#[source] QueueError),
    #[error("serving failed")]
    Serve(#[from] tonic::transport::Error),
    #[error("the API cannot be described")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the engine's task ended unexpectedly")]
    EngineGone,
}

/// The daemon: serves until a signal ends it. Running builds are found again at the next start.
pub(crate) async fn run(config: Config, own: Own) -> Result<(), RunError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let ended = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    serve(config, own, ended).await
}

/// Puts everything together and serves until `ended`.
pub(crate) async fn serve(
    config: Config,
    own: Own,
    ended: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let audit = config.state.join("audit");
    make_directory(&audit)?;
    let trails = Trails::new(audit.clone());
    let certificates = config.tls.clone().map(Certificates::load).transpose()?;
    // The queue first: that it is open says that there is no other belljard on this state.
    let queue = Queue::open(&config.state.join("queue.sqlite"))?;
    let ownership = Ownership::open(&config.state.join("ownership.sqlite"))?;
    let peers = Peers::reach(&config, trails)?;
    take_over(&queue, &ownership, &peers.spawner).await?;
    let hold = Hold::default();
    let rules = Rules::new(config.file.clone(), config.policy.clone());
    let fetching = fetching(&config, &peers, (&queue, &rules), &ownership, hold.clone())?;
    let ports = peers.ports(Arc::new(fetching));
    let slots = config.slots;
    let kept = queue.clone();
    let (engine, driver) = engine(queue, ownership.clone(), ports, Settings { slots, audit });
    let (stopped, driver_stopped) = oneshot::channel();
    let _driving = tasks::start("engine", async move {
        // Nobody waits any more while the daemon ends.
        let _ = stopped.send(driver.run().await);
    });
    let (socket, door) = (config.socket.clone(), Door::default());
    let (remote, _following) = open_door(certificates.as_ref(), &door, &rules).await?;
    let _ruling = rules.follow().map_err(RunError::Signals)?;
    let entrance = Entrance {
        rules: rules.clone(),
        door,
        certificates,
        confined: own.confined,
    };
    let stored = Stored::new(&config, &peers, kept, ownership, hold);
    let _sweeping = sweeping::start(stored.sweeper.clone(), config.store.clone());
    let (router, _looking) = services(config, engine.clone(), peers, stored, entrance).await?;
    let incoming = listen(&socket, rules, remote)?;
    let own_socket = incoming.is_own();
    let serving = router.serve_with_incoming(incoming);
    let _telling = tell(own.manager, engine).map_err(RunError::Manager)?;
    tracing::info!(socket = %socket.display(), slots, "belljard serves");
    let result = tokio::select! {
        served = serving => served.map_err(RunError::from),
        stopped = driver_stopped => match stopped {
            Ok(Err(error)) => Err(RunError::Engine(error)),
            Ok(Ok(())) | Err(_) => Err(RunError::EngineGone),
        },
        () = ended => Ok(()),
    };
    // Nobody shall connect to a socket that nobody serves.
    if own_socket && let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the socket was not removed");
    }
    tracing::info!("belljard ends; builds that run are found again at the next start");
    result
}

/// Tells the service manager that this daemon serves; and from now on that it lives, each time that the engine has heard
/// and the queue answered: a runtime that stands still does not come to it, and an engine that hangs is not told of.
fn tell(mut manager: Manager, engine: Engine) -> io::Result<Option<Task>> {
    manager.ready()?;
    Ok(manager.interval().map(|interval| {
        tasks::start("watchdog", async move {
            loop {
                tokio::time::sleep(interval / 2).await;
                if let Err(error) = engine.lives().await {
                    tracing::error!(%error, "the engine does not answer");
                } else if let Err(error) = manager.alive() {
                    tracing::error!(%error, "the service manager cannot be told");
                }
            }
        })
    }))
}

/// Who fetches, over a network only where the configuration says from where; and what earlier builds have left.
fn fetching(
    config: &Config,
    peers: &Peers,
    (queue, rules): (&Queue, &Rules),
    ownership: &Ownership,
    hold: Hold,
) -> Result<Fetching, RunError> {
    let open = config.fetch.clone().map(|settings| {
        let tls = fetch::connector(&settings.ca).map_err(|source| RunError::Authorities {
            path: settings.ca.clone(),
            source,
        })?;
        let (hosts, ports) = (settings.rules.hosts(), settings.rules.ports());
        tracing::info!(?hosts, ?ports, "what builds declare by digest is fetched");
        Ok::<_, RunError>(Open {
            settings,
            tls,
            resolver: Box::new(System::new()),
        })
    });
    let earlier = Earlier {
        queue: queue.clone(),
        rules: rules.clone(),
        signer: peers.signer.clone(),
        objects: peers.objects.clone(),
    };
    Ok(Fetching::new(
        open.transpose()?,
        earlier,
        peers.store.clone(),
        ownership.clone(),
        config.store_root.clone(),
        (hold, config.store.keeping.lease),
    ))
}

/// Who has trees made, also of what these registries have, and who pushes images there.
fn registries(
    config: &Config,
    stored: &Stored,
    store: &StoreClient,
    (engine, view): (&Engine, &View),
) -> Result<(InputServiceServer<TreeMaker>, ImageServiceServer<Pusher>), RunError> {
    let puller = Puller::new(&config.registries, store.clone());
    let puller = Arc::new(puller.map_err(RunError::Registries)?);
    let vault = || stored.vault.clone();
    let pusher = Pusher::new(engine.clone(), vault(), view.clone(), puller.clone());
    let pusher = ImageServiceServer::new(pusher);
    let maker = InputServiceServer::new(TreeMaker::new(vault(), store.clone(), puller));
    Ok((maker, pusher))
}

/// Gives what earlier builds left to their projects, if nothing is known of that.
async fn take_over(
    queue: &Queue,
    ownership: &Ownership,
    spawner: &Arc<SpawnerClient>,
) -> Result<(), RunError> {
    if ownership.is_new() {
        let builds = rebuild(queue, ownership, spawner).await?;
        tracing::info!(builds, "what earlier builds left belongs to their projects");
    }
    Ok(())
}

/// Listens to callers from elsewhere, and follows the files that it does that with; if it shall.
async fn open_door(
    certificates: Option<&Certificates>,
    door: &Door,
    rules: &Rules,
) -> Result<(Option<Remote>, Option<Task>), RunError> {
    let Some(certificates) = certificates else {
        return Ok((None, None));
    };
    let address = certificates.address();
    let failed = |source| RunError::Remote { address, source };
    let remote = remote::listen(certificates.clone(), door.clone(), rules.clone());
    let remote = remote.await.map_err(failed)?;
    tracing::info!(%address, certificate = %certificates.certificate(), "belljard serves with mutual TLS");
    let following = certificates.follow().map_err(RunError::Signals)?;
    Ok((Some(remote), Some(following)))
}

/// Who may come in, who was turned away, and by what certificates; and what this process has taken from itself.
struct Entrance {
    rules: Rules,
    door: Door,
    certificates: Option<Certificates>,
    confined: Vec<ConfinedStep>,
}

/// The services, each behind the gate, and the task that keeps an eye on the other processes.
async fn services(
    config: Config,
    engine: Engine,
    peers: Peers,
    stored: Stored,
    entrance: Entrance,
) -> Result<(Router, Task), RunError> {
    let (rules, door) = (entrance.rules.clone(), entrance.door.clone());
    let gated = Gated(Gate::new(rules, door.clone()), Reception::new(door));
    let processes = (peers.store.clone(), peers.signer.clone());
    let (health, looking, answer) = health(peers.spawner.clone(), processes.clone()).await;
    let processes = Processes::new(entrance.confined, processes, answer);
    let evidence = EvidenceServiceServer::new(EvidenceRecords {
        engine: engine.clone(),
        source: peers.objects,
        trails: peers.trails,
    });
    let view = View::new(peers.spawner.clone());
    let (inputs, images) = registries(&config, &stored, &peers.store, (&engine, &view))?;
    let builds = BuildServiceServer::new(Builds {
        engine,
        rules: entrance.rules,
        vault: stored.vault.clone(),
        store: peers.store.clone(),
        trees: stored.trees.clone(),
        host: Host::new(peers.spawner),
        processes,
        signer: peers.signer,
        logs: peers.logs,
        view,
        watchers: Places::new(bounds::WATCHERS, bounds::WATCHERS_PER_PRINCIPAL),
        slots: config.slots,
        defaults: config.defaults,
        builder_ids: config.builder_ids,
        door: entrance.door,
        certificates: entrance.certificates,
    });
    let keeper = StoreServiceServer::new(stored.keeper(peers.store.clone(), config.store));
    let objects = Objects::new(stored.vault, peers.store);
    let blobs = ContentAddressableStorageServer::new(Blobs::new(objects.clone()));
    let streams = ByteStreamServer::new(ByteStreams::new(objects));
    let capabilities = CapabilitiesServer::new(ServerCapabilities);
    let most = bounds::GRPC_MESSAGE_BYTES;
    // Most clients still ask for the older form.
    let (reflection, older) = (described().build_v1()?, described().build_v1alpha()?);
    let routes = Routes::default()
        .add_service(gated.behind(builds.max_decoding_message_size(most)))
        .add_service(gated.behind(evidence.max_decoding_message_size(most)))
        .add_service(gated.behind(inputs.max_decoding_message_size(most)))
        .add_service(gated.behind(images.max_decoding_message_size(most)))
        .add_service(gated.behind(keeper.max_decoding_message_size(most)))
        .add_service(gated.behind(blobs.max_decoding_message_size(most)))
        .add_service(gated.behind(streams.max_decoding_message_size(most)))
        .add_service(gated.behind(capabilities.max_decoding_message_size(most)))
        .add_service(gated.behind(health.max_decoding_message_size(most)))
        .add_service(gated.behind(reflection.max_decoding_message_size(most)))
        .add_service(gated.behind(older.max_decoding_message_size(most)));
    Ok((serving(routes), looking))
}

/// These services, and an answer in words to calls of any other.
fn serving(services: Routes) -> Router {
    let answered = services.into_axum_router().fallback(no_service);
    server().add_routes(answered.into())
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
