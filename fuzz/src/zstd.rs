use std::io::BufReader;

#[allow(dead_code, reason = "belljard uses more of it")]
#[path = "../../crates/belljard/src/services/zstd.rs"]
mod packed;

use packed::{Malformed, pack_all, unpack, unpack_all};

/// Content that a client has packed, behind the size that it announces, in two bytes, the lower one first, in units of 16.
pub fn zstd(bytes: &[u8]) {
    zstd_is_read(bytes);
}

/// The same; says whether it is unpacked.
pub fn zstd_is_read(bytes: &[u8]) -> bool {
    let Some((size, bytes)) = bytes.split_first_chunk() else {
        return false;
    };
    let size = u64::from(u16::from_le_bytes(*size)) * 16;
    let whole = unpack_all(bytes, size);
    // As it comes over a connection: in pieces that end anywhere.
    let (mut content, mut last) = (Vec::new(), 0);
    let streamed = unpack(BufReader::with_capacity(7, bytes), size, |piece| {
        content.extend_from_slice(&piece);
        last = piece.len();
        Ok::<_, Malformed>(())
    });
    assert!(
        content.len() as u64 <= size,
        "no more is given than is announced"
    );
    assert_eq!(whole.is_ok(), streamed.is_ok());
    let Ok(whole) = whole else {
        return false;
    };
    assert!(whole == content && (whole.is_empty() || last > 0));
    let again = unpack_all(&pack_all(&whole), size);
    assert!(again.is_ok_and(|again| again == whole));
    true
}
