use belljar_core::ObjectId;
use prost::Message as _;

use super::*;
use crate::{Directory, FileNode, Name, SymlinkNode, SymlinkTarget, Tree};

fn time(seconds: i64, nanos: i32) -> message::NodeProperties {
    message::NodeProperties {
        mtime: Some(message::Timestamp { seconds, nanos }),
        ..Default::default()
    }
}

fn mode(value: u32) -> message::NodeProperties {
    message::NodeProperties {
        unix_mode: Some(message::UInt32Value { value }),
        ..Default::default()
    }
}

fn named(names: &[&str]) -> message::NodeProperties {
    let named = names.iter().map(|name| message::NodeProperty {
        name: (*name).to_owned(),
        value: "v".to_owned(),
    });
    message::NodeProperties {
        properties: named.collect(),
        ..Default::default()
    }
}

/// A directory with these properties, in which a file, a program and a link have some.
#[derive(Clone, Default)]
struct Wire {
    own: Option<message::NodeProperties>,
    file: Option<message::NodeProperties>,
    program: Option<message::NodeProperties>,
    link: Option<message::NodeProperties>,
}

impl Wire {
    fn message(self) -> message::Directory {
        let file = |name: &str, is_executable, node_properties| message::FileNode {
            name: name.to_owned(),
            digest: Some(message::Digest {
                hash: ObjectId::of(b"").digest.to_hex(),
                size_bytes: 0,
            }),
            is_executable,
            node_properties,
        };
        message::Directory {
            files: vec![
                file("file", false, self.file),
                file("program", true, self.program),
            ],
            symlinks: vec![message::SymlinkNode {
                name: "link".to_owned(),
                target: "file".to_owned(),
                node_properties: self.link,
            }],
            node_properties: self.own,
            ..Default::default()
        }
    }

    fn refusal(self) -> Invalid {
        Directory::decode(&self.message().encode_to_vec()).unwrap_err()
    }
}

#[test]
fn the_encoding_is_that_of_reapi() {
    // Written out by hand from remote_execution.proto, timestamp.proto and wrappers.proto.
    let properties = [
        [0x0a, 6, 0x0a, 1, b'n', 0x12, 1, b'v'].as_slice(),
        &[0x12, 4, 0x08, 7, 0x10, 9],
        &[0x1a, 3, 0x08, 0xed, 0x03],
    ];
    let properties = properties.concat();
    let field = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[tag, length], content].concat()
    };
    let hash = ObjectId::of(b"").digest.to_hex();
    let program = [
        field(0x0a, b"p"),
        field(0x12, &field(0x0a, hash.as_bytes())),
        vec![0x20, 1],
        field(0x32, &properties),
    ];
    // Of a link only 0777.
    let of_link = [&properties[..properties.len() - 2], &[0xff, 0x03]].concat();
    let link = [field(0x0a, b"l"), field(0x12, b"p"), field(0x22, &of_link)];
    let expected = [
        field(0x0a, &program.concat()),
        field(0x1a, &link.concat()),
        field(0x2a, &properties),
    ]
    .concat();

    let kept = |mode| {
        let one = NodeProperty {
            name: "n".to_owned(),
            value: "v".to_owned(),
        };
        let kept = NodeProperties::default().with_mtime(Mtime::new(7, 9).unwrap());
        let kept = kept.with_mode(mode).unwrap();
        kept.with_named(vec![one]).unwrap()
    };
    let program = FileNode {
        name: Name::new("p").unwrap(),
        object: ObjectId::of(b""),
        executable: true,
        properties: Some(Box::new(kept(0o755))),
    };
    let link = SymlinkNode {
        name: Name::new("l").unwrap(),
        target: SymlinkTarget::new("p").unwrap(),
        properties: Some(Box::new(kept(0o777))),
    };
    let directory = Directory::new(vec![program], vec![], vec![link]).unwrap();
    let directory = directory.with_properties(kept(0o755)).unwrap();
    assert_eq!(directory.encode(), expected);
    assert_eq!(Directory::decode(&expected), Ok(directory.clone()));
    let tree = Tree::new(directory, vec![]).unwrap();
    assert_eq!(Tree::decode(&tree.encode()), Ok(tree));
}

/// A directory of which one node has these properties.
type Place = fn(message::NodeProperties) -> Wire;

