//! What every pair of a [`BlobSource`] and a [`BlobSink`] does, and what only the one on disk does.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use belljar_core::{Blake3Digest, BlobDigest, BlobName, Digest, ObjectId, bounds};

use crate::layout::object_path;
use crate::{
    BlobSink, BlobSource, Custody, Disk, Fault, Finding, LayoutError, Memory, OBJECTS, QUARANTINE,
    Quarantined, ReadError, Reader, Removal, TMP, Usage, WriteError, Writer, objects_of_prefix,
};

fn put(
    sink: &dyn BlobSink,
    expected: Option<ObjectId>,
    pieces: &[&[u8]],
) -> Result<ObjectId, WriteError> {
    put_as(sink, expected.map(BlobName::from), pieces)
}

fn put_as(
    sink: &dyn BlobSink,
    expected: Option<BlobName>,
    pieces: &[&[u8]],
) -> Result<ObjectId, WriteError> {
    let mut pending = sink.begin(expected)?;
    for piece in pieces {
        pending.write(piece)?;
    }
    pending.finish()
}

fn get(source: &dyn BlobSource, object: ObjectId) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    source.read(object)?.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

/// So long that it is hashed while it is written; no two pieces of it are the same.
fn long() -> Vec<u8> {
    (0..(6 << 20) / 4).flat_map(u32::to_le_bytes).collect()
}

fn what_was_put_is_read_back(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let long = long();
    let odd: Vec<&[u8]> = long.chunks(100_003).collect();
    let zeros = vec![0; long.len()];
    for pieces in [
        &[&b"one"[..], b"", b"two"][..],
        &[b"onetwo"],
        &[&[7; 200_000]],
        &[&long],
        &odd,
        &[&[0]],
        &[&zeros],
        &[&zeros, b"end"],
        &[&long, &zeros],
    ] {
        let whole = pieces.concat();
        let object = ObjectId::of(&whole);
        assert_eq!(put(sink, Some(object), pieces).unwrap(), object);
        assert_eq!(
            put(sink, None, pieces).unwrap(),
            object,
            "again, and without saying what"
        );
        assert_eq!(get(source, object).unwrap(), whole);
        assert!(source.contains(object).unwrap());
    }
}

fn the_empty_object_is_there_from_the_start(source: &dyn BlobSource, _: &dyn BlobSink) {
    assert_eq!(get(source, ObjectId::of(b"")).unwrap(), b"");
}

fn what_is_not_as_announced_is_refused_and_not_kept(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let object = ObjectId::of(b"expected");
    for other in [&b"expecteD"[..], b"expect", b""] {
        match put(sink, Some(object), &[other]) {
            Err(WriteError::Mismatch { expected, found }) => {
                assert_eq!(
                    (expected, found),
                    (object.into(), ObjectId::of(other).into())
                );
            }
            result => panic!("{result:?}"),
        }
        assert!(other.is_empty() || !source.contains(ObjectId::of(other)).unwrap());
    }
    let begin = long();
    let large = ObjectId::of(&[&begin[..], b"end"].concat());
    let other = put(sink, Some(large), &[&begin, b"enD"]);
    assert!(
        matches!(other, Err(WriteError::Mismatch { expected, .. }) if expected == large.into())
    );
    assert!(!source.contains(large).unwrap());
    let long = put(sink, Some(object), &[b"expected", b"!"]);
    assert!(matches!(long, Err(WriteError::TooLong { .. })), "{long:?}");
    let huge = ObjectId {
        size: bounds::BLOB_BYTES + 1,
        ..object
    };
    assert!(matches!(
        put(sink, Some(huge), &[]),
        Err(WriteError::TooLarge)
    ));
    assert!(!source.contains(object).unwrap());
}

fn what_is_not_finished_is_not_kept(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let mut pending = sink.begin(None).unwrap();
    pending.write(b"dropped").unwrap();
    drop(pending);
    assert!(!source.contains(ObjectId::of(b"dropped")).unwrap());
}

