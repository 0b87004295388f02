use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use belljar_tests::{Instance, Part, Project, overwrite, tool, wait_for};
use serde_json::Value;

use crate::disk::Disk;
use crate::{append, can_be_fetched, name, reconfigure, started, status};

/// What is told when all was read once more.
fn scrubbed(instance: &mut Instance) -> Value {
    let begun = instance.tell("store scrub", &["--json"]).assert_code(0);
    assert_eq!(begun.json("belljar.scrub/v1")["scrub"]["running"], true);
    wait_for("the end of a scrub", Duration::from_secs(60), || {
        let told = status(instance);
        // What was counted just before holds for a moment.
        let is_later = told["counted"].as_str() > told["scrub"]["ended"].as_str();
        (told["scrub"]["running"] == false && is_later).then_some(told)
    })
}

/// What is told once all that is damaged is whole again: a count holds for a while.
fn mended(instance: &mut Instance) -> Value {
    wait_for("all is whole again", Duration::from_secs(60), || {
        let told = status(instance);
        let damaged = told["damaged"].as_array().unwrap();
        let whole = damaged.iter().all(|one| one["mended"] == true);
        (whole && !damaged.is_empty()).then_some(told)
    })
}

#[test]
fn an_object_that_has_rotted_is_found_put_aside_and_told_of_with_its_builds() {
    let mut instance = started("", "");
    reconfigure(&mut instance, Part::Belljard, |text| {
        text.replace("every_seconds = 86400", "every_seconds = 1")
    });
    let run = instance.run(&Project::script("echo made > out"));
    run.assert_succeeded();
    let build = name(&run);
    let artifact = run.json["artifacts"][0]["object"].clone();
    let digest = artifact["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let store = instance.state().join("store");
    let path = belljar_cas::path_of(&store, belljar_core::Digest::from_hex(hex).unwrap());
    overwrite(&path, b"mad3\n");
    let told = scrubbed(&mut instance);
    assert_eq!(told["scrub"]["damaged"], 1, "{told}");
    let due =
        serde_json::json!([{"digest": digest, "builds": [build], "image": false, "mended": false}]);
    assert_eq!(told["damaged"], due);
    assert_eq!(told["quarantine"]["files"], 1);
    // It is never served, and who has its content may give it again.
    assert!(!can_be_fetched(&mut instance, &build));
    let client = instance.client();
    let shown = instance.tell("store status", &[]).assert_code(0).printed;
    let (row, sum) = (
        format!("damaged      {digest}; missing; needed by "),
        "1 put aside; 1 of the objects is missing",
    );
    assert!(shown.contains(&row) && shown.contains(sum), "{shown}");
    client.put(b"made\n");
    assert!(can_be_fetched(&mut instance, &build));
    // It is whole again, and what was put aside is there still.
    let told = mended(&mut instance);
    assert_eq!(told["damaged"][0]["digest"], digest);
    assert_eq!(told["quarantine"]["files"], 1);
    let shown = instance.tell("store status", &[]).assert_code(0).printed;
    let (row, sum) = (
        row.replace("missing", "whole again"),
        "1 put aside; none of the objects is missing",
    );
    assert!(shown.contains(&row) && shown.contains(sum), "{shown}");
    wait_for("the event", Duration::from_secs(30), || {
        let said = instance.said(Part::Belljard);
        let event = |line: &str| line.contains("was put aside") && line.contains(&build);
        said.lines().any(event).then_some(())
    });
}

#[test]
fn an_object_that_turns_out_damaged_when_it_is_read_is_put_aside_and_can_be_given_again() {
    let mut instance = started("", "");
    reconfigure(&mut instance, Part::Belljard, |text| {
        text.replace("every_seconds = 86400", "every_seconds = 1")
    });
    let store = instance.state().join("store");
    // One with other bytes, and one that is cut.
    for (number, (content, rotted)) in [("whole\n", "wh0le\n"), ("other\n", "oth")]
        .into_iter()
        .enumerate()
    {
        let run = instance.run(&Project::script(&format!("printf '{content}' > out")));
        run.assert_succeeded();
        let object = belljar_core::ObjectId::of(content.as_bytes());
        overwrite(
            &belljar_cas::path_of(&store, object.digest),
            rotted.as_bytes(),
        );
        let client = instance.client();
        let refused = client.read(object);
        assert!(refused.is_err(), "{refused:?}");
        wait_for("the object put aside", Duration::from_secs(30), || {
            let told = status(&mut instance);
            let damaged = &told["damaged"].as_array().unwrap();
            let digest = object.digest.to_string();
            let aside = damaged.iter().any(|one| one["digest"] == digest);
            aside.then_some(())
        });
        assert_eq!(client.missing(&[object]).len(), 1);
        client.put(content.as_bytes());
        assert_eq!(client.read(object).unwrap(), content.as_bytes());
        // What was never there is nobody's trouble.
        assert!(client.read(belljar_core::ObjectId::of(b"never")).is_err());
        let told = status(&mut instance);
        assert_eq!(told["quarantine"]["files"], number + 1, "{told}");
    }
}

#[test]
fn an_input_that_has_rotted_costs_one_build_and_is_asked_for_again() {
    let mut instance = started("", "");
    let project = Project::script("cat in > out");
    project.write("in", "good\n");
    instance.run(&project).assert_succeeded();
    let object = belljar_core::ObjectId::of(b"good\n");
    let store = instance.state().join("store");
    overwrite(&belljar_cas::path_of(&store, object.digest), b"rot!\n");
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 8, "{run}");
    run.assert_no_provenance();
    // It was put aside then, without a scrub: so the source is sent once more.
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"good\n");
    let told = status(&mut instance);
    assert_eq!(told["damaged"][0]["digest"], object.digest.to_string());
    assert_eq!(told["quarantine"]["files"], 1, "{told}");
}

