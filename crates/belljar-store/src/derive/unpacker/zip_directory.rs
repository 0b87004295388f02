//! What a ZIP archive says of itself (PKWARE APPNOTE, sections 4.3 and 4.4), taken apart from what cannot be.

use std::collections::VecDeque;
use std::io::Read;

use belljar_core::bounds;

use super::archive::shown;
use super::outlet::Stop;

/// Length of the header in front of an entry's content, without name and extra fields.
pub(super) const LOCAL_BYTES: usize = 30;
/// The same of the entry in the directory.
const CENTRAL_BYTES: usize = 46;
/// Length of the record at the end, without comment.
const END_BYTES: usize = 22;
/// Longest comment.
const COMMENT_BYTES: usize = 0xffff;
/// Encryption, patches, and masked headers.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Sizes and checksum come after the content.
const DESCRIPTOR: u16 = 1 << 3;
/// The name is UTF-8.
const UTF8: u16 = 1 << 11;
/// What may be set beside: how hard it was tried to compress.
const EFFORT: u16 = 3 << 1;
/// Systems whose entries have a mode: Unix, and what was the Macintosh's.
const UNIX: [u8; 2] = [3, 19];
/// Identifiers of extra fields: sizes of 64 bits, and another name.
const ZIP64: u16 = 1;
const UNICODE_NAME: u16 = 0x7075;

/// One entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) raw_name: Vec<u8>,
    pub(super) kind: Kind,
    /// As on Unix, if it says so.
    pub(super) mode: Option<u32>,
    pub(super) flags: u16,
    pub(super) method: Method,
    pub(super) numbers: Numbers,
    pub(super) has_descriptor: bool,
    /// Where it begins, and where the next one does or the directory.
    begin: u64,
    pub(super) end: u64,
}

/// Checksum and lengths of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) crc: u32,
    pub(super) packed: u32,
    pub(super) size: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { executable: bool },
}

/// How content is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// The header in front of content.
pub(super) struct Local {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) numbers: Numbers,
    pub(super) name_bytes: usize,
    pub(super) extra_bytes: usize,
}

impl Method {
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Stored => 0,
            Self::Deflated => 8,
        }
    }
}

/// Reads an archive to its end and gives its entries in the order of their contents.
pub(super) fn read(content: impl Read) -> Result<Vec<Entry>, Stop> {
    let (tail, length) = tail(content)?;
    let end = end_record(&tail)?;
    let record = &tail[end..];
    let at = length - tail.len() as u64 + end as u64;
    let numbers = [4, 6, 8, 10].map(|offset| half(record, offset));
    let [size, begin] = [12, 16].map(|offset| whole(record, offset));
    let locator = end.checked_sub(20).map(|begin| &tail[begin..end]);
    let is_zip64 = numbers.contains(&u16::MAX)
        || [size, begin].contains(&u32::MAX)
        || locator.is_some_and(|locator| locator.starts_with(b"PK\x06\x07"));
    if is_zip64 {
        return Err(zip64());
    }
    let [disk, first, here, count] = numbers;
    if disk != 0 || first != 0 || here != count {
        let why = "is one part of a ZIP archive in several; put them together";
        return Err(Stop::Refused(why.to_owned()));
    }
    // Nothing is between the directory and its record, which some readers would look for elsewhere.
    if u64::from(begin) + u64::from(size) != at {
        return Err(malformed("its directory is not where it says"));
    }
    let start = end.checked_sub(size as usize).ok_or_else(|| {
        let most = bounds::ZIP_DIRECTORY_BYTES;
        Stop::Refused(format!(
            "has a directory of {size} bytes; {most} are allowed"
        ))
    })?;
    let mut left = &tail[start..end];
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        entries.push(central(&mut left)?);
    }
    if !left.is_empty() {
        return Err(malformed("its directory is longer than its entries"));
    }
    ordered(entries, begin.into())
}

