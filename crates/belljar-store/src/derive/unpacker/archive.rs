use std::collections::BTreeMap;
use std::io::{self, Read};

use belljar_core::{Dropped, RelPath, bounds};
use belljar_plan::unpack::Said;
use tar::{Archive, Entry, EntryType};

use super::outlet::{Outlet, Stop};
use super::stream::Stream;

/// How often what was left out.
#[derive(Debug, Default)]
pub(super) struct Counts(pub(super) BTreeMap<Dropped, u64>);

impl Counts {
    pub(super) fn add(&mut self, what: Dropped) {
        *self.0.entry(what).or_default() += 1;
    }
}

/// What names in an archive mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style<'a> {
    /// What they say.
    Plain,
    /// What they say without so many leading components.
    Stripped(u32),
    /// Everything is below one directory, which gets another path, and nothing is a link.
    Package {
        /// Name of the directory.
        directory: &'a str,
        /// Its path in the tree.
        at: &'a RelPath,
    },
    /// `.wh.name` takes away what lower layers have (OCI image-spec, layer).
    Layer,
}

/// Extended header records that hold what is left out.
const ATTRIBUTES: [&[u8]; 4] = [
    b"SCHILY.xattr.",
    b"SCHILY.acl.",
    b"LIBARCHIVE.xattr.",
    b"RHT.security.",
];

/// How much of a name is shown to people.
const SHOWN_BYTES: usize = 256;

/// Says everything that a tar archive holds. `content` has `packed` bytes, and is read to its end.
pub(super) fn unpack(
    outlet: &Outlet<'_>,
    content: impl Read,
    packed: u64,
    style: Style<'_>,
    dropped: &mut Counts,
) -> Result<(), Stop> {
    let mut stream = Stream::open(content, packed)?;
    let headers = stream.headers();
    let mut archive = Archive::new(&mut stream);
    let mut entries = archive.entries()?;
    while let Some(entry) = headers.bounded(|| entries.next()) {
        let mut entry = entry.map_err(|e| broken(&e))?;
        let name = entry.path_bytes().into_owned();
        let mut reader = Reader {
            outlet,
            style,
            dropped,
            name: shown(&name),
        };
        reader.entry(&mut entry, &name)?;
        // Of what is no file the content means nothing. Holes would be given without an end.
        if entry.header().entry_type() != EntryType::GNUSparse {
            io::copy(&mut entry, &mut io::sink()).map_err(|e| broken(&e))?;
        }
    }
    if stream.ended {
        return Err(Stop::Refused(
            "is cut, or no tar archive: its end mark is missing".to_owned(),
        ));
    }
    // To the very end: only there the checksums of compressed streams are seen.
    let mut buffer = vec![0; bounds::CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).map_err(|e| broken(&e))? {
            0 => return Ok(()),
            count if buffer[..count].iter().all(|byte| *byte == 0) => {}
            _ => return Err(Stop::Refused("goes on after its end mark".to_owned())),
        }
    }
}

/// A name for people, or the beginning of a long one.
pub(super) fn shown(name: &[u8]) -> String {
    let (name, more) = match name.get(..SHOWN_BYTES) {
        Some(begin) if name.len() > SHOWN_BYTES => (begin, "…"),
        _ => (name, ""),
    };
    let text = String::from_utf8_lossy(name);
    format!("{}{more}", text.escape_debug())
}

fn broken(error: &io::Error) -> Stop {
    let said = error.to_string();
    // The crate `tar` has no kind of error for that.
    let begins = |texts: &[&str]| texts.iter().any(|text| said.starts_with(text));
    let is_cut = error.kind() == io::ErrorKind::UnexpectedEof
        || begins(&["unexpected EOF", "failed to read entire block"]);
    Stop::Refused(if is_cut {
        "is cut: its end is missing".to_owned()
    } else if begins(&["numeric field", "archive header checksum"]) {
        // It would repeat the field, and the name after it, whatever bytes they are.
        "cannot be read: a header has a malformed number or a wrong checksum, so it is damaged, or no tar archive"
            .to_owned()
    } else {
        format!("cannot be read: {}", shown(said.as_bytes()))
    })
}

/// Where a name in an archive stands in the tree; none for its root. A leading `./` and doubled or trailing
/// slashes mean nothing.
pub(super) fn place(name: &str) -> Result<Option<RelPath>, String> {
    if name.starts_with('/') {
        return Err("has an absolute path".to_owned());
    }
    let names: Vec<&str> = name
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    if names.contains(&"..") {
        return Err("has `..` in its path".to_owned());
    }
    if names.is_empty() {
        return Ok(None);
    }
    RelPath::new(names.join("/"))
        .map(Some)
        .map_err(|e| format!("cannot be taken: {e}"))
}

