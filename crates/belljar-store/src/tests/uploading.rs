use super::*;
use belljar_core::{Digest, ProjectId};
use belljar_plan::store::{RefusedBlob, Sender};

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn sender(project: &str, principal: &str) -> Sender {
    Sender {
        project: ProjectId::new(project).unwrap(),
        principal: Digest::of(principal.as_bytes()),
    }
}

fn upload(name: &str, content: &[u8], offset: u64) -> Request {
    upload_of(&sender("web", "ci"), name, content, offset)
}

fn upload_of(sender: &Sender, name: &str, content: &[u8], offset: u64) -> Request {
    Request::Upload {
        key: key(name),
        sender: sender.clone(),
        object: ObjectId::of(content),
        offset,
    }
}

fn uploaded(name: &str, content: &[u8]) -> Request {
    Request::Uploaded {
        key: key(name),
        object: ObjectId::of(content),
    }
}

fn at(committed: u64) -> Answer {
    Answer::Upload {
        committed,
        open: false,
    }
}

fn open(committed: u64) -> Answer {
    Answer::Upload {
        committed,
        open: true,
    }
}

/// Sends the beginning of an upload, and breaks off.
fn interrupt(rig: &Rig, name: &str, content: &[u8], after: usize) {
    interrupt_of(&sender("web", "ci"), rig, name, content, after);
}

fn interrupt_of(sender: &Sender, rig: &Rig, name: &str, content: &[u8], after: usize) {
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&upload_of(sender, name, content, 0)), open(0));
    peer.data(&content[..after]);
    peer.close();
}

#[test]
fn an_interrupted_upload_goes_on_where_it_stood() {
    let rig = Rig::new();
    let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    interrupt(&rig, "u", &content, 150_000);
    assert_eq!(rig.memory.ids(), [ObjectId::of(b"")], "it is no object");
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&uploaded("u", &content)), at(150_000));
    assert_eq!(peer.reply(&uploaded("other", &content)), at(0));
    assert_eq!(peer.reply(&uploaded("u", b"another object")), at(0));
    // Another offset opens nothing, and costs nothing.
    assert_eq!(peer.reply(&upload("u", &content, 7)), at(150_000));
    assert_eq!(peer.reply(&upload("u", &content, 150_000)), open(150_000));
    peer.data(&content[150_000..]);
    assert_eq!(peer.answer(), Answer::Stored);
    assert_eq!(rig.content(ObjectId::of(&content)), content);
    assert_eq!(peer.reply(&uploaded("u", &content)), at(0), "it is over");
}

#[test]
fn from_zero_an_upload_begins_anew() {
    let rig = Rig::new();
    let content = [3; 100_000];
    interrupt(&rig, "u", &content, 50_000);
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&upload("u", &content, 0)), open(0));
    peer.data(&content);
    assert_eq!(peer.answer(), Answer::Stored);
}

#[test]
fn what_an_upload_is_refused_for_leaves_nothing_to_go_on_with() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&upload("u", b"expected", 0)), open(0));
    peer.data(b"expecteD");
    assert_eq!(peer.failure(), Failure::Content);
    assert_eq!(peer.reply(&uploaded("u", b"expected")), at(0));
    assert_eq!(peer.reply(&upload("u", b"expected", 0)), open(0));
    peer.data(b"expected and more");
    assert_eq!(peer.failure(), Failure::Content);
    peer.assert_ended();
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&uploaded("u", b"expected")), at(0));
    assert_eq!(rig.memory.ids(), [ObjectId::of(b"")]);
    // No bytes are an upload too, and what is too large is none.
    assert_eq!(peer.reply(&upload("e", b"", 0)), open(0));
    assert_eq!(peer.answer(), Answer::Stored);
    let object = ObjectId {
        size: bounds::BLOB_BYTES + 1,
        ..ObjectId::of(b"")
    };
    let huge = Request::Upload {
        key: key("h"),
        sender: sender("web", "ci"),
        object,
        offset: 0,
    };
    assert_eq!(peer.fails(&huge), Failure::Content);
}

