//! ZIP archives: of usual programs, and such as no program writes.

use belljar_core::{Recipe, Unpack};

use super::deriving::Tar;
use super::zip_file::{Entry, ZipFile};
use super::*;

/// By Info-ZIP: times, owners, directories.
const INFO: &str = "504b03040a0000000000c8547c5d00000000000000000000000004001c00782d312f555409000317af0a6b17af0a6b75780b\
    000104000000000400000000504b03040a0000000000c8547c5d29a599e105000000050000000a001c00782d312f52454144\
    4d45555409000317af0a6b17af0a6b75780b000104000000000400000000726561640a504b03040a0000000000c8547c5d00\
    000000000000000000000008001c00782d312f62696e2f555409000317af0a6b17af0a6b75780b0001040000000004000000\
    00504b03040a0000000000c8547c5ddbfb337214000000140000000c001c00782d312f62696e2f746f6f6c555409000317af\
    0a6b17af0a6b75780b00010400000000040000000023212f62696e2f73680a6563686f20746f6f6c0a504b01021e030a0000\
    000000c8547c5d000000000000000000000000040018000000000000001000ed4100000000782d312f555405000317af0a6b\
    75780b000104000000000400000000504b01021e030a0000000000c8547c5d29a599e105000000050000000a001800000000\
    0001000000a4813e000000782d312f524541444d45555405000317af0a6b75780b000104000000000400000000504b01021e\
    030a0000000000c8547c5d000000000000000000000000080018000000000000001000ed4187000000782d312f62696e2f55\
    5405000317af0a6b75780b000104000000000400000000504b01021e030a0000000000c8547c5ddbfb337214000000140000\
    000c0018000000000001000000ed81c9000000782d312f62696e2f746f6f6c555405000317af0a6b75780b00010400000000\
    0400000000504b050600000000040004003a010000230100000000";
/// By `git archive`: stored, with the commit as comment.
const GIT: &str = "504b03040a0000000000c7547c5d00000000000000000000000004000900782d312f555405000117af0a6b504b03040a0000\
    000000c7547c5d29a599e105000000050000000a000900782d312f524541444d45555405000117af0a6b726561640a504b03\
    040a0000000000c7547c5d00000000000000000000000008000900782d312f62696e2f555405000117af0a6b504b03040a00\
    00000000c7547c5ddbfb337214000000140000000c000900782d312f62696e2f746f6f6c555405000117af0a6b23212f6269\
    6e2f73680a6563686f20746f6f6c0a504b010200000a0000000000c7547c5d00000000000000000000000004000900000000\
    0000001000000000000000782d312f555405000117af0a6b504b010200000a0000000000c7547c5d29a599e1050000000500\
    00000a000900000000000100000000002b000000782d312f524541444d45555405000117af0a6b504b010200000a00000000\
    00c7547c5d000000000000000000000000080009000000000000001000000061000000782d312f62696e2f555405000117af\
    0a6b504b010217030a0000000000c7547c5ddbfb337214000000140000000c0009000000000001000000ed8190000000782d\
    312f62696e2f746f6f6c555405000117af0a6b504b05060000000004000400fe000000d70000002800333134373765633635\
    61333466323237396566646530373134303236383035666338613437666339";
/// By Python to a pipe: lengths after the content.
const PYTHON: &str = "504b03041400080000000000215c00000000000000000000000004000000782d312f504b0708000000000000000000000000\
    504b03041400080008000000215c0000000000000000000000000c000000782d312f62696e2f746f6f6c5356d44fcaccd32f\
    cee04a4dcec85728c9cfcfe10200504b0708dbfb33721600000014000000504b03041400080008000000215c000000000000\
    0000000000000a000000782d312f524541444d452b4a4d4ce10200504b070829a599e10700000005000000504b0102140314\
    00080000000000215c000000000000000000000000040000000000000000000000ed4100000000782d312f504b0102140314\
    00080008000000215cdbfb337216000000140000000c0000000000000000000000ed8132000000782d312f62696e2f746f6f\
    6c504b010214031400080008000000215c29a599e107000000050000000a0000000000000000000000a48182000000782d31\
    2f524541444d45504b05060000000003000300a4000000c10000000000";
