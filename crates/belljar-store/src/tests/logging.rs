use super::*;
use crate::log::{LogSink, OpenLog};
use belljar_plan::store::StepMark;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// open(2), `asm-generic/fcntl.h`.
const O_NONBLOCK: u32 = 0o4000;

fn open(limit_bytes: u64) -> Request {
    Request::OpenLog { limit_bytes }
}

/// A staged connection with an open log, and the build's end of the pipe.
fn logging(rig: &Rig, limit: u64) -> (Peer, PipeWriter) {
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let (reading, writing): (PipeReader, PipeWriter) = std::io::pipe().unwrap();
    peer.ask_with(&open(limit), reading);
    assert_eq!(peer.answer(), Answer::LogOpen);
    (peer, writing)
}

#[test]
fn a_log_can_be_followed_and_is_finished_at_the_end_of_the_pipe() {
    let rig = Rig::new();
    let (mut peer, mut writing) = logging(&rig, 1000);
    writing.write_all(b"first\n").unwrap();
    eventually("the log grows while the build runs", || {
        std::fs::read(rig.log(1)).unwrap() == b"first\n"
    });
    assert_eq!(
        std::fs::metadata(rig.log(1)).unwrap().mode() & 0o7777,
        0o640
    );
    peer.ask(&Request::FinishLog);
    writing.write_all(b"last\n").unwrap();
    drop(writing);
    let object = ObjectId::of(b"first\nlast\n");
    assert_eq!(
        peer.answer(),
        Answer::LogFinished {
            object,
            truncated: false
        }
    );
    assert_eq!(std::fs::read(rig.log(1)).unwrap(), b"first\nlast\n");
    assert_eq!(
        peer.fails(&Request::FinishLog),
        Failure::Refused,
        "it is finished already"
    );
}

#[test]
fn a_log_past_its_limit_is_cut_reported_once_and_still_read() {
    let rig = Rig::new();
    let (mut peer, mut writing) = logging(&rig, 10);
    writing.write_all(b"0123456789").unwrap();
    eventually("the limit itself is kept", || {
        std::fs::read(rig.log(1)).unwrap().len() == 10
    });
    // Far more than a pipe holds: a reader that stopped would block this.
    writing.write_all(&[b'x'; 300_000]).unwrap();
    let Answer::LogExceeded { written } = peer.answer() else {
        panic!("it is too long");
    };
    assert!((11..=300_010).contains(&written), "{written}");
    writing.write_all(&[b'y'; 300_000]).unwrap();
    drop(writing);
    let object = ObjectId::of(b"0123456789");
    assert_eq!(
        peer.reply(&Request::FinishLog),
        Answer::LogFinished {
            object,
            truncated: true
        }
    );
    assert_eq!(std::fs::read(rig.log(1)).unwrap(), b"0123456789");
}

#[test]
fn that_a_log_is_too_long_is_told_after_its_opening() {
    for _ in 0..50 {
        let rig = Rig::new();
        let mut peer = rig.staged(1, rig.tree("a", b"a"));
        let (reading, mut writing) = std::io::pipe().unwrap();
        writing.write_all(b"too much already").unwrap();
        peer.ask_with(&open(3), reading);
        assert_eq!(peer.answer(), Answer::LogOpen);
        assert_eq!(peer.answer(), Answer::LogExceeded { written: 16 });
    }
}

