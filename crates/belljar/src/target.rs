//! Whom to ask: a daemon that runs, or one of our own.

use std::path::{Path, PathBuf};

use crate::cli::Whom;
use crate::embedded::{self, Borrowed, Embedded, Floor, Purpose, Started};
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
    /// One that another `belljar run` has started.
    Borrowed(Borrowed),
    /// One of our own.
    Own(Embedded),
}

impl Target {
    /// Where the daemon listens.
    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Running(socket) => socket,
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
        installed(whom).map(Self::Running).ok_or(Error::NoDaemon)
    }

    /// Finds a daemon, or starts one. To be called from the main thread, see [`Embedded::start`].
    ///
    /// # Errors
    /// When there is none and none can be started. A socket that was named is not looked at here.
    pub(crate) fn find_or_start(whom: &Whom, purpose: Purpose) -> Result<Self, Error> {
        match installed(whom) {
            Some(socket) => Ok(Self::Running(socket)),
            None => match Embedded::start(&whom.state(), purpose) {
                Ok(Started::Here(embedded)) => Ok(Self::Own(embedded)),
                Ok(Started::Elsewhere(borrowed)) => Ok(Self::Borrowed(borrowed)),
                Err(source) => Err(Error::Embedded {
                    looked: whom.state.is_none(),
                    source,
                }),
            },
        }
    }
}

/// The socket of a daemon that was named, or that answers, also of one that a `belljar run` has started.
pub(crate) fn running(whom: &Whom) -> Option<PathBuf> {
    installed(whom)
        .or_else(|| Some(embedded::socket(&whom.state())).filter(|own| embedded::answers(own)))
}

/// The socket of a daemon that was named, or that is installed and answers.
fn installed(whom: &Whom) -> Option<PathBuf> {
    if whom.state.is_some() {
        return None;
    }
    let named = || {
        std::env::var_os(VARIABLE)
            .filter(|socket| !socket.is_empty())
            .map(PathBuf::from)
    };
    let answering = || Some(PathBuf::from(INSTALLED)).filter(|socket| embedded::answers(socket));
    whom.socket.clone().or_else(named).or_else(answering)
}
