//! The file: a magic line, the directory that it is about, an entry for each file, and the SHA-256 of all that.
//! Numbers are little-endian; texts have their length before them, in two bytes.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use belljar_core::{Digest, bounds};

use super::{Entry, Fingerprint};

/// What it begins with. Another form gets another number.
const MAGIC: &[u8] = b"belljar remembered digests 1\n";
const CHECKSUM: usize = 32;

/// The file's content; none if it would be larger than is read.
pub(super) fn encode(directory: &Path, entries: &[(&str, Entry)]) -> Option<Vec<u8>> {
    let mut bytes = MAGIC.to_vec();
    text(&mut bytes, directory.as_os_str().as_bytes())?;
    bytes.extend(u32::try_from(entries.len()).ok()?.to_le_bytes());
    for (
        path,
        Entry {
            fingerprint,
            digest,
        },
    ) in entries
    {
        text(&mut bytes, path.as_bytes())?;
        bytes.extend(fingerprint.device.to_le_bytes());
        bytes.extend(fingerprint.inode.to_le_bytes());
        bytes.extend(fingerprint.mode.to_le_bytes());
        bytes.extend(fingerprint.size.to_le_bytes());
        for (seconds, nanoseconds) in [fingerprint.modified, fingerprint.changed] {
            bytes.extend(seconds.to_le_bytes());
            bytes.extend(nanoseconds.to_le_bytes());
        }
        bytes.extend(digest.as_bytes());
    }
    bytes.extend(Digest::of(&bytes).as_bytes());
    (bytes.len() <= bounds::REMEMBERED_BYTES).then_some(bytes)
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    bytes.extend(u16::try_from(text.len()).ok()?.to_le_bytes());
    bytes.extend(text);
    Some(())
}

/// What the file says about `directory`; none unless it is whole, and about that.
pub(super) fn decode(directory: &Path, bytes: &[u8]) -> Option<HashMap<String, Entry>> {
    let (bytes, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    if Digest::of(bytes).as_bytes() != checksum {
        return None;
    }
    let mut rest = Rest(bytes.strip_prefix(MAGIC)?);
    if rest.text()? != directory.as_os_str().as_bytes() {
        return None;
    }
    let count = usize::try_from(u32::from_le_bytes(rest.array()?)).ok()?;
    if count > bounds::TREE_ENTRIES {
        return None;
    }
    let mut entries = HashMap::with_capacity(count);
    for _ in 0..count {
        let path = str::from_utf8(rest.text()?).ok()?.to_owned();
        let fingerprint = Fingerprint {
            device: rest.number()?,
            inode: rest.number()?,
            mode: u32::from_le_bytes(rest.array()?),
            size: rest.number()?,
            modified: rest.time()?,
            changed: rest.time()?,
        };
        let digest = Digest::from_bytes(rest.array()?);
        entries.insert(
            path,
            Entry {
                fingerprint,
                digest,
            },
        );
    }
    rest.0.is_empty().then_some(entries)
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<(i64, u64)> {
        Some((i64::from_le_bytes(self.array()?), self.number()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(self.array()?);
        self.take(length.into())
    }
}
