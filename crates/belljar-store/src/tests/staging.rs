use super::*;

use belljar_core::Digest;

#[test]
fn a_tree_is_staged_verified_and_released() {
    let rig = Rig::new();
    let tree = rig.tree("src/main.c", b"int main;");
    let mut peer = rig.connect(Role::Spawner);
    assert_eq!(
        peer.reply(&stage(1, tree)),
        Answer::Staged {
            entries: 2,
            bytes: 9
        }
    );
    let file = rig.stage_directory(1).join("tree/src/main.c");
    assert_eq!(std::fs::read(&file).unwrap(), b"int main;");
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
    std::fs::write(&file, b"int nain;").unwrap();
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: false }
    );
    assert_eq!(peer.reply(&Request::Release), Answer::Released);
    assert!(!rig.stage_directory(1).exists());
    assert_eq!(peer.fails(&Request::VerifyInputs), Failure::Refused);
    assert_eq!(
        peer.reply(&Request::Release),
        Answer::Released,
        "again is fine"
    );
    peer.close();
}

#[test]
fn a_copy_goes_with_its_connection() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let peer = rig.staged(1, tree);
    assert!(rig.stage_directory(1).exists());
    peer.close();
    assert!(!rig.stage_directory(1).exists());
    // The attempt is free again.
    rig.staged(1, tree).close();
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
        assert!(!rig.stage_directory(1).exists());
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
fn an_attempt_is_staged_once_and_a_connection_has_one_attempt() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let mut peer = rig.staged(1, tree);
    assert_eq!(peer.fails(&stage(2, tree)), Failure::Refused);
    let mut other = rig.connect(Role::Spawner);
    assert_eq!(other.fails(&stage(1, tree)), Failure::Refused);
    assert!(
        rig.stage_directory(1).exists(),
        "the refusal has not touched the first"
    );
    assert!(matches!(
        other.reply(&stage(2, tree)),
        Answer::Staged { .. }
    ));
}

#[test]
fn everything_is_released_for_a_spawner_that_starts() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let mut old = rig.staged(1, tree);
    let mut fresh = rig.connect(Role::Spawner);
    assert_eq!(fresh.reply(&Request::ReleaseAll), Answer::Released);
    assert!(!rig.stage_directory(1).exists());
    assert_eq!(
        old.fails(&Request::VerifyInputs),
        Failure::Internal,
        "its inputs are gone"
    );
    assert!(matches!(
        fresh.reply(&stage(2, tree)),
        Answer::Staged { .. }
    ));
    // A collector that holds this connection must not reach other attempts.
    assert_eq!(fresh.fails(&Request::ReleaseAll), Failure::Refused);
    old.close();
    assert!(rig.stage_directory(2).exists());
}

#[test]
fn what_an_earlier_run_left_is_removed_at_the_start() {
    let rig = Rig::new();
    let root = rig.directory.path();
    std::fs::create_dir_all(root.join("stage/old/tree/deep")).unwrap();
    std::fs::write(root.join("stage/old/tree/deep/file"), b"x").unwrap();
    std::fs::write(root.join("tmp/name"), b"x").unwrap();
    std::fs::write(root.join("logs/kept.log"), b"x").unwrap();
    Area::open(root).unwrap();
    assert_eq!(std::fs::read_dir(root.join("stage")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert!(root.join("logs/kept.log").exists());
}

#[test]
fn a_leftover_of_the_same_attempt_is_no_obstacle() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.stage_directory(1).join("tree")).unwrap();
    std::fs::write(rig.stage_directory(1).join("tree/planted"), b"x").unwrap();
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    assert!(!rig.stage_directory(1).join("tree/planted").exists());
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
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
    assert_eq!(peer.reply(&Request::Release), Answer::Released);
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
    assert!(!rig.stage_directory(1).exists());
    let huge = ObjectId {
        digest: Digest::of(b""),
        size: u64::MAX,
    };
    assert_eq!(peer.fails(&stage(1, huge)), Failure::Content);
}
