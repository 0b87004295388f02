use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::Part;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn file(content: &[u8], executable: bool) -> Node {
    let object = ObjectId::of(content);
    Node::File { object, executable }
}

/// The archive of a layer whose files have these contents.
fn archive(layer: &Layer, contents: &BTreeSet<Vec<u8>>, mtime: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in layer.parts(mtime) {
        match part {
            Part::Bytes(part) => bytes.extend(part),
            Part::Content(object) => {
                let content = contents.iter().find(|one| ObjectId::of(one) == object);
                bytes.extend(content.unwrap());
            }
        }
    }
    assert_eq!(bytes.len() as u64, layer.size());
    bytes
}

fn sample() -> (Layer, BTreeSet<Vec<u8>>) {
    let contents = BTreeSet::from([b"a program".to_vec(), Vec::new(), vec![7; 512]]);
    let long = format!("usr/{}/{}", "d".repeat(120), "n".repeat(200));
    let entries = [
        (path("usr/bin/app"), file(b"a program", true)),
        (path("usr/share/empty"), file(b"", false)),
        (path("usr/share/block"), file(&[7; 512], false)),
        (path("usr/share/ümlaut"), file(b"", false)),
        (path(&long), file(b"", false)),
        (
            path("usr/bin/other"),
            Node::Symlink {
                target: "app".to_owned(),
            },
        ),
        (
            path("usr/far"),
            Node::Symlink {
                target: "x/".repeat(200),
            },
        ),
        (path("var/empty"), Node::Directory),
    ];
    (Layer::new(entries, None).unwrap(), contents)
}

#[test]
fn a_layer_is_read_back_and_other_tools_read_the_same() {
    let (layer, contents) = sample();
    let bytes = archive(&layer, &contents, 315_532_800);
    let (again, mtime) = LayerReader::new(&bytes[..]).read().unwrap();
    assert_eq!((&again, mtime), (&layer, 315_532_800));
    let mut foreign = ::tar::Archive::new(&bytes[..]);
    let mut found = Vec::new();
    for entry in foreign.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!(header.mtime().unwrap(), 315_532_800);
        let mode = header.mode().unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let at = path(name.trim_end_matches('/'));
        let target = entry
            .link_name_bytes()
            .map(|name| String::from_utf8(name.into_owned()));
        let node = match entry.header().entry_type() {
            ::tar::EntryType::Directory => Node::Directory,
            ::tar::EntryType::Symlink => Node::Symlink {
                target: target.unwrap().unwrap(),
            },
            ::tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                file(&content, mode == 0o755)
            }
            other => panic!("{other:?}"),
        };
        assert!(matches!(mode, 0o644 | 0o755), "{mode:o}");
        found.push((at, node));
    }
    let due: Vec<_> = layer
        .iter()
        .map(|(at, node)| (at.clone(), node.clone()))
        .collect();
    assert_eq!(found, due);
    // What lies between is there, before what is in it.
    let paths: Vec<_> = layer.iter().map(|(at, _)| at.as_str()).collect();
    assert!(
        paths.starts_with(&["usr", "usr/bin", "usr/bin/app"]),
        "{paths:?}"
    );
}

#[test]
fn names_that_mean_something_else_in_a_layer_are_refused() {
    for bad in [
        ".wh.x",
        "a/.wh.x",
        "a/.wh..wh..opq",
        ".wh./x",
        ".wh..wh.aufs/x",
    ] {
        let refused = Layer::new([(path(bad), file(b"", false))], None).unwrap_err();
        assert!(refused.reason.contains(bad), "{refused}");
        // Where it is not part of the image it is an output as any other.
        let outputs = [
            (path(bad), file(b"", false)),
            (path("root"), Node::Directory),
            (path("root/x.wh.x"), file(b"", false)),
        ];
        assert!(Layer::new(outputs, Some(&path("root"))).is_ok());
    }
}

#[test]
fn a_root_is_what_is_in_it() {
    let outputs = [
        (path("root"), Node::Directory),
        (path("root/bin"), Node::Directory),
        (path("root/bin/app"), file(b"", true)),
        (path("rooted"), file(b"", true)),
    ];
    let layer = Layer::new(outputs.clone(), Some(&path("root"))).unwrap();
    let paths: Vec<_> = layer.iter().map(|(at, _)| at.as_str()).collect();
    assert_eq!(paths, ["bin", "bin/app"]);
    assert!(Layer::new(outputs.clone(), Some(&path("rooted"))).is_err());
    assert!(Layer::new(outputs[..1].to_vec(), Some(&path("root"))).is_err());
    assert!(Layer::new([], None).is_err());
    let large = ObjectId {
        digest: belljar_core::Digest::of(b""),
        size: bounds::BLOB_BYTES,
    };
    let large = Node::File {
        object: large,
        executable: false,
    };
    let refused = Layer::new([(path("a"), large)], None).unwrap_err();
    assert!(refused.reason.contains("one object may have"), "{refused}");
}

