use std::fmt;
use std::str::FromStr;

use belljar_core::{BuildId, Digest, Invalid, ObjectId, ProjectId, Timestamp};

use crate::numbers::{optional, required, timestamp, unsigned};
use crate::{build_name, parse_build_name, parse_project_name, v1};
use v1::pin::Target as Wire;

/// What the store takes, has and keeps: the parsed form of `belljar.v1.StoreStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Objects.
    pub objects: StorePart,
    /// Mountable images of trees.
    pub images: StorePart,
    /// Logs.
    pub logs: StorePart,
    /// Objects that were found damaged and put aside.
    pub quarantine: StorePart,
    /// Directories, marks and the rest.
    pub other: StorePart,
    /// Bytes of the store's file system.
    pub total: u64,
    /// Bytes of it that are free for the store.
    pub available: u64,
    /// Bytes of these that are kept for builds that run.
    pub reserve: u64,
    /// When so many percent are used, what nobody needs is removed.
    pub high_percent: u8,
    /// Until no more than so many are.
    pub low_percent: u8,
    /// How long an object stays that nothing leads to, in seconds.
    pub lease: u64,
    /// How long one stays that was given, whatever else, in seconds.
    pub grace: u64,
    /// How builds are kept, by project; first what holds for those that are not named.
    pub retention: Vec<KeptBuilds>,
    /// How the reading of all objects fares.
    pub scrub: ScrubStatus,
    /// Damaged objects that were put aside.
    pub damaged: Vec<DamagedObject>,
    /// When counting began, of which files and damaged objects came.
    pub counted: Timestamp,
}

/// Files of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorePart {
    /// How many.
    pub files: u64,
    /// Bytes that they take on disk.
    pub bytes: u64,
}

/// How long builds of a project are kept with what they left; none: without a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBuilds {
    /// Which; none: all that are not named.
    pub project: Option<ProjectId>,
    /// Most builds.
    pub builds: Option<u64>,
    /// Longest time after the end, in seconds.
    pub seconds: Option<u64>,
    /// Most bytes of artifacts and logs.
    pub bytes: Option<u64>,
}

/// How the reading of all objects and images fares: the parsed form of `belljar.v1.Scrub`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Whether it is under way.
    pub running: bool,
    /// When it last began, since the store's process started.
    pub started: Option<Timestamp>,
    /// When it last ended.
    pub ended: Option<Timestamp>,
    /// Objects and images read.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Those that were damaged.
    pub damaged: u64,
    /// Those that could not be read.
    pub unread: u64,
}

/// An object, or the mountable image of a tree, that was found damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    /// What it should have been, or which tree.
    pub digest: Digest,
    /// Whether it is an image, which is made anew from its tree.
    pub image: bool,
    /// Whether it is whole again, given or made anew.
    pub mended: bool,
    /// Builds that need it.
    pub builds: Vec<BuildId>,
}

/// What came of a sweep: the parsed form of `belljar.v1.CollectGarbageResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Builds that were given up.
    pub builds: u64,
    /// Objects that something leads to.
    pub reached: u64,
    /// Objects that nobody needs.
    pub unneeded: u64,
    /// Those of them that were removed.
    pub objects: u64,
    /// Images of trees that were removed.
    pub images: u64,
    /// Files of logs that were removed.
    pub logs: u64,
    /// Bytes that all these took on disk.
    pub bytes: u64,
    /// Longest time that nobody could submit or ask for blobs, in microseconds.
    pub longest_hold_micros: u64,
}

/// Something that stays: the parsed form of `belljar.v1.Pin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// Its number.
    pub number: u64,
    /// To which project it belongs.
    pub project: ProjectId,
    /// What stays.
    pub target: PinTarget,
    /// Why.
    pub reason: String,
    /// The principal who made it.
    pub creator: String,
    /// When.
    pub created: Timestamp,
}

/// What can be pinned, written `builds/ID`, `trees/HASH/SIZE` or `blobs/HASH/SIZE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinTarget {
    /// A build with its inputs, artifacts and evidence.
    Build(BuildId),
    /// A tree with all that is in it.
    Tree(ObjectId),
    /// One object.
    Object(ObjectId),
}

/// Resource name of a pin.
pub fn pin_name(number: u64) -> String {
    format!("pins/{number}")
}

