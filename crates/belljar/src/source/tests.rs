use super::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

fn collect(dir: &Path) -> Result<Sources, Error> {
    Sources::collect(Selection {
        dir,
        output: None,
        ask_git: true,
        memory: None,
    })
}

fn paths(sources: &Sources) -> Vec<&str> {
    let mut paths: Vec<&str> = sources
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    paths.sort_unstable();
    paths
}

fn write(dir: &Path, files: &[&str]) {
    for file in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
}

/// Runs git in `dir`, with nothing of this host's own configuration.
fn git(dir: &Path, arguments: &[&str]) {
    let identity = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.invalid",
        "-c",
        "protocol.file.allow=always",
    ];
    let status = Command::new("git")
        .args(identity)
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .output()
        .unwrap();
    assert!(
        status.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&status.stderr)
    );
}

fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"]);
    dir
}

#[test]
fn without_git_everything_but_the_ignore_list_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            "a",
            "sub/b",
            "sub/.hidden",
            ".svn/x",
            "sub/.hg/x",
            ".gitignore",
            "out/made",
        ],
    );
    std::fs::create_dir_all(dir.path().join("empty/inner")).unwrap();
    std::fs::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    symlink("../nowhere", dir.path().join("sub/link")).unwrap();
    let output = RelPath::new("out").unwrap();
    let selection = Selection {
        dir: dir.path(),
        output: Some(&output),
        ask_git: true,
        memory: None,
    };
    let sources = Sources::collect(selection).unwrap();
    assert_eq!(sources.listed_by, ListedBy::Walk);
    assert_eq!(paths(&sources), [".gitignore", "a", "sub/.hidden", "sub/b"]);
    let file = |name: &str, executable| {
        let object = ObjectId::of(name.as_bytes());
        (
            RelPath::new(name).unwrap(),
            Leaf::File { object, executable },
        )
    };
    let target = SymlinkTarget::new("../nowhere").unwrap();
    let expected = belljar_tree::build([
        file("a", true),
        file("sub/b", false),
        file("sub/.hidden", false),
        file(".gitignore", false),
        (RelPath::new("sub/link").unwrap(), Leaf::Symlink { target }),
        (RelPath::new("empty/inner").unwrap(), Leaf::EmptyDirectory),
    ])
    .unwrap();
    assert_eq!(sources.tree, expected.root);
}

#[test]
fn git_says_what_is_taken() {
    let dir = repository();
    write(
        dir.path(),
        &[
            "tracked",
            "deleted",
            "untracked",
            "ignored",
            "tracked-but-ignored",
            "sub/x.o",
            "sub/y",
        ],
    );
    std::fs::write(
        dir.path().join(".gitignore"),
        "ignored\ntracked-but-ignored\n*.o\n",
    )
    .unwrap();
    git(dir.path(), &["add", "tracked", "deleted"]);
    git(dir.path(), &["add", "--force", "tracked-but-ignored"]);
    std::fs::remove_file(dir.path().join("deleted")).unwrap();
    let sources = collect(dir.path()).unwrap();
    assert_eq!(sources.listed_by, ListedBy::Git);
    assert_eq!(
        paths(&sources),
        [
            ".gitignore",
            "sub/y",
            "tracked",
            "tracked-but-ignored",
            "untracked"
        ]
    );
    let below = collect(&dir.path().join("sub")).unwrap();
    assert_eq!(paths(&below), ["y"]);
    let everything = Sources::collect(Selection {
        dir: dir.path(),
        output: None,
        ask_git: false,
        memory: None,
    });
    assert_eq!(paths(&everything.unwrap()).len(), 7);
}

#[test]
fn a_tracked_file_behind_a_link_or_a_directory_counts_as_deleted() {
    let dir = repository();
    let elsewhere = tempfile::tempdir().unwrap();
    write(elsewhere.path(), &["secret"]);
    write(dir.path(), &["sub/secret", "file"]);
    git(dir.path(), &["add", "."]);
    std::fs::remove_dir_all(dir.path().join("sub")).unwrap();
    symlink(elsewhere.path(), dir.path().join("sub")).unwrap();
    std::fs::remove_file(dir.path().join("file")).unwrap();
    write(dir.path(), &["file/inner"]);
    assert_eq!(paths(&collect(dir.path()).unwrap()), ["file/inner"]);
}

#[test]
fn submodules_and_nested_repositories_are_refused_by_name() {
    let (dir, other) = (repository(), repository());
    write(other.path(), &["x"]);
    git(other.path(), &["add", "."]);
    git(other.path(), &["commit", "-q", "-m", "x"]);
    git(
        dir.path(),
        &["clone", "-q", other.path().to_str().unwrap(), "nested"],
    );
    let refused = collect(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains("`nested` is another git repository"),
        "{refused}"
    );
    std::fs::remove_dir_all(dir.path().join("nested")).unwrap();
    git(
        dir.path(),
        &[
            "submodule",
            "add",
            "-q",
            other.path().to_str().unwrap(),
            "module",
        ],
    );
    let refused = collect(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("`module` is a git submodule"), "{refused}");
}