fn absent_objects_and_wrong_sizes_are_told_apart(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let object = ObjectId::of(b"absent");
    assert!(matches!(get(source, object), Err(ReadError::Missing(missing)) if missing == object));
    assert!(!source.contains(object).unwrap());
    put(sink, None, &[b"absent"]).unwrap();
    let wrong = ObjectId { size: 3, ..object };
    assert!(matches!(
        get(source, wrong),
        Err(ReadError::Size { found: 6, .. })
    ));
    assert!(!source.contains(wrong).unwrap());
}

fn many_writers_of_one_object_agree(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let content = [3; 100_000];
    let object = ObjectId::of(&content);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| put(sink, Some(object), &[&content])))
            .collect();
        for writer in writers {
            assert_eq!(writer.join().unwrap().unwrap(), object);
        }
    });
    assert_eq!(get(source, object).unwrap(), content);
}

fn a_batch_is_kept_as_a_whole(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let mut batch = sink.batch().unwrap();
    assert!(batch.is_empty());
    sink.keep(sink.batch().unwrap()).unwrap();
    let mut objects = Vec::new();
    // The last is the same as the first.
    for i in (1..bounds::OBJECTS_AT_ONCE).chain([1]) {
        let content = vec![7; i];
        let mut pending = sink.begin(None).unwrap();
        pending.write(&content).unwrap();
        objects.push(pending.finish_into(&mut batch).unwrap());
        assert_eq!(objects.last(), Some(&ObjectId::of(&content)));
    }
    assert!(batch.is_full());
    let one_more = sink.begin(None).unwrap().finish_into(&mut batch);
    assert!(matches!(one_more, Err(WriteError::Io { .. })));
    assert!(
        !source.contains(objects[0]).unwrap(),
        "no name before it is durable"
    );
    sink.keep(batch).unwrap();
    for object in objects {
        assert_eq!(get(source, object).unwrap().len() as u64, object.size);
    }
}

fn a_batch_takes_only_what_is_as_announced_and_leaves_nothing(
    source: &dyn BlobSource,
    sink: &dyn BlobSink,
) {
    let mut batch = sink.batch().unwrap();
    let mut pending = sink.begin(Some(ObjectId::of(b"expected").into())).unwrap();
    pending.write(b"expecteD").unwrap();
    let result = pending.finish_into(&mut batch);
    assert!(matches!(result, Err(WriteError::Mismatch { .. })));
    let mut pending = sink.begin(None).unwrap();
    pending.write(b"dropped").unwrap();
    let dropped = pending.finish_into(&mut batch).unwrap();
    drop(batch);
    assert!(!source.contains(dropped).unwrap());
}

/// By BLAKE3.
fn blake3(content: &[u8]) -> BlobName {
    BlobName {
        digest: BlobDigest::Blake3(Blake3Digest::from_bytes(blake3::hash(content).into())),
        size: content.len() as u64,
    }
}

fn what_is_announced_by_blake3_is_kept_once_under_its_own_name(
    source: &dyn BlobSource,
    sink: &dyn BlobSink,
) {
    for pieces in [
        &[&b"one"[..], b"", b"two"][..],
        &[b""],
        // Some chunks of BLAKE3's, and a part of one.
        &[&[7; 100_000], &[8; 100_001]],
    ] {
        let whole = pieces.concat();
        let object = ObjectId::of(&whole);
        let name = blake3(&whole);
        assert_eq!(put_as(sink, Some(name), pieces).unwrap(), object);
        assert_eq!(put(sink, Some(object), pieces).unwrap(), object);
        assert_eq!(put_as(sink, Some(name), pieces).unwrap(), object, "again");
        assert_eq!(get(source, object).unwrap(), whole);
        assert!(source.verify(object).unwrap());
    }
}

