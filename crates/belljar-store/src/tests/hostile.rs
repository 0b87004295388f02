use super::*;
use proptest::prelude::*;
use serde_json::json;

use belljar_core::Recipe;

#[test]
fn who_may_ask_what_follows_from_the_role() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let for_the_spawner = [
        stage(1, tree),
        Request::OpenLog { limit_bytes: 1 },
        Request::FinishLog,
        Request::VerifyInputs,
        collect(&["a"]),
        Request::Derivation { record: tree },
    ];
    for request in for_the_spawner {
        let mut peer = rig.connect(Role::Client);
        assert_eq!(peer.fails(&request), Failure::Refused, "{request:?}");
        peer.assert_ended();
    }
    let object = ObjectId::of(b"x");
    let recipe = Recipe::Tar { archive: object };
    for request in [Request::Put { object }, Request::Derive { recipe }] {
        let mut peer = rig.connect(Role::Spawner);
        assert_eq!(peer.fails(&request), Failure::Refused);
        peer.assert_ended();
    }
}

#[test]
fn frames_that_are_none_end_the_connection_with_a_word() {
    let frames: [&[u8]; 8] = [
        b"X",
        b"J",
        b"J{}",
        b"J{\"kind\":\"stage\"}",
        b"J{\"kind\":\"open_log\",\"limit_bytes\":1,\"extra\":1}",
        b"J[[[[[[[[",
        b"J\xff\xfe",
        b"Dcontent that nobody announced",
    ];
    for bytes in frames {
        for role in [Role::Client, Role::Spawner] {
            let rig = Rig::new();
            let mut peer = rig.connect(role);
            peer.send(bytes);
            assert_eq!(peer.failure(), Failure::Refused, "{bytes:?}");
            peer.assert_ended();
        }
    }
}

#[test]
fn a_message_that_is_too_large_ends_the_connection() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    peer.send(&vec![b'J'; bounds::FRAME_BYTES + 1]);
    assert_eq!(peer.failure(), Failure::Refused);
    peer.assert_ended();
}

#[test]
fn a_descriptor_where_none_belongs_ends_the_connection() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Spawner);
    peer.ask_with(
        &Request::VerifyInputs,
        std::fs::File::open("/dev/null").unwrap(),
    );
    assert_eq!(peer.failure(), Failure::Refused);
    peer.assert_ended();
}

#[test]
fn names_that_could_be_paths_are_no_attempts() {
    for name in ["../../etc", "01jd8q6z8r4x7j2m5t9v0w3y6b-1/..", "", "x"] {
        let rig = Rig::new();
        let mut peer = rig.connect(Role::Spawner);
        let tree = ObjectId::of(b"");
        peer.send(&control(
            &json!({"kind": "stage", "attempt": name, "tree": tree, "mtime": 0}),
        ));
        assert_eq!(peer.failure(), Failure::Refused);
        peer.assert_ended();
    }
}

#[test]
fn paths_that_leave_their_root_are_no_outputs() {
    for path in [
        "../x",
        "/etc/passwd",
        "app/../../x",
        "app//x",
        "",
        "a\u{0}b",
    ] {
        let rig = Rig::new();
        let mut peer = rig.staged(1, rig.tree("a", b"a"));
        assert_eq!(peer.reply(&collect(&["app"])), Answer::CollectReady);
        peer.send(&control(
            &json!({"kind": "file", "path": path, "executable": false, "size": 0}),
        ));
        assert_eq!(peer.failure(), Failure::Refused, "{path:?}");
        peer.assert_ended();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_sequence_of_frames_hangs_or_panics(
        frames in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 1..40),
                prop::sample::select(vec![
                    b"J{\"kind\":\"finish_log\"}".to_vec(),
                    b"J{\"kind\":\"verify_inputs\"}".to_vec(),
                    b"J{\"kind\":\"file_end\"}".to_vec(),
                    b"J{\"kind\":\"end\"}".to_vec(),
                    b"Dxyz".to_vec(),
                    control(&collect(&["app"])),
                    control(&stage(1, ObjectId::of(b""))),
                    control(&stage(1, ObjectId::of(b"gone"))),
                    control(&Collected::Directory { path: RelPath::new("app").unwrap() }),
                    control(&Collected::File { path: RelPath::new("app/x").unwrap(), executable: false, size: 1 }),
                ]),
            ],
            0..24,
        ),
        client in any::<bool>(),
    ) {
        let rig = Rig::new();
        let peer = rig.connect(if client { Role::Client } else { Role::Spawner });
        for bytes in &frames {
            if peer.connection.send(bytes).is_err() {
                // The session has ended; that is one of the two good ends.
                break;
            }
        }
        peer.close();
        prop_assert_eq!(std::fs::read_dir(rig.directory.path().join(TMP)).unwrap().count(), 0);
    }
}
