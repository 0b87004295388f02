//! The life of a build, through the front door.

use std::os::unix::fs::PermissionsExt;

use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn artifacts_come_home_with_log_and_evidence() {
    let mut instance = Instance::new();
    let project = Project::of(
        &[
            "echo one",
            "cat data/in > app; chmod +x app; mkdir -p doc/sub; echo two >&2",
            "printf three > doc/sub/text; ln -s sub/text doc/link; mkdir doc/empty",
        ],
        &["app", "doc"],
        "",
    );
    project.write("data/in", b"\x00\xffbinary\n");
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.log, "one\ntwo\n");
    assert_eq!(run.file("app"), b"\x00\xffbinary\n");
    let mode = |name: &str| {
        run.output()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("app"), 0o755);
    assert_eq!(mode("doc/sub/text"), 0o644);
    assert_eq!(run.file("doc/sub/text"), b"three");
    let link = std::fs::read_link(run.output().join("doc/link")).unwrap();
    assert_eq!(link.to_str(), Some("sub/text"));
    assert!(run.output().join("doc/empty").is_dir());
    for name in [
        "app.sigstore.json",
        "app.intoto.jsonl",
        "doc.sigstore.json",
        "doc.intoto.jsonl",
        "builder.pub",
    ] {
        assert!(run.has(name), "{name}\n{run}");
    }
    let kinds: Vec<_> = run.json["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["path"].as_str().unwrap(), a["type"].as_str().unwrap()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("app", "file"),
            ("doc", "directory"),
            ("doc/empty", "directory"),
            ("doc/link", "symlink"),
            ("doc/sub", "directory"),
            ("doc/sub/text", "file"),
        ]
    );
    let record: serde_json::Value = serde_json::from_slice(&run.file("build.json")).unwrap();
    assert_eq!(record, run.json);
    assert_eq!(run.receipt()["outcome"], json!({"kind": "succeeded"}));
}

#[test]
fn a_failing_command_keeps_record_and_log() {
    let mut instance = Instance::started();
    let project = Project::of(
        &["echo fine", "echo bad; exit 3", "echo never"],
        &["out"],
        "",
    );
    let run = instance.run(&project);
    run.assert_ended(1, json!({"kind": "failed", "step": 1, "exit_code": 3}));
    assert_eq!(run.log, "fine\nbad\n");
}