/// The number in a pin's resource name, or the number alone.
///
/// # Errors
/// When it is none.
pub fn parse_pin_name(name: &str) -> Result<u64, Invalid> {
    let number = name.strip_prefix("pins/").unwrap_or(name);
    number
        .parse()
        .map_err(|_| Invalid::new("not a pin's name, pins/NUMBER"))
}

impl fmt::Display for PinTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, object) = match self {
            Self::Build(id) => return f.write_str(&build_name(id)),
            Self::Tree(tree) => ("trees", tree),
            Self::Object(object) => ("blobs", object),
        };
        write!(f, "{kind}/{}/{}", object.digest.to_hex(), object.size)
    }
}

impl FromStr for PinTarget {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let object = |rest: &str| {
            let (hash, size) = rest.split_once('/')?;
            Some(ObjectId {
                digest: Digest::from_hex(hash).ok()?,
                size: size.parse().ok()?,
            })
        };
        let found = match text.split_once('/') {
            None => BuildId::new(text).ok().map(Self::Build),
            Some(("builds", id)) => BuildId::new(id).ok().map(Self::Build),
            Some(("trees", rest)) => object(rest).map(Self::Tree),
            Some(("blobs", rest)) => object(rest).map(Self::Object),
            Some(_) => None,
        };
        let why = "not builds/ID, trees/HASH/SIZE or blobs/HASH/SIZE (HASH: SHA-256, SIZE: bytes)";
        found.ok_or_else(|| Invalid::new(why))
    }
}

impl From<&PinTarget> for Wire {
    fn from(target: &PinTarget) -> Self {
        match target {
            PinTarget::Build(id) => Self::Build(build_name(id)),
            PinTarget::Tree(tree) => Self::Tree((*tree).into()),
            PinTarget::Object(object) => Self::Object((*object).into()),
        }
    }
}

impl TryFrom<Wire> for PinTarget {
    type Error = Invalid;

    fn try_from(target: Wire) -> Result<Self, Invalid> {
        Ok(match target {
            Wire::Build(name) => {
                Self::Build(parse_build_name(&name).map_err(|e| e.within("build"))?)
            }
            Wire::Tree(tree) => Self::Tree(tree.try_into().map_err(|e: Invalid| e.within("tree"))?),
            Wire::Object(object) => {
                let object = ObjectId::try_from(object);
                Self::Object(object.map_err(|e| e.within("object"))?)
            }
        })
    }
}

impl TryFrom<v1::Pin> for PinRecord {
    type Error = Invalid;

    fn try_from(pin: v1::Pin) -> Result<Self, Invalid> {
        let created = required("create_time", pin.create_time)?;
        Ok(Self {
            number: parse_pin_name(&pin.name).map_err(|e| e.within("name"))?,
            project: parse_project_name(&pin.project)?,
            target: required("target", pin.target)?.try_into()?,
            reason: pin.reason,
            creator: pin.creator,
            created: timestamp(created).map_err(|e| e.within("create_time"))?,
        })
    }
}

impl TryFrom<v1::Scrub> for ScrubStatus {
    type Error = Invalid;

    fn try_from(scrub: v1::Scrub) -> Result<Self, Invalid> {
        Ok(Self {
            running: scrub.running,
            started: optional("start_time", scrub.start_time, timestamp)?,
            ended: optional("end_time", scrub.end_time, timestamp)?,
            objects: unsigned("objects", scrub.objects)?,
            bytes: unsigned("bytes", scrub.bytes)?,
            damaged: unsigned("damaged", scrub.damaged)?,
            unread: unsigned("unread", scrub.unread)?,
        })
    }
}

impl TryFrom<v1::CollectGarbageResponse> for Swept {
    type Error = Invalid;

    fn try_from(swept: v1::CollectGarbageResponse) -> Result<Self, Invalid> {
        Ok(Self {
            builds: unsigned("builds", swept.builds)?,
            reached: unsigned("reached_objects", swept.reached_objects)?,
            unneeded: unsigned("unneeded_objects", swept.unneeded_objects)?,
            objects: unsigned("removed_objects", swept.removed_objects)?,
            images: unsigned("removed_images", swept.removed_images)?,
            logs: unsigned("removed_logs", swept.removed_logs)?,
            bytes: unsigned("removed_bytes", swept.removed_bytes)?,
            longest_hold_micros: unsigned("longest_hold_micros", swept.longest_hold_micros)?,
        })
    }
}

impl TryFrom<v1::StoreStatus> for StoreStatus {
    type Error = Invalid;