fn what_is_not_as_announced_by_blake3_is_refused_and_not_kept(
    source: &dyn BlobSource,
    sink: &dyn BlobSink,
) {
    let name = blake3(b"expected");
    for other in [&b"expecteD"[..], b"expect", b""] {
        match put_as(sink, Some(name), &[other]) {
            Err(WriteError::Mismatch { expected, found }) => {
                assert_eq!((expected, found), (name, blake3(other)));
            }
            result => panic!("{result:?}"),
        }
        assert!(other.is_empty() || !source.contains(ObjectId::of(other)).unwrap());
    }
    let long = put_as(sink, Some(name), &[b"expected", b"!"]);
    assert!(matches!(long, Err(WriteError::TooLong { .. })), "{long:?}");
    // The same digits are another name by another function, both ways.
    let object = ObjectId::of(b"expected");
    let crossed = [
        (
            BlobDigest::Blake3(Blake3Digest::from_bytes(*object.digest.as_bytes())),
            b"expected",
        ),
        (
            BlobDigest::Sha256(Digest::from_hex(&name.digest.to_hex()).unwrap()),
            b"expected",
        ),
    ];
    for (digest, content) in crossed {
        let crossed = BlobName { digest, size: 8 };
        let refused = put_as(sink, Some(crossed), &[content]);
        assert!(
            matches!(refused, Err(WriteError::Mismatch { .. })),
            "{refused:?}"
        );
    }
    assert!(!source.contains(object).unwrap());
}

fn a_batch_takes_both(source: &dyn BlobSource, sink: &dyn BlobSink) {
    let mut batch = sink.batch().unwrap();
    for (name, content) in [
        (blake3(b"one"), &b"one"[..]),
        (ObjectId::of(b"two").into(), b"two"),
        (ObjectId::of(b"one").into(), b"one"),
        (blake3(b"two"), b"two"),
    ] {
        let mut pending = sink.begin(Some(name)).unwrap();
        pending.write(content).unwrap();
        let found = pending.finish_into(&mut batch).unwrap();
        assert_eq!(found, ObjectId::of(content));
    }
    let mut pending = sink.begin(Some(blake3(b"expected"))).unwrap();
    pending.write(b"expecteD").unwrap();
    let result = pending.finish_into(&mut batch);
    assert!(matches!(result, Err(WriteError::Mismatch { .. })));
    sink.keep(batch).unwrap();
    for content in [b"one", b"two"] {
        assert_eq!(get(source, ObjectId::of(content)).unwrap(), content);
    }
    assert!(!source.contains(ObjectId::of(b"expecteD")).unwrap());
}

type Case = fn(&dyn BlobSource, &dyn BlobSink);

const SUITE: &[(&str, Case)] = &[
    ("what_was_put_is_read_back", what_was_put_is_read_back),
    (
        "the_empty_object_is_there_from_the_start",
        the_empty_object_is_there_from_the_start,
    ),
    (
        "what_is_not_as_announced_is_refused_and_not_kept",
        what_is_not_as_announced_is_refused_and_not_kept,
    ),
    (
        "what_is_not_finished_is_not_kept",
        what_is_not_finished_is_not_kept,
    ),
    (
        "absent_objects_and_wrong_sizes_are_told_apart",
        absent_objects_and_wrong_sizes_are_told_apart,
    ),
    (
        "many_writers_of_one_object_agree",
        many_writers_of_one_object_agree,
    ),
    ("a_batch_is_kept_as_a_whole", a_batch_is_kept_as_a_whole),
    (
        "a_batch_takes_only_what_is_as_announced_and_leaves_nothing",
        a_batch_takes_only_what_is_as_announced_and_leaves_nothing,
    ),
    (
        "what_is_announced_by_blake3_is_kept_once_under_its_own_name",
        what_is_announced_by_blake3_is_kept_once_under_its_own_name,
    ),
    (
        "what_is_not_as_announced_by_blake3_is_refused_and_not_kept",
        what_is_not_as_announced_by_blake3_is_refused_and_not_kept,
    ),
    ("a_batch_takes_both", a_batch_takes_both),
];

