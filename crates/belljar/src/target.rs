//! Whom to ask: a daemon that runs, or one of our own.

use std::path::{Path, PathBuf};

use crate::cli::Whom;
use crate::embedded::{self, Embedded, Floor, Started};
use crate::error::Error;

/// The installed daemon's socket.
const INSTALLED: &str = "/run/belljar/belljard/belljard.sock";
/// Names another one.
const VARIABLE: &str = "BELLJAR_SOCKET";

/// Whom to ask. Processes of our own end when this is dropped.
#[derive(Debug)]
pub(crate) enum Target {
    /// A daemon that runs.
    Running(PathBuf),
    /// One of our own.
    Own(Embedded),
}

impl Target {
    /// Where the daemon listens.
    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Running(socket) => socket,
            Self::Own(embedded) => embedded.socket(),
        }
    }

    /// The cgroup floor of processes of our own.
    pub(crate) fn floor(&self) -> Option<Floor> {
        match self {
            Self::Running(_) => None,
            Self::Own(embedded) => Some(embedded.floor()),
        }
    }

    /// Finds a daemon, or starts one. To be called from the main thread, see [`Embedded::start`].
    ///
    /// # Errors
    /// When there is none and none can be started. A socket that was named is not looked at here.
    pub(crate) fn find_or_start(whom: &Whom) -> Result<Self, Error> {
        match running(whom) {
            Some(socket) => Ok(Self::Running(socket)),
            None => match Embedded::start(&whom.state()) {
                Ok(Started::Here(embedded)) => Ok(Self::Own(embedded)),
                Ok(Started::Elsewhere(socket)) => Ok(Self::Running(socket)),
                Err(source) => Err(Error::Embedded {
                    looked: whom.state.is_none(),
                    source,
                }),
            },
        }
    }
}

/// The socket of a daemon that was named, or that answers.
pub(crate) fn running(whom: &Whom) -> Option<PathBuf> {
    if let Some(socket) = &whom.socket {
        return Some(socket.clone());
    }
    if whom.state.is_none() {
        let named = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty());
        if let Some(socket) = named {
            return Some(socket.into());
        }
        if embedded::answers(Path::new(INSTALLED)) {
            return Some(INSTALLED.into());
        }
    }
    let own = embedded::socket(&whom.state());
    embedded::answers(&own).then_some(own)
}
