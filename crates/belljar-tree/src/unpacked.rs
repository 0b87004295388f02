//! How much an encoded message would be in memory, told before it is unpacked.

use belljar_core::{Invalid, bounds};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Field numbers of `build.bazel.remote.execution.v2` (remote_execution.proto).
mod tag {
    pub(super) const FILES: u32 = 1;
    pub(super) const SYMLINKS: u32 = 3;
    pub(super) const OF_DIRECTORY: u32 = 5;
    pub(super) const OF_FILE: u32 = 6;
    pub(super) const OF_SYMLINK: u32 = 4;
}

/// Looks whether an encoded `Directory` can be unpacked with all its properties: an empty one of these has two bytes
/// here, and some thirty times as many in memory, so that each counts as an entry.
///
/// # Errors
/// When there are more than [`bounds::TREE_ENTRIES`] of both, or these bytes are no message.
pub fn check_unpacked_size(bytes: &[u8]) -> Result<(), Invalid> {
    let malformed = |e| Invalid::new(format!("not a Directory message: {e}"));
    let count = count_all(bytes).map_err(malformed)?;
    if count > bounds::TREE_ENTRIES {
        return Err(too_many(count));
    }
    Ok(())
}

pub(crate) fn too_many(entries: usize) -> Invalid {
    Invalid::new(format!(
        "{entries} entries, with their properties; {} are allowed",
        bounds::TREE_ENTRIES
    ))
}

/// How many entries and properties the encoded `Directory` would have, without unpacking it.
fn count_all(bytes: &[u8]) -> Result<usize, DecodeError> {
    Ok(count_entries(bytes)?.saturating_add(count_properties(bytes)?))
}

/// How many fields there are in an encoded message.
fn count_entries(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while next_field(&mut bytes)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// How many entries and properties the directories of the encoded `Tree` would have together, without unpacking it.
pub(crate) fn count_tree_entries(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut count: usize = 0;
    while let Some((_, directory)) = next_field(&mut bytes)? {
        count = count
            .saturating_add(1)
            .saturating_add(count_all(directory)?);
    }
    Ok(count)
}

/// Takes one field off the front of an encoded message; its tag and content, which is empty unless the field is
/// one of the messages or strings of which everything here consists.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(bytes)?;
    let before = *bytes;
    skip_field(wire_type, tag, bytes, DecodeContext::default())?;
    if wire_type != WireType::LengthDelimited {
        return Ok(Some((tag, &[])));
    }
    let mut content = &before[..before.len() - bytes.len()];
    decode_varint(&mut content)?;
    Ok(Some((tag, content)))
}

fn count_properties(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut count: usize = 0;
    while let Some((tag, content)) = next_field(&mut bytes)? {
        let more = match tag {
            tag::FILES => count_of(content, tag::OF_FILE)?,
            tag::SYMLINKS => count_of(content, tag::OF_SYMLINK)?,
            tag::OF_DIRECTORY => count_entries(content)?,
            _ => 0,
        };
        count = count.saturating_add(more);
    }
    Ok(count)
}

/// How many fields there are in the fields of this tag of an encoded node.
fn count_of(mut node: &[u8], due: u32) -> Result<usize, DecodeError> {
    let mut count: usize = 0;
    while let Some((tag, content)) = next_field(&mut node)? {
        if tag == due {
            count = count.saturating_add(count_entries(content)?);
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of this tag that holds these bytes.
    fn field(tag: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(tag, &content.to_vec(), &mut bytes);
        bytes
    }

    #[test]
    fn properties_count_as_entries_wherever_they_are() {
        let most = bounds::TREE_ENTRIES;
        let properties = |count: usize| field(1, b"").repeat(count);
        let file = |count| field(1, &field(6, &properties(count)));
        let link = |count| field(3, &field(4, &properties(count)));
        let own = |count| field(5, &properties(count));
        for (name, bytes, fits) in [
            ("none", Vec::new(), true),
            ("of a file", file(most - 1), true),
            ("too many of a file", file(most), false),
            ("of a link", link(most - 1), true),
            ("too many of a link", link(most), false),
            ("of the directory", own(most - 1), true),
            ("too many of the directory", own(most), false),
            (
                "of both",
                [file(most / 2), link(most / 2 - 2)].concat(),
                true,
            ),
            (
                "too many of both",
                [file(most / 2), link(most / 2)].concat(),
                false,
            ),
            // A node's other fields are none, nor is what a directory below might be taken for.
            (
                "a file's name",
                field(1, &field(1, &properties(most))),
                true,
            ),
            ("a directory", field(2, &field(6, &properties(most))), true),
            // Properties that are given twice are one message in memory, with all that is in either.
            (
                "in two parts",
                field(
                    1,
                    &[
                        field(6, &properties(most / 2)),
                        field(6, &properties(most / 2)),
                    ]
                    .concat(),
                ),
                false,
            ),
            ("entries alone", field(1, b"").repeat(most), true),
            ("too many entries", field(1, b"").repeat(most + 1), false),
            ("cut", vec![0x0a, 5, 1], false),
        ] {
            assert_eq!(check_unpacked_size(&bytes).is_ok(), fits, "{name}");
        }
    }
}
