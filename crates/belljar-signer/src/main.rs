//! The process that holds the key. It signs nothing that it is handed: belljard names an attempt and its
//! specification, and the statement is computed here from that, the spawner's receipt and this process's own
//! configuration (see `belljar_attest::Statement::provenance`). At most one statement per attempt.
//!
//! It has no network, no capabilities and a user id of its own. What it does, in order:
//!
//! 1. read the configuration, which only root can have written;
//! 2. read (or, where that is allowed, make) the key, and lock it against a second signer;
//! 3. confine itself; publish the public key beside the evidence;
//! 4. listen, and answer belljard, and nobody else, one thread per connection.

#[cfg(test)]
mod bench;
mod config;
mod evidence;
#[cfg(test)]
#[path = "../../belljar-attest/src/fixture.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of belljar-attest, which use more of it"
)]
mod fixture;
mod key_file;
mod receipts;
mod refused;
mod seen;
mod service;
mod session;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use belljar_attest::Key;
use belljar_plan::ConfinedStep;
use belljar_sys::confine::{self, Confined, Service as Confinement};
use belljar_sys::landlock::Allowed;
use belljar_sys::process;
use belljar_sys::systemd::Manager;
use clap::Parser;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Config, KeyPlace};
use crate::evidence::Evidence;
use crate::key_file::KeyFile;
use crate::receipts::Receipts;
use crate::seen::Seen;
use crate::service::Service;

/// Computes and signs provenance for belljard.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Die with the process that started this one.
    #[arg(long)]
    die_with_parent: bool,
    /// Print the public key (PEM) and exit.
    #[arg(long)]
    public_key: bool,
}

/// Why the signer could not start, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fatal(String);

impl Fatal {
    fn new(what: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Of what RUST_LOG names, such as `info,belljar_store=debug`, or of all.
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|told| told.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    let ansi = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_max_level(Level::TRACE)
        // Where what is logged does not fit on the disk, that is no reason to end.
        .log_internal_errors(false)
        .finish()
        .with(filter)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!("{fatal}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Fatal> {
    if arguments.die_with_parent {
        process::die_with_parent().map_err(|e| Fatal::new("--die-with-parent", e))?;
    }
    let uid = process::effective_uid();
    if uid == 0 {
        let hint = "hint: start it under the signer's own user id, as its systemd unit does";
        return Err(Fatal::new("the signer does not run as root", hint));
    }
    // Before the key is read.
    process::not_dumpable().map_err(|e| Fatal::new("confinement", e))?;
    let config = Config::load(&arguments.config, 0)
        .map_err(|e| Fatal::new(&arguments.config.display().to_string(), e))?;
    let place = config.key.path().display().to_string();
    let key_file = match &config.key {
        KeyPlace::File(path) => KeyFile::open(path, uid, config.generate_key),
        KeyPlace::Credential(path) => KeyFile::open_credential(path, uid),
    };
    let key_file = key_file.map_err(|e| Fatal::new(&place, e))?;
    let key = key_file.read().map_err(|e| Fatal::new(&place, e))?;
    if arguments.public_key {
        return io::stdout()
            .write_all(key.public().to_pem().as_bytes())
            .map_err(|e| Fatal::new("standard output", e));
    }
    // Held to the end: one signer per key and per memory of what was signed, hence one that decides about it. (Of a
    // credential each start has a file of its own.)
    let _lock = key_file.lock().map_err(|e| Fatal::new(&place, e))?;
    let _memory = evidence::claim(&config.evidence)
        .map_err(|e| Fatal::new(&config.evidence.display().to_string(), e))?;
    let manager = Manager::connect().map_err(|e| Fatal::new("the service manager", e))?;
    let confined = confine(&config).map_err(|e| Fatal::new("confinement", e))?;
    serve(&config, key, uid, &confined, manager)
}

/// Only now: the key must be in memory to be kept there, and its file need not be reached again.
fn confine(config: &Config) -> io::Result<Confined> {
    let directory = config.socket.parent().unwrap_or(Path::new("/"));
    let confined = confine::confine(&Confinement {
        places: vec![
            (config.evidence.clone(), Allowed::ReadWrite),
            (config.receipts.clone(), Allowed::Read),
            (directory.to_owned(), Allowed::Listen),
        ],
        port: None,
        connect: Vec::new(),
        holds_secret: true,
    })?;
    for (step, found) in confined.steps() {
        tracing::info!(step, found, "confined");
    }
    Ok(confined)
}

/// As belljard may ask for it.
fn told(confined: &Confined) -> Vec<ConfinedStep> {
    let told = |(name, found): &(&str, String)| ConfinedStep {
        name: (*name).to_owned(),
        found: found.clone(),
    };
    confined.steps().iter().map(told).collect()
}

fn serve(
    config: &Config,
    key: Key,
    uid: u32,
    confined: &Confined,
    manager: Manager,
) -> Result<(), Fatal> {
    key.self_test().map_err(|e| Fatal::new("the key", e))?;
    let evidence = Evidence::new(config.evidence.clone(), uid);
    let place = || config.evidence.display().to_string();
    evidence
        .begin(&key.public().to_pem())
        .map_err(|e| Fatal::new(&place(), e))?;
    tracing::info!(
        key_id = key.public().key_id(),
        builder = config.builder.base(),
        "ready to attest"
    );
    let seen = Seen::open(&evidence).map_err(|e| Fatal::new(&place(), e))?;
    let receipts = Receipts::new(config.receipts.clone(), 0);
    let service = Arc::new(Service::new(
        key,
        config.builder.clone(),
        (receipts, seen),
        evidence,
        told(confined),
    ));
    session::listen(&config.socket, config.client_uid, &service, manager)
        .map_err(|e| Fatal::new(&config.socket.display().to_string(), e))
}