#[test]
fn what_lies_between_outputs_is_bounded_too() {
    // So few outputs that nothing else is against them, each far down in directories of its own.
    let deep = |number: usize, name: &str| {
        path(&format!("{number:03}/{}x", format!("{name}/").repeat(120)))
    };
    for (outputs, name, due) in [
        (400, "d".to_owned(), "40000 entries"),
        (60, "d".repeat(30), "8388608 bytes"),
    ] {
        let all = |count| (0..count).map(|number| (deep(number, &name), file(b"", false)));
        let refused = Layer::new(all(outputs), None).unwrap_err();
        assert!(refused.reason.contains(due), "{refused}");
        let fits = Layer::new(all(outputs / 4), None).unwrap();
        assert_eq!(fits.iter().len(), outputs / 4 * 122);
        let bytes = archive(&fits, &BTreeSet::from([Vec::new()]), 7);
        assert_eq!(LayerReader::new(&bytes[..]).read().unwrap().0, fits);
    }
    let mut bytes: Vec<u8> = (0..=bounds::LAYER_ENTRIES)
        .flat_map(|number| layer::head(&path(&format!("{number:05}")), &Node::Directory, 7))
        .collect();
    bytes.extend([0; 2 * BLOCK]);
    let refused = LayerReader::new(&bytes[..]).read().unwrap_err();
    assert!(refused.to_string().contains("40000 entries"), "{refused}");
}

#[test]
fn nothing_stands_below_what_is_no_directory() {
    let link = Node::Symlink {
        target: "b".to_owned(),
    };
    for there in [link, file(b"", false)] {
        let mut outputs = [(path("a"), there), (path("a/x"), file(b"", false))];
        for _ in 0..2 {
            let refused = Layer::new(outputs.clone(), None).unwrap_err();
            assert!(
                refused.reason.contains("`a` stands there twice"),
                "{refused}"
            );
            outputs.reverse();
        }
    }
}

#[test]
fn each_byte_of_a_layer_counts() {
    let (layer, contents) = sample();
    let bytes = archive(&layer, &contents, 7);
    let mut content = Vec::new();
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        match LayerReader::new(&other[..]).read() {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}: {error}"),
            // The content of a file, or of a pax header, neither of which a checksum covers: it is another layer then.
            Ok((read, _)) => {
                assert_ne!(read, layer, "{at}");
                content.push(at);
            }
        }
    }
    assert!(content.len() >= 9 + 512, "{}", content.len());
    for length in (0..bytes.len()).step_by(97) {
        assert!(
            LayerReader::new(&bytes[..length]).read().is_err(),
            "{length}"
        );
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(LayerReader::new(&longer[..]).read().is_err());
}

#[test]
fn other_archives_are_not_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(1);
    header.set_entry_type(::tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(7);
    builder.append_data(&mut header, "a", &b"x"[..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    let refused = LayerReader::new(&bytes[..]).read().unwrap_err();
    assert!(
        refused.to_string().contains("written otherwise"),
        "{refused}"
    );
}

proptest! {
    #[test]
    fn any_layer_is_read_back(
        files in proptest::collection::btree_map("[a-cü.]{1,3}(/[a-c]{1,150}){0,3}", (proptest::collection::vec(any::<u8>(), 0..700), any::<bool>()), 1..8),
        mtime in 0..=belljar_core::ImageOutput::LAST_EPOCH,
    ) {
        let mut outputs: BTreeMap<RelPath, Node> = BTreeMap::new();
        let mut contents = BTreeSet::new();
        for (name, (content, executable)) in files {
            let Ok(at) = RelPath::new(name) else { continue };
            let clear = |other: &RelPath| !other.starts_with(&at) && !at.starts_with(other);
            if outputs.keys().all(clear) {
                outputs.insert(at, file(&content, executable));
                contents.insert(content);
            }
        }
        prop_assume!(!outputs.is_empty());
        let layer = Layer::new(outputs, None).unwrap();
        let bytes = archive(&layer, &contents, mtime);
        let (again, time) = LayerReader::new(&bytes[..]).read().unwrap();
        prop_assert_eq!((again, time), (layer, mtime));
    }

    #[test]
    fn any_bytes_are_a_layer_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..4000_usize, with in any::<u8>()) {
        let _ = LayerReader::new(&bytes[..]).read();
        let (layer, contents) = sample();
        let mut bytes = archive(&layer, &contents, 7);
        let length = bytes.len();
        bytes[at % length] = with;
        if let Ok((read, mtime)) = LayerReader::new(&bytes[..]).read() {
            // What is read has one form: this one.
            let mut heads = 0;
            let mut content = &bytes[..];
            for part in read.parts(mtime) {
                let size = match part {
                    Part::Bytes(part) => {
                        prop_assert!(content.starts_with(&part));
                        part.len()
                    }
                    Part::Content(object) => usize::try_from(object.size).unwrap(),
                };
                content = &content[size..];
                heads += 1;
            }
            prop_assert!(heads > 0 && content.is_empty());
        }
    }
}
