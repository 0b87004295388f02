use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use belljar_tests::{Instance, Project, tool};

/// Lists everything that the build finds, with modes, sizes and targets.
const LIST: &str =
    "find . -mindepth 1 -printf '%y %m %s %P %l\\n' | grep -v ' belljar.toml' | sort -k4; : > out";

/// Runs git in a directory, with nobody's configuration.
fn git(dir: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"];
    let output = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .args(identity)
        .args(arguments)
        .output()
        .expect("git");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
}

/// The paths that a build has listed.
fn paths(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| line.split(' ').nth(3))
        .collect()
}

#[test]
fn in_git_what_is_ignored_stays_and_what_is_not_goes() {
    let mut instance = Instance::started();
    let project = Project::script(LIST);
    for (path, content) in [
        ("tracked", "1"),
        ("src/tracked.c", "2"),
        (".gitignore", "*.o\n/target/\nkept.o\n"),
        ("kept.o", "tracked although it is ignored"),
    ] {
        project.write(path, content);
    }
    git(project.path(), &["init", "-q"]);
    git(project.path(), &["add", "-f", "."]);
    git(project.path(), &["commit", "-q", "-m", "first"]);
    for path in [
        "untracked",
        "src/new/deep.c",
        "ignored.o",
        "target/x",
        "src/also.o",
    ] {
        project.write(path, "3");
    }
    // What is changed goes as it is; what was removed is not there.
    project.write("tracked", "changed");
    git(project.path(), &["rm", "-q", "--cached", "src/tracked.c"]);
    std::fs::remove_file(project.path().join("src/tracked.c")).unwrap();
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.json["source"]["listed_by"], "git");
    let due = [
        ".gitignore",
        "kept.o",
        "src",
        "src/new",
        "src/new/deep.c",
        "tracked",
        "untracked",
    ];
    assert_eq!(paths(&run.log), due, "{run}");
    assert!(run.log.contains("f 644 7 tracked"), "{run}");

    let run = instance.run_with(&project, &["--no-git"]);
    run.assert_succeeded();
    assert_eq!(run.json["source"]["listed_by"], "walk");
    let all = paths(&run.log);
    assert!(
        all.contains(&"ignored.o") && all.contains(&"target/x"),
        "{run}"
    );
    assert!(!all.iter().any(|path| path.starts_with(".git/")), "{run}");
}

/// Removes the object that `name` stands for.
fn remove_object(dir: &Path, name: &str) {
    let hex = tool(dir, "git", &["rev-parse", name]);
    let (head, tail) = hex.trim().split_at(2);
    std::fs::remove_file(dir.join(".git/objects").join(head).join(tail)).unwrap();
}

#[test]
fn no_program_that_a_repository_names_is_run_while_it_is_listed() {
    let mut instance = Instance::started();
    let marks = tempfile::tempdir().unwrap();
    let mark = |name: &str| marks.path().join(name);
    // Two ways to have git miss an object that a listing needs: it would fetch that from elsewhere.
    for way in ["ignored", "sparse"] {
        let project = Project::script(LIST);
        let dir = project.path();
        project.write("sub/.gitignore", "*.o\n");
        project.write("sub/deep/file", "1");
        git(dir, &["init", "-q"]);
        git(dir, &["add", "."]);
        git(dir, &["commit", "-q", "-m", "first"]);
        if way == "ignored" {
            git(dir, &["update-index", "--skip-worktree", "sub/.gitignore"]);
            remove_object(dir, "HEAD:sub/.gitignore");
            std::fs::remove_file(dir.join("sub/.gitignore")).unwrap();
            project.write("sub/untracked", "2");
        } else {
            git(
                dir,
                &[
                    "sparse-checkout",
                    "set",
                    "--cone",
                    "--sparse-index",
                    "other",
                ],
            );
            remove_object(dir, "HEAD:sub");
        }
        let (ssh, monitor) = (mark(way), mark("monitor"));
        for (key, value) in [
            ("core.repositoryFormatVersion", "1".to_owned()),
            ("extensions.partialClone", "evil".to_owned()),
            ("remote.evil.url", "ssh://nowhere/x".to_owned()),
            ("remote.evil.promisor", "true".to_owned()),
            ("protocol.allow", "always".to_owned()),
            ("core.sshCommand", format!("touch {}; false", ssh.display())),
            (
                "core.fsmonitor",
                format!("touch {}; false", monitor.display()),
            ),
        ] {
            git(dir, &["config", key, &value]);
        }
        // The control: git itself runs what the repository names.
        let listing = ["ls-files", "--stage", "--others", "--exclude-standard"];
        let control = Command::new("git").current_dir(dir).args(listing).output();
        control.unwrap();
        assert!(ssh.exists() && monitor.exists(), "{way}");
        std::fs::remove_file(&ssh).unwrap();
        std::fs::remove_file(&monitor).unwrap();
        let run = instance.run(&project);
        assert!(!ssh.exists() && !monitor.exists(), "{way}: {run}");
    }
}