/// By `jar`.
const JAVA: &str = "504b0304140008080800c8547c5d000000000000000000000000090004004d4554412d494e462ffeca00000300504b070800\
    0000000200000000000000504b0304140008080800c8547c5d000000000000000000000000140000004d4554412d494e462f\
    4d414e49464553542e4d46f34dcccb4c4b2d2ed10d4b2d2acecccfb35230d433e0e5722e4a4d2c494dd175aa040a98eb19e8\
    199a2a68b8a4266526e669f272f1720100504b07081db3b3993800000037000000504b0304140008080800c7547c5d000000\
    00000000000000000006000000524541444d452b4a4d4ce10200504b070829a599e10700000005000000504b03040a000008\
    0000c7547c5d0000000000000000000000000400000062696e2f504b0304140008080800c7547c5d00000000000000000000\
    00000800000062696e2f746f6f6c5356d44fcaccd32fcee04a4dcec85728c9cfcfe10200504b0708dbfb3372160000001400\
    0000504b01021400140008080800c8547c5d0000000002000000000000000900040000000000000000000000000000004d45\
    54412d494e462ffeca0000504b01021400140008080800c8547c5d1db3b39938000000370000001400000000000000000000\
    0000003d0000004d4554412d494e462f4d414e49464553542e4d46504b01021400140008080800c7547c5d29a599e1070000\
    00050000000600000000000000000000000000b7000000524541444d45504b01020a000a0000080000c7547c5d0000000000\
    000000000000000400000000000000000000000000f200000062696e2f504b01021400140008080800c7547c5ddbfb337216\
    0000001400000008000000000000000000000000001401000062696e2f746f6f6c504b050600000000050005001901000060\
    0100000000";
/// By Info-ZIP out of a pipe: ZIP64, however short.
const STREAM: &str = "504b03042d0000000000c8547c5d20303a36ffffffffffffffff010014002d01001000060000000000000006000000000000\
    0068656c6c6f0a504b01021e032d0000000000c8547c5d20303a360600000006000000010000000000000001000000801100\
    0000002d504b06062c000000000000001e032d000000000000000000010000000000000001000000000000002f0000000000\
    00003900000000000000504b060700000000680000000000000001000000504b050600000000010001002f00000039000000\
    0000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

impl Rig {
    fn unzipped(&self, archive: &[u8], strip: u32) -> Answer {
        let recipe = Recipe::Fetched {
            content: self.memory.put(archive),
            unpack: Unpack::zip(strip).unwrap(),
        };
        self.derive(recipe)
    }

    fn not_unzipped(&self, archive: &[u8]) -> String {
        let before = self.memory.put(archive);
        let objects = self.memory.ids();
        let why = match self.unzipped(archive, 0) {
            Answer::DerivationRefused { why } => why,
            other => panic!("{before}: {other:?}"),
        };
        assert_eq!(self.memory.ids(), objects, "{why}");
        why
    }
}

fn leaf(content: &[u8], executable: bool) -> Leaf {
    let object = ObjectId::of(content);
    Leaf::File { object, executable }
}

fn tree(leaves: Vec<(&str, Leaf)>) -> ObjectId {
    let leaves = leaves.into_iter();
    let leaves = leaves.map(|(path, leaf)| (RelPath::new(path).unwrap(), leaf));
    build(leaves.collect::<Vec<_>>()).unwrap().root
}

const TOOL: &[u8] = b"#!/bin/sh\necho tool\n";

#[test]
fn what_usual_programs_write_is_unpacked_alike() {
    let due = tree(vec![
        ("bin/tool", leaf(TOOL, true)),
        ("README", leaf(b"read\n", false)),
    ]);
    for archive in [INFO, GIT, PYTHON] {
        let rig = Rig::new();
        let answer = rig.unzipped(&bytes(archive), 1);
        let Answer::Derived { tree, dropped, .. } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(tree, due);
        assert!(dropped.is_empty(), "{dropped:?}");
    }
    let rig = Rig::new();
    let answer = rig.unzipped(&bytes(JAVA), 0);
    // It writes no modes.
    let manifest = "Manifest-Version: 1.0\r\nCreated-By: ";
    let Answer::Derived { entries: 5, .. } = answer else {
        panic!("{manifest}: {answer:?}")
    };
    assert!(rig.memory.contains(ObjectId::of(TOOL)).unwrap());
}

