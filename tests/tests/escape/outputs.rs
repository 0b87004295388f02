//! What hostile builds leave for the collector. Outside, each of these things can be made and is found by
//! whoever copies the tree without care; inside it must not get into the store.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use belljar_tests::{Instance, Project};

/// What a build leaves, and what its refusal says.
struct Left {
    name: &'static str,
    script: &'static str,
    outputs: &'static [&'static str],
    refusal: &'static str,
}

const fn left(name: &'static str, script: &'static str, refusal: &'static str) -> Left {
    Left {
        name,
        script,
        outputs: &["out"],
        refusal,
    }
}

#[rustfmt::skip]
const REFUSED: &[Left] = &[
    left("a link to a file of the host", "ln -s /etc/passwd out", "symbolic link"),
    left("a link to a directory of the build", "mkdir real; ln -s real out", "symbolic link"),
    Left { outputs: &["a/out"], ..left("a link on the way", "mkdir r; echo x > r/out; ln -s r a", "symbolic link") },
    left("an output that becomes a link while others run",
         "echo x > out; timeout 1 sh -c 'while :; do ln -sfn /etc/passwd out; done' & sleep 0.3; ln -sfn /etc/shadow out", "symbolic link"),
    left("a link in a directory, absolute", "mkdir out; ln -s /etc/passwd out/l", "absolute path"),
    left("a link in a directory, upwards", "mkdir out; ln -s ../../etc/passwd out/l", "leaves the declared output"),
    left("a link in a directory, down and up", "mkdir -p out/d; ln -s d/../../x out/l", "after a name"),
    left("a link with a line feed", "mkdir out; ln -s \"a\nb\" out/l", "control character"),
    left("a link into /proc", "mkdir out; ln -s /proc/self/fd/1 out/l", "absolute path"),
    left("a named pipe", "mkfifo out", "named pipe"),
    left("a named pipe in a directory", "mkdir out; mkfifo out/p", "named pipe"),
    left("a socket", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'", "socket"),
    left("a set-user-id program", "cp /bin/true out; chmod 4755 out", "set-user-id"),
    left("a set-group-id program", "mkdir out; cp /bin/true out/p; chmod 2755 out/p", "set-group-id"),
    left("a name with a line feed", "mkdir out; touch \"out/a\nb\"", "control character"),
    left("a name with an escape", "mkdir out; touch \"out/a$(printf '\\033')[2J\"", "control character"),
    left("a name that is not UTF-8", "mkdir out; touch \"out/$(printf '\\377')\"", "not UTF-8"),
    left("4,096 levels",
         "python3 -c 'import os\nos.mkdir(\"out\"); os.chdir(\"out\")\nfor _ in range(4096): os.mkdir(\"d\"); os.chdir(\"d\")'",
         "more than 128 components"),
    left("more names than fit a receipt",
         "python3 -c 'import os\nos.mkdir(\"out\"); os.chdir(\"out\")\nfor _ in range(15): os.mkdir(\"d\" * 255); os.chdir(\"d\" * 255)\n\
          for n in range(1500): open(f\"{n:0200}\", \"w\").close()'",
         "together are longer"),
    left("nothing", "true", "does not exist"),
    left("nothing, by a rename", "echo x > out; mv out /tmp/out", "does not exist"),
];

#[test]
fn what_cannot_be_an_output_is_refused_by_name() {
    let mut instance = Instance::started();
    let mut wrong = Vec::new();
    for case in REFUSED {
        can_be_made(case);
        let run = instance.run(&Project::of(&[case.script], case.outputs, ""));
        let why = run.outcome()["why"].as_str().unwrap_or_default();
        let refused = run.exit_code == 5 && run.outcome()["kind"] == "output_rejected";
        if !refused || !why.contains(case.refusal) {
            wrong.push(format!(
                "{}: `{}` is due, but: {run}",
                case.name, case.refusal
            ));
        } else {
            run.assert_no_provenance();
        }
        // What is shown of a hostile name must not act on a terminal.
        assert!(!why.chars().any(char::is_control), "{why:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Outside, the same script leaves the same thing, and nobody objects.
fn can_be_made(case: &Left) {
    let place = tempfile::tempdir().unwrap();
    let shell = Command::new("sh")
        .args(["-eu", "-c", case.script])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert!(shell.status.success(), "{}: {shell:?}", case.name);
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left == 0, case.refusal == "does not exist", "{}", case.name);
    // Of 4,096 levels only rm(1) is not afraid.
    let removed = Command::new("rm").arg("-rf").arg(place.path()).status();
    assert!(removed.unwrap().success(), "{}", case.name);
}

#[test]
fn a_sparse_terabyte_and_links_to_one_large_file_meet_the_limit() {
    let mut instance = Instance::started();
    for (script, output) in [
        ("truncate -s 1T out", "out"),
        (
            "mkdir out; head -c 600000 /dev/zero > out/0; for n in 1 2 3; do ln out/0 out/$n; done",
            "out/1",
        ),
    ] {
        let run = instance.run(&Project::of(
            &[script],
            &["out"],
            "[limits]\noutput_bytes = 1000000",
        ));
        run.assert_too_much_output("output_bytes", 1_000_000, output);
    }
    // By what it seems to have, before any of it is read; as much as a receipt can say.
    let run = instance.run(&Project::of(&["truncate -s 7E out"], &["out"], ""));
    run.assert_too_much_output("output_bytes", 4 << 30, "out");
    assert_eq!(run.outcome()["used"], (1_u64 << 53) - 1, "{run}");
    let many = "mkdir out; cd out; python3 -c 'for n in range(300): open(str(n), \"w\").close()'";
    let run = instance.run(&Project::of(
        &[many],
        &["out"],
        "[limits]\noutput_entries = 200",
    ));
    run.assert_too_much_output("output_entries", 200, "out/278");
}

#[test]
fn long_names_in_many_directories_are_refused_by_name() {
    // All of them would have to be in memory at once: the first name of each directory is the next directory.
    let names = "import os
for level in range(3):
    os.mkdir('out' if level == 0 else '0')
    os.chdir('out' if level == 0 else '0')
    open('f', 'w').close()
    for number in range(45000):
        os.link('f', f'{number:08}'.ljust(255, 'z'))
";
    let project = Project::of(
        &["python3 names.py"],
        &["out"],
        "[limits]\nscratch_inodes = 200000\nmemory_bytes = 2147483648",
    );
    project.write("names.py", names);
    let run = Instance::new().run(&project);
    assert_eq!(run.exit_code, 5, "{run}");
    assert_eq!(run.json["attempt"], 1, "{run}");
    let why = run.outcome()["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("`out/0/0`") && why.contains("33554432 bytes together"),
        "{why}"
    );
    run.assert_no_provenance();
}

#[test]
fn unreadable_files_are_collected_and_come_out_harmless() {
    let run = Instance::new().run(&Project::script(
        "mkdir -p out/dir; echo inner > out/dir/file; echo shut > out/shut; mkdir out/set; chmod 7777 out/set
         chmod 000 out/dir/file out/shut out/dir out",
    ));
    run.assert_succeeded();
    assert_eq!(run.file("out/shut"), b"shut\n");
    assert_eq!(run.file("out/dir/file"), b"inner\n");
    for path in ["out", "out/dir", "out/set", "out/shut", "out/dir/file"] {
        let found = run.output().join(path).metadata().unwrap();
        assert_eq!(found.permissions().mode() & 0o7000, 0, "{path}: {found:?}");
        assert_eq!(found.uid(), 0, "{path} belongs to the caller");
    }
}

#[test]
fn changed_moved_and_removed_sources_come_out_as_the_build_saw_them() {
    let project = Project::of(
        &["mv src out; echo changed > out/b; rm out/c; echo new > out/d; mkdir src; mv out/sub src/; mv src out/sub2
          mkdir out/gone; rmdir out/gone; rm -rf out/opaque; mkdir out/opaque; echo only > out/opaque/this"],
        &["out"],
        "",
    );
    for (path, content) in [
        ("a", "a"),
        ("b", "b"),
        ("c", "c"),
        ("sub/e", "e"),
        ("opaque/old", "old"),
    ] {
        project.write(&format!("src/{path}"), content);
    }
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    for (path, content) in [
        ("a", "a"),
        ("b", "changed\n"),
        ("d", "new\n"),
        ("sub2/sub/e", "e"),
        ("opaque/this", "only\n"),
    ] {
        assert_eq!(
            run.file(&format!("out/{path}")),
            content.as_bytes(),
            "{path}"
        );
    }
    for path in ["out/c", "out/sub", "out/gone", "out/opaque/old"] {
        assert!(!run.has(path), "{path} is not what the build saw");
    }
    assert_eq!(
        std::fs::read(project.path().join("src/b")).unwrap(),
        b"b",
        "the caller's own file"
    );
}