/// Configuration by which git runs a program at some time or other, and in what it does so.
#[test]
fn no_filter_hook_or_other_program_of_a_checkout_is_run() {
    let mut instance = Instance::started();
    let marks = tempfile::tempdir().unwrap();
    let project = Project::script(LIST);
    let dir = project.path();
    project.write(".gitattributes", "*.c filter=evil diff=evil merge=evil\n");
    project.write("tracked.c", "1");
    git(dir, &["init", "-q"]);
    git(dir, &["add", "."]);
    git(dir, &["commit", "-q", "-m", "first"]);
    project.write("tracked.c", "changed");
    project.write("untracked.c", "2");
    let touch = |name: &str| format!("touch {}; cat", marks.path().join(name).display());
    for key in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.command",
        "diff.evil.textconv",
        "diff.external",
        "merge.evil.driver",
        "core.fsmonitor",
        "core.pager",
        "pager.ls-files",
        "core.editor",
        "core.askPass",
        "core.sshCommand",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "credential.helper",
        "gpg.program",
        "sequence.editor",
        "uploadpack.packObjectsHook",
    ] {
        git(dir, &["config", key, &touch(key)]);
    }
    git(
        dir,
        &["config", "alias.ls-files", &format!("!{}", touch("alias"))],
    );
    git(dir, &["config", "core.hooksPath", "hooks"]);
    for hook in [
        "post-index-change",
        "pre-commit",
        "post-checkout",
        "reference-transaction",
    ] {
        let path = format!("hooks/{hook}");
        project.write(&path, format!("#!/bin/sh\n{}\n", touch(hook)));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join(path), executable).unwrap();
    }
    let marked = || std::fs::read_dir(marks.path()).unwrap().count();
    let run = instance.run(&project);
    run.assert_succeeded();
    assert!(paths(&run.log).contains(&"untracked.c"), "{run}");
    assert_eq!(
        marked(),
        0,
        "{:?}",
        std::fs::read_dir(marks.path()).unwrap().collect::<Vec<_>>()
    );
    // The control: git itself runs some of them as soon as it does more than to list.
    let control = Command::new("git")
        .current_dir(dir)
        .args(["status"])
        .output();
    control.unwrap();
    assert!(marked() > 0);
}

#[test]
fn pipes_in_the_place_of_what_git_reads_are_refused_by_name() {
    let mut instance = Instance::new();
    for file in ["HEAD", "config", "index"] {
        let project = Project::script(LIST);
        project.write("tracked", "1");
        git(project.path(), &["init", "-q"]);
        git(project.path(), &["add", "."]);
        let place = project.path().join(".git").join(file);
        std::fs::remove_file(&place).unwrap();
        tool(project.path(), "mkfifo", &[place.to_str().unwrap()]);
        // The control: git itself would wait for ever.
        let mut control = Command::new("git")
            .current_dir(project.path())
            .args(["ls-files", "--stage"])
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(control.try_wait().unwrap().is_none(), "{file}");
        control.kill().unwrap();
        control.wait().unwrap();
        for command in ["run", "submit"] {
            let path = project.path().to_str().unwrap();
            let told = instance.tell(command, &[path, "--json"]);
            assert_eq!(told.code, 2, "{command} {file}: {told:?}");
            let due = format!(".git/{file} is a named pipe, and git would read it as a file");
            assert!(told.printed.contains(&due), "{command} {file}: {told:?}");
        }
    }
}

#[test]
fn a_file_that_git_tracks_and_that_is_gone_is_not_made_up() {
    let mut instance = Instance::new();
    let project = Project::script(LIST);
    project.write("gone", "1");
    git(project.path(), &["init", "-q"]);
    git(project.path(), &["add", "."]);
    std::fs::remove_file(project.path().join("gone")).unwrap();
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(paths(&run.log), Vec::<&str>::new(), "{run}");
}

