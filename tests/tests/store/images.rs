use belljar_core::{BuildSpec, ObjectId, Outcome};
use belljar_tests::{Client, Instance, Part, wait_for};
use belljar_tree::{Directory, DirectoryNode, FileNode, Name};
use std::time::Duration;

use crate::disk::Disk;
use crate::{LEASE, append, reconfigure, sweep};

/// A tree that is half a megabyte as it is sent, and more than ten as an image: the same directory at many places.
fn wide(client: &Client) -> ObjectId {
    let name = |text: String| Name::new(text).unwrap();
    let file = |number: usize| FileNode {
        name: name(format!("{number:0>200}")),
        object: ObjectId::of(b""),
        executable: false,
        properties: None,
    };
    let below = Directory::new((0..2000).map(file).collect(), vec![], vec![]).unwrap();
    let object = client.put(&below.encode());
    let node = |number: usize| DirectoryNode {
        name: name(format!("{number}")),
        object,
    };
    let top = Directory::new(vec![], (0..20).map(node).collect(), vec![]).unwrap();
    client.put(&top.encode())
}

/// A build on that tree.
fn spec(client: &Client) -> BuildSpec {
    BuildSpec {
        source: wide(client),
        ..client.spec(&[], &["echo made > out"], &["out"])
    }
}

/// What came of it, if it was accepted.
fn built(client: &Client, request: &str, spec: &BuildSpec) -> Option<Outcome> {
    let build = client.submit(request, spec).ok()?.id;
    client
        .until(&build, |build| build.outcome.is_some())
        .outcome
}

fn on(disk: &Disk, reserve: u64) -> Instance {
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let store = format!("grace_seconds = 1\nreserve_bytes = {reserve}\n");
    append(&instance, Part::Store, &store);
    let keeping = "[store]\nlease_seconds = 1\nevery_seconds = 86400\n";
    append(&instance, Part::Belljard, keeping);
    for part in [Part::Store, Part::Belljard] {
        reconfigure(&mut instance, part, |text| text);
    }
    instance
}

#[test]
fn images_of_trees_that_are_kept_make_room_when_there_is_too_little() {
    let disk = Disk::new();
    let mut instance = on(&disk, 4 << 20);
    let client = instance.client();
    let (mut swept, mut spec) = (0, spec(&client));
    for time in 0..12 {
        // Each time of the files is another image.
        spec.source_date_epoch += 1;
        if built(&client, &format!("first-{time}"), &spec) == Some(Outcome::Succeeded) {
            continue;
        }
        // As whoever is refused is told.
        std::thread::sleep(LEASE);
        sweep(&mut instance, &[]);
        swept += 1;
        wait_for("room for a build", Duration::from_secs(30), || {
            let request = format!("again-{time}-{:?}", std::time::Instant::now());
            let request = request.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            (built(&client, &request, &spec)? == Outcome::Succeeded).then_some(())
        });
    }
    assert!((1..12).contains(&swept), "{swept}");
    drop(client);
    drop(instance);
}

#[test]
fn an_image_of_a_tree_does_not_use_the_reserve_up() {
    const RESERVE: u64 = 20 << 20;
    let disk = Disk::new();
    let instance = on(&disk, RESERVE);
    let client = instance.client();
    let spec = spec(&client);
    disk.leave(RESERVE + (2 << 20));
    let build = client.submit("r", &spec).unwrap().id;
    let ended = client.until(&build, |build| build.outcome.is_some());
    let Some(Outcome::Infrastructure { why, .. }) = &ended.outcome else {
        panic!("{ended:?}")
    };
    assert!(why.contains("belljar store gc"), "{why}");
    let there = disk.available();
    assert!(there >= RESERVE - (2 << 20), "{there}");
    // A small one costs nobody anything.
    let small = client.spec(&[("in", "x")], &["cp in out"], &["out"]);
    let build = client.submit("small", &small).unwrap().id;
    let ended = client.until(&build, |build| build.outcome.is_some());
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
    drop(client);
    drop(instance);
}
