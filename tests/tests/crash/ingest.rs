//! belljard or the store dies while a blob comes that its client names by BLAKE3, at every point of that: it is there by
//! that name and whole, or it is not there, and comes again. No other than the one object stays.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use belljar_core::ObjectId;
use belljar_tests::Part;
use belljar_tests::trace::{Kill, When};

use crate::points::is_chatter;
use crate::site::Site;

/// Every call of an upload that lasts or that others see; whether its client can hear that all went well nevertheless.
pub(crate) const UPLOAD: &[(Part, &str, bool)] = &[
    (Part::Belljard, "store, upload: send", false),
    (Part::Belljard, "content: send", false),
    (Part::Belljard, "ownership: write", false),
    (Part::Belljard, "ownership: sync", false),
    (Part::Store, "object content: create", false),
    (Part::Store, "store, upload: send", false),
    (Part::Store, "object content: write", false),
    (Part::Store, "object content: sync", false),
    (Part::Store, "object: link", false),
    (Part::Store, "object directory: sync", false),
    // belljard has it then.
    (Part::Store, "answer received: send", true),
];

/// How long a process may take to die.
const DEATH: Duration = Duration::from_secs(20);

fn content(number: usize) -> Vec<u8> {
    format!("by BLAKE3 {number}\n").repeat(1000).into_bytes()
}

/// How many objects there are.
fn objects(site: &Site) -> usize {
    let all = site.instance.state().join("store/objects/sha256");
    let folders = fs::read_dir(all).unwrap();
    let count = |folder: fs::DirEntry| fs::read_dir(folder.path()).unwrap().count();
    folders.map(|folder| count(folder.unwrap())).sum()
}

fn dies(part: Part) {
    let mut site = Site::traced(&[part], false);
    let mut number = 0;
    for (_, name, heard) in UPLOAD.iter().filter(|(of, ..)| *of == part) {
        for when in [When::Before, When::After] {
            number += 1;
            let (content, before) = (content(number), objects(&site));
            let kill = Kill {
                name: (*name).to_owned(),
                occurrence: 1,
                when,
            };
            site.arm(part, &kill);
            let sent = site.client.send_by_blake3(&content, &content);
            belljar_tests::wait_for(&format!("{part:?} to die at {kill:?}"), DEATH, || {
                site.instance.was_killed(part).then_some(())
            });
            assert!(
                sent.is_err() || *heard && when == When::After,
                "{kill:?}: {sent:?}"
            );
            site.revive(part);
            let [has] = site.client.has_by_blake3(&[&content])[..] else {
                panic!("one answer");
            };
            assert!(
                has || sent.is_err(),
                "{kill:?}: what was acknowledged is there"
            );
            // Its client has not heard, so it sends it again; that is answered at once where it is there.
            let sent = site.client.send_by_blake3(&content, &content).unwrap();
            assert_eq!(usize::try_from(sent).unwrap(), content.len());
            assert_eq!(site.client.read_by_blake3(&content).unwrap(), content);
            let object = ObjectId::of(&content);
            assert_eq!(site.client.read(object).unwrap(), content, "{kill:?}");
            assert_eq!(objects(&site), before + 1, "{kill:?}");
            let tmp = site.instance.state().join("store/tmp");
            assert_eq!(fs::read_dir(tmp).unwrap().count(), 0, "{kill:?}");
        }
    }
}

#[test]
fn belljard_dies_while_a_blob_comes_by_blake3() {
    dies(Part::Belljard);
}

#[test]
fn the_store_dies_while_a_blob_comes_by_blake3() {
    dies(Part::Store);
}

#[test]
fn every_call_of_an_upload_is_a_point() {
    let site = Site::traced(&Part::ALL, false);
    // What is done once only is over.
    site.client
        .send_by_blake3(&content(0), &content(0))
        .unwrap();
    let from = site.told();
    site.client
        .send_by_blake3(&content(1), &content(1))
        .unwrap();
    for (part, from) in Part::ALL.into_iter().zip(from) {
        if !matches!(part, Part::Belljard | Part::Store) {
            continue;
        }
        let events = site.events(part);
        let seen = events[from..]
            .iter()
            .filter_map(|event| event.name.as_deref());
        // It is looked now and then how much room there is, whether something comes or not.
        let seen = seen.filter(|name| !is_chatter(name) && !name.contains(" space: send"));
        let seen: BTreeSet<&str> = seen.collect();
        let due = UPLOAD.iter().filter(|(of, ..)| *of == part);
        let due: BTreeSet<&str> = due.map(|(_, name, _)| *name).collect();
        assert_eq!(seen, due, "{part:?}");
    }
}

#[test]
fn the_table_of_uploads_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/crash-points.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = UPLOAD
        .iter()
        .map(|(part, name, _)| format!("| {} | {name} |\n", part.executable()));
    let rows: String = rows.collect();
    assert!(
        page.contains(&rows),
        "docs/crash-points.md has to have these rows:\n{rows}"
    );
}
