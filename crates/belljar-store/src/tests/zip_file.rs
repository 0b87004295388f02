//! Writes ZIP archives for tests, also such as no program would. Other suites take it by its path.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// An archive under construction.
#[derive(Default)]
pub(crate) struct ZipFile {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

/// How an entry is written.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) content: &'a [u8],
    /// Type and permissions as on Unix; 0 for an archive that does not come from there.
    pub(crate) mode: u32,
    pub(crate) deflated: bool,
    /// Checksum and lengths come after the content.
    pub(crate) later: bool,
}

impl<'a> Entry<'a> {
    /// A file, deflated.
    pub(crate) fn file(name: &'a str, content: &'a [u8]) -> Self {
        Self {
            name: name.as_bytes(),
            content,
            mode: 0o100_644,
            deflated: true,
            later: false,
        }
    }
}

impl ZipFile {
    /// Adds an entry.
    pub(crate) fn add(self, entry: Entry<'_>) -> Self {
        self.changed(entry, |_, _| {})
    }

    /// Adds one, after `change` has had the header before its content, and its entry in the directory.
    pub(crate) fn changed(
        mut self,
        entry: Entry<'_>,
        change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>),
    ) -> Self {
        let Entry { name, content, .. } = entry;
        let packed = if entry.deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        } else {
            content.to_vec()
        };
        let mut sum = flate2::Crc::new();
        sum.update(content);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let numbers = [sum.sum().to_le_bytes(), length(&packed), length(content)].concat();
        let utf8 = if name.is_ascii() { 0 } else { 1 << 11 };
        let flags: u16 = utf8 | if entry.later { 1 << 3 } else { 0 };
        let method: u16 = if entry.deflated { 8 } else { 0 };
        let name_bytes = u16::try_from(name.len()).unwrap().to_le_bytes();
        let common = [
            &20_u16.to_le_bytes()[..],
            &flags.to_le_bytes(),
            &method.to_le_bytes(),
            &[0; 4],
        ]
        .concat();
        let first = if entry.later {
            vec![0; 12]
        } else {
            numbers.clone()
        };
        let mut local = [
            b"PK\x03\x04",
            &common[..],
            &first,
            &name_bytes,
            &[0; 2],
            name,
        ]
        .concat();
        let host = if entry.mode == 0 { 0 } else { 3 };
        let begin = length(&self.bytes);
        let mode = (entry.mode << 16).to_le_bytes();
        let mut central = [
            b"PK\x01\x02",
            &[20, host][..],
            &common,
            &numbers,
            &name_bytes,
            &[0; 8],
            &mode,
            &begin,
            name,
        ]
        .concat();
        change(&mut local, &mut central);
        self.bytes.extend(local);
        self.bytes.extend(packed);
        if entry.later {
            self.bytes.extend([b"PK\x07\x08", &numbers[..]].concat());
        }
        self.directory.extend(central);
        self.count += 1;
        self
    }

    /// The archive.
    pub(crate) fn end(self) -> Vec<u8> {
        self.end_with(b"")
    }

    /// The archive, with a comment.
    pub(crate) fn end_with(self, comment: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let count = self.count.to_le_bytes();
        let (size, begin) = (length(&self.directory), length(&self.bytes));
        let comment_bytes = u16::try_from(comment.len()).unwrap().to_le_bytes();
        [
            &self.bytes[..],
            &self.directory,
            b"PK\x05\x06",
            &[0; 4],
            &count,
            &count,
            &size,
            &begin,
            &comment_bytes,
            comment,
        ]
        .concat()
    }
}
