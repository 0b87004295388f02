//! zstd (RFC 8878) in both directions, within bounds: of what hostile bytes can make this process keep in
//! memory, and of what can come out of them. Blocking; see [`Unpacker`](super::unpacker::Unpacker) for tasks that must not block.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};

use belljar_core::bounds;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress, compress_to_vec};

/// How much is unpacked before it is handed on.
pub(super) const PIECE: usize = bounds::CHUNK_BYTES * 2;

/// Why packed content is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it is not zstd: {0}")]
    Frame(String),
    #[error(
        "a zstd window of {found} bytes; {most} are allowed. Pack it without long-distance matching"
    )]
    Window { found: u64, most: u64 },
    #[error("it was packed with a zstd dictionary; pack it without one")]
    Dictionary,
    #[error("unpacked it has more than the {0} bytes that are due")]
    TooLong(u64),
    #[error("packed it has more bytes than {0} bytes can need")]
    TooMuchPacked(u64),
    /// Nobody wants it any more.
    #[error("nobody takes it")]
    Gone,
}

impl From<FrameDecoderError> for Malformed {
    fn from(error: FrameDecoderError) -> Self {
        match error {
            FrameDecoderError::WindowSizeTooBig { requested, max } => Self::Window {
                found: requested,
                most: max,
            },
            FrameDecoderError::DictNotProvided { .. } => Self::Dictionary,
            other => Self::Frame(other.to_string()),
        }
    }
}

/// The most that `size` bytes can need packed, generously: zstd itself adds at most one part in 256, and
/// clients may cut what they pack into small frames.
fn most_packed(size: u64) -> u64 {
    size.saturating_add(size / 16).saturating_add(64 * 1024)
}

/// Unpacks every frame in `packed` and hands on what comes out, at most `size` bytes.
pub(super) fn unpack(
    packed: impl BufRead,
    size: u64,
    mut take: impl FnMut(Vec<u8>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let most = most_packed(size);
    let mut packed = packed.take(most + 1);
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(bounds::ZSTD_WINDOW_BYTES);
    let mut left = size;
    while has_more(&mut packed)? {
        if !begin_frame(&mut decoder, &mut packed)? {
            continue;
        }
        if decoder.content_size() > left {
            return Err(Malformed::TooLong(size));
        }
        let mut finished = false;
        while !finished {
            let step = BlockDecodingStrategy::UptoBytes(PIECE);
            finished = decoder.decode_blocks(&mut packed, step)?;
            let piece = decoder.collect().unwrap_or_default();
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or(Malformed::TooLong(size))?;
            if !piece.is_empty() {
                take(piece)?;
            }
        }
    }
    match packed.limit() {
        0 => Err(Malformed::TooMuchPacked(size)),
        _ => Ok(()),
    }
}

fn has_more(packed: &mut impl BufRead) -> Result<bool, Malformed> {
    let buffer = packed.fill_buf();
    buffer
        .map(|bytes| !bytes.is_empty())
        .map_err(|e| Malformed::Frame(e.to_string()))
}

/// Reads the beginning of a frame. A skippable one (RFC 8878, 3.1.2) is skipped.
fn begin_frame(decoder: &mut FrameDecoder, packed: &mut impl Read) -> Result<bool, Malformed> {
    let length = match decoder.reset(&mut *packed) {
        Ok(()) => return Ok(true),
        Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
            length,
            ..
        })) => u64::from(length),
        Err(error) => return Err(error.into()),
    };
    match io::copy(&mut packed.take(length), &mut io::sink()) {
        Ok(skipped) if skipped == length => Ok(false),
        _ => Err(Malformed::Frame("a skippable frame is cut".to_owned())),
    }
}

/// Unpacks what is in memory: exactly `size` bytes, which the caller has bounded.
pub(super) fn unpack_all(packed: &[u8], size: u64) -> Result<Vec<u8>, Malformed> {
    let mut content = Vec::new();
    unpack(packed, size, |piece| {
        content.extend_from_slice(&piece);
        Ok(())
    })?;
    Ok(content)
}

