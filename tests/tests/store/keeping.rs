use belljar_core::{ObjectId, Recipe};
use belljar_tests::{Instance, Part, Project, Run};
use belljar_tree::{Directory, DirectoryNode, Leaf, Name, build as tree_of};

use crate::{LEASE, can_be_fetched, counted, du, name, reconfigure, started, status, sweep};

/// A build of its own, with an artifact of so many bytes.
fn build(instance: &mut Instance, seed: &str, bytes: usize) -> Run {
    let script = format!("yes {seed} | head -c {bytes} > out");
    let run = instance.run(&Project::script(&script));
    run.assert_succeeded();
    run
}

#[test]
fn builds_are_given_up_by_count_and_pinned_ones_and_all_evidence_stay() {
    let mut instance = started("", "[store.retention]\nbuilds = 1");
    let [pinned, old, new] = ["a", "b", "c"].map(|seed| name(&build(&mut instance, seed, 5000)));
    let pin = instance.tell("store pin", &[&pinned, "--reason", "shipped", "--json"]);
    let pin = pin.assert_code(0).json("belljar.pin/v1")["pin"].clone();
    assert_eq!(
        (&pin["target"], &pin["reason"]),
        (&pinned.as_str().into(), &"shipped".into())
    );
    assert_eq!(status(&mut instance)["pins"], serde_json::json!([pin]));
    std::thread::sleep(LEASE);
    let before = du(instance.state());
    let swept = sweep(&mut instance, &["--all"]);
    // The one that goes with every instance, and one of these.
    assert_eq!(swept["builds"], 2, "{swept}");
    assert!(swept["removed_objects"].as_u64().unwrap() > 0, "{swept}");
    let freed = before.saturating_sub(du(instance.state()));
    assert!(
        freed.abs_diff(swept["removed_bytes"].as_u64().unwrap()) <= before / 100,
        "{freed}: {swept}"
    );
    let there = [&pinned, &old, &new].map(|build| can_be_fetched(&mut instance, build));
    assert_eq!(there, [true, false, true]);
    // Years later somebody asks: its story is whole, and so is what was signed.
    let told = instance
        .tell("audit show", &[&old, "--json"])
        .assert_code(0);
    let told = told.json("belljar.audit/v1");
    assert!(
        told["verdict"].is_object() && told["receipt"].is_object(),
        "{told}"
    );
    let (told, du) = (counted(&status(&mut instance)), du(instance.state()));
    assert!(told.abs_diff(du) * 100 <= du, "{told} of {du}");
    // And its log is not taken for an empty one.
    let log = instance.tell("logs", &[&old]).assert_code(2);
    assert!(log.said.contains("given up at"), "{log:?}");
    // What is pinned no more goes like the rest.
    let pin = pin["pin"].as_str().unwrap();
    instance.tell("store unpin", &[pin]).assert_code(0);
    instance.tell("store unpin", &[pin]).assert_code(2);
    assert_eq!(sweep(&mut instance, &["--all"])["builds"], 1);
    assert!(!can_be_fetched(&mut instance, &pinned));
    let late = instance.tell("store pin", &[&pinned]).assert_code(2);
    assert!(late.said.contains("given up already"), "{late:?}");
    // Whatever is gone can come again.
    assert!(can_be_fetched(&mut instance, &new));
    build(&mut instance, "b", 5000);
    let said = instance.said(Part::Belljard);
    for event in ["garbage was collected", "pinned", "unpinned"] {
        let by = said
            .lines()
            .any(|line| line.contains(event) && line.contains("unix:uid=0"));
        assert!(by, "{event}: {said}");
    }
}

#[test]
fn builds_are_given_up_by_age_and_by_bytes() {
    let mut instance = started("", "[store.retention]\nbytes = 150000");
    let [old, new] = ["a", "b"].map(|seed| name(&build(&mut instance, seed, 100_000)));
    std::thread::sleep(LEASE);
    // The one that goes with every instance is small, but older.
    assert_eq!(sweep(&mut instance, &["--all"])["builds"], 2);
    let there = [&old, &new].map(|build| can_be_fetched(&mut instance, build));
    assert_eq!(there, [false, true]);
    reconfigure(&mut instance, Part::Belljard, |text| {
        text.replace(
            "[store.retention]\nbytes = 150000",
            "[store.project.default]\nseconds = 1",
        )
    });
    let retention = status(&mut instance)["retention"].clone();
    assert_eq!(retention[0]["seconds"], 90 * 86_400, "{retention}");
    assert_eq!(
        (&retention[1]["project"], &retention[1]["seconds"]),
        (&"default".into(), &1.into())
    );
    // It may have ended in the second in which the first sweep was.
    std::thread::sleep(LEASE);
    assert_eq!(sweep(&mut instance, &["--all"])["builds"], 1);
    assert!(!can_be_fetched(&mut instance, &new));
}

