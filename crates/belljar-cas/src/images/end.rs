//! What follows the tree in an image file: the objects that it names, and a digest of everything before.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use belljar_core::{Digest, Hasher, ObjectId, bounds};

use crate::tree::Measure;

/// Begins the end of an image file, which a kernel does not look at.
const MAGIC: &[u8; 16] = b"belljar-image/v1";
/// After the objects: magic, their count, the tree's entries, its bytes of content, digest of all before.
pub(super) const FOOTER: usize = 16 + 3 * 8 + 32;
/// One object at the end of an image: digest and size.
const OBJECT: usize = 32 + 8;

/// The end of an image file.
pub(super) struct End {
    pub(super) measure: Measure,
    pub(super) objects: Vec<ObjectId>,
}

/// Puts it behind the tree.
pub(super) fn append(image: &mut Vec<u8>, measure: Measure, objects: &[ObjectId]) {
    for object in objects {
        image.extend(object.digest.as_bytes());
        image.extend(object.size.to_le_bytes());
    }
    image.extend(MAGIC);
    for number in [objects.len() as u64, measure.entries, measure.bytes] {
        image.extend(number.to_le_bytes());
    }
    let digest = Digest::of(image);
    image.extend(digest.as_bytes());
}

/// The end of an image, if the whole of it has the digest at its end. `told` hears how many bytes each piece has.
pub(super) fn read_whole(file: &File, told: &mut dyn FnMut(usize)) -> io::Result<Option<End>> {
    let Some(covered) = file.metadata()?.len().checked_sub(32) else {
        return Ok(None);
    };
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    let mut content = file.take(covered);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                told(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut digest = [0; 32];
    file.read_exact_at(&mut digest, covered)?;
    if hasher.finish().as_bytes() != &digest {
        return Ok(None);
    }
    read(file)
}

/// The end of an image, which is believed.
pub(super) fn read(file: &File) -> io::Result<Option<End>> {
    let Some(at) = file.metadata()?.len().checked_sub(FOOTER as u64) else {
        return Ok(None);
    };
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, at)?;
    let number = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&footer[16 + 8 * index..24 + 8 * index]);
        u64::from_le_bytes(bytes)
    };
    let count = usize::try_from(number(0)).unwrap_or(usize::MAX);
    let begin = count
        .checked_mul(OBJECT)
        .and_then(|length| at.checked_sub(length as u64));
    let Some(begin) = begin.filter(|_| &footer[..16] == MAGIC && count <= bounds::TREE_ENTRIES)
    else {
        return Ok(None);
    };
    let mut list = vec![0; count * OBJECT];
    file.read_exact_at(&mut list, begin)?;
    let object = |bytes: &[u8]| {
        let (mut digest, mut size) = ([0; 32], [0; 8]);
        digest.copy_from_slice(&bytes[..32]);
        size.copy_from_slice(&bytes[32..]);
        ObjectId {
            digest: Digest::from_bytes(digest),
            size: u64::from_le_bytes(size),
        }
    };
    Ok(Some(End {
        measure: Measure::told(number(1), number(2)),
        objects: list.chunks_exact(OBJECT).map(object).collect(),
    }))
}
