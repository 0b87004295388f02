use std::os::unix::fs::MetadataExt as _;

use belljar_core::ObjectId;
use belljar_tests::{Instance, Project};

/// What a build leaves, what it declares, and what the refusal has to say.
const REFUSED: [(&str, &str, &[&str]); 13] = [
    (": ", "out", &["`out`", "does not exist"]),
    ("mkdir d", "d/out", &["`d/out`", "does not exist"]),
    ("ln -s /etc/passwd out", "out", &["`out`", "symbolic link"]),
    (
        "echo x > file; ln -s file out",
        "out",
        &["`out`", "symbolic link"],
    ),
    ("ln -s /etc d", "d/passwd", &["`d/passwd`", "symbolic link"]),
    (
        "mkdir e; echo x > e/f; ln -s e d",
        "d/f",
        &["`d/f`", "symbolic link"],
    ),
    ("echo x > d", "d/out", &["`d/out`", "not a directory"]),
    ("mkfifo out", "out", &["`out`", "named pipe"]),
    ("mkdir out; mkfifo out/f", "out", &["`out/f`", "named pipe"]),
    (
        "echo x > out; chmod u+s out",
        "out",
        &["`out`", "set-user-id"],
    ),
    (
        "mkdir out; echo x > out/g; chmod g+s out/g",
        "out",
        &["`out/g`", "set-group-id"],
    ),
    (
        "mkdir -p out/a; ln -s ../../belljar.toml out/a/link",
        "out",
        &["`out/a/link`", "leaves"],
    ),
    (
        "mkdir out; ln -s /etc/passwd out/link",
        "out",
        &["`out/link`", "absolute"],
    ),
];

#[test]
fn what_cannot_be_an_output_is_refused_by_name() {
    let mut instance = Instance::started();
    let mut wrong = Vec::new();
    for (script, output, words) in REFUSED {
        let run = instance.run(&Project::of(&[script], &[output], ""));
        let why = run.outcome()["why"].as_str().unwrap_or_default();
        let fits = run.exit_code == 5
            && run.outcome()["kind"] == "output_rejected"
            && words.iter().all(|word| why.contains(word));
        if !fits {
            wrong.push(format!("{script:?}: {}", run.outcome()));
            continue;
        }
        run.assert_no_provenance();
        assert_eq!(run.receipt()["outputs"], serde_json::json!([]), "{run}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_socket_is_no_output() {
    let mut instance = Instance::new();
    let project = Project::of(
        &["python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'"],
        &["out"],
        "",
    );
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 5, "{run}");
    let why = run.outcome()["why"].as_str().unwrap();
    assert!(why.contains("`out`") && why.contains("socket"), "{why}");
}

#[test]
fn a_device_cannot_even_be_made() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script("mknod out c 1 3"));
    assert_eq!(run.outcome()["kind"], "failed", "{run}");
    assert!(run.log.contains("Permission denied"), "{run}");
    run.assert_no_provenance();
}

#[test]
fn links_inside_a_declared_directory_come_along() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script(
        "mkdir -p out/a; echo x > out/f; ln -s ../f out/a/up; ln -s nowhere out/dangling; ln out/f out/hard",
    ));
    run.assert_succeeded();
    let target = |name: &str| std::fs::read_link(run.output().join(name)).unwrap();
    assert_eq!(target("out/a/up").to_str(), Some("../f"));
    assert_eq!(target("out/dangling").to_str(), Some("nowhere"));
    assert_eq!(run.file("out/a/up"), b"x\n");
    assert_eq!(run.file("out/hard"), b"x\n");
}

#[test]
fn unreadable_outputs_are_read_all_the_same() {
    let mut instance = Instance::new();
    let run = instance.run(&Project::script(
        "mkdir out; echo x > out/f; chmod 0 out/f; mkdir out/d; echo y > out/d/g; chmod 0 out/d",
    ));
    run.assert_succeeded();
    assert_eq!(run.file("out/f"), b"x\n");
    assert_eq!(run.file("out/d/g"), b"y\n");
}

#[test]
fn an_output_takes_the_place_of_an_older_one_as_a_whole() {
    let mut instance = Instance::started();
    let old = instance.run(&Project::script("mkdir out; echo old > out/old"));
    old.assert_succeeded();
    let output = old.output().to_str().unwrap().to_owned();
    let project = Project::script("mkdir out; echo new > out/new");
    // The last `--output` does not count twice: clap refuses a repeated option, so this goes by hand.
    let status = instance
        .command("run")
        .arg(project.path())
        .args(["--output", &output])
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!old.has("out/old"));
    assert_eq!(old.file("out/new"), b"new\n");
}

#[test]
fn a_sparse_output_takes_as_much_room_as_it_has_content() {
    /// Past what is written through the page cache, and no multiple of anything.
    const SIZE: usize = (96 << 20) + 12_345;
    const AT: usize = 70_000_000;
    let mut instance = Instance::new();
    let script = format!(
        "truncate -s {SIZE} out; printf here | dd of=out bs=1 seek={AT} conv=notrunc status=none; truncate -s 5 five"
    );
    let run = instance.run(&Project::of(&[&script], &["five", "out"], ""));
    run.assert_succeeded();
    let mut whole = vec![0; SIZE];
    whole[AT..AT + 4].copy_from_slice(b"here");
    let outputs = &run.receipt()["outputs"];
    for (index, content) in [&whole[..5], &whole].into_iter().enumerate() {
        let object = &outputs[index]["object"];
        let expected = ObjectId::of(content);
        assert_eq!(object["digest"], expected.digest.to_string(), "{run}");
        let file = instance.object_file(object).metadata().unwrap();
        assert_eq!(file.len(), expected.size);
        assert!(file.blocks() * 512 <= 1 << 20, "{}", file.blocks());
    }
    assert!(run.file("out") == whole, "another content is brought home");
    assert_eq!(run.file("five"), whole[..5]);
}
