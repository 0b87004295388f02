//! The machine loses its power, after every call of a build's life: what was not made durable is gone.
//!
//! One build is recorded, call by call, over all processes. Then the disk is replayed. After each call it is looked
//! whether what is there is whole, and what somebody was told by now is durable; and at some of these moments Belljar
//! is started on what is left, and the build is ordered once more.

use std::collections::BTreeSet;
use std::path::Path;

use belljar_attest::{Bundle, PublicKey};
use belljar_core::Digest;
use belljar_plan::Receipt;
use belljar_tests::Part;
use belljar_tests::trace::Event;
use belljar_tests::trace::disk::{Disk, Left};
use serde_json::Value;

use crate::judge;
use crate::site::{Order, Site};

/// How often Belljar is started on what is left, beside the long campaign.
const RESTARTS: usize = 10;
/// What is told to others, and the directory of which everything is durable before.
const PROMISES: [(&str, &str); 15] = [
    ("spawner, stage: send", "daemon"),
    ("spawner, launch: send", "daemon"),
    ("spawner, collect: send", "daemon"),
    ("spawner, destroy: send", "daemon"),
    ("signer, attest: send", "daemon"),
    ("store, put: send", "daemon"),
    ("answer collected: send", "receipts"),
    ("answer destroyed: send", "receipts"),
    ("signer, attest: send", "receipts"),
    ("answer attested: send", "evidence"),
    ("answer kept: send", "store/objects"),
    ("answer stored: send", "store/objects"),
    ("answer collect_done: send", "store/objects"),
    ("answer staged: send", "store/objects"),
    ("answer inputs: send", "store/images"),
];

/// When a client is told that its build is accepted, the queue has it. The engine may be writing the next state then.
const ACCEPTED: &str = "client, accepted: send";

/// A build that was recorded.
struct Recorded {
    site: Site,
    /// The disk before.
    base: Disk,
    /// What was done, in order, and by whom.
    steps: Vec<(Part, Event)>,
    /// A build that had ended before.
    before: Order,
    order: Order,
}

fn record() -> Recorded {
    let mut site = Site::traced(&Part::ALL, true);
    let before = site.order();
    let (mut before, _) = site.run(&[], vec![before]);
    let from = site.told();
    let base = Disk::load(site.instance.state()).unwrap();
    let order = site.order();
    let (mut orders, _) = site.run(&[], vec![order]);
    let mut steps = Vec::new();
    for (part, from) in Part::ALL.into_iter().zip(from) {
        let events = site.events(part).into_iter().skip(from);
        steps.extend(events.map(|event| (part, event)));
    }
    steps.sort_by_key(|(_, event)| event.at);
    site.stop();
    Recorded {
        site,
        base,
        steps,
        before: before.remove(0),
        order: orders.remove(0),
    }
}

/// What is there is whole, whatever else is lost.
fn assert_whole(disk: &Disk, left: Left, key: &PublicKey, when: &str) {
    for (path, bytes) in disk.left(left, "store/objects/sha256") {
        let digits: String = path.to_str().unwrap().split('/').collect();
        assert_eq!(Digest::of(bytes).to_hex(), digits, "an object, {when}");
    }
    for (path, bytes) in disk.left(left, "evidence") {
        if ends_with(&path, ".sigstore.json") {
            let bundle = Bundle::from_json(bytes).unwrap();
            assert!(bundle.is_signed_by(key), "a bundle, {when}");
        }
    }
    for (path, bytes) in disk.left(left, "daemon/audit") {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        if let Some(end) = whole {
            let read = belljar_audit::verify(&bytes[..=end]);
            assert!(read.is_ok(), "the trail {}, {when}", path.display());
        }
    }
    let receipts = disk.left(left, "receipts");
    for (path, bytes) in &receipts {
        if ends_with(path, ".json") && *path != Path::new("head.json") {
            Receipt::from_canonical(bytes).unwrap();
        }
    }
    // The end of the chain is there, or can be put there.
    let head: Value = serde_json::from_slice(receipts[Path::new("head.json")]).unwrap();
    let attempt = head["attempt"].as_str().unwrap();
    let named = [".json", ".tmp"].map(|end| receipts.get(Path::new(&format!("{attempt}{end}"))));
    let found = named.into_iter().flatten().next();
    let digest = found.map(|bytes| serde_json::to_value(Digest::of(bytes)).unwrap());
    assert_eq!(
        digest.as_ref(),
        Some(&head["digest"]),
        "the head of receipts, {when}"
    );
}

