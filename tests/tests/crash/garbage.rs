//! belljard or the store dies while garbage is collected, at every point of that: nothing that is needed goes, and the
//! next sweep ends what this one began.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use belljar_core::ObjectId;
use belljar_tests::trace::{Kill, When};
use belljar_tests::{Instance, Part, tool, wait_for};
use belljar_wire::ArtifactKind;
use serde_json::Value;

use crate::judge;
use crate::points::is_chatter;
use crate::site::{Order, Site};

/// Every call of a sweep that lasts or that others see.
pub(crate) const SWEEP: &[(Part, &str)] = &[
    (Part::Belljard, "queue: write"),
    (Part::Belljard, "queue artifacts: sync"),
    (Part::Belljard, "store, remove_logs: send"),
    (Part::Belljard, "store, evict: send"),
    (Part::Belljard, "ownership: write"),
    (Part::Belljard, "ownership: sync"),
    (Part::Belljard, "store, remove: send"),
    // What takes off mounts of images that are gone.
    (Part::Spawner, "process: clone"),
    (Part::Store, "log: remove"),
    (Part::Store, "step marks: remove"),
    (Part::Store, "image: remove"),
    (Part::Store, "object: remove"),
    (Part::Store, "answer removed: send"),
    (Part::Store, "answer evicted: send"),
];

/// Until what was given before counts as given before the lease, which is of one second here.
const LEASE: Duration = Duration::from_millis(2200);
/// How long a process may take to die, and another to notice.
const DEATH: Duration = Duration::from_secs(20);

/// One that keeps one build, and the rest for a second.
fn keeping(instance: &Instance) {
    let append = |part: Part, text: &str| {
        let path = instance
            .state()
            .join(format!("config/{}.toml", part.short()));
        let mut file = fs::File::options().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(Part::Store, "grace_seconds = 1\n");
    append(
        Part::Belljard,
        "[store]\nlease_seconds = 1\nevery_seconds = 86400\n[store.retention]\nbuilds = 1\n",
    );
}

/// A file, and what is made of a directory.
fn left(order: &Order) -> [ObjectId; 2] {
    let record = order.ended.as_ref().unwrap();
    match [0, 1].map(|at| &record.artifacts[at].kind) {
        [
            ArtifactKind::File { object, .. },
            ArtifactKind::Directory {
                tree: Some(tree), ..
            },
        ] => [*object, *tree],
        other => panic!("{other:?}"),
    }
}

/// The last build is whole; of those before it only the evidence is left.
fn check(site: &Site, last: &Order, before: &[Order]) {
    judge::check(site, std::slice::from_ref(last));
    for order in before {
        let record = order.ended.as_ref().unwrap();
        let evidence = &record.evidence;
        for object in [evidence.bundle, evidence.receipt, evidence.audit_trail] {
            let object = object.unwrap();
            assert_eq!(ObjectId::of(&site.client.read(object).unwrap()), object);
        }
        for object in left(order) {
            assert!(site.client.read(object).is_err(), "{order:?}");
        }
    }
}

/// What the store says it takes is what it takes.
fn accounted(site: &mut Site) {
    let store = site.instance.state().join("store");
    let told = site.instance.tell("store status", &["--json"]);
    let told = told.assert_code(0).json("belljar.store/v1");
    let parts = ["objects", "images", "logs", "quarantine", "other"];
    let bytes: u64 = parts
        .map(|part| told[part]["bytes"].as_u64().unwrap())
        .iter()
        .sum();
    let du = tool(&store, "du", &["-s", "--block-size=1", "."]);
    let du: u64 = du.split('\t').next().unwrap().parse().unwrap();
    assert!(bytes.abs_diff(du) * 100 <= du, "{bytes} of {du}");
}

fn sweep(site: &mut Site) -> Value {
    let swept = site.instance.tell("store gc", &["--all", "--json"]);
    swept.assert_code(0).json("belljar.gc/v1")
}

/// A build, and the time after which it may go.
fn build(site: &mut Site) -> Order {
    let order = site.order();
    let (mut orders, _) = site.run(&[], vec![order]);
    std::thread::sleep(LEASE);
    orders.remove(0)
}

fn dies(part: Part) {
    let mut site = Site::traced_as(&[part], false, keeping);
    let mut before = vec![build(&mut site)];
    for (_, name) in SWEEP.iter().filter(|(of, _)| *of == part) {
        for when in [When::Before, When::After] {
            let last = build(&mut site);
            let kill = Kill {
                name: (*name).to_owned(),
                occurrence: 1,
                when,
            };
            site.arm(part, &kill);
            let ended = site.instance.tell("store gc", &["--all", "--json"]);
            assert_ne!(ended.code, 0, "nobody died at {kill:?}: {ended:?}");
            wait_for(&format!("{part:?} to die at {kill:?}"), DEATH, || {
                site.instance.was_killed(part).then_some(())
            });
            site.revive(part);
            // What belljard was doing, if it lives, has failed by now or does so when it is asked.
            judge::check(&site, std::slice::from_ref(&last));
            sweep(&mut site);
            check(&site, &last, &before);
            accounted(&mut site);
            before.push(last);
        }
    }
}

#[test]
fn belljard_dies_while_garbage_is_collected() {
    dies(Part::Belljard);
}

#[test]
fn the_store_dies_while_garbage_is_collected() {
    dies(Part::Store);
}

#[test]
fn every_call_of_a_sweep_is_a_point() {
    let mut site = Site::traced_as(&Part::ALL, false, keeping);
    let before = build(&mut site);
    sweep(&mut site);
    let last = build(&mut site);
    let from = site.told();
    let swept = sweep(&mut site);
    assert_eq!(swept["builds"], 1, "{swept}");
    for (part, from) in Part::ALL.into_iter().zip(from) {
        let events = site.events(part);
        let seen = events[from..]
            .iter()
            .filter_map(|event| event.name.as_deref());
        let seen: BTreeSet<&str> = seen.filter(|name| !is_chatter(name)).collect();
        let due = SWEEP.iter().filter(|(of, _)| *of == part);
        let due: BTreeSet<&str> = due.map(|(_, name)| *name).collect();
        assert_eq!(seen, due, "{part:?}");
    }
    check(&site, &last, &[before]);
}

#[test]
fn the_table_of_sweeps_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/crash-points.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = SWEEP
        .iter()
        .map(|(part, name)| format!("| {} | {name} |\n", part.executable()));
    let rows: String = rows.collect();
    assert!(
        page.contains(&rows),
        "docs/crash-points.md has to have these rows:\n{rows}"
    );
}