#[test]
fn without_git_everything_goes_as_it_is() {
    let mut instance = Instance::new();
    let project = Project::script(LIST);
    project.write("empty", "");
    project.write_executable("bin/tool", "#!/bin/sh\n");
    project.write("name with space\u{e9}", "x");
    project.write(".hg/store", "left out");
    std::fs::create_dir(project.path().join("nothing-in-it")).unwrap();
    symlink("bin/tool", project.path().join("link")).unwrap();
    let run = instance.run(&project);
    run.assert_succeeded();
    assert_eq!(run.json["source"]["listed_by"], "walk");
    let log = run.log.replace("name with space", "name_with_space");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| line.split(' ').nth(3).unwrap())
            .collect::<Vec<_>>(),
        [
            "bin",
            "bin/tool",
            "empty",
            "link",
            "name_with_space\u{e9}",
            "nothing-in-it"
        ],
        "{run}"
    );
    assert!(lines[1].starts_with("f 755 10 "), "{run}");
    assert!(lines[2].starts_with("f 644 0 "), "{run}");
    assert_eq!(lines[3], "l 777 8 link bin/tool");
    assert!(lines[5].starts_with("d 755 "), "{run}");
}

#[test]
fn a_large_file_goes_up_and_comes_down_unchanged() {
    let mut instance = Instance::started();
    let project = Project::script("cp in out; sha256sum < in");
    // 10 MiB that do not repeat and do not compress: a linear congruential generator's upper bytes.
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    })
    .take(10 << 20)
    .collect();
    project.write("in", &bytes);
    let run = instance.run(&project);
    run.assert_succeeded();
    assert!(
        run.file("out") == bytes,
        "10 MiB came back as something else"
    );
    let digest = run.json["artifacts"][0]["object"]["digest"]
        .as_str()
        .unwrap();
    assert_eq!(
        format!("sha256:{}", run.log.split(' ').next().unwrap()),
        digest
    );
    assert!(run.said.contains("uploaded 3 of 3 blobs"), "{run}");
    // The second time it is there already.
    let again = instance.run(&project);
    again.assert_succeeded();
    assert!(
        again.said.contains("uploaded 0 of 3 blobs (0 bytes)"),
        "{again}"
    );
    assert_eq!(again.json["artifacts"], run.json["artifacts"]);
}

#[test]
fn what_a_tree_cannot_hold_is_refused_by_name() {
    let mut instance = Instance::new();
    let project = Project::script(": > out");
    let status = Command::new("mkfifo")
        .arg(project.path().join("pipe"))
        .status();
    assert!(status.unwrap().success());
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(
        run.json["error"].as_str().unwrap().contains("pipe"),
        "{run}"
    );
    std::fs::remove_file(project.path().join("pipe")).unwrap();
    let name = OsStr::from_bytes(b"not-\xff-utf8");
    std::fs::write(project.path().join(name), "").unwrap();
    let run = instance.run(&project);
    assert_eq!(run.exit_code, 2, "{run}");
    assert!(
        run.json["error"].as_str().unwrap().contains("not-"),
        "{run}"
    );
}

#[test]
fn the_output_directory_is_no_part_of_the_sources() {
    let instance = Instance::started();
    let project = Project::script(LIST);
    project.write("belljar-out/old", "from last time");
    let mut command = instance.command("run");
    let ended = command
        .arg(project.path())
        .arg("--output")
        .arg(project.path().join("belljar-out"))
        .output()
        .unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let log = std::fs::read_to_string(project.path().join("belljar-out/build.log")).unwrap();
    assert_eq!(log, "");
}

#[test]
fn what_did_not_change_is_not_read_again_and_what_did_is() {
    let instance = Instance::started();
    let home = tempfile::tempdir().unwrap();
    let project = Project::script("cat a b > out");
    let (a, b) = (project.write("a", "one"), project.write("b", "two"));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
    let age = |path: &Path| {
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
    };
    let run = |read: usize, out: &str| {
        let mut command = instance.command("run");
        command
            .env("XDG_CACHE_HOME", home.path())
            .arg(project.path());
        let output = tempfile::tempdir().unwrap();
        let ended = command
            .arg("--output")
            .arg(output.path())
            .arg("--json")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(json["source"]["files"], 3);
        assert_eq!(json["source"]["read"], read, "{said}");
        assert_eq!(
            std::fs::read_to_string(output.path().join("out")).unwrap(),
            out
        );
    };
    age(&a);
    age(&b);
    // All of them have just been made, and could be changed once more at the same time.
    run(3, "onetwo");
    std::thread::sleep(std::time::Duration::from_secs(4));
    run(3, "onetwo");
    run(0, "onetwo");
    std::fs::write(&a, "eno").unwrap();
    age(&a);
    run(1, "enotwo");
    std::fs::rename(&a, &b).unwrap();
    std::fs::write(&a, "two").unwrap();
    age(&a);
    run(2, "twoeno");
    // Somebody else's memory is none.
    std::os::unix::fs::chown(home.path().join("belljar"), Some(65_534), None).unwrap();
    run(3, "twoeno");
}
