use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bazel_remote_apis::google::bytestream::WriteRequest;
use belljar_core::{Digest, ObjectId, Outcome, Recipe};
use belljar_tests::{Client, Instance, Part, Project, wait_for};
use belljar_wire::Reason;
use tonic::{Code, Status};

use crate::disk::Disk;
use crate::{LEASE, append, reconfigure, started, sweep};

#[test]
fn when_only_the_reserve_is_left_callers_are_refused_with_the_reason() {
    let mut instance = started("", "");
    let client = instance.client();
    let spec = client.spec(&[("in", "x")], &["cp in out"], &["out"]);
    let build = client.submit("before", &spec).unwrap().id;
    client.until(&build, |build| build.outcome.is_some());
    // More than any disk has.
    append(
        &instance,
        Part::Store,
        "reserve_bytes = 1152921504606846976\n",
    );
    reconfigure(&mut instance, Part::Store, |text| text);
    let refused = client.submit("after", &spec).unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted, "{refused:?}");
    for words in [
        "are kept for builds that run",
        "belljar store status",
        "belljar store gc",
    ] {
        assert!(refused.message.contains(words), "{refused:?}");
    }
    assert!(refused.retry_after.is_some());
    // What was accepted before is the same build still.
    assert_eq!(client.submit("before", &spec).unwrap().id, build);
    let content = vec![7; 3 << 20];
    let refused = client
        .stream_as(ObjectId::of(&content), &content)
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("belljar store gc"),
        "{refused:?}"
    );
    assert_eq!(
        client.put_as(ObjectId::of(b"more"), b"more"),
        Code::ResourceExhausted
    );
    let run = instance.run(&Project::script(": > out"));
    assert_eq!(run.exit_code, 8, "{run}");
    assert!(run.said.contains("belljar store status"), "{run}");
    reconfigure(&mut instance, Part::Store, |text| {
        text.replace("reserve_bytes = 1152921504606846976", "reserve_bytes = 0")
    });
    let client = instance.client();
    let build = client.submit("after", &spec).unwrap().id;
    let ended = client.until(&build, |build| build.outcome.is_some());
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
}

/// Every object is what its name says.
fn assert_whole(state: &Path) {
    for prefix in fs::read_dir(state.join("store/objects/sha256")).unwrap() {
        let prefix = prefix.unwrap();
        for object in fs::read_dir(prefix.path()).unwrap() {
            let object = object.unwrap();
            let names = [prefix.file_name(), object.file_name()];
            let name = names.map(|name| name.into_string().unwrap()).concat();
            let content = fs::read(object.path()).unwrap();
            assert_eq!(Digest::of(&content).to_hex(), name);
        }
    }
}

#[test]
fn a_disk_that_is_full_costs_no_more_than_what_runs_meanwhile() {
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let client = instance.client();
    let outcome = |id| {
        client
            .until(id, |build| build.outcome.is_some())
            .outcome
            .unwrap()
    };
    let wait = "echo begun; while [ ! -e /tmp/x ]; do sleep 0.1; i=$((${i:-0} + 1)); [ $i -lt 30 ] || touch /tmp/x; done";
    let run = [
        wait,
        "head -c 3000000 /dev/urandom > out; head -c 3000000 /dev/urandom | od",
    ];
    let spec = client.spec(&[("in", "x")], &run, &["out"]);
    let running = client.submit("runs", &spec).unwrap().id;
    instance.wait_until_logged("begun");
    disk.fill();
    let refused = client.put_as(ObjectId::of(b"more"), b"more");
    assert_eq!(refused, Code::ResourceExhausted);
    let refused = client.submit("refused", &spec).unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted, "{refused:?}");
    // It ends while there is no room, as far as that can be written down.
    std::thread::sleep(Duration::from_secs(8));
    disk.fill();
    fs::remove_file(disk.path().join("filler")).unwrap();
    match outcome(&running) {
        Outcome::Infrastructure { why, .. } => assert!(!why.is_empty()),
        Outcome::Succeeded | Outcome::LimitExceeded { .. } => {}
        other => panic!("{other}"),
    }
    assert_whole(instance.state());
    // Afterwards all is well again.
    let again = wait_for("a build to be accepted", Duration::from_secs(30), || {
        client.submit("again", &spec).ok()
    });
    assert_eq!(outcome(&again.id), Outcome::Succeeded);
    instance
        .run(&Project::script("echo made > out"))
        .assert_succeeded();
    sweep(&mut instance, &["--all"]);
    assert_whole(instance.state());
    drop(client);
    drop(instance);
}

/// Sends a part of an object.
fn send(client: &Client, content: &[u8], from: usize, to: usize) -> Result<(), Status> {
    let object = ObjectId::of(content);
    let name = format!(
        "uploads/7d1c7a2e-62d5-4f0c-9f0e-3c1f6f0e1c2b/blobs/{}/{}",
        object.digest.to_hex(),
        object.size
    );
    let pieces = content[from..to].chunks(1 << 20).enumerate();
    let requests = pieces.map(|(number, piece)| WriteRequest {
        resource_name: name.clone(),
        write_offset: i64::try_from(from + (number << 20)).unwrap(),
        finish_write: from + (number << 20) + piece.len() == content.len(),
        data: piece.to_vec(),
    });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    client.wait(client.streams().write(requests)).map(drop)
}

