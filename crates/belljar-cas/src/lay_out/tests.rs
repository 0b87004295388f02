use super::*;
use crate::{Memory, ScanError, scan};
use belljar_core::Digest;
use belljar_tree::Directory;
use belljar_tree::{Leaf, SymlinkTarget, build};
use proptest::prelude::*;
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const MTIME: u64 = 315_532_800;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn file(memory: &Memory, content: &[u8], executable: bool) -> Leaf {
    Leaf::File {
        object: memory.put(content),
        executable,
    }
}

fn link(target: &str) -> Leaf {
    Leaf::Symlink {
        target: SymlinkTarget::new(target).unwrap(),
    }
}

/// Builds a tree and keeps its directories.
fn tree(memory: &Memory, leaves: Vec<(RelPath, Leaf)>) -> ObjectId {
    let built = build(leaves).unwrap();
    for (_, bytes) in &built.directories {
        memory.put(bytes);
    }
    built.root
}

fn lay_out_into(memory: &Memory, tree: ObjectId, into: &Path) -> Result<LaidOut, LayOutError> {
    let parent = File::open(into).unwrap();
    lay_out(
        memory,
        Order { tree, mtime: MTIME },
        parent.as_fd(),
        "tree",
        &|| false,
    )
}

fn rescan(root: &Path) -> Result<ObjectId, ScanError> {
    scan(File::open(root).unwrap().as_fd(), "tree")
}

fn small(memory: &Memory) -> ObjectId {
    let leaves = vec![
        (path("bin/run"), file(memory, b"#!/bin/sh\n", true)),
        (path("src/a.c"), file(memory, &[b'x'; 150_000], false)),
        (path("src/link"), link("../bin/run")),
        (path("src/dangling"), link("/nowhere")),
        (path("empty"), Leaf::EmptyDirectory),
    ];
    tree(memory, leaves)
}

#[test]
fn a_tree_is_laid_out_with_modes_and_times() {
    let memory = Memory::new(0);
    let root = tempfile::tempdir().unwrap();
    let tree = small(&memory);
    let done = lay_out_into(&memory, tree, root.path()).unwrap();
    assert_eq!((done.entries, done.bytes), (7, 150_010));
    let top = root.path().join("tree");
    let modes = [
        ("", 0o755),
        ("bin", 0o755),
        ("bin/run", 0o755),
        ("src/a.c", 0o644),
        ("empty", 0o755),
    ];
    for (name, mode) in modes {
        assert_eq!(
            top.join(name).symlink_metadata().unwrap().mode() & 0o7777,
            mode,
            "{name}"
        );
    }
    for name in [
        "",
        "bin",
        "bin/run",
        "src",
        "src/a.c",
        "src/link",
        "src/dangling",
        "empty",
    ] {
        assert_eq!(
            top.join(name).symlink_metadata().unwrap().mtime(),
            i64::try_from(MTIME).unwrap(),
            "{name}"
        );
    }
    assert_eq!(std::fs::read(top.join("src/a.c")).unwrap(), [b'x'; 150_000]);
    assert_eq!(
        std::fs::read_link(top.join("src/link")).unwrap(),
        Path::new("../bin/run")
    );
    assert_eq!(rescan(root.path()).unwrap(), tree);
}

#[test]
fn any_change_on_disk_changes_the_digest() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("content", |top| {
            std::fs::write(top.join("bin/run"), b"#!/bin/ash").unwrap()
        }),
        ("one more file", |top| {
            std::fs::write(top.join("src/b.c"), b"").unwrap()
        }),
        ("one file less", |top| {
            std::fs::remove_file(top.join("src/a.c")).unwrap()
        }),
        ("one directory less", |top| {
            std::fs::remove_dir(top.join("empty")).unwrap()
        }),
        ("executable", |top| {
            std::fs::set_permissions(top.join("src/a.c"), Permissions::from_mode(0o755)).unwrap()
        }),
        ("setuid", |top| {
            std::fs::set_permissions(top.join("bin/run"), Permissions::from_mode(0o4755)).unwrap()
        }),
        ("link", |top| {
            std::fs::remove_file(top.join("src/link")).unwrap();
            std::os::unix::fs::symlink("../bin/ruN", top.join("src/link")).unwrap();
        }),
        ("appended", |top| {
            let mut file = OpenOptions::new()
                .append(true)
                .open(top.join("src/a.c"))
                .unwrap();
            file.write_all(b"x").unwrap();
        }),
    ];
    let memory = Memory::new(0);
    let tree = small(&memory);
    for (name, change) in changes {
        let root = tempfile::tempdir().unwrap();
        lay_out_into(&memory, tree, root.path()).unwrap();
        change(&root.path().join("tree"));
        let result = rescan(root.path());
        assert!(
            !matches!(result, Ok(found) if found == tree),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn a_special_file_is_foreign() {
    let memory = Memory::new(0);
    let root = tempfile::tempdir().unwrap();
    lay_out_into(&memory, small(&memory), root.path()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("tree/socket")).unwrap();
    assert!(
        matches!(rescan(root.path()), Err(ScanError::Foreign { path, .. }) if path == "socket")
    );
}

#[test]
fn a_missing_or_damaged_object_is_named_with_its_place() {
    let memory = Memory::new(0);
    let gone = ObjectId::of(b"gone");
    let leaf = Leaf::File {
        object: gone,
        executable: false,
    };
    let missing = tree(&memory, vec![(path("a/b"), leaf)]);
    let result = lay_out_into(&memory, missing, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::Missing { path, object }) if path == "a/b" && object == gone)
    );

    let result = lay_out_into(&memory, gone, tempfile::tempdir().unwrap().path());
    assert!(matches!(result, Err(LayOutError::Missing { path, .. }) if path == "."));

    memory.put_as(gone, b"GONE");
    let result = lay_out_into(&memory, missing, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::Damaged { path, object }) if path == "a/b" && object == gone)
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
    let result = lay_out_into(&memory, forged, tempfile::tempdir().unwrap().path());
    assert!(matches!(result, Err(LayOutError::Damaged { path, .. }) if path == "."));
}

