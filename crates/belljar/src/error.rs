//! Everything that can end a command before its time, and the exit status for it.

use std::path::{Path, PathBuf};

use belljar_attest::VerifyError;
use belljar_core::{BuildId, Digest, Invalid};
use belljar_manifest::Place;
use belljar_manifest::lock::Origin;
use belljar_wire::{BuildState, Layer, LayerVerdict, Reason, build_name};

use crate::watch::doing;
use crate::{client, deps, embedded, exit, fetch, log, manifest, source, upload, watch};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// `belljar.toml` or `belljar.lock`.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The sources.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Lock files and their packages.
    #[error(transparent)]
    Deps(#[from] deps::Error),
    /// Embedded mode.
    #[error("{whom}{source}", whom = if *looked { "no daemon answers, and " } else { "" })]
    Embedded {
        /// Whether a daemon was looked for before.
        looked: bool,
        /// What went wrong then. Shown as part of the sentence, and its own source as the cause.
        source: embedded::Error,
    },
    /// A daemon.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Sending the sources.
    #[error(transparent)]
    Upload(#[from] upload::Error),
    /// Following the build.
    #[error(transparent)]
    Watch(#[from] watch::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// Bringing artifacts home.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The host cannot run builds.
    #[error("the host lacks what a sandbox needs: {}", missing(.0))]
    HostLacks(Vec<Layer>),
    /// Evidence and artifact do not go together.
    #[error("{0}")]
    NotVerified(VerifyError),
    /// The evidence names another builder than the one that is demanded.
    #[error("the artifact was built by {found}, and {demanded} is demanded")]
    OtherBuilder {
        /// The builder in the evidence.
        found: String,
        /// The builder on the command line.
        demanded: String,
    },
    /// A local file.
    #[error("cannot {what} {}", path.display())]
    File {
        /// Read or write.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The probe of the host says something else than a report.
    #[error("belljar-spawner --probe failed: {0}")]
    Probe(String),
    /// The image of a build is not in the daemon's store.
    #[error("the image `{name}`, tree {tree}, is not at the daemon")]
    NoImage {
        /// Its name.
        name: String,
        /// Its tree.
        tree: Digest,
        /// What it was made of.
        from: Box<Origin>,
    },
    /// A signal came before an image was imported.
    #[error("interrupted: the image was not imported")]
    InterruptedImport,
    /// A signal came while there was no build to cancel yet.
    #[error("interrupted before the build was submitted")]
    Interrupted,
    /// A signal came after the build had ended.
    #[error("interrupted before everything was brought home; the build itself has ended")]
    InterruptedAfter,
    /// A signal came while a question was being asked.
    #[error("interrupted")]
    Stopped,
    /// There is nobody to leave a build to.
    #[error("no daemon answers to whom a build could be left")]
    NoDaemon,
    /// Nothing can be brought home yet.
    #[error("{} has not ended: {}", build_name(.0), doing(*.1))]
    NotEnded(BuildId, BuildState),
    /// The chain of an audit trail does not hold.
    #[error("the audit trail does not hold: {0}")]
    Trail(belljar_audit::VerifyError),
    /// Two pieces of evidence do not go together.
    #[error("the evidence contradicts itself: {0}")]
    Contradiction(String),
    /// The process itself is in trouble.
    #[error("cannot {0}")]
    Process(&'static str, #[source] std::io::Error),
}

impl From<embedded::Error> for Error {
    fn from(source: embedded::Error) -> Self {
        Self::Embedded {
            looked: false,
            source,
        }
    }
}

impl Error {
    /// The exit status.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Manifest(manifest::Error::Read { .. }) => exit::LOCAL_FILE,
            Self::Usage(_) | Self::Manifest(_) | Self::NoImage { .. } => exit::USAGE,
            Self::Source(error) | Self::Upload(upload::Error::Source(error)) => of_source(error),
            Self::Deps(error) if error.is_usage() => exit::USAGE,
            Self::Deps(_) => exit::LOCAL_FILE,
            Self::Embedded { source, .. } => of_embedded(source),
            Self::Client(error)
            | Self::Upload(upload::Error::Daemon(error))
            | Self::Watch(watch::Error::Daemon(error))
            | Self::Fetch(fetch::Error::Daemon(error)) => of_client(error),
            Self::HostLacks(_) => exit::HOST_LACKS_LAYER,
            Self::NotVerified(_)
            | Self::OtherBuilder { .. }
            | Self::Trail(_)
            | Self::Contradiction(_) => exit::NOT_VERIFIED,
            Self::NoDaemon => exit::NO_DAEMON,
            Self::Stopped
            | Self::InterruptedImport
            | Self::InterruptedAfter
            | Self::NotEnded(..)
            | Self::Watch(watch::Error::Left(_)) => exit::NOT_ENDED,
            Self::Interrupted | Self::Watch(watch::Error::GaveUp(_)) => exit::CANCELLED,
            Self::File { .. }
            | Self::Log(log::Error::Write(_))
            | Self::Watch(watch::Error::Log(log::Error::Write(_)))
            | Self::Fetch(fetch::Error::Write { .. } | fetch::Error::InTheWay(_)) => {
                exit::LOCAL_FILE
            }
            Self::Log(_)
            | Self::Watch(_)
            | Self::Upload(_)
            | Self::Fetch(_)
            | Self::Probe(_)
            | Self::Process(..) => exit::INFRASTRUCTURE,
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::Manifest(manifest::Error::Missing(path))
                if path.ends_with(belljar_manifest::FILE) =>
            {
                Some("name the directory that has one: belljar run DIR")
            }
            Self::Manifest(manifest::Error::Missing(_)) => {
                Some("it is made by the first: belljar image import FILE --name NAME")
            }
            Self::Source(error) | Self::Upload(upload::Error::Source(error)) => error.hint(),
            Self::Deps(error) => error.hint(),
            Self::Embedded { source, .. } => source.hint(),
            Self::Client(client::Error::Connect { .. }) => {
                Some("start the daemon, or name another one by --socket or --server")
            }
            Self::Fetch(fetch::Error::InTheWay(_)) => {
                Some("move it away, or choose another directory by --output")
            }
            Self::NoImage { name, from, .. } => {
                return Some(match from.as_ref() {
                    Origin::File(file) => format!(
                        "import it again, from `{}`: belljar image import FILE --name {name}",
                        file.escape_debug()
                    ),
                    Origin::Registry(_) => {
                        format!("pull it again: belljar image pull --name {name}")
                    }
                });
            }
            Self::NoDaemon => Some(
                "start the daemon, or name its socket by --socket; `belljar run` builds with processes of its own",
            ),
            Self::NotEnded(build, _) | Self::Watch(watch::Error::Left(build)) => {
                return Some(format!("`belljar watch {build}` follows it"));
            }
            Self::HostLacks(layers) => {
                return Some(hints(layers)).filter(|hints| !hints.is_empty());
            }
            _ => None,
        };
        fixed.map(str::to_owned)
    }

    /// Where in a file, if it is about one.
    pub(crate) fn place(&self) -> Option<(&Path, Place)> {
        match self {
            Self::Manifest(manifest::Error::Wrong { path, wrong }) => Some((path, wrong.place)),
            _ => None,
        }
    }

    /// Fields at fault.
    pub(crate) fn fields(&self) -> Vec<Invalid> {
        match self {
            Self::Manifest(manifest::Error::Wrong { wrong, .. }) => vec![wrong.invalid.clone()],
            Self::Client(client::Error::Call { problem, .. }) => problem.fields.clone(),
            _ => Vec::new(),
        }
    }

    /// What lies behind it, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let first: Option<&(dyn std::error::Error + 'static)> = match self {
            Self::Embedded { source, .. } => std::error::Error::source(source),
            other => std::error::Error::source(other),
        };
        let mut causes: Vec<String> = Vec::new();
        let mut next = first;
        while let Some(cause) = next {
            let said = cause.to_string();
            // Some errors of others repeat their cause.
            if causes.last() != Some(&said) {
                causes.push(said);
            }
            next = cause.source();
        }
        causes
    }
}

