//! The JSON objects that commands print under `--json`, one each, on standard output. `schema` tells which;
//! fields are added, never changed in meaning, within one version.
//!
//! | command | schema | shape |
//! |---|---|---|
//! | `run` | `belljar.run/v1` | [`Run`]; also the file `build.json` |
//! | `image import`, `image build-debian` | `belljar.image/v1` | [`crate::image::Imported`] |
//! | `image push` | `belljar.push/v1` | [`Pushed`] |
//! | `image list` | `belljar.images/v1` | [`crate::image::Images`] |
//! | `fetch` | `belljar.fetch/v1` | [`Run`] without `source`; also the file `build.json` |
//! | `submit` | `belljar.submit/v1` | [`Submitted`] |
//! | `show`, `watch`, `cancel` | `belljar.build/v1` | [`Build`] |
//! | `list` | `belljar.list/v1` | [`List`] |
//! | `logs` | `belljar.log/v1` | [`LogPiece`], one a line |
//! | `audit show` | `belljar.audit/v1` | [`Story`] |
//! | `store status` | `belljar.store/v1` | [`Store`] |
//! | `store gc` | `belljar.gc/v1` | [`Garbage`] |
//! | `store scrub` | `belljar.scrub/v1` | [`ScrubBegun`] |
//! | `store pin`, `store unpin` | `belljar.pin/v1` | [`Pinned`] |
//! | `verify` | `belljar.verify/v1` | [`Verified`] |
//! | `key public` | `belljar.key/v1` | [`PublicKey`] |
//! | `doctor` | `belljar.doctor/v1` | [`Doctor`] |
//! | any that failed | `belljar.error/v1` | [`Failed`] |
//!
//! Digests are `sha256:` and 64 hexadecimal digits, objects `{"digest", "size"}` with the size in bytes, times
//! RFC 3339 in UTC.

mod artifacts;
mod builds;
mod image;
mod store;

pub(crate) use artifacts::directories;
pub(crate) use builds::{Build, Chain, List, LogPiece, Story, Submitted};
pub(crate) use store::{Garbage, Pinned, ScrubBegun, Store};

use std::path::Path;

use belljar_attest::{ReceiptVerdict, Verdict};
use belljar_core::{BuildSpec, ObjectId, Outcome, Timestamp};
use belljar_wire::{BuildRecord, Evidence, Layer, LayerVerdict, ServerInfo, build_name};
use serde::Serialize;

use artifacts::{ArtifactReport, artifacts};

use crate::error::Error;
use crate::exit;
use crate::source::{ListedBy, Sources};
use crate::steps;
use crate::target::Target;

use image::ImageReport;
pub(crate) use image::Pushed;

/// A build that has ended, however it did.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    schema: &'static str,
    /// Resource name.
    build: String,
    request_id: &'a str,
    /// The exit status of `belljar run`.
    exit_code: u8,
    /// How it ended: `kind` and what goes with it.
    outcome: Option<&'a Outcome>,
    /// The same in words.
    summary: String,
    /// The last attempt, from 1.
    attempt: u32,
    submitter: &'a str,
    created: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    /// The specification, in full.
    spec: &'a BuildSpec,
    /// Where the sources came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source<'a>>,
    /// The steps that ran, in order.
    steps: Vec<steps::Step<'a>>,
    /// What was collected; `path` is below `output`.
    artifacts: Vec<ArtifactReport<'a>>,
    /// The image that became of that; none if none was asked for.
    image: Option<ImageReport>,
    evidence: EvidenceReport<'a>,
    /// The log, as it is in `build.log`; none if pieces of it are missing.
    log: Option<ObjectId>,
    /// What the bundle says, after it was verified; none unless the build succeeded.
    verdict: Option<&'a Verdict>,
    /// The output directory, absolute.
    output: &'a Path,
    daemon: Daemon<'a>,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    dir: &'a Path,
    /// `git` or `walk`.
    listed_by: &'static str,
    files: usize,
    bytes: u64,
    /// How many of the files were read; the others look as they did when they were.
    read: usize,
}

#[derive(Debug, Serialize)]
struct EvidenceReport<'a> {
    bundle: Option<ObjectId>,
    receipt: Option<ObjectId>,
    receipt_bundle: Option<ObjectId>,
    spec: Option<ObjectId>,
    plan: Option<ObjectId>,
    audit_trail: Option<ObjectId>,
    log: Option<ObjectId>,
    key_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Daemon<'a> {
    version: &'a str,
    socket: &'a Path,
    /// Whether it was started for this build alone.
    embedded: bool,
    /// Of an embedded daemon: `v2` or `hybrid`.
    cgroup_floor: Option<crate::embedded::Floor>,
}

/// What a run has learnt by its end.
pub(crate) struct Ended<'a> {
    /// The source directory and what was built, if that is known here.
    pub(crate) sources: Option<(&'a Path, &'a Sources)>,
    /// The build.
    pub(crate) build: &'a BuildRecord,
    /// Its log, if it is complete.
    pub(crate) log: Option<ObjectId>,
    /// What its bundle says.
    pub(crate) verdict: Option<&'a Verdict>,
    /// The output directory.
    pub(crate) output: &'a Path,
    /// The daemon.
    pub(crate) server: &'a ServerInfo,
    /// Whether it is ours.
    pub(crate) target: &'a Target,
}

