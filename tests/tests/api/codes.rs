use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use belljar_core::bounds;
use belljar_tests::{Instance, Part, Project, Run, STRANGER, Told, program};
use belljar_wire::BuildState;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::page::{Shapes, statuses};

const NOBODY: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";
const ENDLESS: &str = "echo begun; while [ ! -e /nowhere ]; do sleep 0.05; done";

/// What was seen of the commands.
struct Seen {
    shapes: Shapes,
    statuses: BTreeSet<(String, i32)>,
    schemas: BTreeSet<String>,
    /// What ended otherwise than it should: told together, at the end.
    wrong: Vec<String>,
}

impl Seen {
    /// Notes whether the command ended so; what it printed is held against its shape.
    fn take(&mut self, command: &str, told: &Told, code: i32) {
        if told.code != code {
            let (found, printed, said) = (told.code, &told.printed, &told.said);
            let wrong = format!("{command}: {found} where {code} is due\n{printed}\n{said}");
            self.wrong.push(wrong);
            return;
        }
        for line in told.printed.lines().filter(|line| line.starts_with('{')) {
            let json: Value = serde_json::from_str(line).unwrap();
            let schema = self.shapes.check(&json);
            if schema == "belljar.error/v1" {
                assert_eq!(json["exit_code"], code, "{command}: {json}");
            }
            self.schemas.insert(schema);
        }
        self.statuses.insert((command.to_owned(), code));
    }

    fn run(&mut self, run: &Run, code: i32) {
        assert_eq!(run.exit_code, code, "{run}");
        let told = Told {
            code,
            printed: run.json.to_string(),
            said: run.said.clone(),
        };
        self.take("run", &told, code);
    }
}

/// `belljar COMMAND` with these arguments, and nothing of the caller's environment but PATH.
fn belljar(command: &str, arguments: &[&str]) -> Command {
    of(Path::new(&program("belljar")), command, arguments)
}

fn of(program: &Path, command: &str, arguments: &[&str]) -> Command {
    let mut belljar = Command::new(program);
    belljar
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .args(command.split(' '))
        .args(arguments)
        .stdin(Stdio::null());
    belljar
}

