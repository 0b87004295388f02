//! Headers of a tar archive (POSIX.1-2024, pax): one form for each entry. Owner 0:0 without names, modes 0644 and 0755, one
//! time; a pax header only where a name does not fit, or is not ASCII. Own code, since a library may write another form
//! tomorrow, and the digest would be another.

use belljar_core::Invalid;

/// Everything in an archive comes in blocks of so many bytes.
pub(crate) const BLOCK: usize = 512;
/// What fits the fields for names.
const NAME: usize = 100;
/// The name of a pax header, which readers do not look at.
const PAX_NAME: &str = "././@PaxHeader";

/// The type of an entry, as its header has it.
pub(crate) const FILE: u8 = b'0';
pub(crate) const SYMLINK: u8 = b'2';
pub(crate) const DIRECTORY: u8 = b'5';
pub(crate) const PAX: u8 = b'x';

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) kind: u8,
    /// With a `/` behind it if it is a directory's.
    pub(crate) name: &'a str,
    pub(crate) target: &'a str,
    pub(crate) executable: bool,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
}

impl Head<'_> {
    /// The blocks of it, with a pax header before it if it needs one.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (key, value) in [("path", self.name), ("linkpath", self.target)] {
            if value.len() > NAME || !value.is_ascii() {
                records.extend_from_slice(record(key, value).as_bytes());
            }
        }
        let mut blocks = Vec::new();
        if !records.is_empty() {
            let head = Head {
                kind: PAX,
                name: PAX_NAME,
                target: "",
                executable: false,
                size: records.len() as u64,
                mtime: self.mtime,
            };
            blocks.extend_from_slice(&head.block());
            blocks.extend_from_slice(&records);
            blocks.resize(blocks.len() + padding(head.size), 0);
        }
        blocks.extend_from_slice(&self.block());
        blocks
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, 0, start(self.name));
        let mode = if self.executable { 0o755 } else { 0o644 };
        put(&mut block, 100, &octal(mode, 7));
        put(&mut block, 108, &octal(0, 7));
        put(&mut block, 116, &octal(0, 7));
        put(&mut block, 124, &octal(self.size, 11));
        put(&mut block, 136, &octal(self.mtime, 11));
        block[156] = self.kind;
        put(&mut block, 157, start(self.target));
        put(&mut block, 257, "ustar\u{0}00");
        put(&mut block, 329, &octal(0, 7));
        put(&mut block, 337, &octal(0, 7));
        put(&mut block, 148, "        ");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put(&mut block, 148, &format!("{}\u{0} ", octal(sum, 6)));
        block
    }
}

/// Zero bytes that are due behind so many.
pub(crate) fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// A name as far as it fits; all of it stands in the pax header then.
fn start(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME)]
}

fn octal(number: u64, digits: usize) -> String {
    format!("{number:0digits$o}")
}

fn put(block: &mut [u8; BLOCK], at: usize, text: &str) {
    for (place, byte) in block.iter_mut().skip(at).zip(text.bytes()) {
        *place = byte;
    }
}

/// `length key=value`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    loop {
        let text = format!("{length}{rest}");
        if text.len() == length {
            return text;
        }
        length = text.len();
    }
}

/// The records of a pax header, `path` and `linkpath` and no others, each at most once.
pub(crate) fn records(bytes: &[u8]) -> Result<(Option<&str>, Option<&str>), Invalid> {
    let wrong = || Invalid::new("has a pax header that is written otherwise");
    let mut text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
    let (mut path, mut link) = (None, None);
    while !text.is_empty() {
        let (length, _) = text.split_once(' ').ok_or_else(wrong)?;
        let length: usize = length.parse().map_err(|_| wrong())?;
        let one = text.get(..length).ok_or_else(wrong)?;
        text = text.get(length..).ok_or_else(wrong)?;
        let (_, pair) = one.split_once(' ').ok_or_else(wrong)?;
        let pair = pair.strip_suffix('\n').ok_or_else(wrong)?;
        let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
        let place = match key {
            "path" => &mut path,
            "linkpath" => &mut link,
            _ => return Err(wrong()),
        };
        if place.replace(value).is_some() {
            return Err(wrong());
        }
    }
    Ok((path, link))
}

/// A field of text, up to its first zero byte.
pub(crate) fn field(block: &[u8], at: usize, length: usize) -> Result<&str, Invalid> {
    let bytes = block.get(at..at + length).unwrap_or_default();
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = &bytes[..end.unwrap_or(bytes.len())];
    std::str::from_utf8(bytes).map_err(|_| Invalid::new("has a name that is not UTF-8"))
}

/// A field of octal digits.
pub(crate) fn number(block: &[u8], at: usize, length: usize) -> Result<u64, Invalid> {
    let text = field(block, at, length)?;
    u64::from_str_radix(text, 8).map_err(|_| Invalid::new("has a number that is none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 87, 88, 89, 90, 91, 986, 987, 988, 989, 4095] {
            let text = record("path", &"x".repeat(length));
            let (said, _) = text.split_once(' ').unwrap();
            assert_eq!(said.parse(), Ok(text.len()));
            let (path, link) = records(text.as_bytes()).unwrap();
            assert_eq!((path.unwrap().len(), link), (length, None));
        }
        assert_eq!(records(b""), Ok((None, None)));
        for bad in [
            "6 a=b\n",
            "7 path=x\n",
            "99 path=x\n",
            "x",
            "10 path=xy",
            "0 path=x\n",
        ] {
            let read = records(bad.as_bytes());
            assert!(read.is_err(), "{bad:?}: {read:?}");
        }
        assert!(records(b"10 path=x\n10 path=y\n").is_err());
    }
}