#[test]
fn garbage_is_collected_where_nothing_more_fits_on_the_disk() {
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    append(&instance, Part::Store, "grace_seconds = 1\n");
    let keeping =
        "[store]\nlease_seconds = 1\nevery_seconds = 86400\n[store.retention]\nbuilds = 1\n";
    append(&instance, Part::Belljard, keeping);
    for part in [Part::Store, Part::Belljard] {
        reconfigure(&mut instance, part, |text| text);
    }
    for seed in 0..3 {
        let script = format!("yes {seed} | head -c 4000000 > out");
        instance.run(&Project::script(&script)).assert_succeeded();
    }
    std::thread::sleep(LEASE);
    disk.fill();
    assert_eq!(disk.available(), 0);
    let swept = sweep(&mut instance, &["--all"]);
    assert_eq!(swept["builds"], 3, "{swept}");
    assert!(disk.available() >= 3_000_000, "{swept}");
    assert_whole(instance.state());
    // What helped is there again for the next time. Without it somebody has to make room, and is told so.
    fs::remove_file(instance.state().join("daemon/ballast")).unwrap();
    instance
        .run(&Project::script("echo another > out"))
        .assert_succeeded();
    disk.fill();
    let refused = instance.tell("store gc", &["--all"]);
    assert!(refused.said.contains("make some room"), "{refused:?}");
    fs::remove_file(disk.path().join("filler")).unwrap();
    sweep(&mut instance, &["--all"]);
    assert!(instance.state().join("daemon/ballast").exists());
    drop(instance);
}

#[test]
fn an_upload_that_was_let_in_does_not_use_the_reserve_up() {
    const RESERVE: u64 = 24 << 20;
    const SIZE: usize = 22 << 20;
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let reserve = format!("reserve_bytes = {RESERVE}\n");
    append(&instance, Part::Store, &reserve);
    reconfigure(&mut instance, Part::Store, |text| text);
    let client = instance.client();
    let content = vec![7; SIZE];
    // There was room for it when it began. Then others came, as they do.
    let begun = send(&client, &content, 0, 1 << 20).unwrap_err();
    assert!(begun.message().contains("go on"), "{begun:?}");
    disk.leave(RESERVE + (1 << 20));
    let refused = send(&client, &content, 1 << 20, SIZE).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("belljar store gc"),
        "{refused:?}"
    );
    // What it used of the reserve is there again.
    let there = disk.available();
    assert!(there >= RESERVE, "{there}");
    drop(client);
    drop(instance);
}

#[test]
fn uploads_that_were_let_in_do_not_use_the_reserve_up_together() {
    const RESERVE: u64 = 24 << 20;
    const SIZE: usize = 9 << 20;
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let reserve = format!("reserve_bytes = {RESERVE}\n");
    append(&instance, Part::Store, &reserve);
    reconfigure(&mut instance, Part::Store, |text| text);
    let client = instance.client();
    let contents = [1, 2, 3, 4].map(|byte| vec![byte; SIZE]);
    for content in &contents {
        let begun = send(&client, content, 0, 1 << 20).unwrap_err();
        assert!(begun.message().contains("go on"), "{begun:?}");
    }
    disk.leave(RESERVE + (10 << 20));
    // None of them alone brings as much as is there, or as much as may come before it is looked.
    let brought = contents.map(|content| send(&client, &content, 1 << 20, 8 << 20).unwrap_err());
    let there = disk.available();
    assert!(there >= RESERVE - (1 << 20), "{there}");
    assert!(brought[0].message().contains("go on"), "{brought:?}");
    let last = &brought[3];
    assert_eq!(last.code(), Code::ResourceExhausted, "{brought:?}");
    assert!(last.message().contains("kept for builds"), "{brought:?}");
    drop(client);
    drop(instance);
}

/// An archive of so many files, each with a content of its own.
fn many(files: u32) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for number in 0..files {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        let content = number.to_be_bytes();
        let path = format!("{number}");
        builder
            .append_data(&mut header, path, &content[..])
            .unwrap();
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&builder.into_inner().unwrap()).unwrap();
    encoder.finish().unwrap()
}

/// Has the store, which keeps so many bytes, make a tree of 6000 small files, for which there is no room. Gives the disk's state
/// afterwards.
fn unpacked(disk: &Disk, reserve: u64, leave: Option<u64>) -> rustix::fs::StatVfs {
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let reserve = format!("reserve_bytes = {reserve}\n");
    append(&instance, Part::Store, &reserve);
    reconfigure(&mut instance, Part::Store, |text| text);
    let client = instance.client();
    let archive = client.put(&many(6000));
    if let Some(bytes) = leave {
        disk.leave(bytes);
    }
    let refused = client.derive(&Recipe::Tar { archive }).unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted, "{refused:?}");
    assert!(
        refused.message.contains("kept for builds that run"),
        "{refused:?}"
    );
    let space = rustix::fs::statvfs(disk.path()).unwrap();
    drop(client);
    drop(instance);
    space
}

#[test]
fn small_files_of_an_archive_do_not_use_the_reserve_up() {
    const RESERVE: u64 = 24 << 20;
    // Their contents have 24 KB together, and 24 MB of blocks.
    let disk = Disk::new();
    let space = unpacked(&disk, RESERVE, Some(RESERVE + (8 << 20)));
    let there = space.f_bavail * space.f_frsize;
    // Directories of objects grow, too.
    assert!(there + (2 << 20) >= RESERVE, "{there}");
}

#[test]
fn of_files_that_a_disk_can_have_as_large_a_part_is_kept_as_of_its_bytes() {
    let disk = Disk::of(&["-N", "4096"]);
    let space = unpacked(&disk, 16 << 20, None);
    let all = space.f_blocks * space.f_frsize;
    let kept = space.f_files * (16 << 20) / all;
    assert!(space.f_favail + 300 >= kept, "{} of {kept}", space.f_favail);
}
