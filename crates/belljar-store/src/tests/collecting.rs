use super::*;
use belljar_core::Sha512Digest;
use belljar_plan::store::Refusal;
use belljar_plan::{OutputEntry, OutputKind};

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn file(text: &str) -> Collected {
    Collected::File {
        path: path(text),
        executable: true,
        size: 0,
    }
}

fn directory(text: &str) -> Collected {
    Collected::Directory { path: path(text) }
}

fn symlink(text: &str, target: &str) -> Collected {
    Collected::Symlink {
        path: path(text),
        target: target.to_owned(),
    }
}

/// A staged connection on which outputs may come.
fn collecting(rig: &Rig, declared: &[&str]) -> Peer {
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    assert_eq!(peer.reply(&collect(declared)), Answer::CollectReady);
    peer
}

fn send_file(peer: &Peer, text: &str, content: &[u8]) {
    peer.tell(&file(text));
    peer.data(content);
    peer.tell(&Collected::FileEnd);
}

fn why(answer: Answer) -> String {
    match answer {
        Answer::OutputsRefused {
            why: Refusal::Entry { why },
        } => why,
        other => panic!("{other:?}"),
    }
}

fn entry(text: &str, kind: OutputKind) -> Answer {
    Answer::Output {
        entry: OutputEntry {
            path: path(text),
            kind,
        },
    }
}

fn file_kind(content: &[u8]) -> OutputKind {
    OutputKind::File {
        object: ObjectId::of(content),
        sha512: Sha512Digest::of(content),
        executable: true,
    }
}

#[test]
fn outputs_are_kept_and_told_sorted() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["dist", "app"]);
    let large = vec![4; 200_000];
    peer.tell(&directory("dist"));
    peer.tell(&directory("dist/lib"));
    send_file(&peer, "dist/lib/x.so.1", &large);
    peer.tell(&symlink("dist/lib/x.so", "x.so.1"));
    peer.tell(&symlink("dist/lib/up", "../lib"));
    send_file(&peer, "app", b"");
    peer.tell(&Collected::End);
    let expected = [
        entry("app", file_kind(b"")),
        entry("dist", OutputKind::Directory),
        entry("dist/lib", OutputKind::Directory),
        entry(
            "dist/lib/up",
            OutputKind::Symlink {
                target: "../lib".into(),
            },
        ),
        entry(
            "dist/lib/x.so",
            OutputKind::Symlink {
                target: "x.so.1".into(),
            },
        ),
        entry("dist/lib/x.so.1", file_kind(&large)),
        Answer::CollectDone,
    ];
    for answer in expected {
        assert_eq!(peer.answer(), answer);
    }
    assert_eq!(rig.content(ObjectId::of(&large)), large);
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true },
        "the connection goes on"
    );
    assert_eq!(
        peer.fails(&collect(&["app"])),
        Failure::Refused,
        "an attempt has one collection"
    );
}

#[test]
fn what_is_changed_before_the_last_output_has_come_is_seen() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    send_file(&peer, "app", b"app");
    rig.memory.put_as(ObjectId::of(b"a"), b"b");
    peer.tell(&Collected::End);
    assert_eq!(peer.answer(), entry("app", file_kind(b"app")));
    assert_eq!(peer.answer(), Answer::CollectDone);
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: false }
    );
}

#[test]
fn a_refusal_is_told_at_once_and_the_rest_is_read_to_its_end() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    peer.tell(&file("app2"));
    let told = why(peer.answer());
    assert!(told.contains("`app2`"), "{told}");
    // The collector reads no answers; more than any socket holds must still go through.
    peer.data(&[6; 1_000_000]);
    peer.tell(&Collected::FileEnd);
    peer.tell(&Collected::End);
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
    assert!(!rig.memory.ids().contains(&ObjectId::of(&[6; 1_000_000])));
}

#[test]
fn an_absent_output_is_named() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app", "lib", "zip"]);
    send_file(&peer, "app", b"x");
    peer.tell(&Collected::End);
    let told = why(peer.answer());
    assert!(told.contains("`lib`") && told.contains("1 more"), "{told}");
}

#[test]
fn limits_hold_over_all_outputs() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["d"]);
    peer.tell(&directory("d"));
    send_file(&peer, "d/1", &[0; 600_000]);
    send_file(&peer, "d/2", &[0; 600_000]);
    peer.tell(&Collected::End);
    let Answer::OutputsRefused {
        why: Refusal::TooManyBytes { bytes, path: at },
    } = peer.answer()
    else {
        panic!("too many bytes");
    };
    assert!((1_000_001..=1_200_000).contains(&bytes), "{bytes}");
    assert_eq!(at, path("d/2"));
    peer.close();

    let mut peer = collecting(&rig, &["d"]);
    peer.tell(&directory("d"));
    for i in 0..10 {
        peer.tell(&directory(&format!("d/{i}")));
    }
    peer.tell(&Collected::End);
    let why = Refusal::TooManyEntries {
        entries: 11,
        path: path("d/9"),
    };
    assert_eq!(peer.answer(), Answer::OutputsRefused { why });
}