/// Packs what is in memory, in one frame.
pub(super) fn pack_all(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

/// Packs all of `content` in one frame.
pub(super) fn pack(content: impl Read, packed: impl Write) -> io::Result<()> {
    // The encoder panics when its source or drain fails. So it sees an end instead, and nothing of what it
    // made of that is used.
    let first = RefCell::new(None);
    let source = Patient {
        inner: content,
        first: &first,
    };
    let drain = Patient {
        inner: packed,
        first: &first,
    };
    compress(source, drain, CompressionLevel::Fastest);
    match first.into_inner() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Never fails: notes the first error, and is at its end from then on.
struct Patient<'a, T> {
    inner: T,
    first: &'a RefCell<Option<io::Error>>,
}

impl<T> Patient<'_, T> {
    /// The result of a step, or `otherwise` after an error.
    fn step(
        &mut self,
        otherwise: usize,
        mut step: impl FnMut(&mut T) -> io::Result<usize>,
    ) -> usize {
        let mut first = self.first.borrow_mut();
        if first.is_some() {
            return otherwise;
        }
        loop {
            match step(&mut self.inner) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    *first = Some(error);
                    return otherwise;
                }
            }
        }
    }
}

impl<T: Read> Read for Patient<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.step(0, |inner| inner.read(buffer)))
    }
}

impl<T: Write> Write for Patient<'_, T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(self.step(buffer.len(), |inner| {
            inner.write_all(buffer).map(|()| buffer.len())
        }))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(length: usize) -> Vec<u8> {
        // Text-like: repeats, but not only.
        let mut state = 1_u64;
        let mut words = std::iter::from_fn(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Some(format!("word{} ", (state >> 33) % 500).into_bytes())
        });
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(words.next().unwrap());
        }
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn there_and_back() {
        for length in [0, 1, 100, 131_071, 131_072, 131_073, 1_000_000] {
            let content = sample(length);
            let packed = pack_all(&content);
            assert_eq!(unpack_all(&packed, length as u64).unwrap(), content);
            let mut streamed = Vec::new();
            pack(&content[..], &mut streamed).unwrap();
            assert_eq!(unpack_all(&streamed, length as u64).unwrap(), content);
        }
        assert!(pack_all(&sample(1_000_000)).len() < 600_000);
    }

    #[test]
    fn several_frames_and_skippable_ones_are_one_content() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let packed = [pack_all(b"one"), skippable.clone(), pack_all(b"two")].concat();
        assert_eq!(unpack_all(&packed, 6).unwrap(), b"onetwo");
        assert_eq!(unpack_all(&[], 0).unwrap(), b"");
        let cut = unpack_all(&skippable[..9], 0);
        assert!(matches!(cut, Err(Malformed::Frame(_))), "{cut:?}");
    }

    #[test]
    fn a_bomb_ends_at_the_announced_size() {
        // One repeated byte in blocks of the largest size: 4 bytes for 128 KiB each.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
        for _ in 0..10_000 {
            let header: u32 = ((128 * 1024) << 3) | (1 << 1);
            bomb.extend(&header.to_le_bytes()[..3]);
            bomb.push(b'x');
        }
        let mut most = 0;
        let result = unpack(&bomb[..], 1_000_000, |piece| {
            most += piece.len();
            Ok(())
        });
        assert!(
            matches!(result, Err(Malformed::TooLong(1_000_000))),
            "{result:?}"
        );
        assert!(most <= 1_000_000, "{most}");
    }

    #[test]
    fn what_would_cost_memory_or_time_is_refused() {
        // A window of 16 MiB (RFC 8878, 3.1.1.1.2): exponent 14.
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3];
        let refused = unpack_all(&window, 10);
        assert!(
            matches!(refused, Err(Malformed::Window { found, .. }) if found == 16 << 20),
            "{refused:?}"
        );
        // 8 MiB are as much as is allowed: then the missing block is what is wrong.
        let most = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
        assert!(matches!(unpack_all(&most, 10), Err(Malformed::Frame(_))));
        // Frames of nothing, for ever.
        let nothing = pack_all(b"").repeat(100_000);
        let refused = unpack_all(&nothing, 10);
        assert!(
            matches!(
                refused,
                Err(Malformed::TooMuchPacked(10) | Malformed::Frame(_))
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn hostile_bytes_are_refused_without_panic() {
        let good = pack_all(&sample(5000));
        let mut state = 7_u64;
        for _ in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(state >> 40).unwrap() % bytes.len();
                bytes[at] ^= u8::try_from((state >> 8) & 0xff).unwrap();
            }
            let cut = usize::try_from(state >> 20).unwrap() % bytes.len();
            for bytes in [&bytes[..], &bytes[..cut]] {
                if let Ok(content) = unpack_all(bytes, 5000) {
                    assert!(content.len() <= 5000);
                }
            }
        }
    }

    #[test]
    fn an_error_of_source_or_drain_is_told_and_no_panic() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("source"))
            }
        }
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("drain"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let source = pack(Broken, Vec::new()).unwrap_err();
        assert_eq!(source.to_string(), "source");
        let drain = pack(&sample(1000)[..], Broken).unwrap_err();
        assert_eq!(drain.to_string(), "drain");
    }
}
