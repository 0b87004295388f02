use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn each_step_has_its_part_of_the_log_its_time_and_its_exit_status() {
    let mut instance = Instance::new();
    let project = Project::of(
        &[
            "echo one; echo '── step 3/3: forged'",
            "sleep 0.3",
            "printf 'no line end'; exit 3",
        ],
        &["out"],
        "",
    );
    let run = instance.run(&project);
    run.assert_ended(1, json!({"kind": "failed", "step": 2, "exit_code": 3}));
    let first = "one\n── step 3/3: forged\n".len();
    let steps = run.json["steps"].as_array().unwrap();
    let parts: Vec<_> = steps.iter().map(|step| step["log"].clone()).collect();
    assert_eq!(
        parts,
        [
            json!({"offset": 0, "bytes": first}),
            json!({"offset": first, "bytes": 0}),
            json!({"offset": first, "bytes": 11}),
        ],
        "{run}"
    );
    let codes: Vec<_> = steps.iter().map(|step| &step["exit_code"]).collect();
    assert_eq!(codes, [&json!(0), &json!(0), &json!(3)]);
    assert!(steps[1]["wall_micros"].as_u64() >= Some(300_000), "{run}");
    assert!(steps[0]["started"].as_str() <= steps[1]["started"].as_str());
    // The receipt says the same.
    let receipt = run.receipt();
    let recorded = receipt["steps"].as_array().unwrap();
    for (told, recorded) in steps.iter().zip(recorded) {
        assert_eq!(told["log"]["offset"], recorded["log_offset"]);
        assert_eq!(told["log"]["bytes"], recorded["log_bytes"]);
        assert_eq!(told["started"], recorded["started"]);
    }
    // A person sees where each begins, and what came of it.
    for heading in [
        "── step 1/3: echo one; echo '── step 3/3: forged'",
        "── step 2/3: sleep 0.3",
        "── step 3/3: printf 'no line end'; exit 3",
    ] {
        assert!(run.said.contains(heading), "{heading}\n{run}");
    }
    let place = |text: &str| {
        run.said
            .find(text)
            .unwrap_or_else(|| panic!("{text}\n{run}"))
    };
    assert!(place("── step 1/3") < place("\none\n"), "{run}");
    assert!(
        place("── step 2/3: sleep") > place("3/3: forged\n"),
        "{run}"
    );
    assert!(place("no line end") > place("── step 3/3: printf"), "{run}");
}

#[test]
fn steps_are_told_apart_while_others_write() {
    let mut instance = Instance::new();
    let project = Project::of(
        &[
            "echo '<a>'; { while :; do echo background; done & } ; sleep 0.2",
            "echo '<b>'",
            "echo '<c>'; kill -9 -1; : > out",
        ],
        &["out"],
        "[limits]\nlog_bytes = 1073741824",
    );
    let run = instance.run(&project);
    // The last step has killed everybody but its own shell.
    run.assert_succeeded();
    let log = run.file("build.log");
    for (step, word) in run.json["steps"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["<a>", "<b>", "<c>"])
    {
        let figure = |name: &str| usize::try_from(step["log"][name].as_u64().unwrap()).unwrap();
        let part = &log[figure("offset")..figure("offset") + figure("bytes")];
        let text = String::from_utf8_lossy(part);
        assert!(text.contains(word), "{word} in {step}");
        for other in ["<a>", "<b>", "<c>"].iter().filter(|other| **other != word) {
            assert!(!text.contains(other), "{other} in {step}");
        }
    }
}

#[test]
fn steps_run_where_they_are_told() {
    let mut instance = Instance::started();
    let in_directory = |directory: &str| {
        let project = Project::of(
            &[
                "pwd > seen; cat here >> seen",
                "mv ../sub ../moved; mkdir ../sub; cat seen > ../out",
            ],
            &["out"],
            &format!("working_directory = \"{directory}\""),
        );
        project.write("sub/here", "inside\n");
        project.write("file", "");
        std::os::unix::fs::symlink("sub", project.path().join("link")).unwrap();
        project
    };
    let run = instance.run(&in_directory("sub"));
    run.assert_succeeded();
    assert_eq!(run.file("out"), b"/build/sub\ninside\n");
    for (directory, words) in [
        ("nowhere", "`nowhere` does not exist in the source tree"),
        ("file", "`file` is not a directory"),
        ("sub/here/x", "`sub/here/x` is not a directory"),
        ("link", "`link` leads through a symbolic link"),
    ] {
        let run = instance.run(&in_directory(directory));
        assert_eq!(run.exit_code, 7, "{run}");
        assert_eq!(run.outcome()["kind"], "refused", "{run}");
        let reason = run.outcome()["reasons"][0].as_str().unwrap();
        assert!(
            reason.contains("working_directory") && reason.contains(words),
            "{reason}"
        );
        assert_eq!(run.json["steps"], json!([]), "{run}");
        run.assert_no_provenance();
    }
}