#[test]
fn a_wholly_ignored_directory_is_refused() {
    let dir = repository();
    write(dir.path(), &["target/app"]);
    std::fs::write(dir.path().join(".gitignore"), "target\n").unwrap();
    let refused = collect(&dir.path().join("target")).unwrap_err();
    assert!(matches!(refused, Error::AllIgnored(_)), "{refused}");
}

#[test]
fn what_git_says_when_it_fails_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".git")).unwrap();
    let refused = collect(dir.path()).unwrap_err();
    assert!(
        matches!(&refused, Error::Git { said, .. } if said.contains("not a git repository")),
        "{refused}"
    );
}

#[test]
fn special_files_and_names_that_are_not_utf8_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
    let refused = collect(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("`sock` is a socket"), "{refused}");
    drop(socket);
    std::fs::remove_file(dir.path().join("sock")).unwrap();
    std::fs::write(
        dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xffname")),
        "",
    )
    .unwrap();
    let refused = collect(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("not UTF-8"), "{refused}");
}

#[test]
fn a_link_whose_target_is_not_utf8_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    symlink(
        std::ffi::OsStr::from_bytes(b"\xff"),
        dir.path().join("link"),
    )
    .unwrap();
    let refused = collect(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains("`link`") && refused.contains("not UTF-8"),
        "{refused}"
    );
}

#[test]
fn a_file_that_changed_since_it_was_hashed_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &["same", "changed", "replaced", "gone"]);
    let sources = collect(dir.path()).unwrap();
    std::fs::write(dir.path().join("changed"), "CHANGED").unwrap();
    std::fs::remove_file(dir.path().join("replaced")).unwrap();
    symlink("/etc/passwd", dir.path().join("replaced")).unwrap();
    std::fs::remove_file(dir.path().join("gone")).unwrap();
    for file in &sources.files {
        let opened = sources.open(file);
        if file.path.as_str() == "same" {
            assert!(opened.is_ok());
        } else {
            assert!(matches!(opened, Err(Error::Changed(_))), "{}", file.path);
        }
    }
}

#[test]
fn hashes_are_those_of_the_contents_whatever_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("d{}/f{n}", n % 7)).collect();
    write(
        dir.path(),
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let sources = collect(dir.path()).unwrap();
    assert_eq!(sources.files.len(), names.len());
    for file in &sources.files {
        assert_eq!(file.object, ObjectId::of(file.path.as_str().as_bytes()));
    }
}

fn pipe(dir: &Path, path: &str) {
    let status = Command::new("mkfifo").arg(dir.join(path)).status();
    assert!(status.unwrap().success());
}

#[test]
fn git_is_not_asked_where_a_pipe_would_hold_it_up() {
    for file in ["HEAD", "config", "index", "info/exclude", "packed-refs"] {
        let dir = repository();
        write(dir.path(), &["a"]);
        git(dir.path(), &["add", "a"]);
        let place = format!(".git/{file}");
        let _ = std::fs::remove_file(dir.path().join(&place));
        pipe(dir.path(), &place);
        let refused = collect(dir.path()).unwrap_err();
        let text = refused.to_string();
        let due = format!("/{place} is a named pipe, and git would read it as a file");
        assert!(text.ends_with(&due), "{text}");
        assert!(refused.hint().unwrap().contains("--no-git"));
        assert!(refused.is_usage());
    }
    // Also where the repository's own directory is one, and by a link.
    let dir = tempfile::tempdir().unwrap();
    pipe(dir.path(), "p");
    symlink("p", dir.path().join(".git")).unwrap();
    let text = collect(dir.path()).unwrap_err().to_string();
    assert!(
        text.ends_with("/.git is a named pipe, and git would read it as a file"),
        "{text}"
    );
    // Any other device, too: the one that gives nothing is usual.
    let dir = repository();
    write(dir.path(), &["a"]);
    let exclude = dir.path().join(".git/info/exclude");
    for (device, due) in [("/dev/zero", false), ("/dev/null", true)] {
        let _ = std::fs::remove_file(&exclude);
        symlink(device, &exclude).unwrap();
        assert_eq!(collect(dir.path()).is_ok(), due, "{device}");
    }
    // A socket is there where git watches files.
    let socket = dir.path().join(".git/fsmonitor--daemon.ipc");
    let _socket = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert_eq!(paths(&collect(dir.path()).unwrap()), ["a"]);
}

#[test]
fn git_is_waited_for_no_longer_than_its_time() {
    for (what, place) in [
        ("ls-files --others", "sub/.gitignore"),
        ("ls-files --stage", "included"),
    ] {
        let dir = repository();
        write(dir.path(), &["sub/a"]);
        pipe(dir.path(), place);
        if place == "included" {
            let config = "[include]\n\tpath = ../included\n";
            std::fs::write(dir.path().join(".git/config"), config).unwrap();
        }
        let refused = git::list_within(dir.path(), std::time::Duration::from_secs(2)).unwrap_err();
        let text = refused.to_string();
        let due = format!("`git {what}` was not done after 2 seconds in ");
        assert!(text.starts_with(&due), "{text}");
        assert!(refused.hint().unwrap().contains("find -type p"));
    }
}