#[test]
fn memory_behaves() {
    for (name, case) in SUITE {
        println!("{name}");
        let memory = Memory::new(64 << 20);
        case(&memory, &memory);
    }
}

#[test]
fn disk_behaves() {
    for (name, case) in SUITE {
        println!("{name}");
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path()).unwrap();
        case(&Reader::new(root.path()).unwrap(), &writer);
        assert_eq!(
            std::fs::read_dir(root.path().join(TMP)).unwrap().count(),
            0,
            "{name} left something behind"
        );
    }
}

#[test]
fn a_batch_is_kept_where_it_was_made() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let memory = Memory::new(100);
    for (made, kept) in [
        (&writer as &dyn BlobSink, &memory as &dyn BlobSink),
        (&memory, &writer),
    ] {
        let mut batch = made.batch().unwrap();
        made.begin(None).unwrap().finish_into(&mut batch).unwrap();
        assert!(matches!(kept.keep(batch), Err(WriteError::Io { .. })));
    }
}

#[test]
fn blake3_is_what_its_specification_has() {
    assert_eq!(blake3(b"").digest, BlobDigest::Blake3(Blake3Digest::EMPTY));
    // Of its test vectors (BLAKE3-team/BLAKE3, test_vectors.json): lengths around one chunk of 1,024 bytes, and many.
    for (length, due) in [
        (
            1,
            "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        ),
        (
            1023,
            "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        ),
        (
            1024,
            "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        ),
        (
            1025,
            "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        ),
        (
            102_400,
            "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
        ),
    ] {
        let content: Vec<u8> = (0..251).cycle().take(length).collect();
        assert_eq!(blake3(&content).digest.to_hex(), due, "{length}");
    }
}

#[test]
fn a_full_memory_says_so() {
    let memory = Memory::new(5);
    assert!(matches!(
        put(&memory, None, &[b"123456"]),
        Err(WriteError::Full(_))
    ));
    put(&memory, None, &[b"12345"]).unwrap();
    assert!(matches!(
        put(&memory, None, &[b"6"]),
        Err(WriteError::Full(_))
    ));
}

#[test]
fn a_full_disk_says_so() {
    // /dev/full (full(4)) answers every write with ENOSPC, as a full disk does.
    let error = std::fs::write("/dev/full", b"x").unwrap_err();
    assert!(crate::failure::is_full(&error));
    // A quota that is reached, EDQUOT.
    assert!(crate::failure::is_full(&std::io::Error::from_raw_os_error(
        122
    )));
    assert!(!crate::failure::is_full(
        &std::io::Error::from_raw_os_error(5)
    ));
}

fn file_of(root: &Path, object: ObjectId) -> PathBuf {
    root.join(OBJECTS).join(object_path(object.digest))
}

#[test]
fn an_object_on_disk_is_where_and_as_documented() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let object = put(&writer, None, &[b"abc"]).unwrap();
    let path = root
        .path()
        .join("objects/sha256/ba/7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(path, file_of(root.path(), object));
    let status = std::fs::metadata(&path).unwrap();
    assert_eq!((status.mode() & 0o7777, status.nlink()), (0o440, 1));
}

#[test]
fn an_object_that_was_cut_is_not_read_and_is_mended_by_the_next_upload() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let reader = Reader::new(root.path()).unwrap();
    let object = put(&writer, None, &[b"whole"]).unwrap();
    let path = file_of(root.path(), object);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::write(&path, b"who").unwrap();
    assert!(matches!(
        reader.open(object),
        Err(ReadError::Size { found: 3, .. })
    ));
    put(&writer, Some(object), &[b"whole"]).unwrap();
    assert_eq!(get(&reader, object).unwrap(), b"whole");
    assert_eq!(std::fs::read_dir(root.path().join(TMP)).unwrap().count(), 0);
}

#[test]
fn what_is_not_a_plain_file_is_not_an_object() {
    let root = tempfile::tempdir().unwrap();
    Writer::open(root.path()).unwrap();
    let reader = Reader::new(root.path()).unwrap();
    let secret = root.path().join("secret");
    std::fs::write(&secret, b"secret").unwrap();
    let object = ObjectId::of(b"secret");
    std::os::unix::fs::symlink(&secret, file_of(root.path(), object)).unwrap();
    assert!(matches!(reader.open(object), Err(ReadError::Io { .. })));
    assert!(matches!(reader.contains(object), Err(ReadError::Io { .. })));
    let directory = ObjectId {
        digest: Digest::of(b"directory"),
        size: 4096,
    };
    std::fs::create_dir(file_of(root.path(), directory)).unwrap();
    assert!(matches!(reader.open(directory), Err(ReadError::Io { .. })));
    assert!(reader.contains(directory).is_err());
}

#[test]
fn a_root_has_one_owner_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let clone = writer.clone();
    drop(writer);
    assert!(matches!(
        Writer::open(root.path()),
        Err(LayoutError::InUse(_))
    ));
    assert!(Reader::new(root.path()).is_ok(), "readers do not mind");
    drop(clone);
    Writer::open(root.path()).unwrap();
}

#[test]
fn a_reader_needs_the_layout() {
    let root = tempfile::tempdir().unwrap();
    assert!(Reader::new(root.path()).is_err());
}

fn damage(path: &Path, content: &[u8]) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o440)).unwrap();
}

