use belljar_tests::{Instance, Project};
use serde_json::json;

#[test]
fn patterns_take_what_they_match() {
    let mut instance = Instance::new();
    let project = Project::of(
        &["mkdir -p dist/deep reports/a/b target/release target/debug
           echo 1 > dist/one.whl; echo 2 > dist/.two.whl; echo x > dist/notes; echo 3 > dist/deep/three.whl
           echo r > reports/top; echo s > reports/a/b/sub; ln -s b/sub reports/a/link
           echo app > target/release/app; echo app > target/debug/app"],
        &["dist/*.whl", "reports/**", "**/release/app", "plain.txt"],
        "",
    );
    project.write("plain.txt", "as it was\n");
    let run = instance.run(&project);
    run.assert_succeeded();
    let paths: Vec<_> = run.json["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|artifact| artifact["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "dist/.two.whl",
            "dist/one.whl",
            "plain.txt",
            "reports/a",
            "reports/a/b",
            "reports/a/b/sub",
            "reports/a/link",
            "reports/top",
            "target/release/app",
        ],
        "{run}"
    );
    assert_eq!(run.file("dist/one.whl"), b"1\n");
    assert!(!run.has("dist/notes") && !run.has("target/debug"));
    // An output may be a source that nobody has changed: what counts is what is there at the end.
    assert_eq!(run.file("plain.txt"), b"as it was\n");
    for beside in [
        "dist/one.whl",
        "reports/a",
        "reports/top",
        "target/release/app",
    ] {
        assert!(
            run.has(&format!("{beside}.sigstore.json")),
            "{beside}\n{run}"
        );
    }
}

/// What a build leaves, the pattern, and what the refusal has to say.
const REFUSED: [(&str, &str, &[&str]); 9] = [
    (":", "dist/*.whl", &["`dist/*.whl`", "matches nothing"]),
    ("mkdir dist", "dist/**", &["`dist/**`", "matches nothing"]),
    (
        "mkdir dist; echo x > x; ln -s ../x dist/l.whl",
        "dist/*.whl",
        &["`dist/l.whl`", "symbolic link"],
    ),
    (
        "mkdir real; echo x > real/a.o; ln -s real dist",
        "dist/*.o",
        &["`dist`", "symbolic link"],
    ),
    (
        "mkdir dist; mkfifo dist/f",
        "dist/*",
        &["`dist/f`", "named pipe"],
    ),
    (
        "mkdir dist; python3 -c 'open(b\"dist/\\xff\", \"w\")'",
        "dist/*",
        &["`dist`", "not UTF-8"],
    ),
    (
        "echo x > hello; echo x > hello.sigstore.json",
        "h*",
        &["`hello.sigstore.json`", "the evidence of `hello`"],
    ),
    (
        "mkdir audit.jsonl; echo x > audit.jsonl/x",
        "*/x",
        &["`audit.jsonl/x`", "the evidence file `audit.jsonl`"],
    ),
    (
        "mkdir -p builder.pub/x; echo x > builder.pub/x/y",
        "**/x",
        &["`builder.pub/x`", "the evidence file `builder.pub`"],
    ),
];

#[test]
fn what_a_pattern_cannot_take_is_refused_by_name() {
    let mut instance = Instance::started();
    for (script, pattern, words) in REFUSED {
        let run = instance.run(&Project::of(&[script], &[pattern], ""));
        assert_eq!(run.exit_code, 5, "{script}: {run}");
        let why = run.outcome()["why"].as_str().unwrap_or_default();
        assert!(
            words.iter().all(|word| why.contains(word)),
            "{script}: {why}"
        );
        run.assert_no_provenance();
    }
}

#[test]
fn what_is_compared_with_patterns_is_bounded() {
    let names = "python3 -c 'for n in range(17000): open(str(n).ljust(255, \"z\"), \"w\").close()'";
    let patterns: Vec<_> = (0..16).map(|n| format!("x{n}*")).collect();
    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    let project = Project::of(&[names], &patterns, "[limits]\nscratch_inodes = 50000");
    let run = Instance::new().run(&project);
    assert_eq!(run.exit_code, 5, "{run}");
    let why = run.outcome()["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("more than 1073741824 bytes of names compared"),
        "{why}"
    );
    run.assert_no_provenance();
}

/// The bytes of all files in a directory, and below.
fn bytes_in(directory: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => bytes_in(&entry.path()),
            false => entry.metadata().unwrap().len(),
        })
        .sum()
}

#[test]
fn many_outputs_have_one_bundle_together() {
    let mut instance = Instance::started();
    let many = "mkdir d; python3 -c 'for n in range(500): open(f\"d/f{n}\", \"w\").close()'";
    let run = instance.run(&Project::of(&[many], &["d/f*"], ""));
    run.assert_succeeded();
    assert_eq!(
        run.statement("provenance")["subject"]
            .as_array()
            .unwrap()
            .len(),
        500
    );
    assert!(run.has("provenance.intoto.jsonl"), "{run}");
    assert_eq!(
        std::fs::read_dir(run.output().join("d")).unwrap().count(),
        500
    );
    run.assert_verified("d/f0");
    run.assert_verified("d/f499");
    // Beside each of them it would be more than a hundred megabytes.
    let bytes = bytes_in(run.output());
    assert!(bytes < 5_000_000, "{bytes}");
}

#[test]
fn a_pattern_has_the_bounds_of_all_outputs() {
    let mut instance = Instance::started();
    let many = "mkdir d; python3 -c 'for n in range(300): open(f\"d/{n}.o\", \"w\").close()'";
    let run = instance.run(&Project::of(
        &[many],
        &["d/*.o"],
        "[limits]\noutput_entries = 200",
    ));
    run.assert_too_much_output("output_entries", 200, "d/279.o");
    let run = instance.run(&Project::of(
        &["mkdir d; for n in 1 2 3; do head -c 500 /dev/zero > d/$n.o; done"],
        &["d/*.o"],
        "[limits]\noutput_bytes = 1400",
    ));
    run.assert_too_much_output("output_bytes", 1400, "d/3.o");
    assert_eq!(run.receipt()["outputs"], json!([]), "{run}");
}