#[test]
fn more_outputs_than_are_kept_at_once_are_all_kept() {
    let rig = Rig::new();
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let count = 2 * bounds::OBJECTS_AT_ONCE + 3;
    let request = Request::Collect {
        outputs: outputs(&["d"]),
        limit_bytes: 1 << 20,
        limit_entries: 1000,
        image: None,
    };
    assert_eq!(peer.reply(&request), Answer::CollectReady);
    peer.tell(&directory("d"));
    for i in 0..count {
        send_file(&peer, &format!("d/{i:03}"), i.to_string().as_bytes());
    }
    assert!(
        !rig.memory
            .ids()
            .contains(&ObjectId::of((count - 1).to_string().as_bytes()))
    );
    peer.tell(&Collected::End);
    assert_eq!(peer.answer(), entry("d", OutputKind::Directory));
    for i in 0..count {
        let content = i.to_string().into_bytes();
        assert_eq!(
            peer.answer(),
            entry(&format!("d/{i:03}"), file_kind(&content))
        );
        assert_eq!(rig.content(ObjectId::of(&content)), content);
    }
    assert_eq!(peer.answer(), Answer::CollectDone);
}

#[test]
fn limits_beyond_any_build_are_refused() {
    let rig = Rig::new();
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    for (limit_bytes, limit_entries) in [(0, 1), (1, 0), (u64::MAX, 1), (1, u64::MAX)] {
        let request = Request::Collect {
            outputs: outputs(&["a"]),
            limit_bytes,
            limit_entries,
            image: None,
        };
        assert_eq!(peer.fails(&request), Failure::Refused);
    }
    assert_eq!(peer.reply(&collect(&["a"])), Answer::CollectReady);
}

#[test]
fn what_the_collector_cannot_take_is_told_in_its_words_made_harmless() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    let why_not = format!("`app` is a socket\u{1b}[2J{}", "x".repeat(100_000));
    peer.tell(&Collected::Refused { why: why_not });
    let told = why(peer.answer());
    assert!(told.starts_with("`app` is a socket\u{fffd}[2J") && told.len() < 10_000);
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
}

#[test]
fn a_request_in_the_place_of_outputs_ends_the_collection_and_is_served() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    peer.tell(&file("app"));
    peer.data(b"half");
    // The collector has died; the spawner goes on.
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
    assert!(!rig.memory.ids().contains(&ObjectId::of(b"half")));
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
}

#[test]
fn a_request_after_a_refusal_is_served_too() {
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    peer.tell(&directory("elsewhere"));
    why(peer.answer());
    peer.tell(&file("app"));
    assert_eq!(
        peer.reply(&Request::VerifyInputs),
        Answer::Inputs { unchanged: true }
    );
}

#[test]
fn messages_out_of_order_fail_without_being_an_output_problem() {
    let cases: [&[Collected]; 4] = [
        &[Collected::FileEnd],
        &[file("app"), file("app")],
        &[file("app"), Collected::End],
        &[file("app"), directory("app")],
    ];
    for messages in cases {
        let rig = Rig::new();
        let mut peer = collecting(&rig, &["app"]);
        for message in messages {
            peer.tell(message);
        }
        assert_eq!(peer.failure(), Failure::Refused, "{messages:?}");
        if messages.last() != Some(&Collected::End) {
            peer.tell(&Collected::End);
        }
        assert_eq!(
            peer.reply(&Request::VerifyInputs),
            Answer::Inputs { unchanged: true }
        );
    }
    let rig = Rig::new();
    let mut peer = collecting(&rig, &["app"]);
    peer.data(b"content of nothing");
    assert_eq!(peer.failure(), Failure::Refused);
}

#[test]
fn a_full_disk_is_the_stores_trouble_not_the_outputs() {
    let rig = Rig::with_capacity(100);
    let mut peer = collecting(&rig, &["app"]);
    send_file(&peer, "app", &[1; 1000]);
    peer.tell(&Collected::End);
    assert_eq!(peer.failure(), Failure::Full);
}

#[test]
fn files_that_several_threads_take_are_each_what_came() {
    let rig = Rig::with_capacity(1 << 26);
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let mut request = collect(&["d"]);
    if let Request::Collect {
        limit_bytes,
        limit_entries,
        ..
    } = &mut request
    {
        (*limit_bytes, *limit_entries) = (1 << 26, 1000);
    }
    assert_eq!(peer.reply(&request), Answer::CollectReady);
    peer.tell(&directory("d"));
    // More than wait for one thread, of all sizes, and some of them the same.
    let content = |n: u32| {
        (n / 2)
            .to_le_bytes()
            .repeat([0, 1, 20_000, 60_000][n as usize % 4])
    };
    let contents: Vec<Vec<u8>> = (0..200).map(content).collect();
    let name = |n: usize| format!("d/{n:03}");
    for (n, content) in contents.iter().enumerate() {
        send_file(&peer, &name(n), content);
    }
    peer.tell(&Collected::End);
    assert_eq!(peer.answer(), entry("d", OutputKind::Directory));
    for (n, content) in contents.iter().enumerate() {
        assert_eq!(peer.answer(), entry(&name(n), file_kind(content)));
    }
    assert_eq!(peer.answer(), Answer::CollectDone);
    for content in &contents {
        assert_eq!(&rig.content(ObjectId::of(content)), content);
    }
}