fn told(ended: std::process::Output) -> Told {
    Told {
        code: ended.status.code().unwrap_or(-1),
        printed: String::from_utf8_lossy(&ended.stdout).into_owned(),
        said: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// What the commands that ask a daemon are asked here: a directory that anybody may enter, with a project, an
/// archive, and a place for outputs.
struct Questions {
    dir: tempfile::TempDir,
}

impl Questions {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(program("belljar"), dir.path().join("belljar")).unwrap();
        for name in ["project", "output"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            chown(dir.path().join(name), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        let manifest = "image = \"host\"\nrun = [\": > out\"]\noutputs = [\"out\"]\n";
        fs::write(dir.path().join("project/belljar.toml"), manifest).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(3);
        archive
            .append_data(&mut header, "etc/x", &b"abc"[..])
            .unwrap();
        fs::write(dir.path().join("image.tar"), archive.into_inner().unwrap()).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Each command that asks, with its arguments.
    fn all(&self) -> Vec<(&'static str, Vec<String>)> {
        let output = || ["--output".to_owned(), self.path("output")];
        let mut all = vec![
            (
                "run",
                [vec![self.path("project")], output().into()].concat(),
            ),
            ("submit", vec![self.path("project")]),
            ("fetch", [vec![NOBODY.to_owned()], output().into()].concat()),
            ("list", Vec::new()),
            ("key public", Vec::new()),
            ("doctor", Vec::new()),
            (
                "image import",
                vec![
                    self.path("image.tar"),
                    "--name".to_owned(),
                    "x".to_owned(),
                    "--lock".to_owned(),
                    self.path("output/belljar.lock"),
                ],
            ),
        ];
        for command in ["watch", "show", "logs", "cancel", "audit show", "store pin"] {
            all.push((command, vec![NOBODY.to_owned()]));
        }
        for command in ["store status", "store gc", "store scrub"] {
            all.push((command, Vec::new()));
        }
        all.push(("store unpin", vec!["pins/1".to_owned()]));
        for (_, arguments) in &mut all {
            arguments.push("--json".to_owned());
        }
        all
    }

    /// Asks all of them of these, and expects that status.
    fn ask(&self, seen: &mut Seen, whom: &[&str], code: i32) {
        for (command, arguments) in self.all() {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ended = belljar(command, &[&arguments[..], whom].concat()).output();
            seen.take(command, &told(ended.unwrap()), code);
        }
    }
}

/// Listens at a socket; what is done with a connection is up to the test.
fn listen(at: &Path, each: impl Fn(std::os::unix::net::UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(at).unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            each(connection.unwrap());
        }
    });
}

/// Builds that ended in every way, each by `run`. Gives their names with their statuses.
fn builds(instance: &mut Instance, seen: &mut Seen) -> Vec<(String, i32)> {
    let limit =
        |script: &str, limit: &str| Project::of(&[script], &["out"], &format!("[limits]\n{limit}"));
    let refused = Project::of(&["true"], &["out"], "working_directory = \"nowhere\"");
    let cases = [
        (
            Project::of(&["echo said; mkdir d; : > d/x; ln -s x d/l"], &["d"], ""),
            0,
        ),
        (Project::script("exit 3"), 1),
        (limit("sleep 100", "wall_seconds = 1\ngrace_seconds = 1"), 3),
        (limit("yes | head -c 100000", "log_bytes = 100"), 4),
        (Project::script("true"), 5),
        (refused, 7),
    ];
    let mut names = Vec::new();
    let mut ended = |run: &Run, code: i32, seen: &mut Seen| {
        seen.run(run, code);
        names.push((run.json["build"].as_str().unwrap().to_owned(), code));
    };
    for (project, code) in cases {
        ended(&instance.run(&project), code, seen);
    }
    let project = Project::script(ENDLESS);
    let running = instance.begin(&project);
    instance.wait_until_logged("begun");
    running.signal(Signal::INT);
    ended(&instance.finish(running), 6, seen);
    // Whoever loses its spawner each time is given up.
    let client = instance.client();
    let spec = client.spec(&[("in", "")], &[ENDLESS], &["out"]);
    let build = client.submit("lost", &spec).unwrap().id;
    for attempt in 1..=bounds::ATTEMPTS {
        client.until(&build, |build| {
            build.attempt == attempt && build.state == BuildState::Running
        });
        instance.kill_part(Part::Spawner);
        instance.start_part(Part::Spawner);
    }
    client.until(&build, |build| build.outcome.is_some());
    names.push((build.to_string(), 8));
    names
}

#[test]
fn commands_end_and_print_as_the_page_says() {
    let mut seen = Seen {
        shapes: Shapes::read(),
        statuses: BTreeSet::new(),
        schemas: BTreeSet::new(),
        wrong: Vec::new(),
    };
    let mut instance = Instance::started();
    let questions = Questions::new();
    answered(&mut instance, &questions, &mut seen);
    contradicted(&mut instance, &mut seen);
    offline(&questions, &mut seen);
    nobody(&instance, &questions, &mut seen);
    drop(instance);
    on_a_host_that_lacks_a_layer(&questions, &mut seen);
    assert!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
    let (page, shapes) = (statuses(), seen.shapes.schemas());
    let compared = |a: &BTreeSet<(String, i32)>, b| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(
        compared(&page, &seen.statuses),
        [],
        "in the page, and never seen"
    );
    assert_eq!(
        compared(&seen.statuses, &page),
        [],
        "seen, and not in the page"
    );
    // For that it takes a registry: the suite `registry` sees it.
    seen.schemas.insert("belljar.push/v1".to_owned());
    assert_eq!(seen.schemas, shapes);
}

/// A daemon that does what it is asked.
fn answered(instance: &mut Instance, questions: &Questions, seen: &mut Seen) {
    for (name, code) in builds(instance, seen) {
        let output = tempfile::tempdir().unwrap();
        let at = output.path().to_str().unwrap();
        seen.take("watch", &instance.tell("watch", &[&name, "--json"]), code);
        let fetched = instance.tell("fetch", &[&name, "--output", at, "--json"]);
        seen.take("fetch", &fetched, code);
        for command in ["show", "logs", "cancel", "audit show"] {
            seen.take(command, &instance.tell(command, &[&name, "--json"]), 0);
        }
    }
    for command in ["list", "key public", "doctor"] {
        seen.take(command, &instance.tell(command, &["--json"]), 0);
    }
    for command in ["store gc", "store scrub"] {
        seen.take(command, &instance.tell(command, &["--json"]), 0);
    }
    let (archive, lock) = (questions.path("image.tar"), questions.path("output/lock"));
    let import = [archive.as_str(), "--name", "x", "--lock", &lock, "--json"];
    seen.take("image import", &instance.tell("image import", &import), 0);
    let listed = belljar("image list", &["--lock", &lock, "--json"]).output();
    seen.take("image list", &told(listed.unwrap()), 0);
    // One that goes on: it is listed and shown so, and there is nothing to fetch yet.
    let project = Project::script(ENDLESS);
    let submitted = instance.tell("submit", &[project.path().to_str().unwrap(), "--json"]);
    seen.take("submit", &submitted, 0);
    let name = submitted.json("belljar.submit/v1")["build"]
        .as_str()
        .unwrap()
        .to_owned();
    for command in ["show", "list"] {
        let of: &[&str] = if command == "show" {
            &[&name, "--json"]
        } else {
            &["--json"]
        };
        seen.take(command, &instance.tell(command, of), 0);
    }
    let output = questions.path("output/early");
    let early = instance.tell("fetch", &[&name, "--output", &output, "--json"]);
    seen.take("fetch", &early, 13);
    let pin = ["--reason", "kept", "--json", &name];
    let pinned = instance.tell("store pin", &pin);
    seen.take("store pin", &pinned, 0);
    seen.take(
        "store status",
        &instance.tell("store status", &["--json"]),
        0,
    );
    let pin = pinned.json("belljar.pin/v1")["pin"]["pin"]
        .as_str()
        .unwrap()
        .to_owned();
    seen.take(
        "store unpin",
        &instance.tell("store unpin", &[&pin, "--json"]),
        0,
    );
    seen.take("cancel", &instance.tell("cancel", &[&name, "--json"]), 0);
    seen.take("watch", &instance.tell("watch", &[&name, "--json"]), 6);
}

/// Evidence that somebody has changed.
fn contradicted(instance: &mut Instance, seen: &mut Seen) {
    let spoil = |instance: &Instance| {
        let trails = fs::read_dir(instance.state().join("daemon/audit")).unwrap();
        let trails = trails.map(|entry| entry.unwrap().path());
        let latest = trails
            .max_by_key(|path| path.file_name().unwrap().to_owned())
            .unwrap();
        let text = fs::read_to_string(&latest).unwrap();
        let mut file = fs::File::options().write(true).open(&latest).unwrap();
        let at = text.find("unix:uid=0").unwrap();
        file.write_all(&text.as_bytes()[..at]).unwrap();
        file.write_all(b"unix:uid=9").unwrap();
        latest.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    let project = Project::script("echo begin; sleep 2; : > out");
    let running = instance.begin(&project);
    instance.wait_until_logged("begin\n");
    let id = spoil(instance);
    seen.run(&instance.finish(running), 9);
    let output = tempfile::tempdir().unwrap();
    let at = output.path().to_str().unwrap();
    let fetched = instance.tell("fetch", &[&id, "--output", at, "--json"]);
    seen.take("fetch", &fetched, 9);
    seen.take(
        "audit show",
        &instance.tell("audit show", &[&id, "--json"]),
        9,
    );
}

/// Commands that ask nobody, and mistakes that are found before anybody is asked.
fn offline(questions: &Questions, seen: &mut Seen) {
    let mut tell = |command: &str, arguments: &[&str], code: i32| {
        let ended = belljar(command, arguments).output().unwrap();
        seen.take(command, &told(ended), code);
    };
    for (command, _) in statuses() {
        tell(&command, &["--nonsense"], 2);
    }
    let fine = questions.dir.path();
    let mut instance = Instance::new();
    let run = instance.run(&Project::script(": > out"));
    run.assert_succeeded();
    let at = |name: &str| run.output().join(name).to_str().unwrap().to_owned();
    let (artifact, key, bundle) = (at("out"), at("builder.pub"), at("out.sigstore.json"));
    tell("verify", &[&artifact, "--key", &key, "--json"], 0);
    let other = [&key, "--bundle", &bundle, "--key", &key, "--json"].map(|a| a as &str);
    tell("verify", &other, 9);
    tell("verify", &["/nowhere", "--key", &key, "--json"], 12);
    tell("completions", &["bash"], 0);
    tell("man", &[fine.to_str().unwrap()], 0);
    tell("man", &["/nowhere"], 12);
    tell("image list", &["--lock", "/", "--json"], 12);
}

/// Nobody, somebody who is none of Belljar's, somebody who says nothing; and callers who may not ask.
fn nobody(instance: &Instance, questions: &Questions, seen: &mut Seen) {
    questions.ask(seen, &["--socket", "/nowhere"], 10);
    let files =
        "--server https://127.0.0.1:1 --tls-ca /nowhere --tls-cert /nowhere --tls-key /nowhere";
    questions.ask(seen, &files.split(' ').collect::<Vec<_>>(), 12);
    let nonsense = questions.path("nonsense");
    listen(nonsense.as_ref(), |mut connection| {
        let _ = connection.read(&mut [0; 1024]);
        let _ = connection.write_all(b"220 mail.example.org ESMTP\r\n");
    });
    questions.ask(seen, &["--socket", &nonsense], 8);

    let socket = Part::Belljard.socket(instance.state());
    fs::set_permissions(instance.state(), fs::Permissions::from_mode(0o755)).unwrap();
    for (command, arguments) in questions.all() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let whom = ["--socket", socket.to_str().unwrap()];
        let copy = PathBuf::from(questions.path("belljar"));
        let ended = of(&copy, command, &[&arguments[..], &whom].concat())
            .uid(STRANGER)
            .gid(STRANGER)
            .output();
        seen.take(command, &told(ended.unwrap()), 7);
    }
    fs::set_permissions(instance.state(), fs::Permissions::from_mode(0o700)).unwrap();
    interrupted(questions, seen);
}

/// Somebody who says nothing, until the caller has enough.
fn interrupted(questions: &Questions, seen: &mut Seen) {
    let silent = questions.path("silent");
    let (sender, asked) = std::sync::mpsc::channel();
    listen(silent.as_ref(), move |mut connection| {
        // What it begins with says that the command waits, and listens for signals.
        let _ = connection.read(&mut [0; 1024]);
        sender.send(connection).unwrap();
    });
    for (command, arguments) in questions.all() {
        let code = match command {
            "run" | "submit" => 6,
            // They ask one thing, and leave the signal to the kernel.
            "key public" | "doctor" => continue,
            _ => 13,
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut waiting = belljar(command, &[&arguments[..], &["--socket", &silent]].concat());
        let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped());
        let waiting = waiting.spawn().unwrap();
        let connection = asked.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
        let ended = waiting.wait_with_output().unwrap();
        seen.take(command, &told(ended), code);
        drop(connection);
    }
}

/// Embedded mode without a capability that the spawner needs.
fn on_a_host_that_lacks_a_layer(questions: &Questions, seen: &mut Seen) {
    let instance = Instance::new();
    let state = instance.state().to_str().unwrap();
    for (command, arguments) in questions.all() {
        // The one needs a daemon that goes on, the other starts none.
        if matches!(command, "submit" | "key public") {
            continue;
        }
        let ended = Command::new("setpriv")
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
            .arg(program("belljar"))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(command.split(' '))
            .args(&arguments)
            .args(["--state", state])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = told(ended);
        seen.take(command, &told, 11);
        if !told.printed.contains("NET_ADMIN") {
            seen.wrong
                .push(format!("{command} names no layer: {told:?}"));
        }
    }
}