#[test]
fn what_is_no_directory_message_is_malformed() {
    let memory = Memory::new(0);
    let object = memory.put(b"int main(void) { return 0; }");
    let result = lay_out_into(&memory, object, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::Malformed { .. })),
        "{result:?}"
    );
    let huge = ObjectId {
        size: bounds::DIRECTORY_BYTES as u64 + 1,
        ..object
    };
    let result = lay_out_into(&memory, huge, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::Malformed { .. })),
        "{result:?}"
    );
}

/// A directory with `children`, kept.
fn parent(memory: &Memory, children: &[(&str, ObjectId)]) -> ObjectId {
    let node = |(name, object): &(&str, ObjectId)| belljar_tree::DirectoryNode {
        name: belljar_tree::Name::new(*name).unwrap(),
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
    let root = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let result = lay_out_into(&memory, level, root.path());
    assert!(
        matches!(result, Err(LayOutError::TooManyEntries)),
        "{result:?}"
    );
    assert!(
        !root.path().join("tree").exists(),
        "refused before anything is made"
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let memory = Memory::new(0);
    let mut level = ObjectId::of(b"");
    for _ in 0..bounds::PATH_DEPTH {
        level = parent(&memory, &[("d", level)]);
    }
    lay_out_into(&memory, level, tempfile::tempdir().unwrap().path()).unwrap();
    let level = parent(&memory, &[("d", level)]);
    let result = lay_out_into(&memory, level, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::Malformed { .. })),
        "{result:?}"
    );
}

#[test]
fn a_tree_with_too_much_content_is_refused_before_any_is_copied() {
    let memory = Memory::new(0);
    let huge = |name: &str| Leaf::File {
        object: ObjectId {
            digest: Digest::of(name.as_bytes()),
            size: bounds::TREE_BYTES / 2 + 1,
        },
        executable: false,
    };
    let tree = tree(
        &memory,
        vec![(path("a"), huge("a")), (path("b"), huge("b"))],
    );
    let result = lay_out_into(&memory, tree, tempfile::tempdir().unwrap().path());
    assert!(
        matches!(result, Err(LayOutError::TooManyBytes)),
        "{result:?}"
    );
}

#[test]
fn a_name_that_is_taken_and_a_stop_are_heeded() {
    let memory = Memory::new(0);
    let tree = small(&memory);
    let root = tempfile::tempdir().unwrap();
    let parent = File::open(root.path()).unwrap();
    let order = Order { tree, mtime: MTIME };
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 5;
    let result = lay_out(&memory, order, parent.as_fd(), "stopped", &stop);
    assert!(matches!(result, Err(LayOutError::Stopped)));
    let result = lay_out(&memory, order, parent.as_fd(), "stopped", &|| false);
    assert!(
        matches!(result, Err(LayOutError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists)
    );
    let late = Order {
        mtime: u64::MAX,
        ..order
    };
    assert!(matches!(
        lay_out(&memory, late, parent.as_fd(), "late", &|| false),
        Err(LayOutError::Malformed { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_laid_out_is_scanned_as_the_same_tree(
        leaves in proptest::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,3}", (0..4u8, "[xyz]{0,3}"), 0..12)
    ) {
        let memory = Memory::new(0);
        let leaf = |(kind, text): (u8, String)| match kind {
            0 => Leaf::EmptyDirectory,
            1 => link(&format!("{text}.")),
            kind => file(&memory, text.as_bytes(), kind == 3),
        };
        let leaves: Vec<_> = leaves.into_iter().map(|(at, what)| (path(&at), leaf(what))).collect();
        prop_assume!(build(leaves.clone()).is_ok());
        let count = leaves.len() as u64;
        let tree = tree(&memory, leaves);
        let root = tempfile::tempdir().unwrap();
        let done = lay_out_into(&memory, tree, root.path()).unwrap();
        prop_assert!(done.entries >= count);
        prop_assert_eq!(rescan(root.path()).unwrap(), tree);
    }
}
