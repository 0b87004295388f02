use proptest::prelude::*;

use super::*;
use crate::{
    DirectoryNode, FileNode, Leaf, Mtime, Name, NodeProperties, NodeProperty, SymlinkNode,
    SymlinkTarget, build,
};
use belljar_core::Digest;

type Directories = BTreeMap<ObjectId, Directory>;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn file(text: &str, content: &[u8]) -> FileNode {
    FileNode {
        name: name(text),
        object: ObjectId::of(content),
        executable: false,
        properties: None,
    }
}

fn keep(directories: &mut Directories, directory: Directory) -> ObjectId {
    let id = directory.object_id();
    directories.insert(id, directory);
    id
}

fn flat(files: Vec<FileNode>) -> (ObjectId, Directories) {
    let mut directories = Directories::new();
    let root = keep(
        &mut directories,
        Directory::new(files, vec![], vec![]).unwrap(),
    );
    (root, directories)
}

#[test]
fn one_tree_and_time_one_image() {
    let (root, directories) = flat(vec![file("a", b"content"), file("b", b"")]);
    let bytes = image(root, &directories, 7).unwrap();
    assert_eq!(image(root, &directories, 7).unwrap(), bytes);
    assert_ne!(image(root, &directories, 8).unwrap(), bytes);
    let (other, directories) = flat(vec![file("a", b"other"), file("b", b"")]);
    assert_ne!(image(other, &directories, 7).unwrap(), bytes);
    assert!(bytes.len().is_multiple_of(4096));
}

#[test]
fn a_file_names_its_object_and_an_empty_one_none() {
    let (root, directories) = flat(vec![file("a", b"content"), file("b", b"")]);
    let bytes = image(root, &directories, 7).unwrap();
    let find = |text: &str| {
        let windows = bytes.windows(text.len());
        windows.filter(|window| *window == text.as_bytes()).count()
    };
    let hex = ObjectId::of(b"content").digest.to_hex();
    assert_eq!(find(&format!("/{}/{}", &hex[..2], &hex[2..])), 1);
    assert_eq!(find("overlay.redirect"), 1);
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let (root, mut directories) = flat(vec![]);
    let gone = ObjectId::of(b"gone");
    let below = DirectoryNode {
        name: name("below"),
        object: gone,
    };
    let top = keep(
        &mut directories,
        Directory::new(vec![], vec![below], vec![]).unwrap(),
    );
    let error = image(top, &directories, 7).unwrap_err();
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    assert!(image(root, &directories, 7).is_ok());
    assert!(image(root, &directories, u64::MAX).is_err());
}

#[test]
fn a_tree_that_becomes_too_much_is_refused_before_it_is_made() {
    let mut directories = Directories::new();
    let mut level = keep(&mut directories, Directory::default());
    for _ in 0..64 {
        let node = |text: &str| DirectoryNode {
            name: name(text),
            object: level,
        };
        let doubled = Directory::new(vec![], vec![node("a"), node("b")], vec![]).unwrap();
        level = keep(&mut directories, doubled);
    }
    assert!(image(level, &directories, 7).is_err());

    // A thousand links with the longest targets, in directories that are one.
    let links = (0..1000).map(|i| SymlinkNode {
        name: name(&format!("l{i}")),
        target: SymlinkTarget::new("t".repeat(4000)).unwrap(),
        properties: None,
    });
    let mut directories = Directories::new();
    let many = Directory::new(vec![], vec![], links.collect()).unwrap();
    let object = keep(&mut directories, many);
    let nodes = (0..100).map(|i| DirectoryNode {
        name: name(&format!("d{i}")),
        object,
    });
    let top = Directory::new(vec![], nodes.collect(), vec![]).unwrap();
    let top = keep(&mut directories, top);
    assert_eq!(image(top, &directories, 7).unwrap_err(), too_large());
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let mut directories = Directories::new();
    let mut level = keep(&mut directories, Directory::default());
    for _ in 0..bounds::PATH_DEPTH {
        let node = DirectoryNode {
            name: name("d"),
            object: level,
        };
        let above = Directory::new(vec![], vec![node], vec![]).unwrap();
        level = keep(&mut directories, above);
    }
    assert!(image(level, &directories, 7).is_ok());
    let node = DirectoryNode {
        name: name("d"),
        object: level,
    };
    let above = Directory::new(vec![], vec![node], vec![]).unwrap();
    let above = keep(&mut directories, above);
    assert!(image(above, &directories, 7).is_err());
}

