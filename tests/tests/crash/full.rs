//! The disk is full at every write of the store: what was under way ends honestly, nothing is damaged, and what comes
//! afterwards goes well.

use std::fs;

use belljar_core::{Digest, Outcome};
use belljar_tests::Part;
use belljar_tests::trace::{Kill, When};

use crate::points::POINTS;
use crate::site::Site;

/// Every object is what its name says.
fn assert_whole(site: &Site) {
    let objects = site.instance.state().join("store/objects/sha256");
    for prefix in fs::read_dir(objects).unwrap() {
        let prefix = prefix.unwrap();
        for object in fs::read_dir(prefix.path()).unwrap() {
            let object = object.unwrap();
            let name =
                [prefix.file_name(), object.file_name()].map(|name| name.into_string().unwrap());
            let content = fs::read(object.path()).unwrap();
            assert_eq!(Digest::of(&content).to_hex(), name.concat());
        }
    }
}

#[test]
fn the_disk_is_full_at_every_write_of_the_store() {
    let mut site = Site::traced(&[Part::Store], false);
    let writes = POINTS.iter().filter(|point| {
        let writes = [": create", ": write", ": sync", ": link"];
        point.part == Part::Store && writes.iter().any(|end| point.name.ends_with(end))
    });
    let names: Vec<&str> = writes.map(|point| point.name).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let full = Kill {
            name: name.to_owned(),
            occurrence: 1,
            when: When::Full,
        };
        let order = site.order();
        site.arm(Part::Store, &full);
        let ended = site.ended(order);
        site.disarm(Part::Store);
        let told = format!("full at {name}");
        let events = site.events(Part::Store);
        let happened = events
            .iter()
            .any(|event| event.name.as_deref() == Some(&told));
        assert!(happened, "the disk was not full at {name}");
        match ended.outcome.as_ref().unwrap() {
            Outcome::Succeeded => {}
            Outcome::Infrastructure { why, .. } => {
                assert!(!why.is_empty(), "{name}: {ended:?}");
                println!("{name}: {why}");
            }
            other => panic!("{name}: {other}"),
        }
        assert_whole(&site);
        // Afterwards all is well again: everything that must hold of a build holds of this one.
        let order = site.order();
        site.run(&[], vec![order]);
    }
}