#[test]
fn an_image_that_has_rotted_is_put_aside_and_made_anew_and_nobody_mounts_it_any_more() {
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    append(&instance, Part::Belljard, "[store]\nevery_seconds = 1\n");
    reconfigure(&mut instance, Part::Belljard, |text| text);
    let project = Project::script("cat in > out");
    project.write("in", "good\n");
    let run = instance.run(&project);
    run.assert_succeeded();
    let build = name(&run);
    let store = instance.state().join("store");
    let tree = run.json["spec"]["source"]["digest"].as_str().unwrap();
    let hex = tree.strip_prefix("sha256:").unwrap();
    let mut images = fs::read_dir(store.join("images"))
        .unwrap()
        .map(|image| image.unwrap());
    let image = images.find(|image| image.file_name().to_str().unwrap().starts_with(hex));
    let image = image.unwrap().path();
    let good = fs::read(&image).unwrap();
    disk.rot(&image, 1500);
    assert_ne!(fs::read(&image).unwrap(), good);
    let told = scrubbed(&mut instance);
    assert_eq!(told["scrub"]["damaged"], 1, "{told}");
    let due =
        serde_json::json!([{"digest": tree, "builds": [build], "image": true, "mended": false}]);
    assert_eq!(told["damaged"], due);
    assert_eq!(told["quarantine"]["files"], 1);
    assert!(!image.exists());
    wait_for("the event", Duration::from_secs(30), || {
        let said = instance.said(Part::Belljard);
        let event = |line: &str| line.contains("an image is damaged") && line.contains(&build);
        said.lines().any(event).then_some(())
    });
    // The spawner has it mounted still, and takes what is made anew all the same.
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"good\n");
    assert_eq!(fs::read(&image).unwrap(), good);
    mended(&mut instance);
    let spawner = instance.pid_of(Part::Spawner);
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{spawner}/fd"))
        .unwrap()
        .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
        .collect();
    assert!(open.contains(&image), "{open:?}");
    assert!(!open.contains(&store.join("quarantine").join(image.file_name().unwrap())));
    assert_eq!(scrubbed(&mut instance)["scrub"]["damaged"], 0);
}

#[test]
fn objects_that_the_disk_does_not_give_are_put_aside_as_long_as_they_are_few_and_can_be_sent_again()
{
    let disk = Disk::new();
    let mut instance = Instance::below(&disk.path());
    instance.start();
    let run = instance.run(&Project::script("echo made > out"));
    run.assert_succeeded();
    let build = name(&run);
    let made = b"made\n".to_vec();
    let others: Vec<Vec<u8>> = (0..20).map(|n| format!("{n}\n").into_bytes()).collect();
    let client = instance.client();
    for content in &others {
        client.put(content);
    }
    let store = instance.state().join("store");
    let path = |content: &Vec<u8>| belljar_cas::path_of(&store, belljar_core::Digest::of(content));
    let withhold = |instance: &mut Instance, contents: &[Vec<u8>]| {
        for part in [Part::Belljard, Part::Store] {
            instance.end_part(part);
        }
        disk.withhold(&contents.iter().map(path).collect::<Vec<_>>());
        for part in [Part::Store, Part::Belljard] {
            instance.start_part(part);
        }
    };
    // One.
    withhold(&mut instance, std::slice::from_ref(&made));
    let told = scrubbed(&mut instance);
    assert_eq!(
        (&told["scrub"]["damaged"], &told["scrub"]["unread"]),
        (&1.into(), &0.into()),
        "{told}"
    );
    let digest = belljar_core::ObjectId::of(&made).digest.to_string();
    let due =
        serde_json::json!([{"digest": digest, "builds": [build], "image": false, "mended": false}]);
    assert_eq!(told["damaged"], due);
    assert!(!can_be_fetched(&mut instance, &build));
    instance.client().put(&made);
    assert!(can_be_fetched(&mut instance, &build));
    // Many: that is the disk.
    withhold(&mut instance, &others);
    let told = scrubbed(&mut instance);
    assert_eq!(
        (&told["scrub"]["damaged"], &told["scrub"]["unread"]),
        (&16.into(), &4.into()),
        "{told}"
    );
    assert_eq!(told["quarantine"]["files"], 17);
    let stays: Vec<_> = others
        .iter()
        .filter(|content| path(content).exists())
        .collect();
    assert_eq!(stays.len(), 4);
    // What stays is replaced by who sends it.
    instance.client().put(stays[0]);
    assert_eq!(&fs::read(path(stays[0])).unwrap(), stays[0]);
    assert_eq!(scrubbed(&mut instance)["scrub"]["unread"], 3);
    assert!(can_be_fetched(&mut instance, &build));
}

