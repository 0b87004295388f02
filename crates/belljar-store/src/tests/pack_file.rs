//! Packs of git (gitformat-pack(5)), made to the byte: also such as git would never write.

use std::io::Write as _;

use belljar_core::GitId;
use gix_hash::Kind as HashKind;
use gix_object::Kind;

/// A pack that is being made.
pub(crate) struct PackFile {
    bytes: Vec<u8>,
    objects: u32,
    /// How many it says that it has, if that is not so.
    pub(crate) says: Option<u32>,
}

impl PackFile {
    pub(crate) fn new() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            objects: 0,
            says: None,
        }
    }

    /// Where the next object begins.
    pub(crate) fn at(&self) -> usize {
        self.bytes.len()
    }

    /// One whole object; gives its name.
    pub(crate) fn add(&mut self, kind: Kind, content: &[u8]) -> GitId {
        let number = match kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 3,
            Kind::Tag => 4,
        };
        self.put(number, content.len(), &[], content);
        id(kind, content)
    }

    /// One that is made of the one that begins so many bytes before it.
    pub(crate) fn ofs_delta(&mut self, distance: usize, delta: &[u8]) {
        let mut encoded = vec![u8::try_from(distance & 0x7f).unwrap()];
        let mut rest = distance >> 7;
        while rest > 0 {
            rest -= 1;
            encoded.insert(0, 0x80 | u8::try_from(rest & 0x7f).unwrap());
            rest >>= 7;
        }
        self.put(6, delta.len(), &encoded, delta);
    }

    /// One that is made of the one of this name.
    pub(crate) fn ref_delta(&mut self, base: GitId, delta: &[u8]) {
        self.put(7, delta.len(), base.as_bytes(), delta);
    }

    /// One of any type that says that it has so many bytes.
    pub(crate) fn put(&mut self, number: u8, size: usize, base: &[u8], content: &[u8]) {
        let (mut first, mut rest) = ((number << 4) | u8::try_from(size & 0xf).unwrap(), size >> 4);
        loop {
            let more = rest > 0;
            self.bytes.push(first | if more { 0x80 } else { 0 });
            if !more {
                break;
            }
            first = u8::try_from(rest & 0x7f).unwrap();
            rest >>= 7;
        }
        self.bytes.extend_from_slice(base);
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(content).unwrap();
        self.bytes.extend(encoder.finish().unwrap());
        self.objects += 1;
    }

    /// All of it, with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        let objects = self.says.unwrap_or(self.objects);
        self.bytes[8..12].copy_from_slice(&objects.to_be_bytes());
        ended(self.bytes)
    }
}

/// These bytes with the end that a pack of them has.
pub(crate) fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut hasher = gix_hash::hasher(HashKind::Sha1);
    hasher.update(&bytes);
    bytes.extend_from_slice(hasher.try_finalize().unwrap().as_slice());
    bytes
}

/// The name of an object.
pub(crate) fn id(kind: Kind, content: &[u8]) -> GitId {
    let id = gix_object::compute_hash(HashKind::Sha1, kind, content).unwrap();
    GitId::from_bytes(id.as_bytes().try_into().unwrap())
}

/// A tree of these entries, in this order.
pub(crate) fn tree(entries: &[(&str, &str, GitId)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (mode, name, id) in entries {
        content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        content.extend_from_slice(id.as_bytes());
    }
    content
}

/// A commit of this tree.
pub(crate) fn commit(tree: GitId, more: &str) -> Vec<u8> {
    let who = "a <a@a.example> 1767323045 +0000";
    format!("tree {tree}\n{more}author {who}\ncommitter {who}\n\none\n").into_bytes()
}

/// How an object of so many bytes is made of one of so many.
pub(crate) fn delta(base: usize, result: usize, instructions: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for mut size in [base, result] {
        while size >= 0x80 {
            bytes.push(0x80 | u8::try_from(size & 0x7f).unwrap());
            size >>= 7;
        }
        bytes.push(u8::try_from(size).unwrap());
    }
    bytes.extend_from_slice(instructions);
    bytes
}
