use belljar_core::Invalid;
use belljar_wire::{PinTarget, parse_pin_name};
use clap::{Args, Subcommand};

use super::Whom;

/// `belljar store`
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Tell how full the store is, what is kept, what is pinned, and what was found damaged
    Status(StoreStatus),
    /// Give up builds that are not to be kept any more, and remove what nobody needs
    Gc(Gc),
    /// Have all objects read, and damaged ones put aside; `store status` tells how it fares
    Scrub(Scrub),
    /// Keep something until it is unpinned
    Pin(Pin),
    /// Keep something only as long as all else is
    Unpin(Unpin),
}

fn target(text: &str) -> Result<PinTarget, Invalid> {
    text.parse()
}

fn pin(text: &str) -> Result<u64, Invalid> {
    parse_pin_name(text)
}

/// `belljar store status`
#[derive(Debug, Args)]
pub(crate) struct StoreStatus {
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar store gc`
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Remove all that nobody needs; else only until no more of the disk is used than `low_percent` says
    #[arg(long)]
    pub(crate) all: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar store scrub`
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar store pin`
#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// builds/ID (or the ID), trees/HASH/SIZE or blobs/HASH/SIZE
    #[arg(value_name = "WHAT", value_parser = target)]
    pub(crate) target: PinTarget,
    /// Why, for whoever wonders later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar store unpin`
#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// pins/NUMBER, or the number
    #[arg(value_name = "PIN", value_parser = pin)]
    pub(crate) pin: u64,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