/// The path without so many leading components; none if it has no more.
pub(super) fn stripped(path: &RelPath, count: u32) -> Option<RelPath> {
    let mut names = path.components().skip(count as usize);
    let first = RelPath::new(names.next()?).ok()?;
    names.try_fold(first, |path, name| path.join(name)).ok()
}

/// Reads one entry.
struct Reader<'a, 'c> {
    outlet: &'a Outlet<'c>,
    style: Style<'a>,
    dropped: &'a mut Counts,
    name: String,
}

impl Reader<'_, '_> {
    fn refused(&self, why: impl AsRef<str>) -> Stop {
        Stop::Refused(format!(
            "has an entry `{}`, which {}",
            self.name,
            why.as_ref()
        ))
    }

    fn place(&self, bytes: &[u8]) -> Result<Option<RelPath>, Stop> {
        let text =
            str::from_utf8(bytes).map_err(|_| self.refused("has a name that is not UTF-8"))?;
        place(text).map_err(|why| self.refused(why))
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, name: &[u8]) -> Result<(), Stop> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // Such as git-archive(1) writes, with the commit in it. Nothing in it is about one entry.
            return Ok(());
        }
        let path = self.place(name)?;
        if self.style == Style::Plain && path.as_ref().is_some_and(|p| p.as_str() == "oci-layout") {
            // As a root file system it would be taken for something that it is not.
            let why = "is an archive of an OCI image; import it uncompressed, as such";
            return Err(Stop::Refused(why.to_owned()));
        }
        self.extensions(entry)?;
        if let Some(path) = &path
            && self.style == Style::Layer
            && self.whiteout(path)?
        {
            return Ok(());
        }
        let is_file = matches!(
            kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        );
        // As the oldest archives write directories.
        let is_directory = kind.is_dir() || is_file && name.ends_with(b"/");
        let Some(path) = path else {
            return if is_directory {
                Ok(())
            } else {
                Err(self.refused("is no directory, and has no name"))
            };
        };
        let path = match self.styled(path, is_file || is_directory)? {
            Some(path) => path,
            None if is_directory => return Ok(()),
            None => return Err(self.refused("has no more components than are left out")),
        };
        match kind {
            _ if is_directory => {
                self.metadata(entry, true);
                Ok(self.outlet.say(&Said::Directory { path })?)
            }
            _ if is_file => {
                self.metadata(entry, false);
                self.file(entry, path)
            }
            EntryType::Symlink => self.symlink(&self.target(entry)?, path),
            EntryType::Link => self.hard_link(&self.target(entry)?, path),
            EntryType::Char => self.special(&path, "is a character device"),
            EntryType::Block => self.special(&path, "is a block device"),
            EntryType::Fifo => self.special(&path, "is a named pipe"),
            other => {
                let byte = char::from(other.as_byte()).escape_debug();
                Err(self.refused(format!("is of the unknown type `{byte}`")))
            }
        }
    }

    fn symlink(&self, target: &[u8], path: RelPath) -> Result<(), Stop> {
        let target = str::from_utf8(target)
            .map_err(|_| self.refused("points to a name that is not UTF-8"))?
            .to_owned();
        // A longer one might not fit a message to the store, which would refuse it.
        if target.len() > bounds::SYMLINK_BYTES {
            let most = bounds::SYMLINK_BYTES;
            return Err(self.refused(format!("points to a name of more than {most} bytes")));
        }
        Ok(self.outlet.say(&Said::Symlink { path, target })?)
    }

    fn hard_link(&self, target: &[u8], path: RelPath) -> Result<(), Stop> {
        let target = self.place(target)?;
        let target = target.ok_or_else(|| self.refused("is a hard link to the root"))?;
        let target = match self.style {
            Style::Stripped(count) => stripped(&target, count)
                .ok_or_else(|| self.refused("is a hard link to what is left out"))?,
            Style::Plain | Style::Layer | Style::Package { .. } => target,
        };
        Ok(self.outlet.say(&Said::HardLink { path, target })?)
    }

    /// Where an entry stands in the tree; none for what is nothing but components that are left out.
    fn styled(&self, path: RelPath, plain: bool) -> Result<Option<RelPath>, Stop> {
        match self.style {
            Style::Plain | Style::Layer => Ok(Some(path)),
            Style::Stripped(count) => Ok(stripped(&path, count)),
            Style::Package { directory, at } if plain => self.moved(&path, directory, at).map(Some),
            Style::Package { .. } => Err(self.refused("is neither a file nor a directory")),
        }
    }

    /// The path of an entry that has to be below `directory`, which stands at `at`.
    fn moved(&self, path: &RelPath, directory: &str, at: &RelPath) -> Result<RelPath, Stop> {
        let mut names = path.components();
        if names.next() != Some(directory) {
            return Err(self.refused(format!("is outside of the directory `{directory}`")));
        }
        let moved = names.try_fold(at.clone(), |at, name| at.join(name));
        moved.map_err(|e| self.refused(format!("cannot be taken: {e}")))
    }

    fn target(&self, entry: &Entry<'_, impl Read>) -> Result<Vec<u8>, Stop> {
        let target = entry.link_name_bytes();
        target
            .map(|target| target.into_owned())
            .ok_or_else(|| self.refused("is a link without a target"))
    }

    /// Extended headers: attributes are counted; what would change the meaning of the entry is refused.
    fn extensions(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Stop> {
        let Some(records) = entry.pax_extensions().map_err(|e| broken(&e))? else {
            return Ok(());
        };
        let (mut attributes, mut seen) = (false, Vec::new());
        for record in records {
            let record = record.map_err(|_| self.refused("has a malformed extended header"))?;
            let key = record.key_bytes();
            if key.starts_with(b"GNU.sparse.") {
                let why = "is a sparse file in a form that is not read; write it without --sparse";
                return Err(self.refused(why));
            }
            if [&b"path"[..], b"linkpath", b"size"].contains(&key) {
                if seen.contains(&key) {
                    return Err(self.refused("has an extended header that says one thing twice"));
                }
                seen.push(key);
            }
            // One that is no number would be passed over, and mean something else to other readers.
            if key == b"size"
                && record
                    .value()
                    .map_or(true, |size| size.parse::<u64>().is_err())
            {
                return Err(self.refused("has a malformed extended header"));
            }
            attributes |= ATTRIBUTES.iter().any(|prefix| key.starts_with(prefix));
        }
        if attributes {
            self.dropped.add(Dropped::ExtendedAttributes);
        }
        Ok(())
    }

    /// Takes note of what a tree cannot say.
    fn metadata(&mut self, entry: &Entry<'_, impl Read>, is_directory: bool) {
        let header = entry.header();
        // What cannot be read is some owner, or some mode, but not the one that is kept.
        let owners = (
            header.uid().unwrap_or(u64::MAX),
            header.gid().unwrap_or(u64::MAX),
        );
        if owners != (0, 0) {
            self.dropped.add(Dropped::Owners);
        }
        let mode = header.mode().unwrap_or(u32::MAX);
        if mode & 0o6000 != 0 {
            self.dropped.add(Dropped::SetIdBits);
        }
        let kept = match mode & 0o1777 {
            0o644 => !is_directory,
            0o755 => true,
            _ => false,
        };
        if !kept {
            self.dropped.add(Dropped::Modes);
        }
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, path: RelPath) -> Result<(), Stop> {
        let mode = entry
            .header()
            .mode()
            .map_err(|_| self.refused("has a malformed mode"))?;
        let executable = mode & 0o111 != 0;
        self.outlet.say(&Said::File { path, executable })?;
        let mut left = entry.size();
        let mut buffer = vec![0; bounds::CHUNK_BYTES];
        loop {
            match entry.read(&mut buffer).map_err(|e| broken(&e))? {
                0 => break,
                count => {
                    self.outlet.piece(&buffer[..count])?;
                    left = left.saturating_sub(count as u64);
                }
            }
        }
        if left > 0 {
            return Err(Stop::Refused(format!(
                "is cut: {left} bytes of its entry `{}` are missing",
                self.name
            )));
        }
        Ok(self.outlet.say(&Said::FileEnd {})?)
    }

    fn special(&mut self, path: &RelPath, what: &str) -> Result<(), Stop> {
        if path.components().next() == Some("dev") && path.as_str() != "dev" {
            self.dropped.add(Dropped::SpecialFiles);
            return Ok(());
        }
        Err(self.refused(format!("{what}; only below dev/ such entries are left out")))
    }

    /// Whether the entry takes something away instead of being something.
    fn whiteout(&mut self, path: &RelPath) -> Result<bool, Stop> {
        let Some(hidden) = path.file_name().strip_prefix(".wh.") else {
            return Ok(false);
        };
        let parent = path.as_str().rsplit_once('/').map(|(parent, _)| parent);
        let placed = |path: Option<String>| {
            path.map(RelPath::new)
                .transpose()
                .map_err(|e| self.refused(format!("cannot be taken: {e}")))
        };
        if hidden == ".wh..opq" {
            let path = placed(parent.map(str::to_owned))?;
            self.outlet.say(&Said::Opaque { path })?;
        } else if hidden.starts_with(".wh.") {
            self.dropped.add(Dropped::UnionMetadata);
        } else {
            let hidden = parent.map_or_else(|| hidden.to_owned(), |p| format!("{p}/{hidden}"));
            if let Some(path) = placed(Some(hidden))? {
                self.outlet.say(&Said::Whiteout { path })?;
            }
        }
        Ok(true)
    }
}