#[test]
fn interrupted_uploads_are_kept_up_to_their_bounds_the_latest_first() {
    let rig = Rig::new();
    let content = [9; 1000];
    for name in ["a", "b", "c", "d"] {
        interrupt(&rig, name, &content, 500);
    }
    let mut peer = rig.connect(Role::Client);
    for (name, due) in [("a", 0), ("b", 500), ("c", 500), ("d", 500)] {
        assert_eq!(peer.reply(&uploaded(name, &content)), at(due), "{name}");
    }
    let large = vec![1; 2 << 20];
    let most = usize::try_from(MOST.principal.bytes).unwrap();
    interrupt(&rig, "large", &large, most);
    assert_eq!(peer.reply(&uploaded("large", &large)), at(most as u64));
    assert_eq!(peer.reply(&uploaded("d", &content)), at(0), "it made room");
    interrupt(&rig, "larger", &large, most + 1);
    assert_eq!(peer.reply(&uploaded("larger", &large)), at(0));
}

/// Sends beginnings of such lengths, one after the other, and gives the names of those that are still there.
fn kept(rig: &Rig, uploads: &[(&str, &Sender, usize)]) -> Vec<String> {
    let content = vec![6; 2 << 20];
    for (name, sender, bytes) in uploads {
        interrupt_of(sender, rig, name, &content, *bytes);
    }
    let mut peer = rig.connect(Role::Client);
    let mut there = |name: &str| peer.reply(&uploaded(name, &content)) != at(0);
    let kept = uploads.iter().filter(|(name, ..)| there(name));
    kept.map(|(name, ..)| (*name).to_owned()).collect()
}

/// What it is about; beginnings of uploads, with whose they are and how long; what is kept of them.
type Case<'a> = (&'a str, Vec<(&'a str, &'a Sender, usize)>, &'a [&'a str]);

#[test]
fn who_breaks_off_uploads_pushes_out_no_others() {
    let (ci, colleague) = (sender("web", "ci"), sender("web", "colleague"));
    let (other, third) = (sender("shop", "ci"), sender("blog", "ci"));
    let half = usize::try_from(MOST.project.bytes / 2).unwrap();
    let cases: [Case<'_>; 5] = [
        (
            "a principal's own make room for its further ones",
            vec![
                ("mine", &colleague, 9),
                ("1", &ci, 9),
                ("2", &ci, 9),
                ("3", &ci, 9),
                ("4", &ci, 9),
                ("5", &ci, 9),
            ],
            &["mine", "3", "4", "5"],
        ),
        (
            "in a project it is who has most",
            vec![
                ("mine", &colleague, 9),
                ("1", &ci, 9),
                ("2", &ci, 9),
                ("3", &ci, 9),
                ("more", &colleague, 9),
            ],
            &["mine", "2", "3", "more"],
        ),
        (
            "among all it is the project that has most",
            vec![
                ("theirs", &other, 9),
                ("mine", &colleague, 9),
                ("1", &ci, 9),
                ("2", &ci, 9),
                ("3", &ci, 9),
                ("new", &third, 9),
            ],
            &["theirs", "mine", "2", "3", "new"],
        ),
        (
            "bytes count as well: of one principal",
            vec![("theirs", &other, half), ("1", &ci, half), ("2", &ci, half)],
            &["theirs", "2"],
        ),
        (
            "and of all, whoever has few uploads",
            vec![
                ("1", &ci, half),
                ("2", &colleague, half - 9),
                ("small", &other, 9),
                ("small too", &other, 9),
                ("new", &third, half),
            ],
            &["2", "small", "small too", "new"],
        ),
    ];
    for (what, uploads, due) in cases {
        assert_eq!(kept(&Rig::new(), &uploads), due, "{what}");
    }
}

#[test]
fn an_interrupted_upload_is_forgotten_in_time() {
    let mut rig = Rig::new();
    let store = Arc::get_mut(&mut rig.store).unwrap();
    store.partials = Partials::new(Most {
        age: Duration::ZERO,
        ..MOST
    });
    interrupt(&rig, "u", b"content", 3);
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&uploaded("u", b"content")), at(0));
}

