//! What belljard asks for so that the disk does not fill, and what it may not get.

use std::sync::Mutex;

use belljar_cas::{BlobSink as _, Custody as _, Disk, Writer};
use belljar_core::Digest;
use belljar_plan::store::Scrub;

use super::*;
use crate::scrub::Clock;

fn removed(answer: Answer) -> (u64, u64) {
    match answer {
        Answer::Removed { removed, kept, .. } => (removed, kept),
        other => panic!("{other:?}"),
    }
}

fn remove(peer: &mut Peer, objects: &[ObjectId]) -> (u64, u64) {
    let objects = objects.iter().map(|object| object.digest).collect();
    peer.ask(&Request::Remove {
        objects,
        before: u64::MAX,
    });
    removed(peer.answer())
}

#[test]
fn what_nobody_needs_goes_and_what_an_attempt_uses_stays() {
    let rig = Rig::new();
    let (used, other) = (rig.tree("used", b"used"), rig.tree("other", b"other"));
    let (file, unused) = (ObjectId::of(b"used"), ObjectId::of(b"other"));
    let attempt_of = rig.staged(1, used);
    drop(rig.staged(2, other));
    let mut client = rig.connect(Role::Client);
    let evict = |client: &mut Peer, trees: &[ObjectId]| {
        let images = trees.iter().map(|tree| staged(*tree).image()).collect();
        client.ask(&Request::Evict { images });
        match client.answer() {
            Answer::Evicted { images, .. } => images,
            other => panic!("{other:?}"),
        }
    };
    // The second attempt's connection is closed as soon as its session has seen it.
    wait_until(|| evict(&mut client, &[used, other]) == 1);
    assert!(rig.image(used).exists() && !rig.image(other).exists());
    assert_eq!(
        remove(&mut client, &[file, unused, ObjectId::of(b"none")]),
        (1, 1)
    );
    assert_eq!(
        remove(&mut client, &[ObjectId::of(b"")]),
        (0, 1),
        "the empty object stays"
    );
    // Its connection over, the attempt uses nothing any more.
    drop(attempt_of);
    wait_until(|| evict(&mut client, &[used]) == 1);
    assert_eq!(remove(&mut client, &[file]), (1, 0));
    let mut again = rig.connect(Role::Spawner);
    again.ask(&stage(3, used));
    assert!(matches!(
        again.answer(),
        Answer::Failed {
            class: Failure::Missing,
            ..
        }
    ));
}

#[test]
fn logs_go_but_not_those_of_an_attempt_that_runs() {
    let rig = Rig::new();
    let tree = rig.tree("a", b"a");
    let _open = rig.staged(1, tree);
    for number in [1, 2] {
        std::fs::write(rig.log(number), b"text").unwrap();
    }
    let mut client = rig.connect(Role::Client);
    let attempts = vec![attempt(1), attempt(2), attempt(3)];
    client.ask(&Request::RemoveLogs { attempts });
    assert_eq!(removed(client.answer()), (1, 1));
    assert!(rig.log(1).exists() && !rig.log(2).exists());
}

