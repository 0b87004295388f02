use super::*;
use crate::{Mtime, NodeProperty};
use proptest::prelude::*;

fn file(name: &str, content: &[u8]) -> FileNode {
    FileNode {
        name: Name::new(name).unwrap(),
        object: ObjectId::of(content),
        executable: false,
        properties: None,
    }
}

fn wire_file(name: &str) -> message::FileNode {
    file(name, b"x").to_message()
}

fn wire_directory(name: &str) -> message::DirectoryNode {
    message::DirectoryNode {
        name: name.to_owned(),
        digest: Some(digest(ObjectId::of(b""))),
    }
}

fn wire_link(name: &str, target: &str) -> message::SymlinkNode {
    message::SymlinkNode {
        name: name.to_owned(),
        target: target.to_owned(),
        node_properties: None,
    }
}

fn refusal(message: &message::Directory) -> Invalid {
    Directory::decode(&message.encode_to_vec()).unwrap_err()
}

#[test]
fn the_empty_directory_is_the_empty_blob() {
    assert_eq!(Directory::default().encode(), b"");
    assert_eq!(Directory::decode(b""), Ok(Directory::default()));
    assert_eq!(Directory::default().object_id(), ObjectId::of(b""));
}

#[test]
fn the_encoding_is_that_of_reapi() {
    // Written out by hand from remote_execution.proto, so that a wrong field number cannot hide.
    let hash = Digest::of(b"hi\n").to_hex();
    let mut node = vec![0x0a, 1, b'a', 0x12, 68, 0x0a, 64];
    node.extend_from_slice(hash.as_bytes());
    node.extend_from_slice(&[0x10, 3]);
    let mut expected = vec![0x0a, u8::try_from(node.len() + 2).unwrap()];
    expected.extend_from_slice(&node);
    expected.extend_from_slice(&[0x20, 1]);
    expected.extend_from_slice(&[0x12, u8::try_from(node.len()).unwrap()]);
    node[2] = b'd';
    expected.extend_from_slice(&node);
    expected.extend_from_slice(&[0x1a, 6, 0x0a, 1, b'l', 0x12, 1, b'a']);
    let directory = Directory::new(
        vec![FileNode {
            executable: true,
            ..file("a", b"hi\n")
        }],
        vec![DirectoryNode {
            name: Name::new("d").unwrap(),
            object: ObjectId::of(b"hi\n"),
        }],
        vec![SymlinkNode {
            name: Name::new("l").unwrap(),
            target: SymlinkTarget::new("a").unwrap(),
            properties: None,
        }],
    )
    .unwrap();
    assert_eq!(directory.encode(), expected);
    assert_eq!(Directory::decode(&expected), Ok(directory));
}

#[test]
fn what_is_not_canonical_is_refused_by_field() {
    let unsorted = message::Directory {
        files: vec![wire_file("b"), wire_file("a")],
        ..Default::default()
    };
    assert_eq!(refusal(&unsorted).field, "files[1].name");
    let twice = message::Directory {
        symlinks: vec![wire_link("a", "x"), wire_link("a", "y")],
        ..Default::default()
    };
    assert_eq!(refusal(&twice).field, "symlinks[1].name");
    let across = message::Directory {
        files: vec![wire_file("a")],
        directories: vec![wire_directory("a")],
        ..Default::default()
    };
    assert!(refusal(&across).reason.contains("`a` occurs twice"));
}

#[test]
fn bad_names_targets_and_digests_are_refused_by_field() {
    for name in ["", ".", "..", "a/b", "a\0", "\u{1b}"] {
        let bad = message::Directory {
            directories: vec![wire_directory(name)],
            ..Default::default()
        };
        assert_eq!(refusal(&bad).field, "directories[0].name", "{name:?}");
    }
    let target = message::Directory {
        symlinks: vec![wire_link("a", "")],
        ..Default::default()
    };
    assert_eq!(refusal(&target).field, "symlinks[0].target");
    let with_digest = |digest| message::Directory {
        files: vec![message::FileNode {
            digest,
            ..wire_file("a")
        }],
        ..Default::default()
    };
    let good = digest(ObjectId::of(b"x"));
    let upper = good.hash.to_uppercase();
    let cases = [
        (None, "files[0].digest"),
        (
            Some(message::Digest {
                size_bytes: -1,
                ..good.clone()
            }),
            "files[0].digest.size_bytes",
        ),
        (
            Some(message::Digest {
                hash: upper,
                ..good.clone()
            }),
            "files[0].digest.hash",
        ),
        (
            Some(message::Digest {
                hash: String::new(),
                ..good
            }),
            "files[0].digest.hash",
        ),
    ];
    for (digest, field) in cases {
        assert_eq!(refusal(&with_digest(digest)).field, field);
    }
}

