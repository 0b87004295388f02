use std::path::{Path, PathBuf};

use belljar_core::{AttemptId, Digest};
use belljar_plan::Receipt;
use belljar_plan::signer::Answer;
use belljar_sys::process::effective_uid;

use super::{ChainError, LINE, Seen, SeenError};
use crate::bench::{self, Bench, reasons, request};
use crate::evidence::Evidence;
use crate::receipts::Receipts;

/// A chain of receipts about the attempts 1 to …, and what was seen of it.
struct Scene {
    bench: Bench,
    seen: Seen,
}

fn attempt(number: u32) -> AttemptId {
    format!("01jd8q6z8r4x7j2m5t9v0w{number:04}-1")
        .parse()
        .unwrap()
}

impl Scene {
    fn new(receipts: u32) -> Self {
        let bench = Bench::new();
        let seen = open(&bench).unwrap();
        let scene = Self { bench, seen };
        for number in 1..=receipts {
            scene.append(number, |_| {});
        }
        scene
    }

    fn path(&self, number: u32) -> PathBuf {
        self.bench
            .path(&format!("receipts/{}.json", attempt(number)))
    }

    fn read(&self, number: u32) -> Vec<u8> {
        std::fs::read(self.path(number)).unwrap()
    }

    fn digest(&self, number: u32) -> Digest {
        Digest::of(&self.read(number))
    }

    /// Writes the receipt that comes after the one of the attempt before, with something changed.
    fn append(&self, number: u32, change: impl FnOnce(&mut Receipt)) {
        let mut receipt = bench::receipt();
        receipt.sequence = u64::from(number);
        receipt.attempt = attempt(number);
        if number > 1 {
            receipt.previous = Some(self.digest(number - 1));
            receipt.previous_attempt = Some(attempt(number - 1));
        }
        change(&mut receipt);
        put(&self.path(number), &receipt);
    }

    fn follow(&self, number: u32) -> Result<(), ChainError> {
        let receipts = Receipts::new(self.bench.path("receipts"), effective_uid());
        let (link, digest) = receipts.link(&attempt(number)).unwrap();
        self.seen.follow(link, digest, &receipts)
    }

    fn list(&self) -> PathBuf {
        self.bench.path("evidence/receipts.seen")
    }

    /// What was seen, as it is on the disk.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.list()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn assert_seen(&self, receipts: u32) {
        let due: Vec<_> = (1..=receipts)
            .map(|number| self.digest(number).to_string())
            .collect();
        assert_eq!(self.lines(), due);
    }
}

fn put(path: &Path, receipt: &Receipt) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, receipt.canonical().unwrap()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
}

fn open(bench: &Bench) -> Result<Seen, SeenError> {
    Seen::open(&Evidence::new(bench.path("evidence"), effective_uid()))
}

#[test]
fn the_way_from_a_receipt_to_the_last_one_seen_is_gone_once() {
    let mut scene = Scene::new(5);
    scene.follow(3).unwrap();
    scene.assert_seen(3);
    // What was seen is not needed any more; and a later one may have come first.
    std::fs::remove_file(scene.path(1)).unwrap();
    scene.follow(5).unwrap();
    for known in [2, 3, 4, 5] {
        scene.follow(known).unwrap();
    }
    assert_eq!(scene.lines().len(), 5);
    // Nor is it forgotten.
    scene.seen = open(&scene.bench).unwrap();
    for known in [2, 5] {
        scene.follow(known).unwrap();
    }
    scene.append(6, |_| {});
    scene.follow(6).unwrap();
    assert_eq!(scene.lines().len(), 6);
}

#[test]
fn a_chain_that_was_set_back_and_written_anew_is_not_followed() {
    let mut scene = Scene::new(4);
    scene.follow(3).unwrap();
    let before = scene.lines();
    let other = |receipt: &mut Receipt| receipt.run_nonce = "f".repeat(32);
    // In the place of one that was seen, whether it was the last of them or not.
    for set_back_to in [2, 3] {
        scene.append(set_back_to, other);
        let refused = scene.follow(set_back_to).unwrap_err();
        let due = u64::from(set_back_to);
        assert!(
            matches!(refused, ChainError::Forked(number) if number == due),
            "{refused}"
        );
        scene.append(set_back_to, |_| {});
    }
    // And what comes after such a one, also for a signer that was started again.
    scene.append(3, other);
    scene.append(4, |_| {});
    scene.append(5, |_| {});
    scene.seen = open(&scene.bench).unwrap();
    for after in [4, 5] {
        let refused = scene.follow(after).unwrap_err();
        assert!(matches!(refused, ChainError::Forked(3)), "{refused}");
        assert!(!refused.retryable() && refused.to_string().contains("hint: README"));
    }
    assert_eq!(scene.lines(), before);
}

