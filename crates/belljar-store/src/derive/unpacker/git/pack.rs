use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use belljar_core::{GitId, bounds};
use gix_hash::{Kind as HashKind, oid};
use gix_object::Kind;
use gix_pack::data::decode::entry::ResolvedBase;
use gix_pack::data::entry::Header;
use gix_pack::data::{Entry, File};
use gix_zlib::Inflate;

use super::super::archive::shown;
use super::super::outlet::Stop;
use super::super::stream::most_from;
use super::bases::Bases;

/// Bytes of the digest at the end of a pack.
const TRAILER: usize = 20;
/// Bytes before its first object.
const HEADER: u64 = 12;
/// What making one object of another may need at once: both of them, and how.
const MAKING_BYTES: usize = 3 * bounds::GIT_OBJECT_BYTES;

/// A pack (gitformat-pack(5)) whose objects all have names: none is made of one that is not in it.
pub(super) struct Pack {
    file: File<Vec<u8>>,
    /// By where they are.
    entries: Vec<Known>,
    by_id: BTreeMap<GitId, usize>,
    bases: Bases,
    inflate: Inflate,
    buffer: Vec<u8>,
    /// Bytes that were made, with those of what they were made of, each time.
    work: u64,
}

/// What is known of one object.
struct Known {
    offset: u64,
    /// Where its content begins, which is what it is kept by.
    data: u64,
    /// What it is, as soon as that is known.
    kind: Option<Kind>,
    /// What it is made of, as soon as that is known.
    base: Option<usize>,
    size: u64,
    /// Bytes that making it of what it is made of takes: its own, or the instructions where they are more.
    making: u64,
    /// Bytes of it and of all that it is made of.
    chain: u64,
    depth: u32,
}

/// What objects wait for, from which they are made.
#[derive(Default)]
struct Waiting {
    for_entry: BTreeMap<usize, Vec<usize>>,
    for_id: BTreeMap<GitId, Vec<usize>>,
}

/// What an object is made of.
enum Base {
    Nothing(Kind),
    Entry(usize),
    Id(GitId),
}

