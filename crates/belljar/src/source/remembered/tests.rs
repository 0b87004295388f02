use super::*;
use crate::source::{Selection, Sources};
use belljar_core::bounds;
use proptest::prelude::*;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

/// A source directory, and a home for caches.
struct Place {
    sources: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self {
            sources: tempfile::tempdir().unwrap(),
            home: tempfile::tempdir().unwrap(),
        };
        for (path, content) in files {
            place.write(path, content);
        }
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.sources.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn collect_at(&self, now: Option<SystemTime>) -> Sources {
        let home = self.home.path();
        Sources::collect(Selection {
            dir: self.sources.path(),
            output: None,
            ask_git: false,
            memory: now.map(|now| Memory { home, now }),
        })
        .unwrap()
    }

    /// As if everything had come to rest.
    fn later(&self) -> Sources {
        self.collect_at(Some(SystemTime::now() + Duration::from_secs(60)))
    }

    /// Fails the test unless the tree is the one that is there, as reading everything tells. Gives how many files
    /// were read.
    fn check(&self, sources: &Sources) -> usize {
        assert_eq!(sources.tree, self.collect_at(None).tree);
        sources.read()
    }

    /// The file in which the source directory is remembered.
    fn kept(&self) -> PathBuf {
        let shelf = self.home.path().join("belljar");
        let mut entries = fs::read_dir(shelf).unwrap().map(|e| e.unwrap().path());
        let kept = entries.next().unwrap();
        assert_eq!(entries.next(), None);
        kept
    }
}

/// Gives a file the times of its content that another state of it had.
fn restore(path: &Path, times: &fs::Metadata) {
    let times = FileTimes::new()
        .set_accessed(times.accessed().unwrap())
        .set_modified(times.modified().unwrap());
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_times(times)
        .unwrap();
}

const FILES: [(&str, &str); 4] = [("a", "one"), ("b", "two"), ("d/c", "six"), ("d/e/f", "ten")];

#[test]
fn what_did_not_change_is_not_read_again() {
    let place = Place::new(&FILES);
    assert_eq!(place.later().read(), 4);
    let kept = place.kept();
    assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o600);
    let inode = kept.metadata().unwrap().ino();
    assert_eq!(place.check(&place.later()), 0);
    assert_eq!(
        kept.metadata().unwrap().ino(),
        inode,
        "it was not written again"
    );
    place.write("b", "TWO");
    place.write("new", "new");
    fs::remove_file(place.at("a")).unwrap();
    assert_eq!(place.check(&place.later()), 2);
    assert_eq!(place.check(&place.later()), 0);
}

#[test]
fn what_has_not_come_to_rest_is_read_again() {
    let place = Place::new(&FILES);
    for content in ["uno", "due", "tre"] {
        let before = place.at("a").metadata().unwrap();
        place.write("a", content);
        restore(&place.at("a"), &before);
        assert_eq!(place.check(&place.collect_at(Some(SystemTime::now()))), 4);
    }
    // The clock was set back: what seems to be of the future is never at rest.
    let past = SystemTime::now() - Duration::from_secs(3600);
    assert_eq!(place.later().read(), 4);
    assert_eq!(place.check(&place.collect_at(Some(past))), 0);
    assert_eq!(place.check(&place.later()), 4);
}