#[test]
fn entries_are_what_they_say_and_large_ones_stream() {
    let rig = Rig::new();
    let zeros = vec![0; 3 * bounds::CHUNK_BYTES + 1];
    let mut set_id = Entry::file("a/set-id", b"x");
    set_id.mode = 0o104_711;
    let mut later = Entry::file("a/zeros", &zeros);
    later.later = true;
    let mut stored = Entry::file("\u{fc}", b"stored");
    stored.deflated = false;
    stored.mode = 0;
    let empty = directory("empty/");
    let archive = ZipFile::default()
        .add(set_id)
        .add(later)
        .add(stored)
        .add(empty);
    let answer = rig.unzipped(&archive.end_with(b"a comment"), 0);
    let Answer::Derived {
        tree: made,
        dropped,
        bytes,
        ..
    } = answer
    else {
        panic!("{answer:?}")
    };
    let due = tree(vec![
        ("a/set-id", leaf(b"x", true)),
        ("a/zeros", leaf(&zeros, false)),
        ("\u{fc}", leaf(b"stored", false)),
        ("empty", Leaf::EmptyDirectory),
    ]);
    assert_eq!((made, bytes), (due, zeros.len() as u64 + 7));
    assert_eq!(format!("{dropped:?}"), "{SetIdBits: 1, Modes: 1}");
    // Nothing at all is an archive, too.
    let empty = rig.unzipped(&ZipFile::default().end(), 0);
    assert!(
        matches!(empty, Answer::Derived { entries: 0, .. }),
        "{empty:?}"
    );
}

/// Writes two bytes there.
fn set(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn one(name: &str) -> Vec<u8> {
    ZipFile::default().add(Entry::file(name, b"x")).end()
}

/// As who knows no modes writes it.
fn directory(name: &str) -> Entry<'_> {
    Entry {
        mode: 0,
        ..Entry::file(name, b"")
    }
}

fn of_mode(name: &str, mode: u32) -> Vec<u8> {
    let mut entry = Entry::file(name, b"target");
    entry.mode = mode;
    ZipFile::default().add(entry).end()
}

/// One entry, changed in the directory and in front of its content.
fn flagged(flags: u16) -> Vec<u8> {
    let change = |local: &mut Vec<u8>, central: &mut Vec<u8>| {
        set(local, 6, flags);
        set(central, 8, flags);
    };
    ZipFile::default()
        .changed(Entry::file("a", b"x"), change)
        .end()
}

/// One entry, changed in front of its content only.
fn local(at: usize, value: u16) -> Vec<u8> {
    let change = |local: &mut Vec<u8>, _: &mut Vec<u8>| set(local, at, value);
    ZipFile::default()
        .changed(Entry::file("abc", b"x"), change)
        .end()
}

/// One entry, changed in the directory only.
fn central(at: usize, value: u16) -> Vec<u8> {
    let change = |_: &mut Vec<u8>, central: &mut Vec<u8>| set(central, at, value);
    ZipFile::default()
        .changed(Entry::file("abc", b"x"), change)
        .end()
}

fn extra(id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let field = [&id.to_le_bytes(), &length.to_le_bytes(), content].concat();
    let change = |_: &mut Vec<u8>, central: &mut Vec<u8>| {
        set(central, 30, length + 4);
        central.extend(&field);
    };
    ZipFile::default()
        .changed(Entry::file("abc", b"x"), change)
        .end()
}

/// Two entries that share the content of the first, as bombs without recursion do.
fn overlapping() -> Vec<u8> {
    let archive = ZipFile::default().add(Entry::file("a", b"x"));
    let change = |_: &mut Vec<u8>, central: &mut Vec<u8>| central[42..46].fill(0);
    archive.changed(Entry::file("b", b"x"), change).end()
}

/// The record at the end, changed.
fn ended(at: usize, value: u16) -> Vec<u8> {
    let mut archive = one("a");
    let end = archive.len() - 22;
    set(&mut archive, end + at, value);
    archive
}

fn bomb() -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let mut archive = ZipFile::default();
    for number in 0..300 {
        let name = format!("{number}");
        archive = archive.add(Entry::file(&name, &zeros));
    }
    archive.end()
}