impl Pack {
    /// Reads a pack of `size` bytes, and finds the name of each of its objects.
    pub(super) fn read(mut content: impl Read, size: u64) -> Result<Self, Stop> {
        if size > bounds::GIT_PACK_BYTES {
            let most = bounds::GIT_PACK_BYTES;
            return Err(refused(format!("has {size} bytes; {most} are read")));
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(size).unwrap_or(usize::MAX);
        bytes
            .try_reserve_exact(room)
            .map_err(|_| refused("does not fit into memory"))?;
        content.read_to_end(&mut bytes)?;
        let Some((body, trailer)) = bytes.split_last_chunk::<TRAILER>() else {
            return Err(refused("is cut: it has not even an end"));
        };
        let mut hasher = gix_hash::hasher(HashKind::Sha1);
        hasher.update(body);
        let due = hasher.try_finalize().map_err(|e| broken(&e))?;
        if due.as_slice() != trailer {
            let why = "is cut or damaged: the digest at its end is not that of what comes before";
            return Err(refused(why));
        }
        let file = File::from_data(bytes, PathBuf::new(), HashKind::Sha1);
        let file = file.map_err(|e| broken(&e))?;
        let objects = file.num_objects() as usize;
        if objects > bounds::GIT_OBJECTS {
            let most = bounds::GIT_OBJECTS;
            return Err(refused(format!("has {objects} objects; {most} are read")));
        }
        let mut pack = Self {
            file: file.with_alloc_limit_bytes(Some(MAKING_BYTES)),
            entries: Vec::new(),
            by_id: BTreeMap::new(),
            bases: Bases::default(),
            inflate: Inflate::default(),
            buffer: Vec::new(),
            work: 0,
        };
        let waiting = pack.scan(objects, size)?;
        pack.foresee(&waiting)?;
        pack.resolve(waiting)?;
        Ok(pack)
    }

    /// The object of this name, and what it is.
    pub(super) fn object(&mut self, id: GitId) -> Result<(Kind, &[u8]), Stop> {
        let index = self.by_id.get(&id).copied();
        let index = index.ok_or_else(|| refused(format!("lacks the object {id}")))?;
        let kind = self.make(index)?;
        Ok((kind, &self.buffer))
    }

    /// How many of its objects are commits.
    pub(super) fn commits(&self) -> usize {
        let is_commit = |known: &&Known| known.kind == Some(Kind::Commit);
        self.entries.iter().filter(is_commit).count()
    }

    /// Whether it has an object of this name.
    pub(super) fn has(&self, id: GitId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Looks at each object in turn: those that are whole get their names, the others wait for what they are made of.
    fn scan(&mut self, objects: usize, packed: u64) -> Result<Waiting, Stop> {
        let end = self.file.pack_end() as u64;
        let most = most_from(packed).min(bounds::TREE_BYTES);
        let (mut at, mut all) = (HEADER, 0_u64);
        let mut waiting = Waiting::default();
        for index in 0..objects {
            if at >= end {
                return Err(refused("is cut: it has fewer objects than it says"));
            }
            let entry = self.file.entry(at).map_err(|e| broken(&e))?;
            let consumed = self.inflate(&entry)?;
            let next = entry.data_offset.saturating_add(consumed as u64);
            if next > end {
                return Err(refused("is cut: an object goes on behind its end"));
            }
            let base = self.base(&entry)?;
            let size = match base {
                Base::Nothing(_) => entry.decompressed_size,
                Base::Entry(_) | Base::Id(_) => result_size(&self.buffer)?,
            };
            let making = entry.decompressed_size.max(size);
            all = all.saturating_add(making);
            if size > bounds::GIT_OBJECT_BYTES as u64 || all > most {
                return Err(refused(format!(
                    "has an object of {size} bytes, or objects of {all} together; {} and {most} are read: it looks made to fill memory or disks",
                    bounds::GIT_OBJECT_BYTES
                )));
            }
            let known = Known {
                offset: at,
                data: entry.data_offset,
                kind: None,
                base: None,
                size,
                making,
                chain: size,
                depth: 0,
            };
            self.entries.push(known);
            match base {
                Base::Nothing(kind) => self.name(index, kind)?,
                Base::Entry(base) => waiting.for_entry.entry(base).or_default().push(index),
                Base::Id(base) => waiting.for_id.entry(base).or_default().push(index),
            }
            at = next;
        }
        match at == end {
            true => Ok(waiting),
            false => Err(refused("goes on after its last object")),
        }
    }

    /// Refuses, before any of it is made, what at the least would be too much: each object with what it is made of.
    fn foresee(&self, waiting: &Waiting) -> Result<(), Stop> {
        let by_entry = waiting.for_entry.iter();
        let by_entry = by_entry.map(|(base, made)| (*base, made));
        let by_id = waiting.for_id.iter();
        let by_id = by_id.filter_map(|(id, made)| Some((*self.by_id.get(id)?, made)));
        let mut least = self.work;
        for (base, made) in by_entry.chain(by_id) {
            let each = self.entries[base].size;
            least = least.saturating_add(each.saturating_mul(made.len() as u64));
        }
        bounded(least)
    }

    /// Makes every object that is made of another, each after that.
    fn resolve(&mut self, mut waiting: Waiting) -> Result<(), Stop> {
        let whole = (0..self.entries.len()).filter(|index| self.entries[*index].kind.is_some());
        let mut next: Vec<usize> = whole.collect();
        let ids: BTreeMap<usize, GitId> = self.by_id.iter().map(|(id, i)| (*i, *id)).collect();
        let mut named: Vec<Option<GitId>> = (0..self.entries.len())
            .map(|index| ids.get(&index).copied())
            .collect();
        drop(ids);
        while let Some(base) = next.pop() {
            let made = waiting.for_entry.remove(&base).unwrap_or_default();
            let mut made: Vec<_> = made.into_iter().map(|index| (base, index)).collect();
            if let Some(id) = named[base] {
                // Of several of one name it is the first that had it.
                let base = self.by_id.get(&id).copied().unwrap_or(base);
                let of_id = waiting.for_id.remove(&id).unwrap_or_default();
                made.extend(of_id.into_iter().map(|index| (base, index)));
            }
            for (base, index) in made {
                let (depth, chain) = (self.entries[base].depth, self.entries[base].chain);
                let known = &mut self.entries[index];
                known.base = Some(base);
                known.depth = depth + 1;
                known.chain = known.chain.saturating_add(chain);
                if known.depth > bounds::GIT_DELTA_DEPTH || known.chain > bounds::GIT_CHAIN_BYTES {
                    return Err(refused(format!(
                        "has objects that are made one of the other, more than {} or with more than {} bytes together",
                        bounds::GIT_DELTA_DEPTH,
                        bounds::GIT_CHAIN_BYTES
                    )));
                }
                let kind = self.make(index)?;
                self.name(index, kind)?;
                named[index] = Some(id_of(kind, &self.buffer)?);
                next.push(index);
            }
        }
        if self.entries.iter().any(|known| known.kind.is_none()) {
            let why = "has objects that are made of others which it lacks (a thin pack): the server has not sent what it was asked for";
            return Err(refused(why));
        }
        Ok(())
    }

    /// What an entry is made of.
    fn base(&self, entry: &Entry) -> Result<Base, Stop> {
        Ok(match entry.header {
            Header::Commit => Base::Nothing(Kind::Commit),
            Header::Tree => Base::Nothing(Kind::Tree),
            Header::Blob => Base::Nothing(Kind::Blob),
            Header::Tag => Base::Nothing(Kind::Tag),
            Header::RefDelta { base_id } => Base::Id(id(&base_id)?),
            Header::OfsDelta { base_distance } => {
                let offset = entry.checked_base_pack_offset(base_distance);
                let found = offset.and_then(|offset| {
                    let found = self
                        .entries
                        .binary_search_by_key(&offset, |known| known.offset);
                    found.ok()
                });
                let why = "has an object that is made of one that does not begin where it should";
                Base::Entry(found.ok_or_else(|| refused(why))?)
            }
        })
    }

    /// Inflates an entry into the buffer; gives how many bytes it has in the pack.
    fn inflate(&mut self, entry: &Entry) -> Result<usize, Stop> {
        let size = usize::try_from(entry.decompressed_size).unwrap_or(usize::MAX);
        if size > bounds::GIT_OBJECT_BYTES {
            let most = bounds::GIT_OBJECT_BYTES;
            return Err(refused(format!(
                "has an object of {size} bytes; {most} are read"
            )));
        }
        self.buffer.resize(size, 0);
        self.work(size as u64)?;
        let inflated = self
            .file
            .decompress_entry(entry, &mut self.inflate, &mut self.buffer);
        inflated.map_err(|e| broken(&e))
    }

    /// Makes an object, whose base has a name, into the buffer.
    fn make(&mut self, index: usize) -> Result<Kind, Stop> {
        self.work(self.cost(index))?;
        let known = &self.entries[index];
        let entry = self.file.entry(known.offset).map_err(|e| broken(&e))?;
        let size = known.size;
        let (file, entries, by_id) = (&self.file, &self.entries, &self.by_id);
        let find = |name: &oid, _: &mut Vec<u8>| {
            let name: Option<[u8; TRAILER]> = name.as_bytes().try_into().ok();
            let index = name.and_then(|name| by_id.get(&GitId::from_bytes(name)));
            let entry = index.map(|index| file.entry(entries[*index].offset));
            Ok(entry.transpose()?.map(ResolvedBase::InPack))
        };
        let made = file.decode_entry(
            entry,
            &mut self.buffer,
            &mut self.inflate,
            &find,
            &mut self.bases,
        );
        let made = made.map_err(|e| broken(&e))?;
        // What `made` says of sizes is about the instructions where the object itself was kept.
        if self.buffer.len() as u64 != size {
            return Err(refused("has an object of another size than it says"));
        }
        Ok(made.kind)
    }

    /// Bytes that making an object takes, with all that it is made of as far as that is not kept.
    fn cost(&self, index: usize) -> u64 {
        let (mut next, mut sum) = (Some(index), 0_u64);
        while let Some(index) = next {
            let known = &self.entries[index];
            sum = sum.saturating_add(known.making);
            next = known.base.filter(|_| !self.bases.has(known.data));
        }
        sum
    }

    fn work(&mut self, bytes: u64) -> Result<(), Stop> {
        self.work = self.work.saturating_add(bytes);
        bounded(self.work)
    }

    /// Gives the object in the buffer its name.
    fn name(&mut self, index: usize, kind: Kind) -> Result<(), Stop> {
        let id = id_of(kind, &self.buffer)?;
        self.entries[index].kind = Some(kind);
        self.by_id.entry(id).or_insert(index);
        Ok(())
    }
}

fn bounded(work: u64) -> Result<(), Stop> {
    let most = bounds::GIT_WORK_BYTES;
    match work > most {
        false => Ok(()),
        true => Err(refused(format!(
            "needs more than {most} bytes to be made: it looks made to keep machines busy"
        ))),
    }
}

/// The name of an object: its SHA-1, if it is none of two that somebody has made to have the same.
fn id_of(kind: Kind, content: &[u8]) -> Result<GitId, Stop> {
    let hashed = gix_object::compute_hash(HashKind::Sha1, kind, content);
    id(&hashed.map_err(|e| broken(&e))?)
}

pub(super) fn id(id: &oid) -> Result<GitId, Stop> {
    let bytes = id.as_bytes().try_into();
    bytes
        .map(GitId::from_bytes)
        .map_err(|_| refused("names objects otherwise than by SHA-1"))
}

/// How large the object is that these instructions make (gitformat-pack(5), "Deltified representation").
fn result_size(delta: &[u8]) -> Result<u64, Stop> {
    let mut bytes = delta.iter();
    let mut number = || {
        let (mut value, mut shift) = (0_u64, 0_u32);
        loop {
            let byte = *bytes.next()?;
            let bits = u64::from(byte & 0x7f);
            // Sizes that are read have far fewer bits.
            value |= bits.checked_shl(shift).filter(|v| v >> shift == bits)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    };
    let size = number().and_then(|_| number());
    size.ok_or_else(|| refused("has an object whose size cannot be read"))
}

pub(super) fn refused(why: impl Into<String>) -> Stop {
    Stop::Refused(why.into())
}

/// What gitoxide says of it, which may repeat what stands there.
pub(super) fn broken(error: &gix_error::Error) -> Stop {
    refused(format!(
        "cannot be read: {}",
        shown(error.to_string().as_bytes())
    ))
}

#[cfg(test)]
mod tests;