fn of_source(error: &source::Error) -> u8 {
    if error.is_usage() {
        exit::USAGE
    } else {
        exit::LOCAL_FILE
    }
}

fn of_embedded(error: &embedded::Error) -> u8 {
    match error {
        embedded::Error::NeedsRoot
        | embedded::Error::NoProgram(_)
        | embedded::Error::Locked(_)
        | embedded::Error::Start { .. }
        | embedded::Error::Died { .. }
        | embedded::Error::Late { .. } => exit::NO_DAEMON,
        embedded::Error::State { .. } => exit::USAGE,
        embedded::Error::SetUp { .. } => exit::LOCAL_FILE,
    }
}

fn of_client(error: &client::Error) -> u8 {
    match error {
        client::Error::Connect { .. } => exit::NO_DAEMON,
        client::Error::Certificates { .. } => exit::LOCAL_FILE,
        client::Error::Call { problem, .. } => match problem.reason {
            Reason::InvalidField
            | Reason::DerivationRefused
            | Reason::ImageRefused
            | Reason::OutOfRange
            | Reason::Unsupported
            | Reason::NotFound
            // What a file is called it is not, or what it names is not there.
            | Reason::DigestMismatch
            | Reason::InputMissing
            | Reason::RequestIdReused => exit::USAGE,
            Reason::Denied => exit::REFUSED,
            Reason::HostLacksLayer => exit::HOST_LACKS_LAYER,
            _ => exit::INFRASTRUCTURE,
        },
        client::Error::Answer { .. } => exit::INFRASTRUCTURE,
    }
}

