//! The encoding of messages between two Belljar processes: one `SOCK_SEQPACKET` message each, at most
//! [`bounds::FRAME_BYTES`] long, whose first byte says what follows.
//!
//! | first byte | rest |
//! |---|---|
//! | `J` | one JSON value, unknown fields refused |
//! | `D` | content bytes, at most [`bounds::CHUNK_BYTES`] |

use std::io::IoSlice;

use belljar_core::{Invalid, bounds};
use serde::Serialize;
use serde::de::DeserializeOwned;

const CONTROL: u8 = b'J';
const DATA: u8 = b'D';

/// One received message.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message to be read with [`decode`].
    Control(&'a [u8]),
    /// A piece of content.
    Data(&'a [u8]),
}

/// Tells what kind of message `bytes` are.
///
/// # Errors
/// Empty or oversized messages and unknown kinds.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, Invalid> {
    if bytes.len() > bounds::FRAME_BYTES {
        return Err(Invalid::new(format!(
            "a frame of {} bytes; {} are allowed",
            bytes.len(),
            bounds::FRAME_BYTES
        )));
    }
    match bytes.split_first() {
        Some((&CONTROL, rest)) => Ok(Frame::Control(rest)),
        Some((&DATA, rest)) if rest.len() <= bounds::CHUNK_BYTES => Ok(Frame::Data(rest)),
        Some((&DATA, _)) => Err(Invalid::new("a data frame is too large")),
        Some((kind, _)) => Err(Invalid::new(format!("a frame of unknown kind {kind:#04x}"))),
        None => Err(Invalid::new("an empty frame")),
    }
}

/// Writes a control message.
///
/// # Errors
/// When it would be larger than [`bounds::FRAME_BYTES`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Invalid> {
    let mut bytes = vec![CONTROL];
    serde_json::to_writer(&mut bytes, message).map_err(|e| Invalid::new(e.to_string()))?;
    if bytes.len() > bounds::FRAME_BYTES {
        return Err(Invalid::new(format!(
            "a message of {} bytes; {} are allowed",
            bytes.len(),
            bounds::FRAME_BYTES
        )));
    }
    Ok(bytes)
}

/// Reads the rest of a control message.
///
/// # Errors
/// When it is not a `T`.
pub fn decode<T: DeserializeOwned>(control: &[u8]) -> Result<T, Invalid> {
    serde_json::from_slice(control)
        .map_err(|e| Invalid::new(format!("not a message of this connection: {e}")))
}

/// A data message around a piece of content, in two parts: the piece is not copied.
///
/// # Errors
/// When the piece is larger than [`bounds::CHUNK_BYTES`].
pub fn data(piece: &[u8]) -> Result<[IoSlice<'_>; 2], Invalid> {
    if piece.len() > bounds::CHUNK_BYTES {
        return Err(Invalid::new(
            "a piece of content is too large for one frame",
        ));
    }
    Ok([IoSlice::new(&[DATA]), IoSlice::new(piece)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{signer, spawner, store, unpack};
    use proptest::prelude::*;

    #[test]
    fn kinds_and_bounds() {
        assert_eq!(parse(b"Dabc"), Ok(Frame::Data(b"abc")));
        assert_eq!(parse(b"J{}"), Ok(Frame::Control(b"{}")));
        assert!(parse(b"").is_err());
        assert!(parse(b"Xabc").is_err());
        assert!(parse(&vec![DATA; bounds::CHUNK_BYTES + 2]).is_err());
        assert!(parse(&vec![CONTROL; bounds::FRAME_BYTES + 1]).is_err());
        assert!(data(&vec![0; bounds::CHUNK_BYTES + 1]).is_err());
        let whole = vec![7; bounds::CHUNK_BYTES];
        let message: Vec<u8> = data(&whole)
            .unwrap()
            .iter()
            .flat_map(|part| part.to_vec())
            .collect();
        assert_eq!(parse(&message), Ok(Frame::Data(&whole)));
    }

    proptest! {
        #[test]
        fn hostile_frames_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Frame::Control(rest)) = parse(&bytes) {
                let _ = decode::<spawner::Request>(rest);
                let _ = decode::<store::Request>(rest);
                let _ = decode::<signer::Request>(rest);
                let _ = decode::<unpack::Said>(rest);
            }
        }
    }
}
