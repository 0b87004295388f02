use std::os::unix::fs::PermissionsExt;

use belljar_tests::{Instance, Project};
use serde_json::{Value, json};

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
    let record: Value = serde_json::from_slice(&run.file("build.json")).unwrap();
    assert_eq!(record, run.json);
    assert_eq!(run.receipt()["outcome"], json!({"kind": "succeeded"}));
}

#[test]
fn steps_share_the_working_directory_and_nothing_else() {
    let mut instance = Instance::new();
    let project = Project::of(
        &[
            "VARIABLE=set; cd /tmp; echo $GREETING > \"$OLDPWD\"/seen",
            "pwd; echo ${VARIABLE-unset}; cat seen; id -u; id -g; date +%s -r belljar.toml; echo $SOURCE_DATE_EPOCH",
            "cp seen out",
        ],
        &["out"],
        "source_date_epoch = 1700000000\n[env]\nGREETING = \"hello world\"",
    );
    let run = instance.run(&project);
    run.assert_succeeded();
    let lines: Vec<_> = run.log.lines().collect();
    assert_eq!(
        lines[1..],
        [
            "unset",
            "hello world",
            "1000",
            "1000",
            "1700000000",
            "1700000000"
        ],
        "{run}"
    );
    assert_eq!(run.file("out"), b"hello world\n");
}

#[test]
fn builds_that_fail_keep_record_and_log_and_get_no_provenance() {
    let mut instance = Instance::started();
    // (steps, what is logged, exit status of `belljar run`, outcome)
    let cases: [(&[&str], &str, i32, Value); 6] = [
        (
            &["echo fine", "echo bad >&2; exit 3", "echo never"],
            "fine\nbad\n",
            1,
            json!({"kind": "failed", "step": 1, "exit_code": 3}),
        ),
        // `sh -e`
        (
            &["echo a; false; echo b"],
            "a\n",
            1,
            json!({"kind": "failed", "step": 0, "exit_code": 1}),
        ),
        // `sh -u`
        (
            &["unset NONE; { echo $NONE; } 2>/dev/null"],
            "",
            1,
            json!({"kind": "failed", "step": 0, "exit_code": 2}),
        ),
        (
            &["echo x; kill -SEGV $$"],
            "x\n",
            1,
            json!({"kind": "signalled", "step": 0, "signal": 11}),
        ),
        // A signal that no step died of is that step's own affair.
        (
            &["true", "sh -c 'kill -KILL $$' || exit 40"],
            "Killed\n",
            1,
            json!({"kind": "failed", "step": 1, "exit_code": 40}),
        ),
        // Whoever is left behind by the last step ends with the build, and does not keep it.
        (
            &["sleep 1000 & echo gone; exit 7"],
            "gone\n",
            1,
            json!({"kind": "failed", "step": 0, "exit_code": 7}),
        ),
    ];
    for (steps, log, exit_code, outcome) in cases {
        let run = instance.run(&Project::of(steps, &["out"], ""));
        run.assert_ended(exit_code, outcome.clone());
        assert_eq!(run.log, log, "{run}");
        let receipt = run.receipt();
        assert_eq!(
            receipt["outcome"], outcome,
            "the receipt says the same\n{run}"
        );
        assert_eq!(receipt["outputs"], json!([]));
        assert!(
            run.json["evidence"]["receipt"]["digest"].is_string(),
            "{run}"
        );
        assert!(
            run.json["evidence"]["audit_trail"]["digest"].is_string(),
            "{run}"
        );
        assert_eq!(run.json["evidence"]["log"]["size"], log.len(), "{run}");
    }
    // About all there is a signed receipt; about artifacts only what the first build, which succeeded, has left.
    let names = std::fs::read_dir(instance.state().join("evidence")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bundles = names.filter(|name| name.ends_with(".sigstore.json"));
    let (receipts, artifacts): (Vec<_>, Vec<_>) =
        bundles.partition(|name| name.ends_with(".receipt.sigstore.json"));
    assert_eq!((receipts.len(), artifacts.len()), (7, 1));
}