#[test]
fn no_change_is_overlooked() {
    type Change = fn(&Place, &fs::Metadata);
    let changes: [(&str, Change); 8] = [
        ("the same size, and the time set back", |place, before| {
            place.write("a", "eno");
            restore(&place.at("a"), before);
        }),
        (
            "another file of that size and time in its place",
            |place, before| {
                place.write("x", "eno");
                restore(&place.at("x"), before);
                fs::rename(place.at("x"), place.at("a")).unwrap();
            },
        ),
        ("executable", |place, _| {
            fs::set_permissions(place.at("a"), Permissions::from_mode(0o755)).unwrap();
        }),
        ("a link to the same content", |place, _| {
            fs::rename(place.at("a"), place.at("x")).unwrap();
            symlink("x", place.at("a")).unwrap();
        }),
        ("a directory", |place, _| {
            fs::remove_file(place.at("a")).unwrap();
            place.write("a/a", "one");
        }),
        ("two that changed their names", |place, _| {
            fs::rename(place.at("a"), place.at("x")).unwrap();
            fs::rename(place.at("b"), place.at("a")).unwrap();
            fs::rename(place.at("x"), place.at("b")).unwrap();
        }),
        ("a hard link to another one", |place, _| {
            fs::remove_file(place.at("a")).unwrap();
            fs::hard_link(place.at("b"), place.at("a")).unwrap();
        }),
        ("its directory is another one", |place, _| {
            fs::rename(place.at("d"), place.at("x")).unwrap();
            place.write("d/c", "SIX");
        }),
    ];
    for (what, change) in changes {
        let place = Place::new(&FILES);
        let before = place.at("a").metadata().unwrap();
        let old = place.later().tree;
        change(&place, &before);
        let new = place.later();
        place.check(&new);
        assert_ne!(new.tree, old, "{what}");
        assert_eq!(place.check(&place.later()), 0, "{what}");
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_leads_to_nothing_that_is_remembered() {
    let place = Place::new(&FILES);
    place.later();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(place.at("d"), elsewhere.path().join("d")).unwrap();
    symlink(elsewhere.path().join("d"), place.at("d")).unwrap();
    let sources = place.later();
    place.check(&sources);
    assert!(
        sources
            .files
            .iter()
            .all(|file| !file.path.as_str().starts_with('d'))
    );
}

#[test]
fn what_is_kept_and_cannot_be_trusted_is_thrown_away() {
    type Spoil = fn(&Place, &Path);
    let spoilt: [(&str, Spoil); 10] = [
        ("one bit", |_, kept| {
            let mut bytes = fs::read(kept).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(kept, bytes).unwrap();
        }),
        ("the half of it", |_, kept| {
            let bytes = fs::read(kept).unwrap();
            fs::write(kept, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("nothing", |_, kept| fs::write(kept, "").unwrap()),
        ("too much", |_, kept| {
            let file = File::options().append(true).open(kept).unwrap();
            file.set_len(bounds::REMEMBERED_BYTES as u64 + 1).unwrap();
        }),
        ("of another directory", |_, kept| {
            fs::write(kept, record::encode(Path::new("/other"), &[]).unwrap()).unwrap();
        }),
        ("others may write to it", |_, kept| {
            fs::set_permissions(kept, Permissions::from_mode(0o606)).unwrap();
        }),
        ("somebody else's", |_, kept| {
            chown(kept, Some(65_534), None).expect("root may give files away");
        }),
        ("a link", |place, kept| {
            fs::rename(kept, place.home.path().join("moved")).unwrap();
            symlink(place.home.path().join("moved"), kept).unwrap();
        }),
        ("two names", |place, kept| {
            fs::hard_link(kept, place.home.path().join("second")).unwrap();
        }),
        ("a pipe", |_, kept| {
            fs::remove_file(kept).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, kept, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }),
    ];
    for (what, spoil) in spoilt {
        let place = Place::new(&FILES);
        place.later();
        spoil(&place, &place.kept());
        assert_eq!(place.check(&place.later()), 4, "{what}");
        assert_eq!(place.check(&place.later()), 0, "{what}: it was replaced");
    }
}

/// What it is called, and how a home directory is made so.
type Prepared = (&'static str, fn(&Path));

#[test]
fn nothing_is_kept_where_others_can_write() {
    let others: [Prepared; 4] = [
        ("the directory is open to others", |home| {
            fs::create_dir(home.join("belljar")).unwrap();
            fs::set_permissions(home.join("belljar"), Permissions::from_mode(0o777)).unwrap();
        }),
        ("it is somebody else's", |home| {
            fs::create_dir(home.join("belljar")).unwrap();
            chown(home.join("belljar"), Some(65_534), None).expect("root may give files away");
        }),
        ("it is a link", |home| {
            fs::create_dir(home.join("real")).unwrap();
            symlink("real", home.join("belljar")).unwrap();
        }),
        ("the caches are somebody else's", |home| {
            chown(home, Some(65_534), None).expect("root may give files away");
        }),
    ];
    for (what, prepare) in others {
        let place = Place::new(&FILES);
        prepare(place.home.path());
        for _ in 0..2 {
            assert_eq!(place.check(&place.later()), 4, "{what}");
        }
        let kept = fs::read_dir(place.home.path().join("belljar"));
        assert_eq!(kept.map_or(0, Iterator::count), 0, "{what}");
    }
}

#[test]
fn the_directory_of_caches_is_made_where_there_is_none() {
    let place = Place::new(&FILES);
    let home = place.home.path().join("cache");
    let memory = Memory {
        home: &home,
        now: SystemTime::now() + Duration::from_secs(60),
    };
    let root = Root::at(place.sources.path()).unwrap();
    let opened = Remembered::open(memory, place.sources.path(), &root).unwrap();
    opened.keep(&[]);
    for made in [home.clone(), home.join("belljar")] {
        assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
    }
    let nowhere = Memory {
        home: &home.join("a/b"),
        ..memory
    };
    assert!(Remembered::open(nowhere, place.sources.path(), &root).is_none());
}

#[test]
fn so_many_directories_are_remembered_and_the_latest_ones() {
    let place = Place::new(&[]);
    let shelf = Shelf::open(place.home.path()).unwrap();
    let last = Path::new("/last");
    for n in 0..bounds::REMEMBERED_TREES + 5 {
        shelf.write(Path::new(&format!("/{n}")), &[]);
    }
    shelf.write(last, &[]);
    let files = fs::read_dir(place.home.path().join("belljar")).unwrap();
    assert_eq!(files.count(), bounds::REMEMBERED_TREES);
}

/// A change to one of a few files.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize, u8),
    WriteInSecret(usize, u8),
    Replace(usize, u8),
    Executable(usize, bool),
    Swap(usize, usize),
    Link(usize, usize),
    Remove(usize),
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..4_usize;
    let step = prop_oneof![
        (file.clone(), 0..3_u8).prop_map(|(f, c)| Step::Write(f, c)),
        (file.clone(), 0..3_u8).prop_map(|(f, c)| Step::WriteInSecret(f, c)),
        (file.clone(), 0..3_u8).prop_map(|(f, c)| Step::Replace(f, c)),
        (file.clone(), any::<bool>()).prop_map(|(f, x)| Step::Executable(f, x)),
        (file.clone(), file.clone()).prop_map(|(a, b)| Step::Swap(a, b)),
        (file.clone(), file.clone()).prop_map(|(a, b)| Step::Link(a, b)),
        file.prop_map(Step::Remove),
        Just(Step::Collect),
    ];
    prop::collection::vec(step, 1..16)
}

impl Step {
    /// Whatever cannot be done is left out.
    fn take(self, place: &Place) {
        let at = |n: usize| place.at(FILES[n].0);
        let content = |c: u8| [b'a' + c; 3];
        match self {
            Self::Write(f, c) => drop(fs::write(at(f), content(c))),
            Self::WriteInSecret(f, c) => {
                if let Ok(before) = at(f).metadata() {
                    fs::write(at(f), content(c)).unwrap();
                    restore(&at(f), &before);
                }
            }
            Self::Replace(f, c) => {
                let before = at(f).metadata();
                fs::write(place.at("new"), content(c)).unwrap();
                if let Ok(before) = before {
                    restore(&place.at("new"), &before);
                }
                fs::rename(place.at("new"), at(f)).unwrap();
            }
            Self::Executable(f, x) => {
                let mode = if x { 0o755 } else { 0o644 };
                drop(fs::set_permissions(at(f), Permissions::from_mode(mode)));
            }
            Self::Swap(a, b) => {
                drop(fs::rename(at(a), place.at("swap")));
                drop(fs::rename(at(b), at(a)));
                drop(fs::rename(place.at("swap"), at(b)));
            }
            Self::Link(a, b) if a != b => {
                drop(fs::remove_file(at(a)));
                drop(fs::hard_link(at(b), at(a)));
            }
            Self::Link(..) => {}
            Self::Remove(f) => drop(fs::remove_file(at(f))),
            Self::Collect => drop(place.check(&place.later())),
        }
    }
}

/// Longer than the kernel's clock of time stamps stands still (at most 10 ms, `CONFIG_HZ` 100): instead of waiting
/// for [`REST`] each time.
const TICK: Duration = Duration::from_millis(12);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn trees_are_what_reading_everything_tells(steps in steps()) {
        let place = Place::new(&FILES);
        for step in steps {
            std::thread::sleep(TICK);
            step.take(&place);
        }
        std::thread::sleep(TICK);
        let sources = place.later();
        place.check(&sources);
        prop_assert_eq!(place.check(&place.later()), 0);
    }

    #[test]
    fn nonsense_is_no_record(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(record::decode(Path::new("/x"), &bytes).is_none());
        // Also behind the right checksum.
        let mut summed = b"belljar remembered digests 1\n\x02\0/x".to_vec();
        summed.extend(&bytes);
        let digest = Digest::of(&summed);
        summed.extend(digest.as_bytes());
        if let Some(known) = record::decode(Path::new("/x"), &summed) {
            prop_assert!(known.len() <= bytes.len());
        }
    }
}
