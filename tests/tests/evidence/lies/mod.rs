//! What a belljard that was taken over can obtain: the test is belljard, under its user id, and tells the real
//! spawner, store and signer every lie that there is. Each row of [`ROWS`] is one, with who refuses it and by
//! which words; the refusal must also stand in the record of who refused. SECURITY.md has the same rows.

mod artifacts;
mod chain;
mod disk;
mod git;
mod images;
#[path = "../../../../crates/belljar-store/src/tests/pack_file.rs"]
#[allow(dead_code, reason = "the store's own tests use more of it")]
mod pack_file;
mod scene;
mod signer;
mod spawner;
mod store;

use std::fs;

use belljar_tests::Part;
use scene::{Scene, Told};

/// Who a lie fails by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A process, which records it.
    Process(Part),
    /// The kernel, by an error.
    Kernel,
    /// Nobody: it stands in the statement as what belljard asserts, and nowhere else.
    Label,
}

/// A lie.
struct Row {
    lie: &'static str,
    by: By,
    /// Words of the answer and of the record.
    why: &'static str,
    tell: fn(&mut Scene) -> Told,
}

const fn row(lie: &'static str, by: By, why: &'static str, tell: fn(&mut Scene) -> Told) -> Row {
    Row { lie, by, why, tell }
}

const SPAWNER: By = By::Process(Part::Spawner);
const STORE: By = By::Process(Part::Store);
const SIGNER: By = By::Process(Part::Signer);

/// Every lie, by the test that tells it. In ten seconds a process records so many refusals
/// ([`belljar_core::bounds::REFUSALS_LOGGED`]), so no test has more of one process.
const GROUPS: &[(&str, &[Row])] = &[
    ("frames to the spawner", spawner::FRAMES),
    ("the order of operations", spawner::ORDER),
    ("plans", spawner::PLANS),
    ("root file systems", images::ROWS),
    ("the store", store::ROWS),
    ("statements", signer::STATEMENTS),
    ("what earlier builds have left", artifacts::ROWS),
    ("commits of git repositories", git::ROWS),
    ("frames to the signer", signer::FRAMES),
    ("the chain of receipts", chain::ROWS),
    ("files and processes", disk::ROWS),
];

/// Tells the lies of one group, one after the other.
fn tell(group: &str) {
    let rows = GROUPS.iter().find(|(name, _)| *name == group).unwrap().1;
    let mut scene = Scene::new();
    for row in rows {
        let (lie, why) = (row.lie, row.why);
        let before = match row.by {
            By::Process(part) => scene.recorded(part),
            By::Kernel | By::Label => 0,
        };
        let told = (row.tell)(&mut scene);
        let words = match &told {
            Told::Answer(answer) | Told::Closed(Some(answer)) => Some(answer.to_string()),
            Told::Closed(None) => None,
            Told::Said(code, said) => {
                assert_ne!(*code, 0, "{lie}: it succeeded");
                Some(said.clone())
            }
        };
        // Some are let go without a word; the record has one.
        let heard = words.is_none_or(|words| words.contains(why));
        assert!(heard, "{lie}: {told:?}");
        match row.by {
            By::Process(part) => scene.wait_until_recorded(part, before, why, lie),
            By::Kernel => assert!(matches!(told, Told::Said(..)), "{lie}: {told:?}"),
            By::Label => assert!(matches!(told, Told::Answer(_)), "{lie}: {told:?}"),
        }
    }
    // The control: told the truth, they do what they are for.
    let honest = scene::spec("echo honest > out");
    scene.spawner = scene.connect(Part::Spawner);
    let attempt = scene.build(&honest);
    let told = scene.tell(Part::Signer, &scene::attest(&attempt, &honest));
    assert!(
        matches!(&told, Told::Answer(answer) if answer["kind"] == "attested"),
        "{told:?}"
    );
    assert!(scene.bundle(&attempt).is_some());
}

/// The table as SECURITY.md has it.
fn written() -> String {
    let rows = GROUPS.iter().flat_map(|(_, rows)| rows.iter());
    let rows = rows.map(|row| {
        let by = match row.by {
            By::Process(part) => part.short(),
            By::Kernel => "the kernel",
            By::Label => "nobody, but labelled",
        };
        format!("| {} | {by} | {} |\n", row.lie, row.why)
    });
    rows.collect()
}

#[test]
fn the_table_of_lies_is_security_mds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
    let security = fs::read_to_string(path).unwrap();
    assert!(
        security.contains(&written()),
        "SECURITY.md, \"A belljard that lies\", has to have these rows:\n{}",
        written()
    );
}

/// One test for each group, and that none is missing.
macro_rules! groups {
    ($($test:ident: $group:literal,)*) => {
        $(
            #[test]
            fn $test() {
                tell($group);
            }
        )*

        #[test]
        fn every_group_of_lies_has_its_test_and_fits_the_record() {
            let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
            assert_eq!([$($group),*].as_slice(), names.as_slice());
            for (name, rows) in GROUPS {
                for part in Part::ALL {
                    let of_it = rows.iter().filter(|row| row.by == By::Process(part));
                    let most = belljar_core::bounds::REFUSALS_LOGGED as usize;
                    assert!(of_it.count() <= most, "{name}: {part:?}");
                }
            }
        }
    };
}

groups! {
    frames_that_lie_to_the_spawner: "frames to the spawner",
    operations_out_of_order: "the order of operations",
    plans_that_lie: "plans",
    root_file_systems_that_nobody_has_listed: "root file systems",
    lies_to_the_store: "the store",
    lies_that_are_to_be_signed: "statements",
    artifacts_that_nobody_has_left: "what earlier builds have left",
    commits_that_were_not_asked_for: "commits of git repositories",
    frames_that_lie_to_the_signer: "frames to the signer",
    receipts_that_somebody_else_has_changed: "the chain of receipts",
    lies_by_files_and_processes: "files and processes",
}
