//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{embedded, exit};

/// Builds in a sealed sandbox, with provenance that others can check.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::help())]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build what DIR/belljar.toml says, and bring artifacts and evidence home
    Run(Run),
    /// Check offline that a bundle vouches for an artifact
    Verify(Verify),
    /// Everything about keys
    Key {
        /// What about them.
        #[command(subcommand)]
        command: Key,
    },
    /// Tell what this host offers for sandboxes, and what it lacks
    Doctor(Doctor),
}

impl Command {
    /// Whether the result is to be JSON.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Run(run) => run.json,
            Self::Verify(verify) => verify.json,
            Self::Key {
                command: Key::Public(public),
            } => public.json,
            Self::Doctor(doctor) => doctor.json,
        }
    }
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Whom {
    /// Socket of the daemon to ask; else $BELLJAR_SOCKET, else the installed daemon's
    #[arg(long, value_name = "PATH", conflicts_with = "state")]
    pub(crate) socket: Option<PathBuf>,
    /// State directory of embedded mode, whose processes are started if they do not run
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

impl Whom {
    /// The state directory of embedded mode.
    pub(crate) fn state(&self) -> PathBuf {
        self.state
            .clone()
            .unwrap_or_else(|| embedded::DEFAULT_STATE.into())
    }
}

/// `belljar run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Source directory, with a belljar.toml in it
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Where artifacts and evidence go; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "belljar-out")]
    pub(crate) output: PathBuf,
    /// Take every file, also in a git work tree, but what version control systems keep
    #[arg(long)]
    pub(crate) no_git: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object at the end; all else goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The file to check
    #[arg(value_name = "ARTIFACT")]
    pub(crate) artifact: PathBuf,
    /// The Sigstore bundle; else ARTIFACT.sigstore.json
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// The builder's public key, in PEM, from somewhere that you trust
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Demand that this builder made it (`builder.id`)
    #[arg(long, value_name = "URI")]
    pub(crate) builder: Option<String>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar key`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Print the public key with which provenance can be verified
    Public(KeyPublic),
}

/// `belljar key public`
#[derive(Debug, Args)]
pub(crate) struct KeyPublic {
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `belljar doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Without a daemon: judge by this floor instead of the one that embedded mode would use
    #[arg(long, value_enum)]
    pub(crate) cgroup_floor: Option<Floor>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which cgroup hierarchies are demanded.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Floor {
    /// The unified hierarchy with its controllers
    V2,
    /// Controllers in v1 hierarchies, life cycle in the v2 tree
    Hybrid,
}

impl From<Floor> for embedded::Floor {
    fn from(floor: Floor) -> Self {
        match floor {
            Floor::V2 => Self::V2,
            Floor::Hybrid => Self::Hybrid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn socket_and_state_exclude_each_other() {
        let parsed = Cli::try_parse_from(["belljar", "run", "--socket", "/a", "--state", "/b"]);
        assert_eq!(parsed.unwrap_err().exit_code(), i32::from(exit::USAGE));
    }
}