    fn try_from(status: v1::StoreStatus) -> Result<Self, Invalid> {
        let percent = |field: &str, figure: i32| unsigned(field, i64::from(figure));
        Ok(Self {
            objects: part("objects", status.objects)?,
            images: part("images", status.images)?,
            logs: part("logs", status.logs)?,
            quarantine: part("quarantine", status.quarantine)?,
            other: part("other", status.other)?,
            total: unsigned("total_bytes", status.total_bytes)?,
            available: unsigned("available_bytes", status.available_bytes)?,
            reserve: unsigned("reserve_bytes", status.reserve_bytes)?,
            high_percent: percent("high_percent", status.high_percent)?,
            low_percent: percent("low_percent", status.low_percent)?,
            lease: unsigned("lease_seconds", status.lease_seconds)?,
            grace: unsigned("grace_seconds", status.grace_seconds)?,
            retention: each("retention", status.retention, kept)?,
            scrub: required("scrub", status.scrub)?
                .try_into()
                .map_err(|e: Invalid| e.within("scrub"))?,
            damaged: each("damaged", status.damaged, damaged)?,
            counted: timestamp(required("count_time", status.count_time)?)
                .map_err(|e| e.within("count_time"))?,
        })
    }
}

fn part(field: &str, part: Option<v1::StorePart>) -> Result<StorePart, Invalid> {
    let part = required(field, part)?;
    Ok(StorePart {
        files: unsigned("files", part.files).map_err(|e| e.within(field))?,
        bytes: unsigned("bytes", part.bytes).map_err(|e| e.within(field))?,
    })
}

fn each<A, B>(
    field: &str,
    all: Vec<A>,
    parse: impl Fn(A) -> Result<B, Invalid>,
) -> Result<Vec<B>, Invalid> {
    let all = all.into_iter().enumerate();
    all.map(|(index, one)| parse(one).map_err(|e| e.within(format!("{field}[{index}]"))))
        .collect()
}

fn kept(retention: v1::Retention) -> Result<KeptBuilds, Invalid> {
    let limit = |field: &str, figure| Ok(Some(unsigned(field, figure)?).filter(|most| *most > 0));
    let project = Some(retention.project.as_str()).filter(|project| !project.is_empty());
    Ok(KeptBuilds {
        project: project.map(parse_project_name).transpose()?,
        builds: limit("builds", retention.builds)?,
        seconds: limit("seconds", retention.seconds)?,
        bytes: limit("bytes", retention.bytes)?,
    })
}

fn damaged(damaged: v1::Damaged) -> Result<DamagedObject, Invalid> {
    let builds = |name: String| parse_build_name(&name);
    Ok(DamagedObject {
        digest: Digest::from_hex(&damaged.hash).map_err(|e| e.within("hash"))?,
        image: damaged.image,
        mended: damaged.mended,
        builds: each("builds", damaged.builds, builds)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_is_written_and_read_alike() {
        let id = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
        let object = ObjectId::of(b"x");
        for target in [
            PinTarget::Build(id.clone()),
            PinTarget::Tree(object),
            PinTarget::Object(object),
        ] {
            assert_eq!(target.to_string().parse(), Ok(target.clone()));
            assert_eq!(PinTarget::try_from(Wire::from(&target)), Ok(target));
        }
        assert_eq!(id.as_str().parse(), Ok(PinTarget::Build(id)));
        let hex = object.digest.to_hex();
        for bad in [
            String::new(),
            format!("trees/{hex}"),
            format!("trees/{hex}/-1"),
            format!("objects/{hex}/1"),
            "builds/x".to_owned(),
        ] {
            assert!(bad.parse::<PinTarget>().is_err(), "{bad}");
        }
        assert_eq!(parse_pin_name(&pin_name(7)), Ok(7));
        assert_eq!(parse_pin_name("7"), Ok(7));
        assert!(parse_pin_name("pins/-7").is_err());
    }

    #[test]
    fn no_limit_is_none_and_a_negative_one_is_refused_by_field() {
        let of = |builds| {
            kept(v1::Retention {
                builds,
                ..v1::Retention::default()
            })
        };
        let unlimited = of(0).unwrap();
        assert_eq!((unlimited.project, unlimited.builds), (None, None));
        assert_eq!(of(7).unwrap().builds, Some(7));
        let error = each(
            "retention",
            vec![v1::Retention {
                builds: -1,
                ..v1::Retention::default()
            }],
            kept,
        );
        assert_eq!(error.unwrap_err().field, "retention[0].builds");
    }
}