#[test]
fn a_tree_without_properties_has_the_image_that_it_always_had() {
    let path = |text: &str| belljar_core::RelPath::new(text).unwrap();
    let leaf = |content: &[u8], size, executable| Leaf::File {
        object: ObjectId {
            size,
            ..ObjectId::of(content)
        },
        executable,
    };
    let link = |length| Leaf::Symlink {
        target: SymlinkTarget::new("t".repeat(length)).unwrap(),
    };
    let mut leaves = vec![
        (path("empty"), leaf(b"", 0, false)),
        (path("large"), leaf(b"large", 5 << 30, true)),
        (path("small"), leaf(b"small", 5, false)),
        (path("nothing/in/it"), Leaf::EmptyDirectory),
        (path("short"), link(7)),
        (path("long"), link(4095)),
    ];
    let many = (0..700).map(|i| (path(&format!("many/{i}")), leaf(b"x", 1, i % 2 == 0)));
    leaves.extend(many);
    let built = build(leaves).unwrap();
    let read = |(id, bytes): &(ObjectId, Vec<u8>)| (*id, Directory::decode(bytes).unwrap());
    let directories = built.directories.iter().map(read).collect();
    let bytes = image(built.root, &directories, 315_532_800).unwrap();
    let known = "0f134bdcb663a562537db784abc704036efdccc9acb2e0ce510e05fc848819d3";
    assert_eq!(Digest::of(&bytes).to_hex(), known);
    assert_eq!(FORMAT, 1);
}

#[test]
fn what_is_named_changes_nothing_and_a_time_takes_an_inode_of_twice_the_size() {
    let marked = |properties: NodeProperties| {
        let mut one = file("a", b"");
        one.properties = Some(Box::new(properties));
        let (root, directories) = flat(vec![one]);
        image(root, &directories, 7).unwrap()
    };
    let (root, directories) = flat(vec![file("a", b"")]);
    let plain = image(root, &directories, 7).unwrap();
    let none = NodeProperties::default;
    let named = NodeProperty {
        name: "n".to_owned(),
        value: "v".to_owned(),
    };
    assert_eq!(marked(none().with_named(vec![named]).unwrap()), plain);
    assert_eq!(marked(none().with_mode(0o644).unwrap()), plain);
    assert_ne!(marked(none().with_mode(0o600).unwrap()), plain);
    let timed = marked(none().with_mtime(Mtime::new(7, 0).unwrap()));
    let inode = usize::from(u16::from_le_bytes([plain[1038], plain[1039]])) * 32;
    // Behind the top with its three entries, whose bytes stand beside it.
    let at = (inode + 32 + 3 * 12 + 4).next_multiple_of(32);
    assert_eq!((plain[at] & 1, timed[at] & 1), (0, 1));
}

/// Reads names and types of the top directory as a kernel does: from the inode at the superblock's number.
fn names_at_the_top(bytes: &[u8]) -> Vec<(String, u8)> {
    let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let inode = usize::from(half(1024 + 14)) * 32;
    let (inline, size) = (half(inode) == 4, usize::try_from(word(inode + 8)).unwrap());
    let whole = if inline { size - size % 4096 } else { size };
    let blocks = usize::try_from(word(inode + 16)).unwrap() * 4096;
    let mut content = bytes[blocks..blocks + whole].to_vec();
    content.extend(&bytes[inode + 32..inode + 32 + size - whole]);
    let mut names = Vec::new();
    for block in content.chunks(4096) {
        let offset = |i: usize| {
            usize::from(u16::from_le_bytes(
                block[12 * i + 8..12 * i + 10].try_into().unwrap(),
            ))
        };
        let count = offset(0) / 12;
        for i in 0..count {
            let end = if i + 1 < count {
                offset(i + 1)
            } else {
                block.len()
            };
            let text = String::from_utf8(block[offset(i)..end].to_vec()).unwrap();
            names.push((text.trim_end_matches('\0').to_owned(), block[12 * i + 10]));
        }
    }
    names
}

proptest! {
    #[test]
    fn a_directory_lists_what_it_holds_in_order(
        names in proptest::collection::btree_set("[ -.0-9a-zä]{1,40}", 0..700)
    ) {
        let fine: Vec<_> = names.iter().filter_map(|text| Name::new(text.as_str()).ok()).collect();
        let files = fine.iter().map(|name| file(name.as_str(), b"x")).collect();
        let (root, directories) = flat(files);
        let found = names_at_the_top(&image(root, &directories, 7).unwrap());
        let mut due: Vec<_> = fine.iter().map(|name| (name.as_str().to_owned(), 1)).collect();
        due.extend([(".".to_owned(), 2), ("..".to_owned(), 2)]);
        due.sort();
        prop_assert_eq!(found, due);
    }
}