#[test]
fn what_nobody_could_have_is_refused_by_name() {
    let kinds: [(&str, Place); 4] = [
        ("node_properties", |own| Wire {
            own: Some(own),
            ..Wire::default()
        }),
        ("files[0].node_properties", |file| Wire {
            file: Some(file),
            ..Wire::default()
        }),
        ("files[1].node_properties", |program| Wire {
            program: Some(program),
            ..Wire::default()
        }),
        ("symlinks[0].node_properties", |link| Wire {
            link: Some(link),
            ..Wire::default()
        }),
    ];
    let bytes = bounds::NODE_PROPERTIES_BYTES;
    let many: Vec<String> = (0..=bounds::NODE_PROPERTIES)
        .map(|i| format!("{i:03}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases = [
        (message::NodeProperties::default(), "", "leave it out"),
        (time(0, -1), ".mtime.nanos", "-1 is not between"),
        (time(0, 1_000_000_000), ".mtime.nanos", "is not between"),
        (time(-62_135_596_801, 0), ".mtime.seconds", "is not between"),
        (time(253_402_300_800, 0), ".mtime.seconds", "is not between"),
        (mode(0o4755), ".unix_mode", "4755 has set-uid"),
        (mode(0o2755), ".unix_mode", "set-gid"),
        (mode(0o1777), ".unix_mode", "sticky"),
        (mode(0o100_755), ".unix_mode", "0o100755 has bits"),
        (mode(u32::MAX), ".unix_mode", "no permissions"),
        (named(&["b", "a"]), ".properties[1].name", "not sorted"),
        (named(&["a", "b", "b"]), ".properties[2].name", "not unique"),
        (named(&many), ".properties", "65 of one node"),
        (named(&[&"n".repeat(bytes)]), ".properties", "4097 bytes"),
    ];
    for (at, wire) in kinds {
        for (properties, field, words) in &cases {
            let refused = wire(properties.clone()).refusal();
            assert_eq!(refused.field, format!("{at}{field}"));
            assert!(refused.reason.contains(words), "{refused}");
        }
    }
    let refused = Wire {
        program: Some(time(0, -1)),
        ..Wire::default()
    };
    assert!(refused.refusal().reason.contains("`program`"));
}

#[test]
fn a_mode_says_what_the_node_says() {
    let file = |value| Wire {
        file: Some(mode(value)),
        ..Wire::default()
    };
    let program = |value| Wire {
        program: Some(mode(value)),
        ..Wire::default()
    };
    let link = |value| Wire {
        link: Some(mode(value)),
        ..Wire::default()
    };
    let own = |value| Wire {
        own: Some(mode(value)),
        ..Wire::default()
    };
    for (wire, fits) in [
        (file(0o600), true),
        (file(0), true),
        (file(0o666), true),
        (file(0o601), false),
        (program(0o600), false),
        (program(0o001), true),
        (program(0o777), true),
        (link(0o777), true),
        (link(0o755), false),
        (own(0), true),
        (own(0o777), true),
    ] {
        let bytes = wire.message().encode_to_vec();
        let read = Directory::decode(&bytes);
        assert_eq!(read.is_ok(), fits, "{read:?}");
        if let Ok(read) = read {
            assert_eq!(read.encode(), bytes);
        }
    }
    // Nor is such a one made.
    let program = FileNode {
        name: Name::new("p").unwrap(),
        object: ObjectId::of(b""),
        executable: true,
        properties: Some(Box::new(
            NodeProperties::default().with_mode(0o644).unwrap(),
        )),
    };
    let refused = Directory::new(vec![program], vec![], vec![]).unwrap_err();
    assert_eq!(refused.field, "node_properties.unix_mode");
    let nothing = Directory::default().with_properties(NodeProperties::default());
    assert_eq!(nothing.unwrap_err().field, "node_properties");
}

#[test]
fn other_encodings_of_the_same_properties_are_refused() {
    let own = |bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap();
        Directory::decode(&[&[0x2a, length], bytes].concat())
    };
    assert!(own(&[0x12, 2, 0x08, 1]).is_ok());
    // A time of 1970, and a mode of nobody, are there and have no field.
    assert!(own(&[0x12, 0, 0x1a, 0]).is_ok());
    for (name, bytes) in [
        ("an unknown field", [0x12, 0, 0x78, 1].as_slice()),
        ("one in the time", &[0x12, 2, 0x18, 1]),
        ("a default that is written out", &[0x12, 2, 0x08, 0]),
        ("a time given twice", &[0x12, 2, 8, 1, 0x12, 2, 8, 2]),
        ("another order", &[0x1a, 0, 0x12, 0]),
        (
            "a mode of more than 32 bits",
            &[0x1a, 6, 0x08, 0x80, 0x80, 0x80, 0x80, 0x10],
        ),
    ] {
        assert!(own(bytes).is_err(), "{name}");
    }
    let twice = [0x2a, 2, 0x12, 0].repeat(2);
    assert!(Directory::decode(&twice).is_err(), "given twice");
}

#[test]
fn a_flood_of_properties_is_counted_before_it_is_unpacked() {
    let mut flood = Vec::new();
    let inner = [0x0a, 0].repeat(bounds::TREE_ENTRIES + 1);
    prost::encoding::bytes::encode(5, &inner, &mut flood);
    for refused in [Directory::decode(&flood).unwrap_err(), {
        let mut tree = Vec::new();
        prost::encoding::bytes::encode(1, &flood, &mut tree);
        Tree::decode(&tree).unwrap_err()
    }] {
        assert!(refused.reason.contains("entries"), "{refused}");
    }
}