impl<'a> Run<'a> {
    /// The report of a build that has ended.
    pub(crate) fn new(ended: &Ended<'a>) -> Self {
        let build = ended.build;
        let floor = ended.target.floor();
        Self {
            schema: match ended.sources {
                Some(_) => "belljar.run/v1",
                None => "belljar.fetch/v1",
            },
            build: build_name(&build.id),
            request_id: build.request_id.as_str(),
            exit_code: build
                .outcome
                .as_ref()
                .map_or(exit::INFRASTRUCTURE, exit::of_outcome),
            outcome: build.outcome.as_ref(),
            summary: build
                .outcome
                .as_ref()
                .map_or_else(String::new, Outcome::to_string),
            attempt: build.attempt,
            submitter: &build.submitter,
            created: build.created,
            started: build.started,
            ended: build.ended,
            spec: &build.spec,
            source: ended.sources.map(|(dir, sources)| Source {
                dir,
                listed_by: match sources.listed_by {
                    ListedBy::Git => "git",
                    ListedBy::Walk => "walk",
                    ListedBy::Lock => "lock",
                },
                files: sources.files.len(),
                bytes: sources.files.iter().map(|file| file.object.size).sum(),
                read: sources.read(),
            }),
            steps: steps::report(&build.spec, &build.steps),
            artifacts: artifacts(&build.artifacts),
            image: build.image.as_ref().map(Into::into),
            evidence: (&build.evidence).into(),
            log: ended.log,
            verdict: ended.verdict,
            output: ended.output,
            daemon: Daemon {
                version: &ended.server.version,
                socket: ended.target.name(),
                embedded: floor.is_some(),
                cgroup_floor: floor,
            },
        }
    }
}

impl<'a> From<&'a Evidence> for EvidenceReport<'a> {
    fn from(evidence: &'a Evidence) -> Self {
        Self {
            bundle: evidence.bundle,
            receipt: evidence.receipt,
            receipt_bundle: evidence.receipt_bundle,
            spec: evidence.spec,
            plan: evidence.plan,
            audit_trail: evidence.audit_trail,
            log: evidence.log,
            key_id: evidence.key_id.as_deref(),
        }
    }
}

/// An artifact that its bundle vouches for.
#[derive(Debug, Serialize)]
pub(crate) struct Verified<'a> {
    schema: &'static str,
    /// Always true: what is not verified ends in [`Failed`].
    verified: bool,
    /// What the provenance says; null where only a receipt was given.
    verdict: Option<&'a Verdict>,
    /// What the statement about the receipt says, if one was given.
    receipt: Option<&'a ReceiptVerdict>,
}

impl<'a> Verified<'a> {
    /// With what the bundles say.
    pub(crate) fn new(verdict: Option<&'a Verdict>, receipt: Option<&'a ReceiptVerdict>) -> Self {
        Self {
            schema: "belljar.verify/v1",
            verified: true,
            verdict,
            receipt,
        }
    }
}

/// The signer's public key.
#[derive(Debug, Serialize)]
pub(crate) struct PublicKey<'a> {
    schema: &'static str,
    /// SubjectPublicKeyInfo in PEM.
    public_key_pem: &'a str,
    /// OpenSSH fingerprint.
    key_id: &'a str,
}

impl<'a> PublicKey<'a> {
    /// With its PEM form and its id.
    pub(crate) fn new(public_key_pem: &'a str, key_id: &'a str) -> Self {
        Self {
            schema: "belljar.key/v1",
            public_key_pem,
            key_id,
        }
    }
}

/// What a host offers.
#[derive(Debug, Serialize)]
pub(crate) struct Doctor<'a> {
    schema: &'static str,
    /// Whether builds can run.
    suffices: bool,
    /// Who says so: the socket of a daemon; null after a probe of this host.
    daemon: Option<&'a Path>,
    /// Version of the daemon, or of this program.
    version: &'a str,
    layers: Vec<LayerReport<'a>>,
}

#[derive(Debug, Serialize)]
struct LayerReport<'a> {
    name: &'a str,
    found: &'a str,
    /// `enforced`, `lowered` or `missing`.
    verdict: &'static str,
    hint: &'a str,
}

impl<'a> Doctor<'a> {
    /// With every layer.
    pub(crate) fn new(
        daemon: Option<&'a Path>,
        version: &'a str,
        suffices: bool,
        layers: &'a [Layer],
    ) -> Self {
        let layers = layers.iter().map(|layer| LayerReport {
            name: &layer.name,
            found: &layer.found,
            verdict: verdict(layer.verdict),
            hint: &layer.hint,
        });
        Self {
            schema: "belljar.doctor/v1",
            suffices,
            daemon,
            version,
            layers: layers.collect(),
        }
    }
}

/// A verdict in one word.
pub(crate) fn verdict(verdict: LayerVerdict) -> &'static str {
    match verdict {
        LayerVerdict::Enforced => "enforced",
        LayerVerdict::Lowered => "lowered",
        LayerVerdict::Missing => "missing",
    }
}

/// A command that failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failed {
    schema: &'static str,
    /// The exit status.
    exit_code: u8,
    /// What went wrong.
    error: String,
    /// What lies behind it, outermost first.
    causes: Vec<String>,
    /// What to do about it.
    hint: Option<String>,
    /// Fields at fault.
    fields: Vec<FieldReport>,
    /// Where, if a file is at fault.
    place: Option<PlaceReport>,
}

#[derive(Debug, Serialize)]
struct FieldReport {
    field: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct PlaceReport {
    file: String,
    line: usize,
    column: usize,
}

impl Failed {
    /// The report of `error`.
    pub(crate) fn new(error: &Error) -> Self {
        let fields = error.fields().into_iter().map(|invalid| FieldReport {
            field: invalid.field,
            reason: invalid.reason,
        });
        Self {
            schema: "belljar.error/v1",
            exit_code: error.code(),
            error: error.to_string(),
            causes: error.causes(),
            hint: error.hint(),
            fields: fields.collect(),
            place: error.place().map(|(file, place)| PlaceReport {
                file: file.display().to_string(),
                line: place.line,
                column: place.column,
            }),
        }
    }
}
