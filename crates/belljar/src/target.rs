//! Whom to ask: a daemon that runs, or one of our own.

use std::path::{Path, PathBuf};

use belljar_wire::{Layer, LayerVerdict};

use crate::address::{Address, Server};
use crate::cli::Whom;
use crate::doctor;
use crate::embedded::{self, Borrowed, Embedded, Floor, Purpose, Started};
use crate::error::Error;

/// The installed daemon's socket.
const INSTALLED: &str = "/run/belljar/belljard/belljard.sock";
/// Names another one.
const VARIABLE: &str = "BELLJAR_SOCKET";
/// Names one elsewhere.
const SERVER: &str = "BELLJAR_SERVER";

/// Whom to ask. Processes of our own end when this is dropped.
#[derive(Debug)]
pub(crate) enum Target {
    /// A daemon that runs.
    Running(Address),
    /// One that another `belljar run` has started.
    Borrowed(Borrowed),
    /// One of our own.
    Own(Embedded),
}

impl Target {
    /// Where the daemon listens.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Running(address) => address.clone(),
            Self::Borrowed(_) | Self::Own(_) => Address::Socket(self.name().to_owned()),
        }
    }

    /// How that is named to people and in reports: a path or a URL.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Self::Running(address) => address.name(),
            Self::Borrowed(borrowed) => borrowed.socket(),
            Self::Own(embedded) => embedded.socket(),
        }
    }

    /// The cgroup floor of processes of our own.
    pub(crate) fn floor(&self) -> Option<Floor> {
        match self {
            Self::Running(_) | Self::Borrowed(_) => None,
            Self::Own(embedded) => Some(embedded.floor()),
        }
    }

    /// Finds a daemon that runs on its own.
    ///
    /// # Errors
    /// When there is none: processes of our own would end before they had done what is left to them.
    pub(crate) fn find(whom: &Whom) -> Result<Self, Error> {
        installed(whom)?.map(Self::Running).ok_or(Error::NoDaemon)
    }

    /// Finds a daemon, or starts one. To be called from the main thread, see [`Embedded::start`].
    ///
    /// # Errors
    /// When there is none and none can be started. A socket that was named is not looked at here.
    pub(crate) fn find_or_start(whom: &Whom, purpose: Purpose) -> Result<Self, Error> {
        match installed(whom)? {
            Some(address) => Ok(Self::Running(address)),
            None => match Embedded::start(&whom.state(), purpose) {
                Ok(Started::Here(embedded)) => Ok(Self::Own(embedded)),
                Ok(Started::Elsewhere(borrowed)) => Ok(Self::Borrowed(borrowed)),
                Err(source) => Err(lacking(&whom.state(), &source).unwrap_or(Error::Embedded {
                    looked: whom.state.is_none(),
                    source,
                })),
            },
        }
    }
}

/// Where a daemon is that was named, or that answers, also one that a `belljar run` has started.
///
/// # Errors
/// When what names it cannot be used.
pub(crate) fn running(whom: &Whom) -> Result<Option<Address>, Error> {
    let own = || {
        let own = embedded::socket(&whom.state());
        Some(own)
            .filter(|own| embedded::answers(own))
            .map(Address::Socket)
    };
    Ok(installed(whom)?.or_else(own))
}

/// That the host lacks a layer, if that is why the spawner did not start.
fn lacking(state: &Path, source: &embedded::Error) -> Option<Error> {
    let embedded::Error::Died { name, .. } = source else {
        return None;
    };
    if *name != doctor::SPAWNER {
        return None;
    }
    let layers = doctor::of_state(state).ok()?;
    let missing = |layer: &Layer| layer.verdict == LayerVerdict::Missing;
    layers
        .iter()
        .any(missing)
        .then_some(Error::HostLacks(layers))
}

/// Where a daemon is that was named, or that is installed and answers. What the command line names comes
/// before what the environment does.
fn installed(whom: &Whom) -> Result<Option<Address>, Error> {
    let server = |url: &str| Server::new(url, whom).map(|server| Address::Server(Box::new(server)));
    if whom.state.is_some() {
        return Ok(None);
    }
    if let Some(socket) = &whom.socket {
        return Ok(Some(Address::Socket(socket.clone())));
    }
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(url) = whom
        .server
        .clone()
        .map(Into::into)
        .or_else(|| named(SERVER))
    {
        return server(&url.to_string_lossy()).map(Some);
    }
    let answering = || Some(PathBuf::from(INSTALLED)).filter(|socket| embedded::answers(socket));
    let socket = named(VARIABLE).map(PathBuf::from).or_else(answering);
    Ok(socket.map(Address::Socket))
}