fn lacking(layers: &[Layer]) -> impl Iterator<Item = &Layer> {
    layers
        .iter()
        .filter(|layer| layer.verdict == LayerVerdict::Missing)
}

fn missing(layers: &[Layer]) -> String {
    lacking(layers)
        .map(|layer| format!("{} ({})", layer.name, layer.found))
        .collect::<Vec<_>>()
        .join(", ")
}

fn hints(layers: &[Layer]) -> String {
    let hints = lacking(layers).filter(|layer| !layer.hint.is_empty());
    hints
        .map(|layer| format!("{}: {}", layer.name, layer.hint))
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_wire::Problem;

    fn call(reason: Reason) -> Error {
        let problem = Box::new(Problem::new(reason, "no"));
        client::Error::Call {
            doing: "trying",
            problem,
        }
        .into()
    }

    #[test]
    fn errors_are_told_apart_by_exit_status() {
        let io = || std::io::Error::other("why");
        let cases = [
            (Error::Usage(String::new()), 2),
            (manifest::Error::Missing("x".into()).into(), 2),
            (
                manifest::Error::Read {
                    path: "x".into(),
                    source: io(),
                }
                .into(),
                12,
            ),
            (source::Error::AllIgnored("x".into()).into(), 2),
            (embedded::Error::NeedsRoot.into(), 10),
            (
                embedded::Error::SetUp {
                    path: "x".into(),
                    source: io(),
                }
                .into(),
                12,
            ),
            (call(Reason::InvalidField), 2),
            (call(Reason::NotFound), 2),
            (call(Reason::DigestMismatch), 2),
            (call(Reason::InputMissing), 2),
            (Error::NoDaemon, 10),
            (Error::Stopped, 13),
            (Error::Trail(belljar_audit::VerifyError::Empty), 9),
            (Error::Contradiction(String::new()), 9),
            (call(Reason::Denied), 7),
            (call(Reason::HostLacksLayer), 11),
            (call(Reason::Unavailable), 8),
            (Error::HostLacks(Vec::new()), 11),
            (Error::NotVerified(VerifyError::BadSignature), 9),
            (Error::Interrupted, 6),
            (Error::InterruptedAfter, 13),
            (Error::InterruptedImport, 13),
            (fetch::Error::InTheWay("x".into()).into(), 12),
            (log::Error::TooLong(1).into(), 8),
        ];
        for (error, code) in cases {
            assert_eq!(error.code(), code, "{error}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = Error::Embedded {
            looked: true,
            source: embedded::Error::SetUp {
                path: "/s".into(),
                source: std::io::Error::other("disk on fire"),
            },
        };
        assert_eq!(error.to_string(), "no daemon answers, and cannot set up /s");
        assert_eq!(error.causes(), ["disk on fire"]);
    }
}
