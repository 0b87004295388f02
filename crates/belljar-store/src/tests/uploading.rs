use super::*;
use belljar_core::{Blake3Digest, BlobDigest, BlobName, Digest, ProjectId};
use belljar_plan::store::{NamedBlob, RefusedBlob, Sender};

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
        blob: ObjectId::of(content).into(),
        offset,
    }
}

fn uploaded(name: &str, content: &[u8]) -> Request {
    Request::Uploaded {
        key: key(name),
        blob: ObjectId::of(content).into(),
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

fn received(content: &[u8]) -> Answer {
    Answer::Received {
        object: ObjectId::of(content),
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
    assert_eq!(peer.answer(), received(&content));
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
    assert_eq!(peer.answer(), received(&content));
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
    assert_eq!(peer.answer(), received(b""));
    let object = ObjectId {
        size: bounds::BLOB_BYTES + 1,
        ..ObjectId::of(b"")
    };
    let huge = Request::Upload {
        key: key("h"),
        sender: sender("web", "ci"),
        blob: object.into(),
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
    assert_eq!(second.answer(), received(&content));
}

fn many(contents: &[&[u8]]) -> Request {
    let blobs = contents.iter().map(|content| ObjectId::of(content).into());
    Request::PutMany {
        blobs: blobs.collect(),
    }
}

/// All of them.
fn all_kept() -> Answer {
    Answer::Kept {
        refused: vec![],
        named: vec![],
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
    assert_eq!(peer.answer(), all_kept());
    for content in contents {
        assert_eq!(rig.content(ObjectId::of(content)), content);
    }
    for none in [vec![], vec![&b""[..]]] {
        assert_eq!(peer.reply(&many(&none)), all_kept());
    }
    // More than are made durable together.
    let names: Vec<String> = (0..2 * bounds::OBJECTS_AT_ONCE + 1)
        .map(|n| n.to_string())
        .collect();
    let contents: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    peer.ask(&many(&contents));
    peer.data(&contents.concat());
    assert_eq!(peer.answer(), all_kept());
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
        named: vec![],
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
        blobs: vec![one.into(); bounds::DIGESTS_PER_FRAME],
    };
    let mut peer = rig.connect(Role::Client);
    peer.ask(&most);
    peer.data(&[b'x'; bounds::DIGESTS_PER_FRAME]);
    assert_eq!(peer.answer(), all_kept());
    let large = ObjectId {
        size: bounds::BATCH_BYTES as u64 + 1,
        ..one
    };
    for objects in [vec![one; bounds::DIGESTS_PER_FRAME + 1], vec![large]] {
        let blobs = objects.into_iter().map(BlobName::from).collect();
        let mut peer = rig.connect(Role::Client);
        assert_eq!(peer.fails(&Request::PutMany { blobs }), Failure::Refused);
        peer.assert_ended();
    }
    // The spawner puts nothing in, in no way.
    for request in [many(&[b"x"]), upload("u", b"x", 0), uploaded("u", b"x")] {
        let mut peer = rig.connect(Role::Spawner);
        assert_eq!(peer.fails(&request), Failure::Refused);
        peer.assert_ended();
    }
}

fn blake3(content: &[u8]) -> BlobName {
    BlobName {
        digest: BlobDigest::Blake3(Blake3Digest::from_bytes(blake3::hash(content).into())),
        size: content.len() as u64,
    }
}

fn upload_by(name: &str, blob: BlobName, offset: u64) -> Request {
    Request::Upload {
        key: key(name),
        sender: sender("web", "ci"),
        blob,
        offset,
    }
}

#[test]
fn what_comes_by_blake3_is_told_by_sha256_and_stays_as_that() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let blob = blake3(&content);
    assert_eq!(peer.reply(&upload_by("u", blob, 0)), open(0));
    peer.data(&content);
    assert_eq!(peer.answer(), received(&content));
    assert_eq!(rig.memory.ids().len(), 2);
    // Other content is not kept by either name, and leaves nothing to go on with.
    assert_eq!(peer.reply(&upload_by("v", blake3(b"expected"), 0)), open(0));
    peer.data(b"expecteD");
    assert_eq!(peer.failure(), Failure::Content);
    let uploaded = Request::Uploaded {
        key: key("v"),
        blob: blake3(b"expected"),
    };
    assert_eq!(peer.reply(&uploaded), at(0));
    assert_eq!(rig.memory.ids().len(), 2);
    // Many, by one function and by the other.
    peer.ask(&Request::PutMany {
        blobs: vec![
            blake3(b"one"),
            ObjectId::of(b"two").into(),
            blake3(b"bad"),
            blake3(b"three"),
            blake3(b""),
        ],
    });
    peer.data(b"onetwoBADthree");
    let named = |index, content: &[u8]| NamedBlob {
        index,
        digest: Digest::of(content),
    };
    let due = Answer::Kept {
        refused: vec![RefusedBlob {
            index: 2,
            class: Failure::Content,
        }],
        named: vec![named(0, b"one"), named(3, b"three"), named(4, b"")],
    };
    assert_eq!(peer.answer(), due);
    for content in [&b"one"[..], b"two", b"three"] {
        assert_eq!(rig.content(ObjectId::of(content)), content);
    }
}

#[test]
fn as_many_as_may_come_at_once_are_told_in_one_message() {
    let rig = Rig::new();
    let mut peer = rig.connect(Role::Client);
    peer.ask(&Request::PutMany {
        blobs: vec![blake3(b"x"); bounds::DIGESTS_PER_FRAME],
    });
    peer.data(&[b'x'; bounds::DIGESTS_PER_FRAME]);
    match peer.answer() {
        Answer::Kept { refused, named } => {
            assert_eq!((refused.len(), named.len()), (0, bounds::DIGESTS_PER_FRAME));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upload_goes_on_by_the_function_that_it_was_begun_by() {
    let rig = Rig::new();
    let content = [3; 100_000];
    let blob = blake3(&content);
    interrupt_by(&rig, "u", blob, &content[..60_000]);
    let mut peer = rig.connect(Role::Client);
    // Even where the key is the same, which belljard sees to that it is not.
    assert_eq!(peer.reply(&upload("u", &content, 60_000)), at(0));
    let asked = |blob| Request::Uploaded {
        key: key("u"),
        blob,
    };
    assert_eq!(peer.reply(&asked(ObjectId::of(&content).into())), at(0));
    let digits = Digest::from_hex(&blob.digest.to_hex()).unwrap();
    let crossed = BlobName {
        digest: BlobDigest::Sha256(digits),
        ..blob
    };
    assert_eq!(peer.reply(&asked(crossed)), at(0));
    interrupt_by(&rig, "v", blob, &content[..60_000]);
    assert_eq!(peer.reply(&upload_by("v", blob, 60_000)), open(60_000));
    peer.data(&content[60_000..]);
    assert_eq!(peer.answer(), received(&content));
}

/// Sends the beginning of an upload, and breaks off.
fn interrupt_by(rig: &Rig, name: &str, blob: BlobName, begin: &[u8]) {
    let mut peer = rig.connect(Role::Client);
    assert_eq!(peer.reply(&upload_by(name, blob, 0)), open(0));
    peer.data(begin);
    peer.close();
}
