use std::time::Duration;

use belljar_tests::{Part, Project, overwrite, wait_for};

use crate::{can_be_fetched, name, reconfigure, started, status};

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
    let begun = instance.tell("store scrub", &["--json"]).assert_code(0);
    assert_eq!(begun.json("belljar.scrub/v1")["scrub"]["running"], true);
    let told = wait_for("the end of a scrub", Duration::from_secs(60), || {
        let told = status(&mut instance);
        (told["scrub"]["running"] == false).then_some(told)
    });
    assert_eq!(told["scrub"]["damaged"], 1, "{told}");
    let due = serde_json::json!([{"digest": digest, "builds": [build]}]);
    assert_eq!(told["damaged"], due);
    assert_eq!(told["quarantine"]["files"], 1);
    // It is never served, and who has its content may give it again.
    assert!(!can_be_fetched(&mut instance, &build));
    let client = instance.client();
    client.put(b"made\n");
    assert!(can_be_fetched(&mut instance, &build));
    wait_for("the event", Duration::from_secs(30), || {
        let said = instance.said(Part::Belljard);
        let event = |line: &str| line.contains("was put aside") && line.contains(&build);
        said.lines().any(event).then_some(())
    });
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
