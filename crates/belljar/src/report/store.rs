use belljar_core::{Digest, Timestamp};
use belljar_wire::{
    KeptBuilds, PinRecord, ScrubStatus, StorePart, StoreStatus, Swept, build_name, pin_name,
};
use serde::Serialize;

/// What the store takes, has and keeps.
#[derive(Debug, Serialize)]
pub(crate) struct Store<'a> {
    schema: &'static str,
    objects: Part,
    images: Part,
    logs: Part,
    /// What was found damaged, and put aside.
    quarantine: Part,
    other: Part,
    total_bytes: u64,
    available_bytes: u64,
    reserve_bytes: u64,
    high_percent: u8,
    low_percent: u8,
    lease_seconds: u64,
    grace_seconds: u64,
    retention: Vec<Retention<'a>>,
    scrub: Scrub,
    damaged: Vec<Damaged>,
    counted: Timestamp,
    pins: Vec<Pin<'a>>,
}

/// Files of one sort; bytes as du(1) counts them.
#[derive(Debug, Serialize)]
struct Part {
    files: u64,
    bytes: u64,
}

/// How long builds are kept; null: without a limit.
#[derive(Debug, Serialize)]
struct Retention<'a> {
    /// Null: projects that are not named.
    project: Option<&'a str>,
    builds: Option<u64>,
    seconds: Option<u64>,
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Scrub {
    running: bool,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    objects: u64,
    bytes: u64,
    damaged: u64,
    unread: u64,
}

#[derive(Debug, Serialize)]
struct Damaged {
    digest: Digest,
    /// Builds that need it.
    builds: Vec<String>,
    /// Whether it is the mountable image of the tree of that digest.
    image: bool,
    /// Whether it is whole again, given or made anew.
    mended: bool,
}

#[derive(Debug, Serialize)]
struct Pin<'a> {
    pin: String,
    project: &'a str,
    /// `builds/ID`, `trees/HASH/SIZE` or `blobs/HASH/SIZE`.
    target: String,
    reason: &'a str,
    creator: &'a str,
    created: Timestamp,
}

impl<'a> Store<'a> {
    /// Of what the daemon says.
    pub(crate) fn new(status: &'a StoreStatus, pins: &'a [PinRecord]) -> Self {
        let damaged = status.damaged.iter().map(|one| Damaged {
            digest: one.digest,
            builds: one.builds.iter().map(build_name).collect(),
            image: one.image,
            mended: one.mended,
        });
        Self {
            schema: "belljar.store/v1",
            objects: status.objects.into(),
            images: status.images.into(),
            logs: status.logs.into(),
            quarantine: status.quarantine.into(),
            other: status.other.into(),
            total_bytes: status.total,
            available_bytes: status.available,
            reserve_bytes: status.reserve,
            high_percent: status.high_percent,
            low_percent: status.low_percent,
            lease_seconds: status.lease,
            grace_seconds: status.grace,
            retention: status.retention.iter().map(Into::into).collect(),
            scrub: (&status.scrub).into(),
            damaged: damaged.collect(),
            counted: status.counted,
            pins: pins.iter().map(Into::into).collect(),
        }
    }
}

/// What came of a sweep.
#[derive(Debug, Serialize)]
pub(crate) struct Garbage {
    schema: &'static str,
    builds: u64,
    reached_objects: u64,
    unneeded_objects: u64,
    removed_objects: u64,
    removed_images: u64,
    removed_logs: u64,
    removed_bytes: u64,
    longest_hold_micros: u64,
}

impl Garbage {
    /// Of what the daemon says.
    pub(crate) fn new(swept: &Swept) -> Self {
        Self {
            schema: "belljar.gc/v1",
            builds: swept.builds,
            reached_objects: swept.reached,
            unneeded_objects: swept.unneeded,
            removed_objects: swept.objects,
            removed_images: swept.images,
            removed_logs: swept.logs,
            removed_bytes: swept.bytes,
            longest_hold_micros: swept.longest_hold_micros,
        }
    }
}

/// All objects are read from now on, or were already.
#[derive(Debug, Serialize)]
pub(crate) struct ScrubBegun {
    schema: &'static str,
    scrub: Scrub,
}

impl ScrubBegun {
    /// How it fares.
    pub(crate) fn new(scrub: &ScrubStatus) -> Self {
        Self {
            schema: "belljar.scrub/v1",
            scrub: scrub.into(),
        }
    }
}

/// What is pinned, or was until now.
#[derive(Debug, Serialize)]
pub(crate) struct Pinned<'a> {
    schema: &'static str,
    pin: Pin<'a>,
}

impl<'a> Pinned<'a> {
    /// Of a pin.
    pub(crate) fn new(pin: &'a PinRecord) -> Self {
        Self {
            schema: "belljar.pin/v1",
            pin: pin.into(),
        }
    }
}

impl From<StorePart> for Part {
    fn from(part: StorePart) -> Self {
        Self {
            files: part.files,
            bytes: part.bytes,
        }
    }
}

impl<'a> From<&'a KeptBuilds> for Retention<'a> {
    fn from(kept: &'a KeptBuilds) -> Self {
        Self {
            project: kept.project.as_ref().map(|project| project.as_str()),
            builds: kept.builds,
            seconds: kept.seconds,
            bytes: kept.bytes,
        }
    }
}

impl From<&ScrubStatus> for Scrub {
    fn from(scrub: &ScrubStatus) -> Self {
        Self {
            running: scrub.running,
            started: scrub.started,
            ended: scrub.ended,
            objects: scrub.objects,
            bytes: scrub.bytes,
            damaged: scrub.damaged,
            unread: scrub.unread,
        }
    }
}

impl<'a> From<&'a PinRecord> for Pin<'a> {
    fn from(pin: &'a PinRecord) -> Self {
        Self {
            pin: pin_name(pin.number),
            project: pin.project.as_str(),
            target: pin.target.to_string(),
            reason: &pin.reason,
            creator: &pin.creator,
            created: pin.created,
        }
    }
}
