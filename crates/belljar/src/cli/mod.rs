//! The command line.

mod builds;
mod image;
mod store;

use std::path::PathBuf;

use belljar_core::{Invalid, ProjectId};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use builds::{
    Audit, AuditShow, Cancel, Completions, Fetch, List, Logs, Man, Show, Submit, Watch,
};
pub(crate) use image::{BuildDebian, Image, ImageList, Import, ImportTo, Pull, Push, Variant};
pub(crate) use store::{Gc, Pin, Store, Unpin};

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
    /// Submit what DIR/belljar.toml says to a daemon, and leave it to that
    Submit(Submit),
    /// Follow a build to its end: states and log
    Watch(Watch),
    /// List builds, the newest first
    List(List),
    /// Tell everything about one build
    Show(Show),
    /// Print what a build wrote to its log
    Logs(Logs),
    /// Ask for the end of a build
    Cancel(Cancel),
    /// Bring artifacts and evidence of a build that has ended home, verified
    Fetch(Fetch),
    /// Everything about the record of a build
    Audit {
        /// What about it.
        #[command(subcommand)]
        command: Audit,
    },
    /// Check offline that a bundle vouches for an artifact
    Verify(Verify),
    /// Root file systems by digest, under names in a belljar.lock
    Image {
        /// What about them.
        #[command(subcommand)]
        command: Image,
    },
    /// What the store keeps, and how the rest goes
    Store {
        /// What about it.
        #[command(subcommand)]
        command: Store,
    },
    /// Everything about keys
    Key {
        /// What about them.
        #[command(subcommand)]
        command: Key,
    },
    /// Tell what this host offers for sandboxes, and what it lacks
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(Man),
}

impl Command {
    /// Whether the result is to be JSON.
    pub(crate) fn json(&self) -> bool {
        let ask = match self {
            Self::Run(run) => &run.ask,
            Self::Image { command } => match command {
                Image::Import(import) => &import.to.ask,
                Image::Pull(pull) => &pull.to.ask,
                Image::Push(push) => &push.ask,
                Image::List(list) => return list.json,
                Image::BuildDebian(build) => &build.to.ask,
            },
            Self::Submit(submit) => &submit.ask,
            Self::Watch(watch) => &watch.ask,
            Self::List(list) => &list.ask,
            Self::Show(show) => &show.ask,
            Self::Logs(logs) => &logs.ask,
            Self::Cancel(cancel) => &cancel.ask,
            Self::Fetch(fetch) => &fetch.ask,
            Self::Audit {
                command: Audit::Show(show),
            } => &show.ask,
            Self::Store { command } => command.ask(),
            Self::Verify(verify) => return verify.json,
            Self::Key {
                command: Key::Public(public),
            } => &public.ask,
            Self::Doctor(doctor) => &doctor.ask,
            Self::Completions(_) | Self::Man(_) => return false,
        };
        ask.json
    }
}

/// Whom to ask, and how the answer is told: of every command that asks a daemon.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ask {
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print JSON: one object at the end (`logs`: one for each line); all else goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Whom {
    /// Socket of the daemon to ask; else $BELLJAR_SOCKET, else the installed daemon's
    #[arg(long, value_name = "PATH", conflicts_with_all = ["state", "server"])]
    pub(crate) socket: Option<PathBuf>,
    /// A daemon elsewhere, https://HOST:PORT, with mutual TLS; else $BELLJAR_SERVER
    #[arg(long, value_name = "URL", conflicts_with = "state")]
    pub(crate) server: Option<String>,
    /// Certificates of the authorities that vouch for the server, PEM
    #[arg(long, value_name = "FILE", env = "BELLJAR_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// The certificate that says who you are, with its chain, PEM
    #[arg(long, value_name = "FILE", env = "BELLJAR_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", env = "BELLJAR_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The project that a build is for; needed by members of several
    #[arg(long, value_name = "PROJECT", env = "BELLJAR_PROJECT", value_parser = project)]
    pub(crate) project: Option<ProjectId>,
    /// State directory of embedded mode, whose processes are started if they do not run
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

fn project(text: &str) -> Result<ProjectId, Invalid> {
    ProjectId::new(text.strip_prefix("projects/").unwrap_or(text))
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
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar verify`
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// What to check: an artifact, a receipt, or the layout of an image (a directory)
    #[arg(value_name = "ARTIFACT")]
    pub(crate) artifact: PathBuf,
    /// The Sigstore bundle; else ARTIFACT.sigstore.json, else provenance.sigstore.json in the nearest directory above
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// The builder's public key, in PEM, from somewhere that you trust
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Demand that this bundle is about the receipt that the provenance names, by the same builder
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt_bundle: Option<PathBuf>,
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
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Without a daemon: judge by this floor instead of the one that embedded mode would use
    #[arg(long, value_enum)]
    pub(crate) cgroup_floor: Option<Floor>,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
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
        let both = [
            ["--socket", "/a", "--state", "/b"],
            ["--socket", "/a", "--server", "https://h:1"],
            ["--server", "https://h:1", "--state", "/b"],
            ["--project", "-", "--state", "/b"],
        ];
        for arguments in both {
            let parsed = Cli::try_parse_from(["belljar", "run"].iter().chain(&arguments));
            assert_eq!(
                parsed.unwrap_err().exit_code(),
                i32::from(exit::USAGE),
                "{arguments:?}"
            );
        }
    }

    #[test]
    fn builds_are_named_with_and_without_their_collection() {
        const ID: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";
        for name in [ID.to_owned(), format!("builds/{ID}")] {
            let parsed = Cli::try_parse_from(["belljar", "show", &name]).unwrap();
            let Command::Show(show) = parsed.command else {
                panic!("another command")
            };
            assert_eq!(show.build.as_str(), ID);
        }
        for bad in ["", "builds/", "x", "BUILDS/01jd8q6z8r4x7j2m5t9v0w3y6b"] {
            let parsed = Cli::try_parse_from(["belljar", "show", bad]);
            assert_eq!(
                parsed.unwrap_err().exit_code(),
                i32::from(exit::USAGE),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_record_is_shown_of_a_build_or_out_of_files() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from(["belljar", "audit", "show"].iter().chain(arguments)).is_ok()
        };
        assert!(parse(&["01jd8q6z8r4x7j2m5t9v0w3y6b"]));
        assert!(parse(&["--trail", "t"]));
        assert!(parse(&[
            "--trail",
            "t",
            "--receipt",
            "r",
            "--bundle",
            "b",
            "--key",
            "k"
        ]));
        assert!(!parse(&[]));
        assert!(!parse(&["01jd8q6z8r4x7j2m5t9v0w3y6b", "--trail", "t"]));
        assert!(
            !parse(&["--trail", "t", "--bundle", "b"]),
            "a bundle needs a key and a receipt"
        );
    }
}