/// What was accepted is in the queue, whatever else is lost.
fn assert_queued(disk: &Disk, order: &Order, when: &str) {
    let id = order.id.as_ref().unwrap().to_string();
    let files = disk.left(Left::Durable, "daemon");
    let queue = ["queue.sqlite", "queue.sqlite-wal"].map(|name| files.get(Path::new(name)));
    let mut queue = queue.into_iter().flatten();
    let queued = queue.any(|bytes| bytes.windows(id.len()).any(|some| some == id.as_bytes()));
    assert!(queued, "{id} is accepted and not durable, {when}");
}

fn ends_with(path: &Path, end: &str) -> bool {
    path.to_string_lossy().ends_with(end)
}

/// Replays everything, and gives the moments at which something more was durable.
fn replay(recorded: &Recorded) -> Vec<usize> {
    let keys = recorded.base.left(Left::Durable, "evidence");
    let pem = std::str::from_utf8(keys[Path::new("builder.pub")]).unwrap();
    let key = PublicKey::from_pem(pem).unwrap();
    let (mut disk, mut moments) = (recorded.base.clone(), Vec::new());
    let mut kept = BTreeSet::new();
    for (at, (part, event)) in recorded.steps.iter().enumerate() {
        let when = format!("after call {at} of {part:?}: {:?}", event.name);
        let name = event.name.as_deref().unwrap_or_default();
        for (promise, directory) in PROMISES.iter().filter(|(promise, _)| *promise == name) {
            assert!(
                disk.is_durable(directory),
                "{promise}: {directory} is not durable, {when}"
            );
            kept.insert(*promise);
        }
        if name == ACCEPTED {
            assert_queued(&disk, &recorded.order, &when);
            kept.insert(ACCEPTED);
        }
        if let Some(change) = &event.change {
            disk.apply(change, part.ids());
            assert_whole(&disk, Left::Durable, &key, &when);
            assert_whole(&disk, Left::Names, &key, &when);
            if name.ends_with(": sync") {
                moments.push(at + 1);
            }
        }
    }
    let promises = PROMISES.iter().map(|(promise, _)| *promise);
    let due: BTreeSet<_> = promises.chain([ACCEPTED]).collect();
    assert_eq!(kept, due, "every promise was made");
    moments
}

/// Starts Belljar on what is left at some of these moments, and has the build ordered once more.
fn restart(recorded: &mut Recorded, moments: &[usize], count: usize) {
    let every = moments.len().div_ceil(count).max(1);
    let accepted = |(_, event): &(Part, Event)| event.name.as_deref() == Some(ACCEPTED);
    let accepted = recorded.steps.iter().position(accepted).unwrap();
    for (turn, moment) in moments.iter().step_by(every).enumerate() {
        let mut disk = recorded.base.clone();
        for (part, event) in &recorded.steps[..*moment] {
            if let Some(change) = &event.change {
                disk.apply(change, part.ids());
            }
        }
        let left = [Left::Durable, Left::Names][turn % 2];
        println!("after {moment} calls, {left:?}");
        disk.restore(left).unwrap();
        let site = &mut recorded.site;
        site.start();
        let again = site.order_again(&recorded.order);
        let (again, _) = site.run(&[], vec![again]);
        judge::check(site, std::slice::from_ref(&recorded.before));
        if *moment > accepted {
            assert_eq!(again[0].id, recorded.order.id, "what was accepted is lost");
        }
        site.stop();
    }
}

#[test]
fn what_was_told_is_durable_and_what_is_there_is_whole_whenever_the_power_goes() {
    let mut recorded = record();
    let moments = replay(&recorded);
    restart(&mut recorded, &moments, RESTARTS);
}

#[test]
#[ignore = "a restart after every call takes minutes: cargo xtask soak crash"]
fn the_power_goes_after_every_call() {
    let mut recorded = record();
    let moments = replay(&recorded);
    restart(&mut recorded, &moments, moments.len());
}
