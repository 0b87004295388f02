use super::*;

use belljar_core::Digest;

#[test]
fn a_tree_becomes_an_image_that_stays() {
    let rig = Rig::new();
    let tree = rig.tree("src/main.c", b"int main;");
    let mut peer = rig.connect(Role::Spawner);
    let done = Answer::Staged {
        entries: 2,
        bytes: 9,
    };
    assert_eq!(peer.reply(&stage(1, tree)), done);
    let made = std::fs::metadata(rig.image(tree)).unwrap();
    let unchanged = Answer::Inputs { unchanged: true };
    assert_eq!(peer.reply(&Request::VerifyInputs), unchanged);
    peer.close();
    let mut peer = rig.connect(Role::Spawner);
    assert_eq!(peer.reply(&stage(2, tree)), done);
    let again = std::fs::metadata(rig.image(tree)).unwrap();
    assert_eq!(made.modified().unwrap(), again.modified().unwrap());
}

#[test]
fn the_name_of_an_image_says_its_format() {
    let name = staged(ObjectId::of(b"")).image();
    let format = belljar_tree::erofs::FORMAT;
    assert!(name.ends_with(&format!(".v{format}")), "{name}");
    assert!(!name.contains('/'));
}

#[test]
fn all_trees_of_an_attempt_are_staged_and_looked_at_together() {
    let rig = Rig::new();
    let (one, two) = (rig.tree("a", b"one"), rig.tree("b/c", b"two!"));
    let mut peer = rig.connect(Role::Spawner);
    let trees = vec![staged(one), staged(two)];
    assert_eq!(
        peer.reply(&stage_all(1, trees)),
        Answer::Staged {
            entries: 3,
            bytes: 7
        }
    );
    assert!(rig.image(one).exists() && rig.image(two).exists());
    rig.memory.put_as(ObjectId::of(b"two!"), b"twO!");
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: false }
    );
    let mut peer = rig.connect(Role::Spawner);
    for count in [0, bounds::ATTEMPT_TREES + 1] {
        let trees = vec![staged(one); count];
        assert_eq!(peer.fails(&stage_all(2, trees)), Failure::Refused);
    }
}

#[test]
fn an_image_that_somebody_writes_to_is_seen() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let mut peer = rig.staged(1, tree);
    let mut bytes = std::fs::read(rig.image(tree)).unwrap();
    bytes[1500] ^= 1;
    std::fs::remove_file(rig.image(tree)).unwrap();
    std::fs::write(rig.image(tree), bytes).unwrap();
    // Whoever finds it so has another one; who had it before has not what was staged.
    let mut next = rig.staged(2, tree);
    for (peer, unchanged) in [(&mut peer, false), (&mut next, true)] {
        assert_eq!(
            peer.reply(&Request::VerifyInputs),
            Answer::Inputs { unchanged }
        );
    }
}

#[test]
fn a_derivation_that_the_store_did_not_make_is_refused() {
    let rig = Rig::new();
    let tree = StagedTree {
        derivation: Some(rig.memory.put(b"{}")),
        ..staged(rig.tree("a", b"a"))
    };
    let mut peer = rig.connect(Role::Spawner);
    match peer.reply(&stage_all(1, vec![tree])) {
        Answer::Failed { class, why } => {
            assert_eq!(class, Failure::Missing);
            assert!(why.starts_with("derivation: "), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tree_that_cannot_be_staged_leaves_nothing_and_the_connection_goes_on() {
    let rig = Rig::new();
    let gone = ObjectId::of(b"gone");
    let text = rig.memory.put(b"no Directory message");
    let damaged = rig.tree("a/b", b"content");
    rig.memory.put_as(ObjectId::of(b"content"), b"cONTENT");
    let mut peer = rig.connect(Role::Spawner);
    let cases = [
        (gone, Failure::Missing),
        (text, Failure::Content),
        (damaged, Failure::Content),
    ];
    for (tree, class) in cases {
        assert_eq!(peer.fails(&stage(1, tree)), class);
        assert!(!rig.image(tree).exists());
    }
    assert!(matches!(
        peer.reply(&stage(1, rig.tree("a", b"a"))),
        Answer::Staged { .. }
    ));
}

#[test]
fn an_endless_name_does_not_keep_the_reason_from_being_told() {
    let rig = Rig::new();
    // A Directory with one file, whose name is two million slashes: field 1 of field 1.
    let length = 2_000_000_u32;
    let varint = |n: u32| {
        [
            0x80 | (n & 0x7f) as u8,
            0x80 | (n >> 7 & 0x7f) as u8,
            (n >> 14 & 0x7f) as u8,
        ]
    };
    let mut bytes = vec![0x0a];
    bytes.extend_from_slice(&varint(length + 4));
    bytes.push(0x0a);
    bytes.extend_from_slice(&varint(length));
    bytes.resize(bytes.len() + usize::try_from(length).unwrap(), b'/');
    let tree = rig.memory.put(&bytes);
    let mut peer = rig.connect(Role::Spawner);
    match peer.reply(&stage(1, tree)) {
        Answer::Failed { class, why } => {
            assert_eq!(class, Failure::Content);
            assert!(why.contains("files[0].name"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_has_one_attempt() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let mut peer = rig.staged(1, tree);
    assert_eq!(peer.fails(&stage(2, tree)), Failure::Refused);
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
}

#[test]
fn what_an_earlier_run_left_is_removed_at_the_start() {
    let rig = Rig::new();
    let root = rig.directory.path();
    std::fs::write(root.join("tmp/name"), b"x").unwrap();
    std::fs::write(root.join("logs/kept.log"), b"x").unwrap();
    std::fs::write(root.join("images/kept"), b"x").unwrap();
    crate::stage::open(root).unwrap();
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert!(root.join("logs/kept.log").exists());
    assert!(root.join("images/kept").exists());
}

#[test]
fn nothing_works_before_a_tree_is_staged() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Spawner);
    let log = Request::OpenLog { limit_bytes: 1 };
    for request in [
        Request::VerifyInputs,
        Request::FinishLog,
        collect(&["a"]),
        log,
    ] {
        assert_eq!(peer.fails(&request), Failure::Refused, "{request:?}");
    }
    assert!(matches!(
        peer.reply(&stage(1, rig.tree("a", b"a"))),
        Answer::Staged { .. }
    ));
}

#[test]
fn a_tree_that_would_explode_is_refused_and_leaves_nothing() {
    let rig = Rig::new();
    let mut level = ObjectId::of(b"");
    for _ in 0..64 {
        let node = |name: &str| belljar_tree::DirectoryNode {
            name: belljar_tree::Name::new(name).unwrap(),
            object: level,
        };
        let directory =
            belljar_tree::Directory::new(vec![], vec![node("a"), node("b")], vec![]).unwrap();
        level = rig.memory.put(&directory.encode());
    }
    let mut peer = rig.connect(Role::Spawner);
    assert_eq!(peer.fails(&stage(1, level)), Failure::Content);
    assert!(!rig.image(level).exists());
    let huge = ObjectId {
        digest: Digest::of(b""),
        size: u64::MAX,
    };
    assert_eq!(peer.fails(&stage(1, huge)), Failure::Content);
}
