use super::*;

/// Of a machine that has few locks and files.
const SHARE: FileShare = FileShare {
    half: 10_000,
    each: 5000,
};

fn machine(locks: u64, files: u64) -> Machine {
    Machine {
        locks: Some(locks),
        files,
    }
}

fn counting(threads: Vec<u32>, due: Due) -> Counting {
    Counting::of(Instant::now(), machine(0, 0), due, threads)
}

const NOTHING: Due = Due {
    locks: false,
    files: false,
    mapped: false,
};
const LOCKS: Due = Due {
    locks: true,
    ..NOTHING
};
const FILES: Due = Due {
    files: true,
    ..NOTHING
};
const MAPPED: Due = Due {
    mapped: true,
    ..FILES
};

/// Counts to the end.
fn count(mut counting: Counting) -> Counting {
    while !counting.go_on(SHARE).unwrap() {}
    counting
}

/// With a second thread of this process, which shares its table and its memory, and one that is gone.
fn of_two_threads(due: Due) -> Counting {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let second = std::thread::spawn(move || {
        tell.send(own_thread()).unwrap();
        let _ = ended.recv();
    });
    let second_id = told.recv().unwrap();
    let threads = vec![u32::MAX >> 2, second_id, std::process::id()];
    let counted = count(counting(threads, due));
    end.send(()).unwrap();
    second.join().unwrap();
    counted
}

fn own_thread() -> u32 {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_str().unwrap();
    own.parse().unwrap()
}

#[test]
fn lines_of_locks_count() {
    let text =
        b"pos:\t0\nflags:\t02\nlock:\t1: POSIX  ADVISORY  READ 7 00:01:9 2 2\nlock:\t2: FLOCK\n";
    assert_eq!(locks(text), 2);
    assert_eq!(locks(b"pos:\t0\nmnt_id:\t14\nino:\t9\n"), 0);
}

#[test]
fn mappings_of_files_count() {
    for (line, due) in [
        (
            "7f00-7f01 r-xp 00026000 fd:00 1835 /usr/lib/libc.so\n",
            true,
        ),
        (
            "7f00-7f01 rw-s 00000000 00:01 7 /dev/zero (deleted)\n",
            true,
        ),
        ("7f00-7f01 rw-p 00000000 00:00 0 \n", false),
        (
            "7f00-7f01 rw-p 00000000 00:00 0                  [heap]\n",
            false,
        ),
        ("7f00-7f01 r--p 00000000 fd:00 9 /a 0 b\n", true),
        ("", false),
    ] {
        assert_eq!(is_of_a_file(line.as_bytes()), due, "{line}");
    }
}

#[test]
fn locks_of_one_table_are_found_once_whoever_shares_it() {
    let files: Vec<_> = (0..10).map(|_| tempfile::tempfile().unwrap()).collect();
    let alone = count(counting(vec![std::process::id()], LOCKS)).locks;
    for file in &files {
        file.lock().unwrap();
    }
    let counted = of_two_threads(LOCKS);
    assert_eq!((counted.locks, counted.files), (alone + 10, 0));
}

#[test]
fn files_that_are_open_or_mapped_are_found_once_whoever_shares_them() {
    for due in [FILES, MAPPED] {
        let alone = of_two_threads(due).files;
        let open: Vec<_> = (0..200).map(|_| tempfile::tempfile().unwrap()).collect();
        let counted = of_two_threads(due);
        // Other tests may open and close something meanwhile, where they run in this process.
        let more = counted.files.saturating_sub(alone);
        assert!((150..250).contains(&more), "{due:?}: {more}");
        assert_eq!(counted.locks, 0);
        drop(open);
    }
    // A program and its libraries.
    assert!(of_two_threads(MAPPED).files > of_two_threads(FILES).files);
}

#[test]
fn more_files_than_a_share_are_enough_to_know() {
    let share = FileShare { half: 2, each: 1 };
    let mut counting = counting(vec![std::process::id()], FILES);
    assert!(counting.go_on(share).unwrap());
    let beyond = counting.beyond(share).unwrap();
    assert_eq!((beyond.limit, beyond.figure), (LimitKind::OpenFiles, 1));
    assert!(beyond.used > 1);
}

#[test]
fn builds_share_half_of_the_machines_files() {
    let share = FileShare::out_of(600_001, 4);
    assert_eq!((share.half, share.each), (300_000, 75_000));
    // As systemd sets it.
    assert_eq!(FileShare::out_of(i64::MAX as u64, 64).each, OPEN_FILES);
    assert!(FileShare::of(2).unwrap().each > 0);
}

#[test]
fn it_is_counted_when_the_machine_holds_more_than_one_build_may() {
    let few = machine(FILE_LOCKS, SHARE.each);
    let many_locks = machine(FILE_LOCKS + 1, SHARE.each);
    let many_files = machine(FILE_LOCKS, SHARE.each + 1);
    let mut watch = Watch::new(SHARE);
    assert_eq!(watch.due(few), NOTHING);
    assert_eq!(watch.due(many_locks), LOCKS);
    assert_eq!(watch.due(many_files), FILES);
    assert_eq!(watch.due(machine(0, SHARE.half + 1)), MAPPED);
    let unknown = Machine {
        locks: None,
        files: 0,
    };
    assert_eq!(watch.due(unknown), LOCKS);
    let counted = |machine, ago| Counted {
        ended: Instant::now().checked_sub(ago).unwrap(),
        took: Duration::from_millis(1),
        machine,
    };
    watch.counted = Some(counted(many_locks, Duration::ZERO));
    assert_eq!(watch.due(many_locks), NOTHING);
    assert_eq!(watch.due(unknown), NOTHING);
    assert_eq!(watch.due(machine(FILE_LOCKS + 2 + GROWTH, 0)), LOCKS);
    watch.counted = Some(counted(many_locks, AGAIN));
    assert_eq!(watch.due(many_locks), LOCKS);
    watch.counted = Some(counted(many_files, Duration::ZERO));
    assert_eq!(watch.due(many_files), NOTHING);
    let more_files = machine(0, SHARE.each + 2 + SHARE.each / 10);
    assert_eq!(watch.due(more_files), FILES);
    // Once they were few, many of them are something new.
    assert_eq!(watch.due(machine(0, 0)), NOTHING);
    assert_eq!(watch.due(many_files), FILES);
}