#[test]
fn marks_stand_behind_all_that_was_written_before_them() {
    let rig = Rig::new();
    let (mut peer, mut writing) = logging(&rig, 1000);
    let marked = |step, offset| Answer::LogMarked(StepMark { step, offset });
    writing.write_all(b"early").unwrap();
    assert_eq!(peer.reply(&Request::MarkLog { step: 0 }), marked(0, 0));
    for (step, length) in (1..20).zip((10..).step_by(5)) {
        writing.write_all(b"later").unwrap();
        assert_eq!(
            peer.reply(&Request::MarkLog { step }),
            marked(step, length),
            "wherever the reader is"
        );
    }
    assert_eq!(peer.fails(&Request::MarkLog { step: 7 }), Failure::Refused);
    let marks = std::fs::read_to_string(rig.log(1).with_extension("steps")).unwrap();
    assert_eq!(marks.lines().count(), 20);
    assert_eq!(marks.lines().nth(1), Some(r#"{"offset":10,"step":1}"#));
    writing.write_all(&[b'x'; 2000]).unwrap();
    assert_eq!(peer.answer(), Answer::LogExceeded { written: 2100 });
    assert_eq!(
        peer.reply(&Request::MarkLog { step: 20 }),
        marked(20, 1000),
        "what is not kept has no place"
    );
    drop(writing);
    peer.ask(&Request::FinishLog);
    assert!(matches!(peer.answer(), Answer::LogFinished { .. }));
    assert_eq!(peer.fails(&Request::MarkLog { step: 21 }), Failure::Refused);
}

#[test]
fn a_mark_does_not_wait_for_writers_that_go_on() {
    let rig = Rig::new();
    let (mut peer, mut writing) = logging(&rig, 1 << 30);
    assert!(matches!(
        peer.reply(&Request::MarkLog { step: 0 }),
        Answer::LogMarked(_)
    ));
    let mut background = writing.try_clone().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let flood = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            background.write_all(&[b'.'; 512]).unwrap();
        }
    });
    let mut offsets = vec![0];
    for step in 1..16 {
        // The step's own words are in its part, whatever comes in between.
        writing.write_all(format!("<{step}>").as_bytes()).unwrap();
        match peer.reply(&Request::MarkLog { step }) {
            Answer::LogMarked(mark) => offsets.push(usize::try_from(mark.offset).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    drop(writing);
    assert!(matches!(
        peer.reply(&Request::FinishLog),
        Answer::LogFinished { .. }
    ));
    let log = std::fs::read(rig.log(1)).unwrap();
    for (step, part) in (1..16).zip(offsets.windows(2)) {
        let text = String::from_utf8_lossy(&log[part[0]..part[1]]).into_owned();
        assert!(text.contains(&format!("<{step}>")), "{step} in {part:?}");
    }
}

#[test]
fn a_log_of_exactly_its_limit_is_whole() {
    let rig = Rig::new();
    let (mut peer, mut writing) = logging(&rig, 5);
    writing.write_all(b"12345").unwrap();
    drop(writing);
    let object = ObjectId::of(b"12345");
    assert_eq!(
        peer.reply(&Request::FinishLog),
        Answer::LogFinished {
            object,
            truncated: false
        }
    );
}

#[test]
fn only_one_pipe_is_read_and_only_a_pipe() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let mut peer = rig.staged(1, tree);
    assert_eq!(
        peer.fails(&open(10)),
        Failure::Refused,
        "nothing came with it"
    );
    let file = File::open("/dev/null").unwrap();
    peer.ask_with(&open(10), &file);
    assert_eq!(peer.failure(), Failure::Refused);
    assert!(!rig.log(1).exists(), "a refusal leaves no log");
    for limit in [0, u64::MAX] {
        let (reading, _writing) = std::io::pipe().unwrap();
        peer.ask_with(&open(limit), reading);
        assert_eq!(peer.failure(), Failure::Refused);
    }
    let (reading, _writing) = std::io::pipe().unwrap();
    peer.ask_with(&open(10), reading);
    assert_eq!(peer.answer(), Answer::LogOpen);
    let (reading, _writing) = std::io::pipe().unwrap();
    peer.ask_with(&open(10), reading);
    assert_eq!(peer.failure(), Failure::Refused);
}

#[test]
fn a_log_of_an_earlier_run_is_not_written_over() {
    let rig = Rig::new();
    std::fs::write(rig.log(1), b"evidence").unwrap();
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let (reading, _writing) = std::io::pipe().unwrap();
    peer.ask_with(&open(10), reading);
    assert_eq!(peer.failure(), Failure::Refused);
    assert_eq!(std::fs::read(rig.log(1)).unwrap(), b"evidence");
}

#[test]
fn a_full_disk_is_told_at_the_end_and_does_not_stop_the_build() {
    let rig = Rig::new();
    let (reading, mut writing) = std::io::pipe().unwrap();
    let (peer, _other) = Connection::pair().unwrap();
    let sink = LogSink {
        directory: rig.directory.path().to_owned(),
        limit: u64::MAX,
        exceeded: |_| (),
        held: (),
    };
    // full(4) takes the place of the log on a full disk.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let marks = rig.directory.path().join("steps");
    let log = OpenLog::read(File::from(OwnedFd::from(reading)), full, sink, marks).unwrap();
    writing.write_all(&[b'x'; 300_000]).unwrap();
    drop(writing);
    assert_eq!(
        log.finish(peer.as_fd()).unwrap().unwrap_err().class,
        Failure::Full
    );
}

#[test]
fn a_log_that_never_ends_does_not_outlive_its_connection() {
    for waiting in [false, true] {
        let rig = Rig::new();
        let (peer, mut writing) = logging(&rig, 10);
        if waiting {
            peer.ask(&Request::FinishLog);
        }
        peer.close();
        let all = bounds::PEER_CONNECTIONS;
        let free = || {
            std::iter::from_fn(|| rig.slots.claim(Role::Spawner))
                .collect::<Vec<_>>()
                .len()
        };
        eventually("the thread ends too", || free() == all);
        assert!(writing.write_all(b"nobody reads this").is_err());
    }
}

#[test]
fn a_pipe_that_seems_to_have_something_is_not_waited_for() {
    // Before Linux 6.15 a write that faults leaves a place without bytes: poll(2) tells of it, read(2) finds nothing.
    let waits = |descriptor: i32| {
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap();
        let flags = told.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        flags & O_NONBLOCK == 0
    };
    let rig = Rig::new();
    let mut peer = rig.staged(1, rig.tree("a", b"a"));
    let (reading, writing) = std::io::pipe().unwrap();
    // The flag is the open file's, whoever has it.
    let again = reading.try_clone().unwrap();
    assert!(waits(again.as_raw_fd()));
    peer.ask_with(&open(1000), reading);
    assert_eq!(peer.answer(), Answer::LogOpen);
    assert!(!waits(again.as_raw_fd()));
    assert!(waits(writing.as_raw_fd()), "who writes is used to waiting");
}
