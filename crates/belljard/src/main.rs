//! The daemon: configuration, composition and gRPC services.
//!
//! It holds the queue and the audit trails, decides who may build what, and speaks gRPC on a unix socket.
//! It has no capabilities, mounts nothing, starts no program: sandboxes, objects and keys belong to three
//! other processes, of which it asks what `belljar-plan` lists. [`compose`] shows how everything hangs
//! together.

mod compose;
mod config;
mod confinement;
mod fetch;
mod grpc;
mod latest;
mod listen;
mod peers;
mod places;
mod remote;
mod rules;
mod services;
mod stored;
mod sweeping;
mod tasks;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The Belljar daemon: takes builds over gRPC and has them run by the other processes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file, belljard.toml.
    #[arg(long)]
    config: PathBuf,
    /// End when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
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
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Where what is logged does not fit on the disk, that is no reason to end.
        .log_internal_errors(false)
        .finish()
        .with(filter)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(cause = tasks::chain(&*error), "belljard ends");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.die_with_parent {
        belljar_sys::process::die_with_parent()?;
    }
    if belljar_sys::process::effective_uid() == 0 {
        return Err(compose::RunError::Root.into());
    }
    // Before anything secret is read.
    belljar_sys::process::not_dumpable()?;
    let config = config::Config::load(&arguments.config)?;
    // Where that is written is out of reach afterwards.
    let workers = std::thread::available_parallelism()?;
    let own = confinement::confine(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.get())
        .enable_all()
        .build()?;
    let result = runtime.block_on(compose::run(config, own));
    // A read that hangs on a disk must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(result?)
}