#[test]
fn other_encodings_of_the_same_directory_are_refused() {
    let directory = Directory::new(vec![file("a", b"x"), file("b", b"y")], vec![], vec![]).unwrap();
    let bytes = directory.encode();
    let unknown_field = [bytes.as_slice(), &[0x52, 0]].concat();
    assert!(
        Directory::decode(&unknown_field).is_err(),
        "an unknown field"
    );
    let reserved_field = [bytes.as_slice(), &[0x20, 1]].concat();
    assert!(
        Directory::decode(&reserved_field).is_err(),
        "field 4, which the message does not have"
    );
    let explicit_default = {
        let mut node = wire_file("a").encode_to_vec();
        node.extend_from_slice(&[0x20, 0]);
        [&[0x0a, u8::try_from(node.len()).unwrap()], node.as_slice()].concat()
    };
    assert!(
        Directory::decode(&explicit_default).is_err(),
        "a default that is written out"
    );
    assert!(Directory::decode(&bytes[..bytes.len() - 1]).is_err(), "cut");
}

#[test]
fn a_flood_of_tiny_entries_is_counted_before_it_is_unpacked() {
    let flood = [0x0a, 0].repeat(bounds::TREE_ENTRIES + 1);
    assert!(flood.len() < bounds::DIRECTORY_BYTES);
    assert!(
        Directory::decode(&flood)
            .unwrap_err()
            .reason
            .contains("entries")
    );
    let long = vec![0; bounds::DIRECTORY_BYTES + 1];
    assert!(
        Directory::decode(&long)
            .unwrap_err()
            .reason
            .contains("bytes")
    );
}

#[test]
fn a_directory_too_large_to_be_read_again_is_not_made() {
    let name = |i: usize| format!("{i:0>200}");
    let files = (0..20_000).map(|i| file(&name(i), b"")).collect();
    assert!(
        Directory::new(files, vec![], vec![])
            .unwrap_err()
            .reason
            .contains("Directory message of")
    );
    let huge = FileNode {
        object: ObjectId {
            digest: Digest::of(b""),
            size: u64::MAX,
        },
        ..file("a", b"")
    };
    assert!(Directory::new(vec![huge], vec![], vec![]).is_err());
}

/// Properties of a node of this kind: 0 of a file, 1 of a directory, 2 of a link.
fn properties(kind: u8, executable: bool) -> impl Strategy<Value = Option<NodeProperties>> {
    let time = (-62_135_596_800..=253_402_300_799i64, 0..1_000_000_000u32);
    let names = proptest::collection::btree_map("[a-cß]{0,3}", "\\PC{0,8}", 0..4);
    let all = (
        proptest::option::of(time),
        proptest::option::of(0..=0o777u32),
        names,
    );
    all.prop_map(move |(time, mode, names)| {
        let named = names.into_iter();
        let named = named.map(|(name, value)| NodeProperty { name, value });
        let mut all = NodeProperties::default()
            .with_named(named.collect())
            .unwrap();
        if let Some((seconds, nanos)) = time {
            all = all.with_mtime(Mtime::new(seconds, nanos).unwrap());
        }
        if let Some(mode) = mode {
            let mode = match kind {
                0 if executable => mode | 0o100,
                0 => mode & !0o111,
                1 => mode,
                _ => 0o777,
            };
            all = all.with_mode(mode).unwrap();
        }
        (!all.is_empty()).then_some(all)
    })
}

fn arbitrary() -> impl Strategy<Value = Directory> {
    let names = proptest::collection::btree_set("[a-cß.\\-]{1,4}", 0..12);
    let kinds = (0..3u8, any::<bool>()).prop_flat_map(|(kind, executable)| {
        let kept = properties(kind, executable);
        (
            Just(kind),
            Just(executable),
            kept,
            "\\PC{1,20}",
            0..1u64 << 62,
        )
    });
    let kinds = proptest::collection::vec(kinds, 12);
    (names, kinds, properties(1, false)).prop_map(|(names, kinds, own)| {
        let (mut files, mut directories, mut symlinks) = (vec![], vec![], vec![]);
        let names = names.into_iter().filter_map(|name| Name::new(name).ok());
        for (name, (kind, executable, properties, text, size)) in names.zip(kinds) {
            let digest = Digest::of(text.as_bytes());
            let object = ObjectId { digest, size };
            let properties = properties.map(Box::new);
            match kind {
                0 => files.push(FileNode {
                    name,
                    object,
                    executable,
                    properties,
                }),
                1 => directories.push(DirectoryNode { name, object }),
                _ => symlinks.push(SymlinkNode {
                    name,
                    target: SymlinkTarget::new(text).unwrap(),
                    properties,
                }),
            }
        }
        let directory = Directory::new(files, directories, symlinks).unwrap();
        match own {
            Some(own) => directory.with_properties(own).unwrap(),
            None => directory,
        }
    })
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(directory in arbitrary()) {
        let bytes = directory.encode();
        prop_assert_eq!(ObjectId::of(&bytes), directory.object_id());
        prop_assert_eq!(Directory::decode(&bytes), Ok(directory));
    }

    #[test]
    fn whatever_is_accepted_has_one_encoding(
        directory in arbitrary(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        insert in any::<bool>(),
    ) {
        let mut bytes = directory.encode();
        let at = at.index(bytes.len() + 1);
        if insert || at == bytes.len() { bytes.insert(at, byte) } else { bytes[at] = byte }
        if let Ok(read) = Directory::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Directory::decode(&bytes);
        let _ = crate::Tree::decode(&bytes);
    }
}