#[test]
fn what_was_used_longest_ago_goes_first_and_no_more_than_is_due() {
    // However much of the disk is used, it is too much; and as much as there may be is never reached.
    let mut instance = started("", "high_percent = 1\nlow_percent = 0");
    let client = instance.client();
    let put = |seed: u8| {
        let content = vec![seed; 100_000];
        client.put(&content)
    };
    let objects: Vec<ObjectId> = (0..4).map(put).collect();
    std::thread::sleep(LEASE);
    // Whoever asks whether something is there has it for a while.
    assert!(client.missing(&objects[1..2]).is_empty());
    let swept = sweep(&mut instance, &["--all"]);
    assert_eq!(client.missing(&objects).len(), 3, "{swept}");
    assert!(client.missing(&objects[1..2]).is_empty());
    // Asked for again, it would be told that it is missing, and sent again.
    let again = put(0);
    assert!(client.missing(&[again]).is_empty());
    // A tree and a blob are pinned by digest; what is not there cannot be.
    let hex = again.digest.to_hex();
    let blob = format!("blobs/{hex}/{}", again.size);
    instance.tell("store pin", &[&blob]).assert_code(0);
    instance
        .tell("store pin", &[&format!("blobs/{hex}/7")])
        .assert_code(2);
    let build = client.submit(
        "r",
        &client.spec(&[("in", "of the tree")], &["cp in out"], &["out"]),
    );
    let build = build.unwrap();
    let source = build.spec.source;
    instance
        .tell(
            "store pin",
            &[&format!("trees/{}/{}", source.digest.to_hex(), source.size)],
        )
        .assert_code(0);
    client.until(&build.id, |build| build.outcome.is_some());
    std::thread::sleep(LEASE);
    sweep(&mut instance, &["--all"]);
    assert!(
        client
            .missing(&[again, ObjectId::of(b"of the tree")])
            .is_empty()
    );
    assert!(!client.missing(&objects[1..2]).is_empty());
}

#[test]
fn a_disk_that_is_used_beyond_the_high_mark_is_swept_without_being_asked() {
    let mut instance = started("", "high_percent = 1\nlow_percent = 0");
    reconfigure(&mut instance, Part::Belljard, |text| {
        text.replace("every_seconds = 86400", "every_seconds = 1")
    });
    let client = instance.client();
    let object = client.put(b"nobody needs this");
    belljar_tests::wait_for("a sweep", std::time::Duration::from_secs(30), || {
        let path = belljar_cas::path_of(&instance.state().join("store"), object.digest);
        (!path.exists()).then_some(())
    });
    let said = instance.said(Part::Belljard);
    let by = said
        .lines()
        .any(|line| line.contains("garbage was collected") && line.contains("belljard"));
    assert!(by, "{said}");
}

#[test]
fn a_pin_of_a_tree_that_names_another_by_a_wrong_size_takes_nothing_from_that() {
    let mut instance = started("", "");
    let client = instance.client();
    let content = b"of a tree that was made";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, "below/file", &content[..])
        .unwrap();
    let archive = client.put(&archive.into_inner().unwrap());
    let tree = client.derive(&Recipe::Tar { archive }).unwrap().input.tree;
    let object = ObjectId::of(content);
    let file = Leaf::File {
        object,
        executable: false,
    };
    let path = belljar_core::RelPath::new("file").unwrap();
    let mut below = tree_of([(path, file)]).unwrap().root;
    below.size += 1;
    let node = DirectoryNode {
        name: Name::new("below").unwrap(),
        object: below,
    };
    let other = Directory::new(vec![], vec![node], vec![]).unwrap();
    let other = client.put(&other.encode());
    let pin = format!("trees/{}/{}", other.digest.to_hex(), other.size);
    instance.tell("store pin", &[&pin]).assert_code(0);
    std::thread::sleep(LEASE);
    // Who is told that it is there has it for a while, with all that is in it.
    assert!(client.missing(&[tree]).is_empty());
    sweep(&mut instance, &["--all"]);
    let path = belljar_cas::path_of(&instance.state().join("store"), object.digest);
    assert!(path.exists());
}