#[test]
fn an_image_that_has_rotted_is_mounted_no_more_once_the_store_has_made_it_anew() {
    let mut instance = started("", "");
    let project = Project::script("cat a > out");
    project.write("a", "good\n");
    project.write("b", "evil\n");
    instance.run(&project).assert_succeeded();
    // What was rot until now: the name of one object where that of another was, and nobody has written to the file.
    let place = |content: &[u8]| {
        let hex = belljar_core::Digest::of(content).to_hex();
        format!("/{}/{}", &hex[..2], &hex[2..]).into_bytes()
    };
    let (good, evil) = (place(b"good\n"), place(b"evil\n"));
    let mut rotted = 0;
    for image in fs::read_dir(instance.state().join("store/images")).unwrap() {
        let path = image.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let mut places = bytes.windows(good.len()).enumerate();
        let Some((at, _)) = places.find(|(_, bytes)| *bytes == good) else {
            continue;
        };
        let file = fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&evil, at as u64).unwrap();
        let times = fs::FileTimes::new().set_modified(modified);
        file.set_times(times).unwrap();
        rotted += 1;
    }
    assert_eq!(rotted, 1);
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"good\n");
}

/// Puts another directory in the place of the one that all objects are in, with the same in it.
fn swap_objects(store: &std::path::Path) {
    tool(store, "mv", &["objects", "before"]);
    tool(store, "cp", &["-a", "before", "objects"]);
}

#[test]
fn builds_read_objects_where_the_store_has_them_also_when_they_were_restored() {
    let mut instance = started("", "");
    let project = Project::script("cat in > out");
    project.write("in", "good\n");
    instance.run(&project).assert_succeeded();
    let store = instance.state().join("store");
    let object = belljar_core::ObjectId::of(b"good\n");
    let place = belljar_cas::path_of(&store, object.digest);
    let begin_anew = |instance: &mut Instance| {
        for part in [Part::Store, Part::Belljard] {
            instance.end_part(part);
            instance.start_part(part);
        }
    };
    // Somebody has found damage, and brings back what was saved before.
    swap_objects(&store);
    let below = place.strip_prefix(store.join("objects")).unwrap();
    overwrite(&store.join("before").join(below), b"rot!\n");
    begin_anew(&mut instance);
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"good\n");
    // What is put there while the store runs it does not have; nobody gets it then.
    tool(&store, "rm", &["-r", "before"]);
    swap_objects(&store);
    overwrite(&place, b"rot!\n");
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 8, "{run}");
    run.assert_no_provenance();
    assert!(run.outcome().to_string().contains("restart it"), "{run}");
    tool(&store, "rm", &["-r", "objects"]);
    tool(&store, "mv", &["before", "objects"]);
    begin_anew(&mut instance);
    instance.run(&project).assert_succeeded();
}

#[test]
fn where_processes_end_with_the_command_a_scrub_is_waited_for() {
    let mut instance = Instance::new();
    instance
        .run(&Project::script("echo made > out"))
        .assert_succeeded();
    let made = belljar_core::Digest::of(b"made\n");
    let store = instance.state().join("store");
    overwrite(&belljar_cas::path_of(&store, made), b"rot!\n");
    let told = instance.tell("store scrub", &["--json"]).assert_code(0);
    let told = &told.json("belljar.scrub/v1")["scrub"];
    assert_eq!(
        (&told["running"], &told["damaged"]),
        (&false.into(), &1.into()),
        "{told}"
    );
}
