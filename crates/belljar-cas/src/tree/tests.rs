use std::io::Read as _;
use std::time::{Duration, Instant};

use super::*;
use crate::Memory;
use belljar_core::Digest;
use belljar_tree::{FileNode, Leaf, Name, NodeProperties, NodeProperty, build};

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// Builds a tree and keeps its directories.
fn tree(memory: &Memory, leaves: Vec<(RelPath, Leaf)>) -> ObjectId {
    let built = build(leaves).unwrap();
    for (_, bytes) in &built.directories {
        memory.put(bytes);
    }
    built.root
}

fn read(memory: &Memory, root: ObjectId) -> Result<Measure, TreeError> {
    let tree = Tree::read(memory, root)?;
    tree.verify(memory, &tree.objects())?;
    tree.image(7)?;
    Ok(tree.measure)
}

fn leaf(object: ObjectId) -> Leaf {
    Leaf::File {
        object,
        executable: false,
    }
}

#[test]
fn a_tree_is_measured_and_its_objects_are_listed_once() {
    let memory = Memory::new(0);
    let object = memory.put(b"content");
    let empty = ObjectId::of(b"");
    let leaves = vec![
        (path("a/one"), leaf(object)),
        (path("a/two"), leaf(object)),
        (path("b"), leaf(empty)),
        (path("c"), Leaf::EmptyDirectory),
    ];
    let root = tree(&memory, leaves);
    let found = read(&memory, root).unwrap();
    assert_eq!((found.entries, found.bytes, found.names), (5, 14, 9));
    let tree = Tree::read(&memory, root).unwrap();
    assert_eq!(tree.objects(), [object]);
    tree.verify(&memory, &tree.objects()).unwrap();
}

#[test]
fn a_missing_or_damaged_object_is_named_with_its_place() {
    let memory = Memory::new(0);
    let gone = ObjectId::of(b"gone");
    let missing = tree(&memory, vec![(path("a/b"), leaf(gone))]);
    let result = read(&memory, missing);
    assert!(
        matches!(result, Err(TreeError::Missing { path, object }) if path == "a/b" && object == gone)
    );
    let result = read(&memory, gone);
    assert!(matches!(result, Err(TreeError::Missing { path, .. }) if path == "."));

    memory.put_as(gone, b"GONE");
    let result = read(&memory, missing);
    assert!(
        matches!(result, Err(TreeError::Damaged { path, object }) if path == "a/b" && object == gone)
    );
    // A directory whose content is another, well-formed directory is damaged too.
    let other = tree(&memory, vec![(path("x"), Leaf::EmptyDirectory)]);
    let mut bytes = Vec::new();
    memory.read(other).unwrap().read_to_end(&mut bytes).unwrap();
    let forged = ObjectId {
        digest: Digest::of(b"forged"),
        size: bytes.len() as u64,
    };
    memory.put_as(forged, &bytes);
    let result = read(&memory, forged);
    assert!(matches!(result, Err(TreeError::Damaged { path, .. }) if path == "."));
}

#[test]
fn one_damaged_object_among_many_is_found() {
    let memory = Memory::new(0);
    let many = 5 * OBJECTS_PER_THREAD;
    let leaves = (0..many).map(|i| {
        let object = memory.put(format!("content {i}").as_bytes());
        (path(&format!("d{}/f{i}", i % 10)), leaf(object))
    });
    let root = tree(&memory, leaves.collect());
    assert_eq!(read(&memory, root).unwrap().entries, many as u64 + 10);
    let bad = ObjectId::of(b"content 4711");
    memory.put_as(bad, b"cOntent 4711");
    let result = read(&memory, root);
    assert!(
        matches!(result, Err(TreeError::Damaged { path, object }) if path == "d1/f4711" && object == bad)
    );
}

#[test]
fn what_is_no_directory_message_is_malformed() {
    let memory = Memory::new(0);
    let object = memory.put(b"int main(void) { return 0; }");
    let result = read(&memory, object);
    assert!(
        matches!(result, Err(TreeError::Malformed { .. })),
        "{result:?}"
    );
    let huge = ObjectId {
        size: bounds::DIRECTORY_BYTES as u64 + 1,
        ..object
    };
    let result = read(&memory, huge);
    assert!(
        matches!(result, Err(TreeError::Malformed { .. })),
        "{result:?}"
    );
}

/// A directory with `children`, kept.
fn parent(memory: &Memory, children: &[(&str, ObjectId)]) -> ObjectId {
    let node = |(name, object): &(&str, ObjectId)| belljar_tree::DirectoryNode {
        name: Name::new(*name).unwrap(),
        object: *object,
    };
    let directory = Directory::new(vec![], children.iter().map(node).collect(), vec![]).unwrap();
    memory.put(&directory.encode())
}

