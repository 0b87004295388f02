use std::io::Write as _;

use super::*;

const BASE: usize = 1 << 20;
/// Instructions that copy the first [`BASE`] bytes.
const COPY: &[u8] = b"\xc0\x10";
/// Instructions that copy the first byte.
const FIRST: &[u8] = b"\x90\x01";

/// A size: so many bits in the first byte, seven in each other.
fn size(mut first: u8, bits: u32, mut size: usize) -> Vec<u8> {
    first |= u8::try_from(size & ((1 << bits) - 1)).unwrap();
    size >>= bits;
    let mut bytes = vec![first];
    while size > 0 {
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.push(u8::try_from(size & 0x7f).unwrap());
        size >>= 7;
    }
    bytes
}

/// Objects of a pack: a blob of [`BASE`] bytes, and then such as are made of another one, by its name.
struct Objects(Vec<Vec<u8>>);

impl Objects {
    fn new() -> (Self, GitId) {
        let base = vec![b'x'; BASE];
        let mut objects = Self(Vec::new());
        objects.put(3, &[], &base);
        (objects, id_of(Kind::Blob, &base).unwrap())
    }

    fn put(&mut self, number: u8, base: &[u8], content: &[u8]) {
        let mut bytes = size(number << 4, 4, content.len());
        bytes.extend_from_slice(base);
        let mut encoder = flate2::write::ZlibEncoder::new(bytes, flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        self.0.push(encoder.finish().unwrap());
    }

    fn delta(&mut self, base: (GitId, usize), result: usize, instructions: &[u8]) {
        let sizes = [size(0, 7, base.1), size(0, 7, result)].concat();
        let content = [&sizes, instructions].concat();
        self.put(7, base.0.as_bytes(), &content);
    }

    /// How many times the bytes of the blob had to be made.
    fn work(self) -> u64 {
        let count = u32::try_from(self.0.len()).unwrap();
        let head = [&b"PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
        let mut bytes = [head, self.0.concat()].concat();
        let mut hasher = gix_hash::hasher(HashKind::Sha1);
        hasher.update(&bytes);
        bytes.extend_from_slice(hasher.try_finalize().unwrap().as_slice());
        let pack = Pack::read(&bytes[..], bytes.len() as u64).unwrap();
        let (times, instructions) = (pack.work / BASE as u64, pack.work % BASE as u64);
        assert!(instructions < 10_000, "{instructions}");
        times
    }
}

#[test]
fn what_an_object_is_made_of_counts_each_time() {
    // Of one that is whole, and inflated anew each time.
    let (mut objects, base) = Objects::new();
    for _ in 0..10 {
        objects.delta((base, BASE), 1, FIRST);
    }
    assert_eq!(objects.work(), 1 + 10);
    // Of one that is made itself: once of the whole one, from then on it is kept.
    let (mut objects, base) = Objects::new();
    let other = [b"y", &vec![b'x'; BASE - 1][..]].concat();
    let other = id_of(Kind::Blob, &other).unwrap();
    objects.delta((base, BASE), BASE, b"\x01y\xf0\xff\xff\x0f");
    for _ in 0..10 {
        objects.delta((other, BASE), 1, FIRST);
    }
    assert_eq!(objects.work(), 1 + 2 + 10);
    // Of one that is too large to be kept: that is made each time, of the whole one.
    let (mut objects, base) = Objects::new();
    let large = id_of(Kind::Blob, &vec![b'x'; 33 * BASE]).unwrap();
    objects.delta((base, BASE), 33 * BASE, &COPY.repeat(33));
    for _ in 0..2 {
        objects.delta((large, 33 * BASE), 1, FIRST);
    }
    assert_eq!(objects.work(), 1 + 34 + 2 * 34);
}
