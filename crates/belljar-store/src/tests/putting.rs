use super::*;
use belljar_plan::store::Whole;

fn put(content: &[u8]) -> Request {
    Request::Put {
        object: ObjectId::of(content),
    }
}

#[test]
fn objects_are_stored_one_after_the_other() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    let large = vec![9; 3 * bounds::CHUNK_BYTES + 1];
    for content in [&b"one"[..], b"", &large, b"one"] {
        peer.ask(&put(content));
        peer.data(content);
        assert_eq!(peer.answer(), Answer::Stored);
        assert_eq!(rig.content(ObjectId::of(content)), content);
    }
    peer.close();
}

#[test]
fn other_content_than_announced_is_not_kept_and_the_connection_goes_on() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    peer.ask(&put(b"expected"));
    peer.data(b"expecteD");
    assert_eq!(peer.failure(), Failure::Content);
    assert_eq!(rig.memory.ids(), [ObjectId::of(b"")]);
    peer.ask(&put(b"next"));
    peer.data(b"next");
    assert_eq!(peer.answer(), Answer::Stored);
}

#[test]
fn more_content_than_announced_ends_the_connection() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    peer.ask(&put(b"short"));
    peer.data(b"short, but longer");
    assert_eq!(peer.failure(), Failure::Content);
    peer.assert_ended();
}

#[test]
fn a_full_disk_is_told_after_the_last_piece_and_the_connection_goes_on() {
    let rig = Rig::with_capacity(100_000);
    let mut peer = rig.connect(Role::Client);
    let large = vec![1; 200_000];
    peer.ask(&put(&large));
    peer.data(&large);
    assert_eq!(peer.failure(), Failure::Full);
    peer.ask(&put(b"small"));
    peer.data(b"small");
    assert_eq!(peer.answer(), Answer::Stored);
}

#[test]
fn what_is_too_large_for_any_object_is_refused_at_once() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    let object = ObjectId {
        size: bounds::BLOB_BYTES + 1,
        ..ObjectId::of(b"")
    };
    assert_eq!(peer.fails(&Request::Put { object }), Failure::Content);
    peer.assert_ended();
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let rig = Rig::new();
    let peer = rig.connect(Role::Client);
    peer.ask(&put(&[5; 100_000]));
    peer.data(&[5; 50_000]);
    peer.close();
    assert_eq!(rig.memory.ids(), [ObjectId::of(b"")]);
}

#[test]
fn a_request_in_the_middle_of_content_ends_the_connection() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    peer.ask(&put(b"content"));
    assert_eq!(peer.fails(&put(b"other")), Failure::Refused);
    peer.assert_ended();
}

fn receive(content: &[u8], most_bytes: u64) -> Request {
    Request::Receive {
        digest: Some(ObjectId::of(content).digest),
        most_bytes,
    }
}

#[test]
fn what_is_known_by_its_digest_alone_is_kept_if_it_has_it() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    let large = vec![9; 2 * bounds::CHUNK_BYTES + 1];
    for content in [&b"one"[..], b"", &large, b"one"] {
        assert_eq!(peer.reply(&receive(content, 1 << 20)), Answer::Receiving {});
        peer.data(content);
        peer.send(&control(&Whole::Whole {}));
        let object = ObjectId::of(content);
        assert_eq!(peer.answer(), Answer::Received { object });
        assert_eq!(rig.content(object), content);
    }
    // Other content, and a part of it.
    let before = rig.memory.ids();
    for content in [&b"expecteD"[..], b"expect", b""] {
        assert_eq!(peer.reply(&receive(b"expected", 100)), Answer::Receiving {});
        peer.data(content);
        peer.send(&control(&Whole::Whole {}));
        assert_eq!(peer.failure(), Failure::Content);
    }
    // Who goes in the middle leaves nothing, with the right content neither.
    assert_eq!(peer.reply(&receive(b"expected", 100)), Answer::Receiving {});
    peer.data(b"expected");
    peer.close();
    assert_eq!(rig.memory.ids(), before);
    let mut spawner = rig.connect(Role::Spawner);
    assert_eq!(spawner.fails(&receive(b"x", 1)), Failure::Refused);
}

#[test]
fn more_than_may_come_ends_the_connection_and_a_full_disk_is_told_at_the_end() {
    let rig = Rig::with_capacity(100_000);
    let mut peer = rig.connect(Role::Client);
    let large = vec![1; 200_000];
    assert_eq!(peer.reply(&receive(&large, 1 << 20)), Answer::Receiving {});
    peer.data(&large);
    peer.send(&control(&Whole::Whole {}));
    assert_eq!(peer.failure(), Failure::Full);
    assert_eq!(peer.reply(&receive(b"short", 5)), Answer::Receiving {});
    peer.data(b"short, but longer");
    assert_eq!(peer.failure(), Failure::Content);
    peer.assert_ended();
}
