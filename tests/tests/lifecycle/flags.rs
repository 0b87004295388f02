use std::fs;
use std::process::{Command, Stdio};

use belljar_tests::{Instance, Project, Told, program};

const ID: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";
const FILES: &str = "--tls-ca /nowhere --tls-cert /nowhere --tls-key /nowhere";

/// The command line, its exit status, and words that it is refused with: the flag or argument, and what is wrong with
/// it or due. `ID` stands for the id of a build.
type Case = (&'static str, i32, &'static [&'static str]);

/// Found before anybody is asked.
const ALONE: [Case; 57] = [
    ("list --artifact abc", 2, &["--artifact", "hexadecimal"]),
    (
        "list --since yesterday",
        2,
        &["--since", "yesterday", "RFC 3339"],
    ),
    (
        "list --until 2026-13-01T00:00:00Z",
        2,
        &["--until", "RFC 3339"],
    ),
    (
        "list --request-id a/b",
        2,
        &["--request-id", "64 characters"],
    ),
    ("", 2, &["Usage"]),
    ("frobnicate", 2, &["frobnicate"]),
    ("run --jsn", 2, &["--jsn", "--json"]),
    ("run a b", 2, &["b"]),
    ("run --output", 2, &["--output", "value"]),
    ("run --json --json", 2, &["--json", "multiple times"]),
    ("run --socket /a --state /b", 2, &["--socket", "--state"]),
    (
        "run --socket /a --server https://h:1",
        2,
        &["--socket", "--server"],
    ),
    ("run --project ../x", 2, &["--project", "../x"]),
    ("run --project A", 2, &["--project", "lower-case letters"]),
    ("run --project=", 2, &["--project"]),
    (
        "submit --request-id a/b",
        2,
        &["--request-id", "64 characters"],
    ),
    ("submit --request-id=", 2, &["--request-id"]),
    ("show", 2, &["BUILD"]),
    ("show ../x", 2, &["BUILD", "../x"]),
    ("show builds/", 2, &["BUILD"]),
    ("show projects/x/builds/ID", 2, &["BUILD"]),
    ("show 01JD8Q6Z8R4X7J2M5T9V0W3Y6B", 2, &["BUILD"]),
    ("watch x", 2, &["BUILD"]),
    ("fetch x", 2, &["BUILD"]),
    ("cancel x", 2, &["BUILD"]),
    ("logs ID --attempt 0", 2, &["--attempt", "0 is not in"]),
    ("logs ID --attempt -1", 2, &["-1"]),
    (
        "logs ID --attempt 4294967296",
        2,
        &["--attempt", "4294967296"],
    ),
    ("list --limit 0", 2, &["--limit", "0 is not in"]),
    ("list --limit 100001", 2, &["--limit", "1..=100000"]),
    ("list --limit many", 2, &["--limit", "invalid digit"]),
    (
        "list --server http://h:1",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    ("list --server h:1", 2, &["--server", "https://HOST:PORT"]),
    (
        "list --server https://h",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    (
        "list --server https://h:0x1",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    (
        "list --server https://h:99999",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    (
        "list --server https://h:1/path",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    (
        "list --server https://user@h:1",
        2,
        &["--server", "https://HOST:PORT"],
    ),
    ("list --server https://h:1", 2, &["--server needs --tls-ca"]),
    (
        "list --server https://h:1 FILES",
        12,
        &["/nowhere", "No such file"],
    ),
    ("list --socket /nowhere", 10, &["/nowhere"]),
    ("run /nowhere", 2, &["/nowhere", "No such file"]),
    (
        "image import /etc/passwd --name C",
        2,
        &["--name", "`C` is no name of an image"],
    ),
    (
        "image import /etc/passwd --name host",
        2,
        &["--name", "choose another name"],
    ),
    ("image import /etc/passwd", 2, &["--name"]),
    ("image import /nowhere --name c", 12, &["/nowhere"]),
    ("image list --lock /", 12, &["/"]),
    (
        "image build-debian --name c --variant all",
        2,
        &["--variant", "essential"],
    ),
    ("verify /etc/passwd", 2, &["--key"]),
    ("verify /nowhere --key /etc/passwd", 12, &["/nowhere"]),
    (
        "verify /etc/passwd --bundle /etc/passwd --key /nowhere",
        12,
        &["/nowhere"],
    ),
    (
        "verify /etc/passwd --bundle /etc/passwd --key /etc/passwd",
        12,
        &["cannot read the public key /etc/passwd", "because"],
    ),
    (
        "verify /etc/passwd --bundle /etc/passwd --key /dev/zero",
        12,
        &["cannot read the public key /dev/zero", "regular file"],
    ),
    (
        "audit show --trail /etc/passwd --receipt /etc/passwd --bundle /etc/passwd --key /etc/passwd",
        12,
        &["cannot read the public key /etc/passwd", "because"],
    ),
    ("doctor --cgroup-floor v3", 2, &["--cgroup-floor", "hybrid"]),
    ("completions tcsh", 2, &["SHELL", "bash"]),
    (
        "audit show --trail /x --bundle /y",
        2,
        &["--receipt", "--key"],
    ),
];

/// Found by the daemon, and told by the name of what was given.
const ASKED: [Case; 11] = [
    ("list --build-state asleep", 2, &["filter", "ASLEEP"]),
    ("list --outcome fine", 2, &["filter", "fine"]),
    ("list --filter colour=red", 2, &["filter", "colour"]),
    ("list --filter state", 2, &["filter"]),
    ("list --filter (((((((((", 2, &["filter"]),
    ("list --filter NOT", 2, &["filter"]),
    ("list --page-token x", 2, &["page_token", "not a token"]),
    (
        "list --page-token ffffffffffffffffffffffffffffffff",
        2,
        &["page_token", "begin that one without"],
    ),
    ("show ID", 2, &["builds/ID", "does not exist"]),
    (
        "cancel ID --reason LONG",
        2,
        &["reason", "1024 are allowed"],
    ),
    (
        "submit --project none",
        2,
        &["projects/none", "does not exist"],
    ),
];

fn told(mut command: Command, line: &str) -> Told {
    let words = line.split_ascii_whitespace().flat_map(|word| match word {
        "FILES" => FILES.split(' ').map(str::to_owned).collect(),
        "LONG" => vec!["x".repeat(1025)],
        word => vec![word.replace("ID", ID)],
    });
    let ended = command.args(words).stdin(Stdio::null()).output().unwrap();
    Told {
        code: ended.status.code().unwrap_or(-1),
        printed: String::from_utf8_lossy(&ended.stdout).into_owned(),
        said: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// What does not fit a case, if something does not.
fn wrong(told: &Told, (line, code, words): Case) -> Option<String> {
    let lacking = words.iter().map(|word| word.replace("ID", ID));
    let lacking: Vec<_> = lacking.filter(|word| !told.said.contains(word)).collect();
    let fine = told.code == code && lacking.is_empty() && told.printed.is_empty();
    // Nobody else's terminal is at stake, but whoever pastes such a thing should see it.
    let fine = fine && !told.said.contains('\u{1b}');
    (!fine).then(|| format!("belljar {line}: lacks {lacking:?}: {told:?}"))
}

#[test]
fn bad_flags_are_refused_by_name_before_anybody_is_asked() {
    let here = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for case in ALONE {
        let mut belljar = Command::new(program("belljar"));
        let path = std::env::var_os("PATH").map(|path| ("PATH", path));
        belljar.env_clear().envs(path).current_dir(here.path());
        found.extend(wrong(&told(belljar, case.0), case));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(
        fs::read_dir(here.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn what_the_daemon_refuses_is_refused_by_field() {
    let instance = Instance::started();
    let project = Project::script(": > out");
    let mut found = Vec::new();
    for case in ASKED {
        let (command, rest) = case.0.split_once(' ').unwrap();
        let mut belljar = instance.command(command);
        belljar.current_dir(project.path());
        found.extend(wrong(&told(belljar, rest), case));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(
        fs::read_dir(project.path()).unwrap().count(),
        1,
        "nothing is left"
    );
    let listed = instance.client();
    let builds = listed.wait(
        listed
            .builds()
            .list_builds(belljar_wire::v1::ListBuildsRequest::default()),
    );
    assert_eq!(
        builds.unwrap().into_inner().builds.len(),
        1,
        "but for the first, which wrote the configuration"
    );
}

/// `belljar image import` of what lies there, which nobody is asked about. Gives what it came to, and what it said.
fn import(what: &std::path::Path) -> (i32, String) {
    // Whoever waits for a pipe is not waited for.
    let ended = Command::new("timeout")
        .arg("30")
        .arg(program("belljar"))
        .args(["image", "import"])
        .arg(what)
        .args(["--name", "c", "--socket", "/nowhere", "--lock"])
        .arg(what.with_extension("lock"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    (ended.status.code().unwrap(), said)
}

#[test]
fn an_image_layout_leads_to_nothing_but_its_own_files() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(layout.join("oci-layout"), "{}").unwrap();
    fs::write(layout.join("index.json"), "{}").unwrap();
    let blob = blobs.join("0".repeat(64));
    fs::write(&blob, "a blob").unwrap();
    // Fine, as far as it is looked at here: only then somebody is asked.
    assert_eq!(import(&layout).0, 10);
    let secret = dir.path().join("secret");
    fs::write(&secret, "not for others").unwrap();
    for victim in [&blob, &layout.join("index.json")] {
        let kept = fs::read(victim).unwrap();
        fs::remove_file(victim).unwrap();
        std::os::unix::fs::symlink(&secret, victim).unwrap();
        let (code, said) = import(&layout);
        assert!(
            code == 12 && said.contains("symbolic link"),
            "{code}: {said}"
        );
        fs::remove_file(victim).unwrap();
        belljar_tests::tool(dir.path(), "mkfifo", &[victim.to_str().unwrap()]);
        let (code, said) = import(&layout);
        assert!(
            code == 12 && said.contains("not a regular file"),
            "{code}: {said}"
        );
        fs::remove_file(victim).unwrap();
        fs::write(victim, kept).unwrap();
    }
    let pipe = dir.path().join("pipe");
    belljar_tests::tool(dir.path(), "mkfifo", &[pipe.to_str().unwrap()]);
    let (code, said) = import(&pipe);
    assert!(
        code == 12 && said.contains("not a regular file"),
        "{code}: {said}"
    );
}