#[test]
fn who_goes_on_waits_for_the_connection_before_to_be_gone() {
    let rig = Rig::new();
    let content = [5; 1000];
    let mut first = rig.connect(Role::Client);
    assert_eq!(first.reply(&upload("u", &content, 0)), open(0));
    first.data(&content[..400]);
    let second = rig.connect(Role::Client);
    second.ask(&upload("u", &content, 400));
    std::thread::sleep(Duration::from_millis(50));
    first.close();
    let mut second = second;
    assert_eq!(second.answer(), open(400));
    second.data(&content[400..]);
    assert_eq!(second.answer(), Answer::Stored);
}

fn many(contents: &[&[u8]]) -> Request {
    let objects = contents.iter().map(|content| ObjectId::of(content));
    Request::PutMany {
        objects: objects.collect(),
    }
}

#[test]
fn many_blobs_come_without_gaps_and_are_kept_together() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    let long = vec![4; bounds::CHUNK_BYTES + 3];
    let contents: Vec<&[u8]> = vec![b"", b"one", b"", &long, b"two", b""];
    peer.ask(&many(&contents));
    peer.data(&contents.concat());
    assert_eq!(peer.answer(), Answer::Kept { refused: vec![] });
    for content in contents {
        assert_eq!(rig.content(ObjectId::of(content)), content);
    }
    for none in [vec![], vec![&b""[..]]] {
        assert_eq!(peer.reply(&many(&none)), Answer::Kept { refused: vec![] });
    }
    // More than are made durable together.
    let names: Vec<String> = (0..2 * bounds::OBJECTS_AT_ONCE + 1)
        .map(|n| n.to_string())
        .collect();
    let contents: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    peer.ask(&many(&contents));
    peer.data(&contents.concat());
    assert_eq!(peer.answer(), Answer::Kept { refused: vec![] });
    for content in contents {
        assert_eq!(rig.content(ObjectId::of(content)), content);
    }
}

#[test]
fn one_bad_blob_of_many_costs_the_others_nothing() {
    let rig = Rig::with_capacity(20);
    let mut peer = rig.connect(Role::Client);
    peer.ask(&many(&[
        b"good",
        b"bad!",
        b"much too much for this disk",
        b"last",
    ]));
    peer.data(b"goodBAD!much too much for this disklast");
    let refused = |index, class| RefusedBlob { index, class };
    let due = Answer::Kept {
        refused: vec![refused(1, Failure::Content), refused(2, Failure::Full)],
    };
    assert_eq!(peer.answer(), due);
    assert_eq!(rig.memory.ids().len(), 3);
    peer.ask(&many(&[b"more"]));
    peer.data(b"more than that");
    assert_eq!(peer.failure(), Failure::Content);
    peer.assert_ended();
}

#[test]
fn many_blobs_have_bounds() {
    let rig = Rig::new();
    let one = ObjectId::of(b"x");
    let most = Request::PutMany {
        objects: vec![one; bounds::DIGESTS_PER_FRAME],
    };
    let mut peer = rig.connect(Role::Client);
    peer.ask(&most);
    peer.data(&[b'x'; bounds::DIGESTS_PER_FRAME]);
    assert_eq!(peer.answer(), Answer::Kept { refused: vec![] });
    let large = ObjectId {
        size: bounds::BATCH_BYTES as u64 + 1,
        ..one
    };
    for objects in [vec![one; bounds::DIGESTS_PER_FRAME + 1], vec![large]] {
        let mut peer = rig.connect(Role::Client);
        assert_eq!(peer.fails(&Request::PutMany { objects }), Failure::Refused);
        peer.assert_ended();
    }
    // The spawner puts nothing in, in no way.
    for request in [many(&[b"x"]), upload("u", b"x", 0), uploaded("u", b"x")] {
        let mut peer = rig.connect(Role::Spawner);
        assert_eq!(peer.fails(&request), Failure::Refused);
        peer.assert_ended();
    }
}
