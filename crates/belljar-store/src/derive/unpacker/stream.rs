use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

use belljar_core::bounds;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::outlet::Stop;

/// What a compressed or plain archive holds, decompressed and counted.
pub(super) struct Stream<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
    packed: u64,
    headers: Headers,
    /// Whether the end of the stream was met.
    pub(super) ended: bool,
}

/// How much of a stream may still be read before the content of an entry, if that is due: whoever reads archives keeps it in memory.
#[derive(Clone, Default)]
pub(super) struct Headers(Rc<Cell<Option<usize>>>);

impl Headers {
    /// Reads up to the content of the next entry, or to the end.
    pub(super) fn bounded<T>(&self, read: impl FnOnce() -> T) -> T {
        self.0.set(Some(bounds::ARCHIVE_HEADER_BYTES));
        let read = read();
        self.0.set(None);
        read
    }

    fn took(&self, count: usize) -> io::Result<()> {
        let Some(left) = self.0.get() else {
            return Ok(());
        };
        let most = bounds::ARCHIVE_HEADER_BYTES;
        let too_long = || {
            io::Error::other(format!(
                "the name, attributes or holes of an entry take more than {most} bytes to say: it looks made to fill memory"
            ))
        };
        self.0
            .set(Some(left.checked_sub(count).ok_or_else(too_long)?));
        Ok(())
    }
}

/// The first bytes that tell formats apart.
const MAGIC_BYTES: u64 = 6;

impl<'a> Stream<'a> {
    /// Looks at the first bytes of `content`, which has `packed` bytes, and decompresses accordingly.
    pub(super) fn open(mut content: impl Read + 'a, packed: u64) -> Result<Self, Stop> {
        let mut head = Vec::new();
        content.by_ref().take(MAGIC_BYTES).read_to_end(&mut head)?;
        let refused = |format: &str| {
            Err(Stop::Refused(format!(
                "is compressed by {format}; plain, gzip, zstd and xz are read"
            )))
        };
        let all = Cursor::new(head.clone()).chain(content);
        let all = BufReader::with_capacity(bounds::CHUNK_BYTES, all);
        let inner: Box<dyn Read + 'a> = match &head[..] {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(all)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Box::new(Zstd::new(all))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                let most = u32::try_from(bounds::DECOMPRESSION_BYTES >> 10).unwrap_or(u32::MAX);
                Box::new(XzReader::new_mem_limit(all, true, most))
            }
            [b'B', b'Z', b'h', ..] => return refused("bzip2"),
            [b'L', b'Z', b'I', b'P', ..] => return refused("lzip"),
            [0x04, 0x22, 0x4d, 0x18, ..] => return refused("lz4"),
            [0x1f, 0x9d, ..] => return refused("compress"),
            [b'P', b'K', 3, 4, ..] => {
                let why = "is a ZIP archive; one that is fetched is unpacked by `unpack = \"zip\"`";
                return Err(Stop::Refused(why.to_owned()));
            }
            _ => Box::new(all),
        };
        Ok(Self {
            inner,
            left: most_from(packed),
            packed,
            headers: Headers::default(),
            ended: false,
        })
    }

    /// What bounds headers in it.
    pub(super) fn headers(&self) -> Headers {
        self.headers.clone()
    }
}

/// The most that may come out of `packed` bytes.
pub(crate) fn most_from(packed: u64) -> u64 {
    packed
        .saturating_mul(bounds::UNPACK_RATIO)
        .max(bounds::UNPACK_FREE_BYTES)
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 {
            self.ended |= !buffer.is_empty();
            return Ok(0);
        }
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!(
                "more than {} bytes come out of its {}: it looks made to fill disks",
                most_from(self.packed),
                self.packed
            ))
        })?;
        self.headers.took(count)?;
        Ok(count)
    }
}

/// A sequence of zstd frames, with skippable ones between (RFC 8878, section 3).
struct Zstd<R> {
    source: R,
    /// The frame that is open.
    frame: Option<FrameDecoder>,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            frame: None,
        }
    }

    /// Begins the next frame with content; none at the end.
    fn begin(&mut self) -> io::Result<Option<FrameDecoder>> {
        while !self.source.fill_buf()?.is_empty() {
            let mut frame = FrameDecoder::new();
            frame.set_max_window_size(bounds::DECOMPRESSION_BYTES);
            match frame.init(&mut self.source) {
                Ok(()) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    if io::copy(&mut skipped, &mut io::sink())? < length.into() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(None)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.begin()? {
                    Some(frame) => frame,
                    None => return Ok(0),
                },
            };
            while frame.can_collect() == 0 && !frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = frame.decode_blocks(&mut self.source, one);
                decoded.map_err(|e| io::Error::other(e.to_string()))?;
            }
            let count = frame.read(buffer)?;
            if count > 0 {
                self.frame = Some(frame);
                return Ok(count);
            }
            let due = frame.get_checksum_from_data();
            if due.is_some() && due != frame.get_calculated_checksum() {
                return Err(io::Error::other("a checksum of the zstd stream is wrong"));
            }
        }
    }
}
