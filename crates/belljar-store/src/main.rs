//! The process that owns objects, images of trees, and logs. It has its own user id, no network and no
//! privilege; it trusts its peers only as far as their user ids go, and content not at all.
//!
//! belljard puts objects in, and has trees made of archives that are there. The spawner has trees made into
//! images to mount, hands over the build's log
//! pipe, and lends its connection to the collector that sends the outputs. What may be asked, by whom
//! and with which answer is in [`belljar_plan::store`].
//!
//! SIGTERM ends it at once, by its default disposition: whatever has a name is durable, and what was
//! being written has none.

mod asking;
mod channel;
mod collect;
mod compose;
mod config;
mod derive;
mod failed;
mod lease;
mod log;
mod many;
mod partial;
mod put;
mod receive;
mod refused;
mod scrub;
mod server;
mod session;
mod stage;
#[cfg(test)]
mod tests;
mod upkeep;
mod upload;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use belljar_cas::{Disk, Headroom, LOGS, LayoutError, Reader, Room, Space, TMP, Writer};
use belljar_core::bounds;
use belljar_plan::ConfinedStep;
use belljar_sys::confine::{self, Service};
use belljar_sys::landlock::Allowed;
use belljar_sys::seqpacket::Listener;
use belljar_sys::systemd::Manager;
use belljar_sys::{process, program};
use clap::Parser;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, ConfigError};
use crate::derive::{Derivations, Nursery, Records};
use crate::partial::{Most, Partials};
use crate::scrub::{Scrubber, System};
use crate::session::Store;

/// Owns Belljar's objects, images of trees, and logs.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// End when the parent process ends.
    #[arg(long)]
    die_with_parent: bool,
}

/// Why the store did not start, or ended.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    #[error(
        "the store runs as a user of its own, never as root. hint: start it through its unit or the launcher"
    )]
    Root,
    #[error("the store's root cannot be used")]
    Layout(#[from] LayoutError),
    #[error("the store's images cannot be used")]
    Images(#[from] stage::OpenError),
    #[error("no connection is served any more")]
    Ended(#[from] server::EndError),
    #[error("{doing} failed")]
    System {
        doing: &'static str,
        source: io::Error,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Of what RUST_LOG names, such as `info,belljar_store=debug`, or of all.
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|told| told.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(io::stderr)
        .with_ansi(false)
        // Where what is logged does not fit on the disk, that is no reason to end.
        .log_internal_errors(false)
        .finish()
        .with(filter)
        .init();
    let Err(error) = run(&arguments);
    tracing::error!(error = failed::chain(&error), "the store ends");
    ExitCode::FAILURE
}

/// Everything that the process consists of, in order; each step is fatal.
fn run(arguments: &Arguments) -> Result<std::convert::Infallible, StartError> {
    let system = |doing| move |source| StartError::System { doing, source };
    if arguments.die_with_parent {
        process::die_with_parent().map_err(system("tying this process to its parent"))?;
    }
    if process::effective_uid() == 0 {
        return Err(StartError::Root);
    }
    // Whoever starts it by hand gives it 1024 (select(2)), of which many files at once would leave none.
    program::raise_open_files(bounds::STORE_FILES)
        .map_err(system("raising the limit on open files"))?;
    let config = Config::read(&arguments.config)?;
    let manager = Manager::connect().map_err(system("reaching the service manager"))?;
    let confined = confine(&config).map_err(system("confining this process"))?;
    // Before there are threads, and before this process holds anything; confined as this one is.
    let (nursery, process) =
        Nursery::clone_off().map_err(system("making a process to make unpackers"))?;
    let writer = Writer::open(&config.root)?;
    writer.note_no_more_than_every(config.grace / bounds::GIVEN_PART);
    let reader = Reader::of(&writer, &config.root)?;
    let records = Records::open(&config.root).map_err(system("opening the marks of records"))?;
    let custody = Disk::new(writer.clone(), &config.root)?;
    let space = Space::of(&config.root).map_err(system("looking how much room there is"))?;
    let reserve = config.reserve(space);
    let room = Room::new(&config.root, reserve);
    let images = stage::open(&config.root)?.leaving(room.clone());
    let intake = Headroom::new(writer.clone(), room.clone());
    let tmp = config.root.join(TMP);
    let derivations = Derivations::new(Box::new(nursery), records, tmp, room);
    let store = Arc::new(Store {
        source: Box::new(reader),
        sink: Box::new(writer),
        intake: Box::new(intake),
        custody: Box::new(custody),
        leases: Arc::default(),
        scrubber: Scrubber::new(
            config.scrub_rate,
            config.scrub_every,
            Box::new(System::new()),
        ),
        root: config.root.clone(),
        reserve,
        grace: config.grace,
        partials: Partials::new(Most::DUE),
        images,
        logs: config.root.join(LOGS),
        derivations,
        refused: Arc::default(),
        confined,
    });
    let backlog = i32::try_from(bounds::PEER_CONNECTIONS).unwrap_or(i32::MAX);
    let listener =
        Listener::open(&config.socket, SOCKET_MODE, backlog).map_err(system("listening"))?;
    server::sweep(Arc::clone(&store.partials)).map_err(system("starting a thread"))?;
    Scrubber::start(Arc::clone(&store)).map_err(system("starting a thread"))?;
    tracing::info!(reserve, grace = config.grace, "room and patience");
    tracing::info!(socket = %config.socket.display(), root = %config.root.display(), "the store listens");
    let served = server::serve(&listener, &store, config.access, &process, manager);
    Ok(served?)
}

/// Takes from this process what it does not need. Gives what belljard may ask for.
fn confine(config: &Config) -> io::Result<Vec<ConfinedStep>> {
    let directory = config.socket.parent().unwrap_or(Path::new("/"));
    let confined = confine::confine(&Service {
        places: vec![
            (config.root.clone(), Allowed::ReadWrite),
            (directory.to_owned(), Allowed::Listen),
        ],
        ..Service::default()
    })?;
    let mut told = Vec::new();
    for (step, found) in confined.steps() {
        tracing::info!(step, found, "confined");
        let (name, found) = ((*step).to_owned(), found.clone());
        told.push(ConfinedStep { name, found });
    }
    Ok(told)
}

/// Peers are judged by their user ids; the group in common lets them reach the socket.
const SOCKET_MODE: u32 = 0o660;
