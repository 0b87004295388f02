//! The commands about builds of a daemon.

use std::path::PathBuf;

use belljar_core::{BuildId, Digest, Invalid, RequestId};
use belljar_wire::Filter;
use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::Ask;

/// `builds/ID`, or the id alone.
pub(super) fn build(text: &str) -> Result<BuildId, Invalid> {
    BuildId::new(text.strip_prefix("builds/").unwrap_or(text))
}

fn request_id(text: &str) -> Result<RequestId, Invalid> {
    RequestId::new(text)
}

/// What sha256sum prints, or what belljar does.
fn sha256(text: &str) -> Result<Digest, Invalid> {
    Digest::from_hex(text.strip_prefix("sha256:").unwrap_or(text))
}

/// A time, as filters have it.
fn time(text: &str) -> Result<String, Invalid> {
    let plain = !text.contains(['"', '\\']);
    let parsed = Filter::parse(&format!("create_time < \"{text}\""));
    match parsed.is_ok() && plain {
        true => Ok(text.to_owned()),
        false => Err(Invalid::new(
            "not a time: RFC 3339 in UTC is due, as 2026-11-01T00:00:00Z",
        )),
    }
}

/// `belljar submit`
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Source directory, with a belljar.toml in it
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// A directory that does not belong to the sources: where `fetch` will put things
    #[arg(long, value_name = "DIR", default_value = "belljar-out")]
    pub(crate) output: PathBuf,
    /// Take every file, also in a git work tree, but what version control systems keep
    #[arg(long)]
    pub(crate) no_git: bool,
    /// Name of this submission: the same name with the same build is the same build again; else a new one
    #[arg(long, value_name = "NAME", value_parser = request_id)]
    pub(crate) request_id: Option<RequestId>,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar watch`
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar list`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only builds in this state, such as QUEUED, RUNNING or ENDED
    #[arg(long, value_name = "STATE")]
    pub(crate) build_state: Option<String>,
    /// Only builds that ended so, such as succeeded, failed or timed_out
    #[arg(long, value_name = "KIND")]
    pub(crate) outcome: Option<String>,
    /// Only builds of this principal, such as unix:uid=0
    #[arg(long, value_name = "PRINCIPAL")]
    pub(crate) submitter: Option<String>,
    /// Only builds that were submitted under this name
    #[arg(long, value_name = "NAME", value_parser = request_id)]
    pub(crate) request_id: Option<RequestId>,
    /// Only builds that left a file with this SHA-256 (what sha256sum prints)
    #[arg(long, value_name = "DIGEST", value_parser = sha256)]
    pub(crate) artifact: Option<Digest>,
    /// Only builds submitted at this time or later (RFC 3339 in UTC, as 2026-11-01T00:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<String>,
    /// Only builds submitted before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<String>,
    /// Only builds for which this holds too, such as 'outcome != succeeded AND state = ENDED'
    #[arg(long, value_name = "CONDITIONS")]
    pub(crate) filter: Option<String>,
    /// List so many at the most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Go on where an earlier list with the same conditions ended: its `next_page_token`
    #[arg(long, value_name = "TOKEN")]
    pub(crate) page_token: Option<String>,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Go on until the build has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The log of this attempt, from 1; else of the current or last one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar cancel`
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Why, for the outcome and the audit trail
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar fetch`
#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build)]
    pub(crate) build: BuildId,
    /// Where artifacts and evidence go; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "belljar-out")]
    pub(crate) output: PathBuf,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar audit`
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Tell one build's story: who asked, what was enforced, how it ended. The chain of its trail is verified
    Show(AuditShow),
}

/// `belljar audit show`
#[derive(Debug, Args)]
pub(crate) struct AuditShow {
    /// The build: builds/ID, or the ID
    #[arg(value_name = "BUILD", value_parser = build, required_unless_present = "trail", conflicts_with = "trail")]
    pub(crate) build: Option<BuildId>,
    /// Offline, out of files: the audit trail, as `fetch` leaves it in audit.jsonl
    #[arg(long, value_name = "FILE", conflicts_with_all = ["socket", "state"])]
    pub(crate) trail: Option<PathBuf>,
    /// Offline: the receipt, as `fetch` leaves it in receipt.json
    #[arg(long, value_name = "FILE", requires = "trail")]
    pub(crate) receipt: Option<PathBuf>,
    /// Offline: the Sigstore bundle
    #[arg(long, value_name = "FILE", requires_all = ["trail", "receipt", "key"])]
    pub(crate) bundle: Option<PathBuf>,
    /// The builder's public key, in PEM, from somewhere that you trust; else as the daemon tells it
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Whom to ask, and how the answer is told.
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// `belljar completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `belljar man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// An existing directory for the pages
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
