use std::path::Path;

use belljar_attest::Verdict;
use belljar_audit::Entry;
use belljar_core::{BuildSpec, Digest, Outcome, Timestamp};
use belljar_wire::{BuildRecord, BuildSummary, build_name};
use serde::Serialize;
use serde_json::Value;

use super::artifacts::{ArtifactReport, artifacts};
use super::{EvidenceReport, ImageReport};
use crate::client;
use crate::exit;

/// A build that was accepted.
#[derive(Debug, Serialize)]
pub(crate) struct Submitted<'a> {
    schema: &'static str,
    build: String,
    request_id: &'a str,
    /// As `Build.State`.
    state: &'static str,
    created: Timestamp,
    submitter: &'a str,
    /// Digest of the specification.
    spec: Digest,
    /// The daemon's socket.
    socket: &'a Path,
}

impl<'a> Submitted<'a> {
    /// With whom it was left.
    ///
    /// # Errors
    /// Never: a specification out of an answer has a digest.
    pub(crate) fn new(build: &'a BuildRecord, socket: &'a Path) -> Result<Self, client::Error> {
        let spec = build.spec.digest();
        Ok(Self {
            schema: "belljar.submit/v1",
            build: build_name(&build.id),
            request_id: build.request_id.as_str(),
            state: build.state.name(),
            created: build.created,
            submitter: &build.submitter,
            spec: spec.map_err(|e| client::Error::answer("submitting the build", e))?,
            socket,
        })
    }
}

/// One build as it stands.
#[derive(Debug, Serialize)]
pub(crate) struct Build<'a> {
    schema: &'static str,
    build: String,
    request_id: &'a str,
    state: &'static str,
    /// Counts the changes, from 1.
    sequence: u64,
    /// How it ended; null before.
    outcome: Option<&'a Outcome>,
    /// The same in words; null before.
    summary: Option<String>,
    /// What `belljar watch` ends with; null before the end.
    exit_code: Option<u8>,
    attempt: u32,
    submitter: &'a str,
    created: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    spec: &'a BuildSpec,
    artifacts: Vec<ArtifactReport<'a>>,
    /// The image that became of that; none if none was asked for.
    image: Option<ImageReport>,
    evidence: EvidenceReport<'a>,
}

impl<'a> Build<'a> {
    /// Of a record.
    pub(crate) fn new(build: &'a BuildRecord) -> Self {
        Self {
            schema: "belljar.build/v1",
            build: build_name(&build.id),
            request_id: build.request_id.as_str(),
            state: build.state.name(),
            sequence: build.sequence,
            outcome: build.outcome.as_ref(),
            summary: build.outcome.as_ref().map(Outcome::to_string),
            exit_code: build.outcome.as_ref().map(exit::of_outcome),
            attempt: build.attempt,
            submitter: &build.submitter,
            created: build.created,
            started: build.started,
            ended: build.ended,
            spec: &build.spec,
            artifacts: artifacts(&build.artifacts),
            image: build.image.as_ref().map(Into::into),
            evidence: (&build.evidence).into(),
        }
    }
}

/// Builds, the newest first.
#[derive(Debug, Serialize)]
pub(crate) struct List<'a> {
    schema: &'static str,
    builds: Vec<Row<'a>>,
    /// For `--page-token`; empty if nothing follows.
    next_page_token: &'a str,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    build: String,
    request_id: &'a str,
    state: &'static str,
    outcome: Option<&'a Outcome>,
    summary: Option<String>,
    attempt: u32,
    submitter: &'a str,
    created: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    evidence: EvidenceReport<'a>,
}

impl<'a> List<'a> {
    /// Of summaries.
    pub(crate) fn new(builds: &'a [BuildSummary], next_page_token: &'a str) -> Self {
        let rows = builds.iter().map(|build| Row {
            build: build_name(&build.id),
            request_id: build.request_id.as_str(),
            state: build.state.name(),
            outcome: build.outcome.as_ref(),
            summary: build.outcome.as_ref().map(Outcome::to_string),
            attempt: build.attempt,
            submitter: &build.submitter,
            created: build.created,
            started: build.started,
            ended: build.ended,
            evidence: (&build.evidence).into(),
        });
        Self {
            schema: "belljar.list/v1",
            builds: rows.collect(),
            next_page_token,
        }
    }
}

/// A piece of a log: a line, or what there is of it so far.
#[derive(Debug, Serialize)]
pub(crate) struct LogPiece<'a> {
    schema: &'static str,
    build: &'a str,
    attempt: i32,
    /// How many bytes of that attempt's log come before.
    offset: i64,
    /// How many bytes it has.
    bytes: usize,
    /// What it says; bytes that are no UTF-8 are replaced.
    text: String,
}

impl<'a> LogPiece<'a> {
    /// Of these bytes.
    pub(crate) fn new(build: &'a str, attempt: i32, offset: i64, bytes: &[u8]) -> Self {
        Self {
            schema: "belljar.log/v1",
            build,
            attempt,
            offset,
            bytes: bytes.len(),
            text: String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// One build's story.
#[derive(Debug, Serialize)]
pub(crate) struct Story<'a> {
    schema: &'static str,
    build: String,
    chain: Chain,
    /// The entries of the audit trail.
    trail: &'a [Entry],
    /// The receipt of the last attempt, whose digest the trail names; null if there is none.
    receipt: Option<&'a Value>,
    /// What the signed statement says, after it was verified; null if there is none.
    verdict: Option<&'a Verdict>,
    /// Refused calls and paths; null: they are not recorded yet.
    denials: Option<()>,
    /// Who vouched for the key: `given` on the command line, or the `daemon`; null without a bundle.
    key_from: Option<&'static str>,
}

/// What was verified about a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Chain {
    /// Always true: what does not hold ends in [`super::Failed`].
    pub(crate) verified: bool,
    /// How many entries there are.
    pub(crate) entries: usize,
    /// How many of them the signed statement names by their digest; null without one.
    pub(crate) signed: Option<u64>,
}

impl<'a> Story<'a> {
    /// With everything that was verified.
    pub(crate) fn new(
        chain: Chain,
        trail: &'a [Entry],
        receipt: Option<&'a Value>,
        verdict: Option<&'a Verdict>,
        key_from: Option<&'static str>,
    ) -> Self {
        let build = trail.first().map(|entry| build_name(&entry.build));
        Self {
            schema: "belljar.audit/v1",
            build: build.unwrap_or_default(),
            chain,
            trail,
            receipt,
            verdict,
            denials: None,
            key_from: key_from.filter(|_| verdict.is_some()),
        }
    }
}