#[test]
fn a_way_with_a_gap_is_not_gone() {
    let scene = Scene::new(4);
    scene.follow(1).unwrap();
    let (second, third) = (scene.read(2), scene.read(3));
    let refused = |due: &str| {
        let error = scene.follow(4).unwrap_err();
        assert!(
            error.to_string().contains(due) && !error.retryable(),
            "{error}"
        );
        scene.assert_seen(1);
    };
    std::fs::remove_file(scene.path(3)).unwrap();
    refused(
        "the receipt number 3 (of 01jd8q6z8r4x7j2m5t9v0w0003-1), from which the chain goes on: there is no receipt",
    );
    // One is in the place of another; one was changed; one is not a receipt.
    for other in [&second, &[&third[..], b"\n"].concat(), &b"{}".to_vec()] {
        scene.append(3, |_| {});
        std::fs::write(scene.path(3), other).unwrap();
        let due = if other == b"{}" {
            "the receipt is not one"
        } else {
            "is not the one that the next in the chain names"
        };
        refused(due);
    }
    std::fs::write(scene.path(3), third).unwrap();
    scene.follow(4).unwrap();
    scene.assert_seen(4);
}

#[test]
fn a_receipt_that_names_none_before_it_is_the_first_or_none() {
    for change in [
        (|r| r.previous_attempt = None) as fn(&mut Receipt),
        |r| r.previous = None,
        |r| r.sequence = 0,
        |r| (r.previous, r.previous_attempt) = (None, None),
        |r| r.sequence = 1,
    ] {
        let scene = Scene::new(2);
        scene.append(2, change);
        let refused = scene.follow(2).unwrap_err();
        assert!(matches!(refused, ChainError::Unlinked(_)), "{refused}");
        assert_eq!(scene.lines(), Vec::<String>::new());
    }
    // A number that is not the next one's.
    let scene = Scene::new(2);
    scene.append(2, |r| r.sequence = 3);
    let refused = scene.follow(2).unwrap_err();
    assert!(matches!(refused, ChainError::Exchanged(_)), "{refused}");
}

#[test]
fn what_a_crash_leaves_of_a_line_is_written_again() {
    for torn in [
        &b"sha256:0123"[..],
        &[0; LINE],
        &[0; 3 * LINE + 7],
        &[b'\n'; 2 * LINE],
    ] {
        let mut scene = Scene::new(3);
        scene.follow(2).unwrap();
        let whole = std::fs::read(scene.list()).unwrap();
        std::fs::write(scene.list(), [&whole, torn].concat()).unwrap();
        scene.seen = open(&scene.bench).unwrap();
        assert_eq!(std::fs::read(scene.list()).unwrap(), whole);
        scene.follow(3).unwrap();
        scene.assert_seen(3);
    }
}

#[test]
fn a_list_that_is_damaged_in_the_middle_is_not_believed() {
    let scene = Scene::new(3);
    scene.follow(3).unwrap();
    let mut bytes = std::fs::read(scene.list()).unwrap();
    bytes[LINE + 10] = b'?';
    std::fs::write(scene.list(), &bytes).unwrap();
    let refused = open(&scene.bench).err().unwrap();
    assert!(matches!(refused, SeenError::Damaged(_)), "{refused}");
    // Also while the signer runs.
    assert!(scene.follow(2).is_err());
    scene.follow(3).unwrap();
}

#[test]
fn nothing_is_signed_about_a_receipt_outside_the_chain() {
    let refused = |bench: &Bench, due: &str| {
        let (retryable, why) = reasons(bench.service().answer(&request()));
        assert!(!retryable && why.contains(due), "{why}");
        assert!(!bench.bundle().exists());
    };
    let bench = Bench::with_receipt();
    let mut far = bench::receipt();
    (far.sequence, far.previous) = (2, Some(Digest::of(b"the first")));
    far.previous_attempt = Some(attempt(9));
    bench.put(&far);
    refused(&bench, "the receipt number 1");
    // Seen first, and another one after it under the same name.
    bench.put(&bench::receipt());
    assert!(matches!(
        bench.service().answer(&request()),
        Answer::Attested { .. }
    ));
    std::fs::remove_file(bench.bundle()).unwrap();
    let mut other = bench::receipt();
    other.run_nonce = "f".repeat(32);
    bench.put(&other);
    refused(&bench, "another receipt was seen as number 1");
}
