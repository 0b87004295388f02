//! One process dies, at every point of a build's life.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use belljar_tests::Part;
use belljar_tests::trace::{Kill, When};

use crate::points::{POINTS, Point, Seen, is_chatter};
use crate::site::Site;

/// Has `part` die at each of its points, of which this is one part of several.
fn sweep(part: Part, which: usize, of: usize) {
    let mut site = Site::traced(&[part], false);
    let points = POINTS.iter().filter(|point| point.part == part);
    let points = points.enumerate().filter(|(at, _)| at % of == which);
    let mut surprises = String::new();
    for (_, point) in points {
        for (when, due) in [(When::Before, point.before), (When::After, point.after)] {
            let kill = Kill {
                name: point.name.to_owned(),
                occurrence: 1,
                when,
            };
            let order = site.order();
            let (orders, died) = site.run(&[(part, kill.clone())], vec![order]);
            assert!(died, "{part:?} has not died: {kill:?}");
            let attempts = orders[0].ended.as_ref().unwrap().attempt;
            if !due.fits(attempts) {
                let build = orders[0].id.as_ref().unwrap().to_string();
                let said = site.instance.said(Part::Belljard);
                let said: Vec<_> = said.lines().filter(|line| line.contains(&build)).collect();
                let (name, said) = (point.name, said.join("\n"));
                writeln!(
                    surprises,
                    "{part:?} {name} {when:?}: {attempts} attempts\n{said}"
                )
                .unwrap();
            }
        }
    }
    assert!(
        surprises.is_empty(),
        "not as points.rs has it:\n{surprises}"
    );
}

macro_rules! sweeps {
    ($($test:ident: $part:ident, $which:literal of $of:literal;)*) => {
        $(
            #[test]
            fn $test() {
                sweep(Part::$part, $which, $of);
            }
        )*
    };
}

sweeps! {
    belljard_dies_1: Belljard, 0 of 3;
    belljard_dies_2: Belljard, 1 of 3;
    belljard_dies_3: Belljard, 2 of 3;
    the_store_dies_1: Store, 0 of 2;
    the_store_dies_2: Store, 1 of 2;
    the_spawner_dies_1: Spawner, 0 of 2;
    the_spawner_dies_2: Spawner, 1 of 2;
    the_signer_dies: Signer, 0 of 1;
}

#[test]
fn every_call_that_lasts_or_that_others_see_is_a_point() {
    let mut site = Site::traced(&Part::ALL, false);
    let order = site.order();
    let from = site.told();
    site.run(&[], vec![order]);
    let due = |part| {
        POINTS
            .iter()
            .filter(move |point| point.part == part)
            .map(|point| point.name)
    };
    let mut surprises = Vec::new();
    for (part, from) in Part::ALL.into_iter().zip(from) {
        let events = site.events(part);
        let names = events[from..]
            .iter()
            .filter_map(|event| event.name.as_deref());
        let mut seen: Vec<String> = Vec::new();
        for name in names.filter(|name| !is_chatter(name)) {
            if !seen.iter().any(|seen| seen == name) {
                seen.push(name.to_owned());
            }
        }
        let due: BTreeSet<&str> = due(part).collect();
        if seen.iter().map(String::as_str).collect::<BTreeSet<_>>() != due {
            surprises.push((part, seen, due));
        }
    }
    assert!(
        surprises.is_empty(),
        "not the points of points.rs: {surprises:#?}"
    );
}

/// The table as docs/crash-points.md has it.
fn written() -> String {
    let rows = POINTS.iter().map(
        |Point {
             part,
             name,
             before,
             after,
         }| {
            let (before, after) = (Seen::words(*before), Seen::words(*after));
            format!("| {} | {name} | {before} | {after} |\n", part.executable())
        },
    );
    rows.collect()
}

#[test]
fn the_table_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/crash-points.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page.contains(&written()),
        "docs/crash-points.md has to have these rows:\n{}",
        written()
    );
}