/// The last bytes, and how many there are in all.
fn tail(mut content: impl Read) -> Result<(Vec<u8>, u64), Stop> {
    let most = bounds::ZIP_DIRECTORY_BYTES + END_BYTES + COMMENT_BYTES;
    let mut kept: VecDeque<u8> = VecDeque::new();
    let (mut length, mut is_begun) = (0_u64, false);
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        kept.extend(&buffer[..count]);
        length += count as u64;
        if !is_begun && kept.len() >= 4 {
            let head: Vec<u8> = kept.iter().take(4).copied().collect();
            is_begun = head == b"PK\x03\x04" || head == b"PK\x05\x06";
            if !is_begun {
                let why = "is no ZIP archive: it does not begin with an entry";
                return Err(Stop::Refused(why.to_owned()));
            }
        }
        let over = kept.len().saturating_sub(most);
        kept.drain(..over);
    }
    if !is_begun {
        return Err(Stop::Refused(
            "is no ZIP archive: it is too short".to_owned(),
        ));
    }
    Ok((kept.into(), length))
}

/// Where the record at the end begins: the last one, whose comment has to reach to the end.
fn end_record(tail: &[u8]) -> Result<usize, Stop> {
    let missing = || malformed("it is cut: the record at its end is missing");
    let last = tail.len().checked_sub(END_BYTES).ok_or_else(missing)?;
    let first = last.saturating_sub(COMMENT_BYTES);
    let found = (first..=last)
        .rev()
        .find(|at| tail[*at..].starts_with(b"PK\x05\x06"));
    let end = found.ok_or_else(missing)?;
    match end + END_BYTES + usize::from(half(&tail[end..], 20)) == tail.len() {
        true => Ok(end),
        false => Err(malformed("something is behind its end")),
    }
}

/// The next entry of the directory.
fn central(left: &mut &[u8]) -> Result<Entry, Stop> {
    let cut = || malformed("its directory is cut");
    let fixed = taken(left, CENTRAL_BYTES).ok_or_else(cut)?;
    if !fixed.starts_with(b"PK\x01\x02") {
        return Err(malformed("its directory has something else than entries"));
    }
    let [flags, method, name, extra_bytes, comment, disk] =
        [8, 10, 28, 30, 32, 34].map(|offset| half(fixed, offset));
    let name = taken(left, name.into()).ok_or_else(cut)?;
    let extras = taken(left, extra_bytes.into()).ok_or_else(cut)?;
    taken(left, comment.into()).ok_or_else(cut)?;
    let refused = |why: &str| {
        let name = shown(name);
        Stop::Refused(format!("has an entry `{name}`, which {why}"))
    };
    extra(extras, name).map_err(refused)?;
    let (numbers, begin) = (numbers(fixed, 16), whole(fixed, 42));
    if [numbers.packed, numbers.size, begin].contains(&u32::MAX) {
        return Err(zip64());
    }
    if disk != 0 {
        return Err(refused("is in another part of the archive"));
    }
    let text = named(name, flags).map_err(refused)?;
    let mode = UNIX.contains(&fixed[5]).then(|| whole(fixed, 38) >> 16);
    Ok(Entry {
        kind: kind(&text, mode).map_err(refused)?,
        name: text,
        raw_name: name.to_owned(),
        mode: mode.filter(|mode| *mode != 0),
        flags: known(flags).map_err(refused)?,
        method: match method {
            0 => Method::Stored,
            8 => Method::Deflated,
            other => {
                let why = format!("is packed by method {other}; stored and deflated ones are read");
                return Err(refused(&why));
            }
        },
        numbers,
        has_descriptor: flags & DESCRIPTOR != 0,
        begin: begin.into(),
        end: 0,
    })
}

fn known(flags: u16) -> Result<u16, &'static str> {
    if flags & ENCRYPTED != 0 {
        return Err("is encrypted");
    }
    match flags & !(DESCRIPTOR | UTF8 | EFFORT) {
        0 => Ok(flags),
        _ => Err("has flags that nobody knows"),
    }
}

/// The name, which every reader has to read alike.
fn named(name: &[u8], flags: u16) -> Result<String, &'static str> {
    if !name.is_ascii() && flags & UTF8 == 0 {
        return Err("has a name that is neither ASCII nor said to be UTF-8");
    }
    let text = str::from_utf8(name).map_err(|_| "has a name that is not UTF-8")?;
    match text.contains('\\') {
        true => Err("has a backslash in its name, which some readers take for a slash"),
        false => Ok(text.to_owned()),
    }
}