#[test]
fn all_objects_are_read_and_damaged_ones_are_put_aside() {
    let rig = Rig::new();
    Scrubber::start(Arc::clone(&rig.store)).unwrap();
    for i in 0..100_u32 {
        rig.memory.put(&i.to_le_bytes());
    }
    let damaged = ObjectId::of(b"content");
    rig.memory.put_as(damaged, b"conTent");
    let mut client = rig.connect(Role::Client);
    let mut ask = |request| {
        client.ask(&request);
        match client.answer() {
            Answer::Scrub(scrub) => scrub,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(Request::Scrubbed {}), Scrub::default());
    assert!(ask(Request::Scrub {}).running);
    wait_until(|| !ask(Request::Scrubbed {}).running);
    let told = ask(Request::Scrubbed {});
    assert_eq!((told.objects, told.damaged, told.unread), (102, 1, 0));
    assert!(told.finished.is_some());
    assert!(!rig.memory.contains(damaged).unwrap());
    assert!(
        rig.memory
            .of_prefix(damaged.digest.as_bytes()[0])
            .unwrap()
            .iter()
            .all(|o| o.digest != damaged.digest)
    );
}

/// Time that goes by in pauses alone.
#[derive(Default)]
struct Pauses(Mutex<Vec<Duration>>);

impl Clock for Arc<Pauses> {
    fn now(&self) -> Duration {
        self.0.lock().unwrap().iter().sum()
    }

    fn pause(&self, time: Duration) {
        self.0.lock().unwrap().push(time);
    }
}

#[test]
fn objects_and_images_are_read_at_the_rate_and_never_much_of_one_at_once() {
    const RATE: u64 = 1 << 10;
    let mut rig = Rig::new();
    let pauses = Arc::<Pauses>::default();
    let clock = Box::new(Arc::clone(&pauses));
    let store = Arc::get_mut(&mut rig.store).unwrap();
    store.scrubber = Scrubber::new(RATE, None, clock);
    let large = rig.tree("large", &vec![1; 40 << 20]);
    // An image that is larger than what is read at once, too.
    let many = rig.tree_of((0..10_000).map(|n| format!("{n:0200}")), b"");
    for (number, tree) in [(1, large), (2, many)] {
        rig.staged(number, tree).close();
    }
    let image = std::fs::metadata(rig.image(many)).unwrap().len();
    assert!(image > 2 * bounds::SCRUB_BURST_BYTES, "{image}");
    Scrubber::start(Arc::clone(&rig.store)).unwrap();
    rig.store.scrubber.begin();
    wait_until(|| !rig.store.scrubber.told().running);
    let bytes = rig.store.scrubber.told().bytes;
    assert!(bytes > (40 << 20) + image, "{bytes}");
    let pauses = pauses.0.lock().unwrap();
    let at_the_rate = |bytes: u64| Duration::from_secs(bytes) / u32::try_from(RATE).unwrap();
    let burst = at_the_rate(bounds::SCRUB_BURST_BYTES);
    let most = at_the_rate(bounds::SCRUB_BURST_BYTES + bounds::CHUNK_BYTES as u64);
    let all: Duration = pauses.iter().sum();
    // The digest at the end of each of two images is no piece of its own.
    let due = at_the_rate(bytes - 2 * 32);
    assert!(all <= due && all + burst >= due, "{all:?} of {due:?}");
    assert!(pauses.iter().all(|pause| *pause <= most), "{pauses:?}");
}

#[test]
fn holes_cost_the_disk_nothing_and_whoever_reads_all_objects_no_time() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path()).unwrap();
    // As bytes that the disk gives they would take minutes. A build that leaves many would have nobody's damage found.
    for last in 1..10 {
        let mut pending = writer.begin(None).unwrap();
        pending.write(&vec![0; 16 << 20]).unwrap();
        pending.write(&[last]).unwrap();
        pending.finish().unwrap();
    }
    let mut rig = Rig::new();
    let store = Arc::get_mut(&mut rig.store).unwrap();
    store.custody = Box::new(Disk::new(writer, root.path()).unwrap());
    let pauses = Arc::<Pauses>::default();
    store.scrubber = Scrubber::new(1 << 20, None, Box::new(Arc::clone(&pauses)));
    Scrubber::start(Arc::clone(&rig.store)).unwrap();
    rig.store.scrubber.begin();
    wait_until(|| !rig.store.scrubber.told().running);
    let told = rig.store.scrubber.told();
    // With the empty one.
    assert_eq!((told.objects, told.damaged, told.unread), (10, 0, 0));
    assert_eq!(told.bytes, 9 * ((16 << 20) + 1));
    assert_eq!(*pauses.0.lock().unwrap(), []);
}

#[test]
fn an_image_that_has_rotted_is_put_aside_and_who_had_it_has_not_what_was_staged() {
    let rig = Rig::new();
    let (tree, other) = (rig.tree("a", b"a"), rig.tree("b", b"b"));
    let mut had = rig.staged(1, tree);
    rig.staged(2, other).close();
    let good = std::fs::read(rig.image(tree)).unwrap();
    let mut bad = good.clone();
    bad[1500] ^= 1;
    std::fs::remove_file(rig.image(tree)).unwrap();
    std::fs::write(rig.image(tree), &bad).unwrap();
    Scrubber::start(Arc::clone(&rig.store)).unwrap();
    rig.store.scrubber.begin();
    wait_until(|| !rig.store.scrubber.told().running);
    let told = rig.store.scrubber.told();
    // Five objects with the empty one, and two images.
    assert_eq!((told.objects, told.damaged, told.unread), (7, 1, 0));
    assert!(!rig.image(tree).exists() && rig.image(other).exists());
    let aside = rig.directory.path().join(QUARANTINE);
    assert_eq!(
        std::fs::read(aside.join(staged(tree).image())).unwrap(),
        bad
    );
    let aside = belljar_cas::quarantined(rig.directory.path()).unwrap();
    let due = belljar_cas::Aside {
        digest: tree.digest,
        image: true,
    };
    assert_eq!(aside, [due]);
    // The next one has it made anew, which must not vouch for the first.
    let mut next = rig.staged(3, tree);
    assert_eq!(std::fs::read(rig.image(tree)).unwrap(), good);
    for (peer, unchanged) in [(&mut had, false), (&mut next, true)] {
        assert_eq!(
            peer.reply(&Request::VerifyInputs),
            Answer::Inputs { unchanged }
        );
    }
}

#[test]
fn room_is_told_and_too_much_at_once_is_refused() {
    let rig = Rig::new();
    let mut client = rig.connect(Role::Client);
    client.ask(&Request::Space {});
    let Answer::Space {
        total,
        available,
        reserve,
        grace,
    } = client.answer()
    else {
        panic!("no answer")
    };
    assert!(total >= available && available > 0);
    assert_eq!((reserve, grace), (7, 3600));
    let objects = (0..=bounds::DIGESTS_PER_FRAME).map(|i| Digest::of(&i.to_le_bytes()));
    client.ask(&Request::Remove {
        objects: objects.collect(),
        before: 0,
    });
    assert!(matches!(
        client.answer(),
        Answer::Failed {
            class: Failure::Refused,
            ..
        }
    ));
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}