#[test]
fn what_readers_could_read_otherwise_is_refused_by_name() {
    let twice = || ZipFile::default().add(Entry::file("a/b", b"1"));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("absolute path", one("/etc/passwd")),
        ("`..` in its path", one("a/../../b")),
        ("a backslash", one("..\\b")),
        ("no more components", one(".")),
        (
            "`a/b`, which is there twice",
            twice().add(Entry::file("a/b", b"2")).end(),
        ),
        (
            "is there twice",
            twice().add(Entry::file("./a//b", b"2")).end(),
        ),
        ("is there twice", twice().add(directory("a/b/")).end()),
        (
            "through `a/b`, which is a file",
            twice().add(Entry::file("a/b/c", b"")).end(),
        ),
        ("is a symbolic link", of_mode("link", 0o120_777)),
        ("neither a file nor a directory", of_mode("pipe", 0o010_644)),
        ("neither a file nor a directory", of_mode("disk", 0o060_644)),
        ("without a slash", of_mode("d", 0o040_755)),
        ("with a slash", of_mode("f/", 0o100_644)),
        ("a directory, and has content", of_mode("d/", 0o040_755)),
        ("is encrypted", flagged(1)),
        ("is encrypted", flagged(1 << 6 | 1)),
        ("flags that nobody knows", flagged(1 << 5)),
        ("ZIP64", extra(1, &[0; 8])),
        ("ZIP64", bytes(STREAM)),
        ("ZIP64", ended(10, u16::MAX)),
        ("two names", extra(0x7075, b"\x01\0\0\0\0other")),
        ("malformed extra field", {
            let mut archive = extra(7, b"1234");
            let end = archive.len() - 22;
            set(&mut archive, end - 6, 9);
            archive
        }),
        ("method 12", central(10, 12)),
        ("described otherwise", local(6, 1 << 11)),
        ("described otherwise", local(8, 0)),
        ("described otherwise", local(14, 7)),
        ("described otherwise", local(30, 0x7878)),
        ("does not begin with an entry", local(0, 0)),
        ("overlaps the next", overlapping()),
        ("overlaps the next", central(20, 60_000)),
        ("described otherwise", central(16, 7)),
        ("in another part", central(34, 1)),
        ("in several", ended(4, 1)),
        ("longer than its entries", {
            let mut archive = ended(8, 0);
            let end = archive.len() - 22;
            set(&mut archive, end + 10, 0);
            archive
        }),
        (
            "something is behind its end",
            [one("a"), b"x".to_vec()].concat(),
        ),
        ("not where it says", ended(12, 1)),
        (
            "does not begin with an entry",
            [b"#!/bin/sh\n".to_vec(), one("a")].concat(),
        ),
        (
            "does not begin with an entry",
            Tar::new().file("a", b"x").end(),
        ),
        ("it is too short", Vec::new()),
        ("it is cut", one("a")[..40].to_vec()),
        ("made to fill disks", bomb()),
    ];
    let rig = Rig::new();
    let told = cases
        .into_iter()
        .map(|(due, archive)| (due, rig.not_unzipped(&archive)));
    let other: Vec<_> = told.filter(|(due, why)| !why.contains(due)).collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn what_is_between_or_around_entries_is_refused() {
    // Bytes that belong to no entry: between two, and in front of the first.
    let gap = |local: &mut Vec<u8>, central: &mut Vec<u8>| {
        local.splice(0..0, *b"gap");
        let begin = u32::from_le_bytes(central[42..46].try_into().unwrap()) + 3;
        central[42..46].copy_from_slice(&begin.to_le_bytes());
    };
    let first = ZipFile::default()
        .changed(Entry::file("a", b"x"), gap)
        .end();
    let second = ZipFile::default().add(Entry::file("a", b"x"));
    let second = second.changed(Entry::file("b", b"x"), gap).end();
    let rig = Rig::new();
    let why = rig.not_unzipped(&first);
    assert!(why.contains("does not begin with an entry"), "{why}");
    let why = rig.not_unzipped(&second);
    assert!(why.contains("has something around it"), "{why}");
    // Content that is not what its checksum, its length or its packing says.
    for (at, due) in [(16, "wrong checksum"), (24, "has not the content")] {
        let both = |local: &mut Vec<u8>, central: &mut Vec<u8>| {
            set(local, at - 2, 2);
            set(central, at, 2);
        };
        let archive = ZipFile::default()
            .changed(Entry::file("a", b"x"), both)
            .end();
        let why = rig.not_unzipped(&archive);
        assert!(why.contains(due), "{due}: {why}");
    }
    let mut broken = Entry::file("a", b"\xff\xff\xff");
    broken.deflated = false;
    let deflated = |local: &mut Vec<u8>, central: &mut Vec<u8>| {
        set(local, 8, 8);
        set(central, 10, 8);
    };
    let archive = ZipFile::default().changed(broken, deflated).end();
    let why = rig.not_unzipped(&archive);
    assert!(why.contains("cannot be unpacked"), "{why}");
}

#[test]
fn a_long_name_does_not_keep_the_refusal_from_being_told() {
    let rig = Rig::new();
    let long = "\u{1}".repeat(60_000);
    let why = rig.not_unzipped(&one(&long));
    assert!(why.contains("has an entry"), "{why}");
}
