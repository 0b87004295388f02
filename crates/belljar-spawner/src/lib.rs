//! belljar-spawner: the one privileged process of Belljar. It makes sandboxes, watches them, tears them
//! down, and writes receipts. It has one thread, no network, and takes nothing from belljard but digests,
//! plans and names of attempts.
//!
//! The program is `main.rs`, which is this with the whole containment list. It is a library only so that
//! the escape suite can leave steps of the list out and see that its cases find it; no other crate may
//! depend on it.

mod attempt;
mod cgroup;
mod client;
mod collector;
mod config;
mod containment;
mod held;
mod host;
mod ids;
mod images;
mod init;
mod receipts;
mod record;
mod refused;
mod rootfs;
mod site;
mod sockets;
mod staging;
mod supervisor;
mod trees;

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use belljar_plan::{CgroupFloor, HostReport};
use belljar_sys::seqpacket::Listener;
use belljar_sys::systemd::Manager;
use belljar_sys::{process, program};
use clap::Parser;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use crate::containment::{Run, STEPS, Step};

use crate::cgroup::Tree;
use crate::config::Config;
use crate::ids::Block;
use crate::site::Site;
use crate::supervisor::Supervisor;

/// Makes and watches the sandboxes of Belljar. Runs as root; started by systemd or by `belljar run`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file, spawner.toml
    #[arg(long)]
    config: Option<PathBuf>,
    /// End when the process that started this one ends
    #[arg(long)]
    die_with_parent: bool,
    /// Tell what this host offers and end; the exit status is 1 when it does not suffice
    #[arg(long)]
    probe: bool,
    /// With --probe: print JSON
    #[arg(long, requires = "probe")]
    json: bool,
    /// With --probe and without --config: the cgroup floor to judge by, `v2` or `hybrid`
    #[arg(long, requires = "probe", value_parser = floor)]
    cgroup_floor: Option<CgroupFloor>,
    /// With --probe and without --config: where Belljar's state would lie
    #[arg(long, requires = "probe", default_value = "/var/lib")]
    state: PathBuf,
}

/// How many builds at once a host without a configuration is judged by.
const SLOTS: usize = 2;

fn floor(text: &str) -> Result<CgroupFloor, String> {
    match text {
        "v2" => Ok(CgroupFloor::V2),
        "hybrid" => Ok(CgroupFloor::Hybrid),
        _ => Err("`v2` or `hybrid` is due".to_owned()),
    }
}

/// The whole program, its sandboxes made by `steps`: by [`STEPS`], but in tests. Reads the command line; ends
/// when it is asked to.
pub fn main(steps: &'static [Step]) -> ExitCode {
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
    let arguments = Arguments::parse();
    let done = if arguments.probe {
        probe(&arguments)
    } else {
        serve(&arguments, steps).map(|()| ExitCode::SUCCESS)
    };
    done.unwrap_or_else(|error| {
        tracing::error!("{error}");
        ExitCode::FAILURE
    })
}

fn read_config(path: &Path) -> io::Result<Config> {
    Config::read(path).map_err(|error| {
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        io::Error::other(format!("{error}{cause}"))
    })
}

fn serve(arguments: &Arguments, steps: &'static [Step]) -> io::Result<()> {
    // Directories of a sandbox are made with modes that an inherited mask must not narrow.
    program::set_umask(0o022);
    if arguments.die_with_parent {
        process::die_with_parent()?;
    }
    let path = arguments
        .config
        .as_ref()
        .ok_or_else(|| io::Error::other("--config is missing"))?;
    let config = read_config(path)?;
    let ids = Block::take(config.ids)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&config.runtime)?;
    let cgroups = Tree::prepare(config.cgroup_floor, &ids);
    let host = host::probe(
        config.cgroup_floor,
        &config.receipts,
        config.slots,
        &cgroups,
    );
    for layer in &host.layers {
        tracing::info!(layer = layer.name, found = layer.found, verdict = ?layer.verdict, hint = layer.hint);
    }
    if !host.suffices() {
        return Err(io::Error::other(format!(
            "this host does not suffice: {}",
            shortcomings(&host)
        )));
    }
    let cgroups = cgroups?;
    // Nothing of this spawner depends on it.
    if let Err(error) = cgroups.clear_abandoned() {
        tracing::warn!(%error, "what another spawner has left cannot be removed");
    }
    let signals = program::termination_signals()?;
    let listener = Listener::open(&config.socket, 0o660, 16)?;
    chown(&config.socket, None, Some(config.group))?;
    let site = Site::prepare(config, ids, cgroups, steps)?;
    tracing::info!(
        slots = site.config.slots,
        first_id = site.ids.first(),
        "ready"
    );
    Supervisor::new(site, host, listener, signals).serve(Manager::connect()?)
}

fn shortcomings(host: &HostReport) -> String {
    let missing = host
        .layers
        .iter()
        .filter(|layer| layer.verdict == belljar_plan::Verdict::Missing);
    missing
        .map(|layer| format!("{}: {} ({})", layer.name, layer.found, layer.hint))
        .collect::<Vec<_>>()
        .join("; ")
}

fn probe(arguments: &Arguments) -> io::Result<ExitCode> {
    let (floor, state, slots) = match &arguments.config {
        Some(path) => {
            let config = read_config(path)?;
            (config.cgroup_floor, config.receipts, config.slots)
        }
        None => (
            arguments.cgroup_floor.unwrap_or(CgroupFloor::V2),
            existing(&arguments.state),
            SLOTS,
        ),
    };
    let cgroups = Tree::prepare_probe(floor);
    let host = host::probe(floor, &state, slots, &cgroups);
    if let Ok(tree) = &cgroups {
        tree.clear()?;
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(
            out,
            "{}",
            serde_json::to_string(&host).map_err(io::Error::other)?
        )?;
    } else {
        for layer in &host.layers {
            writeln!(
                out,
                "{:<18} {:?}\t{} {}",
                layer.name, layer.verdict, layer.found, layer.hint
            )?;
        }
    }
    Ok(if host.suffices() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The nearest directory above `path` that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}
