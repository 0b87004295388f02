use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn past_builds_are_told_of_where_no_daemon_runs() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script("echo said; echo made > out"));
    run.assert_succeeded();
    let name = run.json["build"].as_str().unwrap().to_owned();
    let listed = instance.tell("list", &["--json"]).assert_code(0);
    let listed = listed.json("belljar.list/v1");
    assert_eq!(listed["builds"][0]["build"], name.as_str());
    let shown = instance.tell("show", &[&name, "--json"]).assert_code(0);
    assert_eq!(
        shown.json("belljar.build/v1")["outcome"],
        json!({"kind": "succeeded"})
    );
    let logged = instance.tell("logs", &[&name]).assert_code(0);
    assert_eq!(logged.printed, "said\n");
    let home = tempfile::tempdir().unwrap();
    let at = home.path().to_str().unwrap();
    instance
        .tell("fetch", &[&name, "--output", at])
        .assert_code(0);
    assert_eq!(std::fs::read(home.path().join("out")).unwrap(), b"made\n");
    instance.tell("audit show", &[&name]).assert_code(0);
    // Nobody would do it.
    let project = Project::script(": > out");
    let dir = project.path().to_str().unwrap();
    let told = instance.tell("submit", &[dir, "--json"]).assert_code(10);
    let error = told.json("belljar.error/v1");
    assert!(
        error["hint"].as_str().unwrap().contains("belljar run"),
        "{error}"
    );
}

#[test]
fn looking_begins_no_build_and_watching_does() {
    let mut instance = Instance::new();
    instance.run(&Project::script(": > out")).assert_succeeded();
    // A run that is killed leaves its build in flight.
    let project = Project::script("echo begun; sleep 1; echo made > out");
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    running.kill();
    let listed = instance
        .tell("list", &["--json", "--limit", "1"])
        .assert_code(0);
    let listed = listed.json("belljar.list/v1");
    let name = listed["builds"][0]["build"].as_str().unwrap().to_owned();
    // However often it is looked at, it waits; and no attempt is spent.
    for _ in 0..3 {
        let shown = instance.tell("show", &[&name, "--json"]).assert_code(0);
        let shown = shown.json("belljar.build/v1");
        assert_eq!(
            (&shown["attempt"], &shown["outcome"]),
            (&json!(1), &json!(null))
        );
    }
    let watched = instance.tell("watch", &[&name, "--json"]).assert_code(0);
    let watched = watched.json("belljar.build/v1");
    assert_eq!(
        (&watched["attempt"], &watched["state"]),
        (&json!(2), &json!("ENDED"))
    );
}
