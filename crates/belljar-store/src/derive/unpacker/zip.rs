//! ZIP (PKWARE APPNOTE), the part of it that every reader reads alike. Its directory is at the end, so the content is read
//! twice: first for the directory, then entry by entry. Where the two could say different things, where bytes belong to
//! no entry or to two, and what only some readers know, the archive is refused.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};

use belljar_core::{Dropped, ObjectId, RelPath, bounds};
use belljar_plan::unpack::Said;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::archive::{Counts, place, shown, stripped};
use super::outlet::{Outlet, Stop};
use super::stream::most_from;
use super::zip_directory::{self, Entry, Kind, LOCAL_BYTES, Method, Numbers};

/// Says everything that a ZIP archive holds, without so many leading components.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    content: ObjectId,
    strip: u32,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let entries = zip_directory::read(outlet.need(content)?)?;
    let places = admitted(&entries, content.size, strip)?;
    // What it says has been compared with its digest by now: the first reading has met its end.
    let mut source = Source {
        inner: BufReader::with_capacity(bounds::CHUNK_BYTES, outlet.need(content)?),
        at: 0,
    };
    for (entry, place) in entries.iter().zip(places) {
        source.header(entry)?;
        match (place, entry.kind) {
            (Some(path), Kind::Directory) => {
                source.nothing(entry)?;
                outlet.say(&Said::Directory { path })?;
            }
            (None, _) => source.nothing(entry)?,
            (Some(path), Kind::File { executable }) => {
                outlet.say(&Said::File { path, executable })?;
                source.content(entry, |piece| outlet.piece(piece))?;
                outlet.say(&Said::FileEnd {})?;
            }
        }
        metadata(entry, dropped);
        source.descriptor(entry)?;
    }
    // The directory, which is known, and the end.
    io::copy(&mut source.inner, &mut io::sink())?;
    Ok(())
}

/// Where each entry stands in the tree, if all of them can: before anything comes of the first.
fn admitted(entries: &[Entry], packed: u64, strip: u32) -> Result<Vec<Option<RelPath>>, Stop> {
    let most = most_from(packed);
    let all = entries.iter().map(|entry| u64::from(entry.numbers.size));
    let sum = all.fold(0_u64, u64::saturating_add);
    if sum > most {
        return Err(Stop::Refused(format!(
            "says that {sum} bytes come out of its {packed}, and {most} may: it looks made to fill disks"
        )));
    }
    let mut seen = BTreeSet::new();
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let refused = |why: String| refused(entry, &why);
        let path = place(&entry.name).map_err(refused)?;
        if !seen.insert(path.clone()) {
            return Err(refused("is there twice".to_owned()));
        }
        let styled = path.and_then(|path| stripped(&path, strip));
        if styled.is_none() && matches!(entry.kind, Kind::File { .. }) {
            return Err(refused(
                "has no more components than are left out".to_owned(),
            ));
        }
        places.push(styled);
    }
    Ok(places)
}

/// Takes note of what a tree cannot say.
fn metadata(entry: &Entry, dropped: &mut Counts) {
    let Some(mode) = entry.mode else { return };
    if mode & 0o6000 != 0 {
        dropped.add(Dropped::SetIdBits);
    }
    let is_directory = entry.kind == Kind::Directory;
    let kept = match mode & 0o1777 {
        0o644 => !is_directory,
        0o755 => true,
        _ => false,
    };
    if !kept {
        dropped.add(Dropped::Modes);
    }
}

fn refused(entry: &Entry, why: &str) -> Stop {
    let name = shown(entry.name.as_bytes());
    Stop::Refused(format!("has an entry `{name}`, which {why}"))
}

/// The archive, from its beginning, byte by byte.
struct Source {
    inner: BufReader<File>,
    at: u64,
}

impl Source {
    fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.inner.read_exact(&mut bytes)?;
        self.at += count as u64;
        Ok(bytes)
    }

    /// The header before the content: it must say what the directory says.
    fn header(&mut self, entry: &Entry) -> Result<(), Stop> {
        let other = || refused(entry, "is described otherwise in front of its content");
        let fixed = self.exactly(LOCAL_BYTES)?;
        let header = zip_directory::local(&fixed).ok_or_else(other)?;
        let name = self.exactly(header.name_bytes)?;
        let extra = self.exactly(header.extra_bytes)?;
        zip_directory::extra(&extra, &name).map_err(|why| refused(entry, why))?;
        let numbers = header.numbers;
        // Who writes without looking back says them after the content.
        let later = entry.has_descriptor && numbers == Numbers::default();
        let same = header.flags == entry.flags
            && header.method == entry.method.number()
            && name == entry.raw_name
            && (later || numbers == entry.numbers);
        if same { Ok(()) } else { Err(other()) }
    }

    /// Content that there must be none of.
    fn nothing(&mut self, entry: &Entry) -> Result<(), Stop> {
        if entry.numbers.size > 0 {
            return Err(refused(entry, "is a directory, and has content"));
        }
        self.content(entry, |_| Ok(()))
    }

    fn content(
        &mut self,
        entry: &Entry,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Stop> {
        let Numbers { crc, packed, size } = entry.numbers;
        let mut raw = (&mut self.inner).take(packed.into());
        let (mut sum, mut left) = (Crc::new(), u64::from(size));
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        let mut decoder: Box<dyn Read + '_> = match entry.method {
            Method::Stored => Box::new(&mut raw),
            Method::Deflated => Box::new(DeflateDecoder::new(&mut raw)),
        };
        loop {
            let count = decoder
                .read(&mut buffer)
                .map_err(|e| refused(entry, &format!("cannot be unpacked: {e}")))?;
            if count == 0 {
                break;
            }
            let more = || refused(entry, "has more content than it says");
            left = left.checked_sub(count as u64).ok_or_else(more)?;
            sum.update(&buffer[..count]);
            take(&buffer[..count])?;
        }
        drop(decoder);
        if raw.limit() > 0 || left > 0 {
            return Err(refused(entry, "has not the content that it says"));
        }
        self.at += u64::from(packed);
        match sum.sum() == crc {
            true => Ok(()),
            false => Err(refused(entry, "has a wrong checksum")),
        }
    }

    /// What may come after the content, up to the next entry.
    fn descriptor(&mut self, entry: &Entry) -> Result<(), Stop> {
        let bad = || {
            refused(
                entry,
                "is not where the archive says, or has something around it",
            )
        };
        let left = entry.end.checked_sub(self.at).ok_or_else(bad)?;
        let fits = match (entry.has_descriptor, left) {
            (false, 0) => true,
            (true, 12 | 16) => {
                let bytes = self.exactly(if left == 12 { 12 } else { 16 })?;
                zip_directory::descriptor(&bytes) == Some(entry.numbers)
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(bad()) }
    }
}
