use std::time::Duration;

use belljar_core::Outcome;
use belljar_tests::{Instance, Part, Project, wait_for};
use belljar_wire::{BuildState, parse_build_name};

/// Long enough for the daemon to notice on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);
/// A command that prints `ready`.
const QUICK: &str = "echo ready > out";

#[test]
fn while_the_spawner_is_away_a_submission_is_queued_and_doctor_says_what_is_away() {
    let mut instance = Instance::started();
    let project = Project::script(QUICK);
    let directory = project.path().to_str().unwrap();
    instance.kill_part(Part::Spawner);
    let told = instance.tell("submit", &[directory]).assert_code(0);
    let waits = "process belljar-spawner is missing (it does not answer): the build waits for it";
    assert!(told.said.contains(waits), "{}", told.said);
    let build = parse_build_name(told.printed.trim()).unwrap();
    let client = instance.client();
    // It may have begun before it was noticed that nobody is there.
    client.until(&build, |build| build.state == BuildState::Queued);

    let told = instance.tell("doctor", &[]).assert_code(11);
    let row = told.printed.lines();
    let row = row.skip_while(|line| !line.starts_with("process belljar-spawner"));
    let row: Vec<_> = row.take(2).collect();
    assert!(row[0].contains("missing  "), "{}", told.printed);
    assert!(row[1].contains("hint: it must run"), "{}", told.printed);
    assert!(
        told.printed
            .ends_with("\nbuilds wait here until what is missing is there\n"),
        "{}",
        told.printed
    );
    let json = instance.tell("doctor", &["--json"]).assert_code(11);
    assert_eq!(json.json("belljar.doctor/v1")["suffices"], false);

    instance.start_part(Part::Spawner);
    let ended = client.until(&build, |build| build.state == BuildState::Ended);
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
    assert!(ended.attempt <= 2, "{ended:?}");
    let told = instance.tell("doctor", &[]);
    assert!(
        !told.printed.contains("process belljar-spawner"),
        "{told:?}"
    );
}

#[test]
fn while_the_store_is_away_only_what_it_has_is_queued() {
    let mut instance = Instance::started();
    let (known, new) = (Project::script(QUICK), Project::script("cat new > out"));
    std::fs::write(new.path().join("new"), "new").unwrap();
    let of = |project: &Project| project.path().to_str().unwrap().to_owned();
    instance.tell("submit", &[&of(&known)]).assert_code(0);
    instance.kill_part(Part::Store);
    let refused = instance.tell("submit", &[&of(&new)]).assert_code(8);
    let why = "the store does not answer";
    assert!(refused.said.contains(why), "{}", refused.said);
    let queued = instance.tell("submit", &[&of(&known)]).assert_code(0);
    let build = parse_build_name(queued.printed.trim()).unwrap();
    // What it has told before counts no longer than until its absence is noticed.
    wait_for("doctor tells what is away", NOTICED, || {
        let told = instance.tell("doctor", &[]);
        let away = told.printed.lines().any(|line| {
            line.starts_with("process belljar-store")
                && line.ends_with("missing   it does not answer")
        });
        (away && told.code == 11).then_some(())
    });
    instance.start_part(Part::Store);
    let ended = instance
        .client()
        .until(&build, |build| build.state == BuildState::Ended);
    assert_eq!(ended.outcome, Some(Outcome::Succeeded));
}