#[test]
fn an_object_of_other_content_is_mended_by_the_next_upload() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let reader = Reader::of(&writer, root.path()).unwrap();
    let object = put(&writer, None, &[b"whole"]).unwrap();
    damage(&file_of(root.path(), object), b"whoLe");
    put(&writer, Some(object), &[b"whole"]).unwrap();
    assert_eq!(get(&reader, object).unwrap(), b"whole");
    assert!(reader.verify(object).unwrap());
    // The same in a batch.
    damage(&file_of(root.path(), object), b"whoLe");
    let mut batch = writer.batch().unwrap();
    let mut pending = writer.begin(Some(object.into())).unwrap();
    pending.write(b"whole").unwrap();
    pending.finish_into(&mut batch).unwrap();
    writer.keep(batch).unwrap();
    assert_eq!(get(&reader, object).unwrap(), b"whole");
}

fn given(path: &Path) -> u64 {
    u64::try_from(std::fs::metadata(path).unwrap().ctime()).unwrap()
}

#[test]
fn an_object_goes_unless_it_was_given_lately() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let reader = Reader::of(&writer, root.path()).unwrap();
    let object = put(&writer, None, &[b"content"]).unwrap();
    let path = file_of(root.path(), object);
    let first = given(&path);
    let remove = |before| writer.remove(object.digest, before).unwrap();
    assert_eq!(remove(first), Removal::Given);
    // To give it again is to give it now.
    while given(&path) == first {
        std::thread::sleep(std::time::Duration::from_millis(50));
        put(&writer, Some(object), &[b"content"]).unwrap();
    }
    assert_eq!(remove(first + 1), Removal::Given);
    assert!(reader.verify(object).unwrap());
    // Also without its content, if that is there.
    let second = given(&path);
    while given(&path) == second {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(writer.give_again(object).unwrap());
    }
    assert_eq!(remove(second + 1), Removal::Given);
    assert!(reader.verify(object).unwrap());
    // Not each time, where it is told so.
    writer.note_no_more_than_every(3600);
    let status = || std::fs::metadata(&path).unwrap();
    let third = (status().ctime(), status().ctime_nsec());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(writer.give_again(object).unwrap());
    put(&writer, Some(object), &[b"content"]).unwrap();
    assert_eq!((status().ctime(), status().ctime_nsec()), third);
    writer.note_no_more_than_every(1);
    assert!(writer.give_again(object).unwrap());
    assert_ne!((status().ctime(), status().ctime_nsec()), third);
    assert!(!writer.give_again(ObjectId::of(b"none")).unwrap());
    damage(&path, b"conTent");
    assert!(!writer.give_again(object).unwrap());
    put(&writer, Some(object), &[b"content"]).unwrap();
    let bytes = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert_eq!(remove(u64::MAX), Removal::Removed { bytes });
    assert_eq!(remove(u64::MAX), Removal::Absent);
    assert!(!reader.contains(object).unwrap());
    put(&writer, Some(object), &[b"content"]).unwrap();
    assert_eq!(get(&reader, object).unwrap(), b"content");
}

