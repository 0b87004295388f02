use belljar_core::Invalid;
use belljar_wire::{PinTarget, parse_pin_name};
use clap::{Args, Subcommand};

use super::Ask;

/// `belljar store`
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Tell how full the store is, what is kept, what is pinned, and what was found damaged
    Status(Ask),
    /// Give up builds that are not to be kept any more, and remove what nobody needs
    Gc(Gc),
    /// Have all objects read, and damaged ones put aside; `store status` tells how it fares
    Scrub(Ask),
    /// Keep something until it is unpinned
    Pin(Pin),
    /// Keep something only as long as all else is
    Unpin(Unpin),
}

impl Store {
    /// Whom to ask, and how the answer is told.
    pub(crate) fn ask(&self) -> &Ask {
        match self {
            Self::Status(ask) | Self::Scrub(ask) => ask,
            Self::Gc(gc) => &gc.ask,
            Self::Pin(pin) => &pin.ask,
            Self::Unpin(unpin) => &unpin.ask,
        }
    }
}

fn target(text: &str) -> Result<PinTarget, Invalid> {
    text.parse()
}

fn pin(text: &str) -> Result<u64, Invalid> {
    parse_pin_name(text)
}

/// `belljar store gc`
#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Remove all that nobody needs; else only until no more of the disk is used than `low_percent` says
    #[arg(long)]
    pub(crate) all: bool,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
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
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar store unpin`
#[derive(Debug, Args)]
pub(crate) struct Unpin {
    /// pins/NUMBER, or the number
    #[arg(value_name = "PIN", value_parser = pin)]
    pub(crate) pin: u64,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}
