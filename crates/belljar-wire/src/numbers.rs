use belljar_core::{Digest, Invalid, ObjectId, Timestamp};

use crate::v1;

/// A figure that the domain holds as an unsigned number and protobuf, by AIP-141, as a signed one.
pub(crate) fn unsigned<T: TryFrom<i64>>(field: &str, figure: i64) -> Result<T, Invalid> {
    T::try_from(figure).map_err(|_| Invalid::field(field, format!("{figure} is out of range")))
}

/// The way back. Figures that large do not exist (see `belljar_core::bounds`): the end of the range
/// stands for them.
pub(crate) fn signed(figure: impl TryInto<i64>) -> i64 {
    figure.try_into().unwrap_or(i64::MAX)
}

/// As [`signed`], for the smaller type.
pub(crate) fn small(figure: u32) -> i32 {
    i32::try_from(figure).unwrap_or(i32::MAX)
}

/// A message field that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::field(field, "missing; it is required"))
}

/// The parsed form of a field that may be absent.
pub(crate) fn optional<A, B>(
    field: &str,
    value: Option<A>,
    parse: impl FnOnce(A) -> Result<B, Invalid>,
) -> Result<Option<B>, Invalid> {
    value.map(parse).transpose().map_err(|e| e.within(field))
}

impl TryFrom<v1::Digest> for ObjectId {
    type Error = Invalid;

    fn try_from(digest: v1::Digest) -> Result<Self, Invalid> {
        Ok(Self {
            digest: Digest::from_hex(&digest.hash).map_err(|e| e.within("hash"))?,
            size: unsigned("size_bytes", digest.size_bytes)?,
        })
    }
}

impl From<ObjectId> for v1::Digest {
    fn from(object: ObjectId) -> Self {
        Self {
            hash: object.digest.to_hex(),
            size_bytes: signed(object.size),
        }
    }
}

/// A moment, in whole milliseconds; what is finer is dropped.
pub(crate) fn timestamp(time: prost_types::Timestamp) -> Result<Timestamp, Invalid> {
    let seconds: u64 = unsigned("seconds", time.seconds)?;
    let nanos: u32 = unsigned("nanos", i64::from(time.nanos))?;
    let millis = seconds
        .checked_mul(1000)
        .and_then(|m| m.checked_add(u64::from(nanos / 1_000_000)));
    millis
        .filter(|_| nanos < 1_000_000_000)
        .map(Timestamp::from_millis)
        .ok_or_else(|| Invalid::new("not a time between 1970 and 9999"))
}

/// A moment as protobuf has it.
pub type ProtoTime = prost_types::Timestamp;

/// The way back.
pub fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    prost_types::Timestamp {
        seconds: signed(millis / 1000),
        // Below 1000 * 1,000,000, hence within the type.
        nanos: i32::try_from(millis % 1000 * 1_000_000).unwrap_or_default(),
    }
}