fn kind(name: &str, mode: Option<u32>) -> Result<Kind, &'static str> {
    let is_directory = name.ends_with('/');
    let mode = mode.unwrap_or(0);
    match (mode & 0o170_000, is_directory) {
        (0 | 0o040_000, true) => Ok(Kind::Directory),
        (0 | 0o100_000, false) => Ok(Kind::File {
            executable: mode & 0o111 != 0,
        }),
        (0o120_000, _) => Err("is a symbolic link, which is not read from ZIP; take a tar archive"),
        (0o040_000, false) => Err("is a directory without a slash at its end"),
        (0o100_000, true) => Err("is a file with a slash at its end"),
        _ => Err("is neither a file nor a directory"),
    }
}

/// Extra fields: what would change the meaning of an entry is refused.
pub(super) fn extra(mut left: &[u8], name: &[u8]) -> Result<(), &'static str> {
    // Fewer than a field's head are padding, as those who align contents write it.
    while left.len() >= 4 {
        let (id, length) = (half(left, 0), half(left, 2));
        left = &left[4..];
        let field = taken(&mut left, length.into()).ok_or("has a malformed extra field")?;
        match id {
            ZIP64 => return Err("is in ZIP64, which is not read; take a tar archive"),
            // Version and checksum before the name.
            UNICODE_NAME if field.get(5..) != Some(name) => return Err("has two names"),
            _ => {}
        }
    }
    Ok(())
}

/// In the order of their contents: each begins where the one before ends, and the directory after the last.
fn ordered(mut entries: Vec<Entry>, directory: u64) -> Result<Vec<Entry>, Stop> {
    entries.sort_by_key(|entry| entry.begin);
    let begins: Vec<u64> = entries.iter().map(|entry| entry.begin).collect();
    if begins.first().copied().unwrap_or(directory) != 0 {
        return Err(malformed("something is in front of its first entry"));
    }
    let ends = begins.iter().skip(1).copied().chain([directory]);
    for (entry, end) in entries.iter_mut().zip(ends) {
        let least = LOCAL_BYTES + entry.raw_name.len();
        let least = least as u64 + u64::from(entry.numbers.packed);
        if entry.begin.saturating_add(least) > end {
            let name = shown(entry.name.as_bytes());
            return Err(Stop::Refused(format!(
                "has an entry `{name}`, which overlaps the next: it looks made to fill disks"
            )));
        }
        entry.end = end;
    }
    Ok(entries)
}

/// Takes the header in front of content apart; none if it is none.
pub(super) fn local(fixed: &[u8]) -> Option<Local> {
    fixed.starts_with(b"PK\x03\x04").then(|| Local {
        flags: half(fixed, 6),
        method: half(fixed, 8),
        numbers: numbers(fixed, 14),
        name_bytes: half(fixed, 26).into(),
        extra_bytes: half(fixed, 28).into(),
    })
}

/// What stands after content, with a mark of its own or without.
pub(super) fn descriptor(bytes: &[u8]) -> Option<Numbers> {
    let bytes = match bytes.len() {
        16 => bytes.strip_prefix(b"PK\x07\x08")?,
        _ => bytes,
    };
    Some(numbers(bytes, 0))
}

fn numbers(bytes: &[u8], at: usize) -> Numbers {
    Numbers {
        crc: whole(bytes, at),
        packed: whole(bytes, at + 4),
        size: whole(bytes, at + 8),
    }
}

fn taken<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(count)?;
    *left = rest;
    Some(taken)
}

/// Two bytes, little-endian; zero where there are none.
fn half(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().map_or(0, u16::from_le_bytes)
}

/// Four.
fn whole(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().map_or(0, u32::from_le_bytes)
}

fn zip64() -> Stop {
    Stop::Refused("is in ZIP64, which is not read; take a tar archive".to_owned())
}

fn malformed(why: &str) -> Stop {
    Stop::Refused(format!(
        "is no ZIP archive that all readers read alike: {why}"
    ))
}