#[test]
fn a_tree_that_doubles_at_each_level_is_stopped_by_what_it_would_become() {
    let memory = Memory::new(0);
    let mut level = ObjectId::of(b"");
    for _ in 0..100 {
        level = parent(&memory, &[("a", level), ("b", level)]);
    }
    let begun = Instant::now();
    let result = read(&memory, level);
    assert!(
        matches!(result, Err(TreeError::TooManyEntries)),
        "{result:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// The directory by the name that `of` stands for, with that one below it: what no digest can be of.
fn cycle(memory: &Memory, of: &[&[u8]]) -> Vec<ObjectId> {
    let one = |object| {
        let name = Name::new("d").unwrap();
        let node = belljar_tree::DirectoryNode { name, object };
        let directory = Directory::new(vec![], vec![node], vec![]).unwrap();
        directory.encode()
    };
    let size = one(ObjectId::of(&[7; 100])).len() as u64;
    let named = of.iter().map(|seed| ObjectId {
        digest: Digest::of(seed),
        size,
    });
    let named: Vec<_> = named.collect();
    for (at, object) in named.iter().enumerate() {
        let content = one(named[(at + 1) % named.len()]);
        assert_eq!(content.len() as u64, size);
        memory.put_as(*object, &content);
    }
    named
}

#[test]
fn a_cycle_that_only_a_lying_store_can_have_is_damage_and_walked_no_further() {
    let memory = Memory::new(0);
    for forged in [
        cycle(&memory, &[b"itself"]),
        cycle(&memory, &[b"one", b"other"]),
    ] {
        let result = read(&memory, forged[0]);
        assert!(
            matches!(result, Err(TreeError::Damaged { ref path, object }) if path == "." && object == forged[0]),
            "{result:?}"
        );
        let top = parent(&memory, &[("a", parent(&memory, &[("b", forged[0])]))]);
        let result = read(&memory, top);
        assert!(
            matches!(result, Err(TreeError::Damaged { ref path, object }) if path == "a/b" && object == forged[0]),
            "{result:?}"
        );
        // What is needed is looked for without end neither: what is damaged leads nowhere.
        let mut reached = crate::Reached::default();
        reached.add_tree(&memory, top, |_| {}).unwrap();
        assert_eq!((reached.len(), reached.has(forged[0].digest)), (3, true));
    }
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let memory = Memory::new(0);
    let mut level = ObjectId::of(b"");
    for _ in 0..bounds::PATH_DEPTH {
        level = parent(&memory, &[("d", level)]);
    }
    read(&memory, level).unwrap();
    let level = parent(&memory, &[("d", level)]);
    let result = read(&memory, level);
    assert!(
        matches!(result, Err(TreeError::Malformed { .. })),
        "{result:?}"
    );
}

#[test]
fn a_tree_with_too_much_content_or_names_is_refused_before_any_is_read() {
    let memory = Memory::new(0);
    let huge = |name: &str| {
        leaf(ObjectId {
            digest: Digest::of(name.as_bytes()),
            size: bounds::TREE_BYTES / 2 + 1,
        })
    };
    let both = vec![(path("a"), huge("a")), (path("b"), huge("b"))];
    let result = read(&memory, tree(&memory, both));
    assert!(matches!(result, Err(TreeError::TooManyBytes)), "{result:?}");

    let target = belljar_tree::SymlinkTarget::new("t".repeat(bounds::SYMLINK_BYTES)).unwrap();
    let links = (0..1000).map(|i| {
        let target = target.clone();
        (path(&format!("l{i}")), Leaf::Symlink { target })
    });
    let links = tree(&memory, links.collect());
    let names: Vec<_> = (0..20).map(|i| format!("d{i}")).collect();
    let children: Vec<_> = names.iter().map(|name| (name.as_str(), links)).collect();
    let result = read(&memory, parent(&memory, &children));
    assert!(matches!(result, Err(TreeError::TooManyNames)), "{result:?}");

    let value = "v".repeat(bounds::NODE_PROPERTIES_BYTES - 1);
    let long = NodeProperty {
        name: "n".to_owned(),
        value,
    };
    let long = NodeProperties::default().with_named(vec![long]).unwrap();
    let marked = |i: usize| FileNode {
        name: Name::new(format!("f{i}")).unwrap(),
        object: ObjectId::of(b""),
        executable: false,
        properties: Some(Box::new(long.clone())),
    };
    let files = Directory::new((0..900).map(marked).collect(), vec![], vec![]).unwrap();
    let files = memory.put(&files.encode());
    let few = parent(&memory, &[("d0", files)]);
    assert_eq!(read(&memory, few).unwrap().entries, 901);
    let children: Vec<_> = names.iter().map(|name| (name.as_str(), files)).collect();
    let result = read(&memory, parent(&memory, &children));
    assert!(matches!(result, Err(TreeError::TooManyNames)), "{result:?}");
}

#[test]
fn one_missing_directory_among_many_is_named_with_its_place() {
    let memory = Memory::new(0);
    let gone = ObjectId::of(b"gone");
    let names: Vec<_> = (0..100).map(|i| format!("d{i}")).collect();
    let different = |(i, name): (usize, &String)| {
        let object = memory.put(format!("content {i}").as_bytes());
        tree(&memory, vec![(path(name), leaf(object))])
    };
    let mut below: Vec<_> = names.iter().enumerate().map(different).collect();
    below[70] = gone;
    let children = |below: &[ObjectId]| {
        let names = names.iter().map(String::as_str);
        names.zip(below.iter().copied()).collect::<Vec<_>>()
    };
    let bad = parent(&memory, &children(&below));
    let top = parent(&memory, &[("top", bad)]);
    let result = read(&memory, top);
    assert!(
        matches!(result, Err(TreeError::Missing { ref path, object }) if path == "top/d70" && object == gone),
        "{result:?}"
    );
    below[70] = below[0];
    let top = parent(&memory, &[("top", parent(&memory, &children(&below)))]);
    assert_eq!(read(&memory, top).unwrap().entries, 201);
}