#[test]
fn what_is_damaged_is_put_aside_and_can_be_given_again() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    let reader = Reader::of(&writer, root.path()).unwrap();
    let object = put(&writer, None, &[b"content"]).unwrap();
    assert_eq!(
        reader.examine(object.digest, &mut |_| {}).unwrap(),
        Finding::Whole { size: 7 }
    );
    // As a failing disk does: nothing that a stamp looks at has changed.
    let path = file_of(root.path(), object);
    damage(&path, b"conTent");
    let status = std::fs::metadata(&path).unwrap();
    reader
        .stamps()
        .note(object.digest, &rustix::fs::stat(&path).unwrap());
    let Finding::Damaged { size: 7, inode } = reader.examine(object.digest, &mut |_| {}).unwrap()
    else {
        panic!("not seen");
    };
    assert_eq!(inode, status.ino());
    assert_eq!(
        writer
            .quarantine(object.digest, inode + 1, Fault::Content)
            .unwrap(),
        Quarantined::Replaced
    );
    assert_eq!(
        writer
            .quarantine(object.digest, inode, Fault::Content)
            .unwrap(),
        Quarantined::Aside
    );
    let aside = root.path().join(QUARANTINE).join(object.digest.to_hex());
    assert_eq!(std::fs::read(aside).unwrap(), b"conTent");
    assert!(!reader.contains(object).unwrap());
    assert_eq!(
        reader.examine(object.digest, &mut |_| {}).unwrap(),
        Finding::Absent
    );
    put(&writer, Some(object), &[b"content"]).unwrap();
    assert_eq!(
        writer
            .quarantine(object.digest, inode, Fault::Content)
            .unwrap(),
        Quarantined::Replaced
    );
    assert_eq!(get(&reader, object).unwrap(), b"content");
}

#[test]
fn whoever_looks_whether_an_object_is_whole_tells_of_each_piece_that_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (memory, writer) = (Memory::new(1 << 30), Writer::open(root.path()).unwrap());
    let disk = Disk::new(writer.clone(), root.path()).unwrap();
    let cares: [(&dyn BlobSink, &dyn Custody); 2] = [(&memory, &memory), (&writer, &disk)];
    for (sink, custody) in cares {
        let object = put(sink, None, &[&long()]).unwrap();
        let mut told = Vec::new();
        let finding = custody.examine(object.digest, &mut |bytes| told.push(bytes));
        assert_eq!(finding.unwrap(), Finding::Whole { size: object.size });
        assert_eq!(told.iter().sum::<usize>() as u64, object.size);
        assert!(told.iter().all(|bytes| *bytes <= bounds::CHUNK_BYTES));
    }
}

#[test]
fn what_is_counted_is_what_du_counts() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    for i in 0..200_u32 {
        put(
            &writer,
            None,
            &[&i.to_le_bytes(), &vec![7; i as usize * 100]],
        )
        .unwrap();
    }
    std::fs::write(root.path().join("logs/one.log"), [7; 100_000]).unwrap();
    let du = std::process::Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(root.path())
        .output()
        .unwrap();
    let du: u64 = String::from_utf8_lossy(&du.stdout)
        .split('\t')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let usage = Usage::of(root.path()).unwrap();
    assert_eq!(usage.objects.files, 201);
    assert_eq!(usage.bytes(), du);
    let listed = (0..=u8::MAX).flat_map(|prefix| objects_of_prefix(root.path(), prefix).unwrap());
    assert_eq!(listed.count(), 201);
}
