use std::process::Stdio;
use std::time::Duration;

use belljar_tests::{Instance, Part, Project, Told, wait_for};
use belljar_wire::BuildState;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{build, endless, quick};

const ENDLESS: &str = "echo begun; while [ ! -e /nowhere ]; do sleep 0.05; done";
const NOBODY: &str = "01jd8q6z8r4x7j2m5t9v0w3y6b";

/// Names of all fields.
fn fields(json: &Value) -> Vec<&str> {
    let mut names: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

fn submit(instance: &mut Instance, project: &Project, more: &[&str]) -> Told {
    let dir = project.path().to_str().unwrap().to_owned();
    let arguments: Vec<&str> = [&[dir.as_str()], more].concat();
    instance.tell("submit", &arguments)
}

#[test]
fn a_build_is_submitted_watched_shown_and_fetched() {
    let mut instance = Instance::started();
    let project = Project::script("echo hello; echo made > out");
    let submitted = submit(&mut instance, &project, &["--request-id", "r1"]).assert_code(0);
    let name = submitted.printed.trim().to_owned();
    assert!(name.starts_with("builds/"), "{name}");
    // The same again is the same build.
    let again = submit(&mut instance, &project, &["--request-id", "r1", "--json"]).assert_code(0);
    let json = again.json("belljar.submit/v1");
    assert_eq!(
        (&json["build"], &json["request_id"]),
        (&json!(name), &json!("r1"))
    );
    assert_eq!(
        fields(&json),
        [
            "build",
            "created",
            "request_id",
            "schema",
            "socket",
            "spec",
            "state",
            "submitter"
        ]
    );
    // Another body under that name is not.
    let other = Project::script("echo other > out");
    submit(&mut instance, &other, &["--request-id", "r1"]).assert_code(2);

    let watched = instance.tell("watch", &[&name]).assert_code(0);
    assert_eq!(watched.printed, format!("{name} succeeded\n"));
    assert!(watched.said.contains("hello"), "{}", watched.said);
    let watched = instance.tell("watch", &[&name, "--json"]).assert_code(0);
    let json = watched.json("belljar.build/v1");
    assert_eq!(json["exit_code"], 0);

    // With and without the collection's name.
    let id = name.strip_prefix("builds/").unwrap();
    let shown = instance.tell("show", &[id, "--json"]).assert_code(0);
    let shown = shown.json("belljar.build/v1");
    assert_eq!(shown, json);
    assert_eq!(
        fields(&shown),
        [
            "artifacts",
            "attempt",
            "build",
            "created",
            "ended",
            "evidence",
            "exit_code",
            "image",
            "outcome",
            "request_id",
            "schema",
            "sequence",
            "spec",
            "started",
            "state",
            "submitter",
            "summary"
        ]
    );
    let words = instance.tell("show", &[&name]).assert_code(0).printed;
    for due in [
        "outcome        succeeded",
        "request id     r1",
        "artifact       out",
        "signed by",
    ] {
        assert!(words.contains(due), "{due}: {words}");
    }

    let output = tempfile::tempdir().unwrap();
    let at = output.path().join("home");
    let at = at.to_str().unwrap();
    let fetched = instance
        .tell("fetch", &[&name, "--output", at, "--json"])
        .assert_code(0);
    let fetched = fetched.json("belljar.fetch/v1");
    assert_eq!(fetched["verdict"]["subjects"], json!(["out"]));
    // As `run` leaves it, but for where the sources came from.
    let run = instance.run(&project);
    run.assert_succeeded();
    let names = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(at.as_ref()), names(run.output()));
    let mut of_run = fields(&run.json);
    of_run.retain(|field| *field != "source");
    assert_eq!(fields(&fetched), of_run);
    for file in ["out", "build.log", "builder.pub"] {
        let home = std::fs::read(std::path::Path::new(at).join(file)).unwrap();
        assert_eq!(home, run.file(file), "{file}");
    }
    let key = format!("{at}/builder.pub");
    let bundle = format!("{at}/out");
    let verified = std::process::Command::new(belljar_tests::program("belljar"))
        .args(["verify", &bundle, "--key", &key])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn a_build_that_failed_says_so_by_each_verb() {
    let mut instance = Instance::started();
    let project = Project::script("echo oops; exit 3");
    let name = submit(&mut instance, &project, &[]).assert_code(0).printed;
    let name = name.trim();
    instance.tell("watch", &[name]).assert_code(1);
    let shown = instance.tell("show", &[name, "--json"]).assert_code(0);
    let json = shown.json("belljar.build/v1");
    assert_eq!(
        json["outcome"],
        json!({"kind": "failed", "step": 0, "exit_code": 3})
    );
    assert_eq!(json["exit_code"], 1);
    let output = tempfile::tempdir().unwrap();
    let at = output.path().to_str().unwrap();
    let fetched = instance
        .tell("fetch", &[name, "--output", at])
        .assert_code(1);
    assert!(
        fetched.printed.contains("failed with exit status 3"),
        "{fetched:?}"
    );
    let log = std::fs::read_to_string(output.path().join("build.log")).unwrap();
    assert_eq!(log, "oops\n");
    assert!(output.path().join("receipt.json").exists());
    assert!(!output.path().join("out").exists());
}

#[test]
fn builds_are_cancelled_with_who_and_why() {
    let mut instance = Instance::started();
    let client = instance.client();
    let slots = client.server_info().slots;
    let mut names: Vec<_> = (0..=slots)
        .map(|n| {
            client
                .submit(&format!("r{n}"), &endless(&client))
                .unwrap()
                .id
                .to_string()
        })
        .collect();
    let waits = names.pop().unwrap();
    // One that waits.
    let told = instance.tell("cancel", &[&waits, "--reason", "not now", "--json"]);
    let json = told.assert_code(0).json("belljar.build/v1");
    let due = json!({"kind": "cancelled", "by": "unix:uid=0", "reason": "not now"});
    assert_eq!((&json["state"], &json["outcome"]), (&json!("ENDED"), &due));
    let told = instance.tell("watch", &[&waits]).assert_code(6);
    assert!(
        told.printed.contains("cancelled by unix:uid=0: not now"),
        "{told:?}"
    );
    // One that runs; again, after its end, nothing changes.
    let runs = names[0].clone();
    instance.wait_until_logged("begun");
    instance.tell("cancel", &[&runs]).assert_code(0);
    instance.tell("watch", &[&runs]).assert_code(6);
    let told = instance
        .tell("cancel", &[&runs, "--reason", "too late"])
        .assert_code(0);
    assert_eq!(
        told.printed,
        format!("builds/{runs} cancelled by unix:uid=0\n")
    );
    for other in &names[1..] {
        instance.tell("cancel", &[other]).assert_code(0);
        instance.tell("watch", &[other]).assert_code(6);
    }
    let long = "x".repeat(1025);
    let told = instance
        .tell("cancel", &[&runs, "--reason", &long, "--json"])
        .assert_code(2);
    assert_eq!(
        told.json("belljar.error/v1")["fields"][0]["field"],
        "reason"
    );
}

#[test]
fn a_watch_by_the_command_line_outlives_the_daemon() {
    let mut instance = Instance::started();
    let project = Project::script("echo begun; sleep 1; echo done > out");
    let name = submit(&mut instance, &project, &[]).assert_code(0).printed;
    let mut command = instance.command("watch");
    let watching = command
        .args([name.trim(), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    instance.wait_until_logged("begun");
    instance.kill_part(Part::Belljard);
    // Away for so long that it is noticed.
    std::thread::sleep(Duration::from_millis(700));
    instance.start_part(Part::Belljard);
    let ended = watching.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let json: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(json["attempt"], 2, "{said}");
    assert!(said.contains("trying again"), "{said}");
    assert!(said.contains("attempt 2 of at most 3"), "{said}");
}

/// Reads what a command says until the build's log has come.
fn until_begun(mut pipe: impl std::io::Read) {
    let mut said = Vec::new();
    while !said.windows(5).any(|window| window == b"begun") {
        let mut byte = [0];
        assert_eq!(
            pipe.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
}

#[test]
fn whoever_only_looks_does_not_cancel() {
    let mut instance = Instance::started();
    let name = submit(&mut instance, &Project::script(ENDLESS), &[]).printed;
    let name = name.trim();
    instance.wait_until_logged("begun");
    for command in ["watch", "logs"] {
        let mut looking = instance.command(command);
        looking
            .arg(name)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if command == "logs" {
            looking.arg("--follow");
        }
        let mut looking = looking.spawn().unwrap();
        // It has taken the signal over before it has anything to say.
        let (out, err) = (looking.stdout.as_mut(), looking.stderr.as_mut());
        match command {
            "logs" => until_begun(out.unwrap()),
            _ => until_begun(err.unwrap()),
        }
        kill_process(Pid::from_child(&looking), Signal::INT).unwrap();
        let ended = looking.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(13), "{command}: {said}");
        assert!(said.contains("interrupted"), "{said}");
    }
    let shown = instance
        .tell("show", &[name, "--json"])
        .json("belljar.build/v1");
    // Its log may be there before the word that it runs.
    let state = shown["state"].as_str().unwrap();
    assert!(matches!(state, "LAUNCHING" | "RUNNING"), "{shown}");
    assert_eq!(shown["exit_code"], Value::Null);
    // Nothing can be fetched yet.
    let output = tempfile::tempdir().unwrap();
    let at = output.path().join("none");
    let early = instance.tell("fetch", &[name, "--output", at.to_str().unwrap(), "--json"]);
    let early = early.assert_code(13).json("belljar.error/v1");
    assert!(
        early["hint"].as_str().unwrap().contains("belljar watch"),
        "{early}"
    );
    assert!(!at.exists(), "nothing was begun");
    instance.tell("cancel", &[name]).assert_code(0);
    instance.tell("watch", &[name]).assert_code(6);
}

#[test]
fn logs_come_byte_for_byte() {
    let mut instance = Instance::started();
    let project = Project::script("printf 'one\\ntwo \\377\\nthree'; : > out");
    let name = submit(&mut instance, &project, &[]).printed;
    let name = name.trim();
    instance.tell("watch", &[name]).assert_code(0);
    let raw = instance.command("logs").arg(name).output().unwrap();
    assert_eq!(raw.stdout, b"one\ntwo \xff\nthree");
    assert_eq!(raw.status.code(), Some(0));
    let followed = instance
        .command("logs")
        .args([name, "--follow"])
        .output()
        .unwrap();
    assert_eq!(
        (followed.stdout, followed.status.code()),
        (raw.stdout, Some(0))
    );
    let lines = instance
        .tell("logs", &[name, "--attempt", "1", "--json"])
        .assert_code(0);
    let lines: Vec<Value> = lines
        .printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let piece = |offset: u64, bytes: u64, text: &str| {
        json!({
            "schema": "belljar.log/v1", "build": name, "attempt": 1, "offset": offset,
            "bytes": bytes, "text": text
        })
    };
    let due = [
        piece(0, 4, "one\n"),
        piece(4, 6, "two \u{fffd}\n"),
        piece(10, 5, "three"),
    ];
    assert_eq!(lines, due);
    instance
        .tell("logs", &[name, "--attempt", "2"])
        .assert_code(2);
    // Followed while it grows.
    let project = Project::script("echo begun; sleep 1; echo end; : > out");
    let name = submit(&mut instance, &project, &[]).printed;
    let followed = instance
        .tell("logs", &[name.trim(), "--follow"])
        .assert_code(0);
    assert_eq!(followed.printed, "begun\nend\n");
}

#[test]
fn builds_are_listed() {
    let mut instance = Instance::started();
    let client = instance.client();
    let good = build(&client, "good", &quick(&client)).id.to_string();
    let failing = client.spec(&[("in", "1")], &["exit 3"], &["out"]);
    let bad = build(&client, "bad", &failing).id.to_string();
    let list = |instance: &mut Instance, arguments: &[&str]| {
        let arguments = [arguments, &["--json"]].concat();
        instance
            .tell("list", &arguments)
            .assert_code(0)
            .json("belljar.list/v1")
    };
    let ids = |json: &Value| -> Vec<String> {
        let builds = json["builds"].as_array().unwrap().iter();
        builds
            .map(|one| one["build"].as_str().unwrap().replace("builds/", ""))
            .collect()
    };
    let all = list(&mut instance, &["--limit", "2"]);
    assert_eq!(ids(&all), [bad.clone(), good.clone()]);
    assert_eq!(fields(&all), ["builds", "next_page_token", "schema"]);
    assert_eq!(
        fields(&all["builds"][0]),
        [
            "attempt",
            "build",
            "created",
            "ended",
            "evidence",
            "outcome",
            "request_id",
            "started",
            "state",
            "submitter",
            "summary"
        ]
    );
    // The one that wrote the configuration.
    let token = all["next_page_token"].as_str().unwrap();
    let rest = list(&mut instance, &["--page-token", token]);
    assert_eq!(
        (ids(&rest).len(), &rest["next_page_token"]),
        (1, &json!(""))
    );
    assert_eq!(
        ids(&list(&mut instance, &["--outcome", "failed"])),
        std::slice::from_ref(&bad)
    );
    let narrowed = [
        "--build-state",
        "ended",
        "--request-id",
        "good",
        "--submitter",
        "unix:uid=0",
    ];
    assert_eq!(
        ids(&list(&mut instance, &narrowed)),
        std::slice::from_ref(&good)
    );
    let made = belljar_core::ObjectId::of(b"1").digest.to_string();
    assert_eq!(
        ids(&list(&mut instance, &["--artifact", &made])),
        std::slice::from_ref(&good)
    );
    let since = ["--since", "2100-01-01T00:00:00Z"];
    assert_eq!(ids(&list(&mut instance, &since)).len(), 0);
    let filter = [
        "--filter",
        "outcome != succeeded",
        "--until",
        "2100-01-01T00:00:00Z",
    ];
    assert_eq!(ids(&list(&mut instance, &filter)), [bad]);
    let table = instance.tell("list", &["--limit", "1"]).assert_code(0);
    assert!(table.printed.starts_with("BUILD "), "{table:?}");
    assert!(
        table.printed.contains("step 1 failed with exit status 3"),
        "{table:?}"
    );
    assert!(table.said.contains("--page-token"), "{table:?}");
    let wrong = instance
        .tell("list", &["--filter", "color = red", "--json"])
        .assert_code(2);
    let wrong = wrong.json("belljar.error/v1");
    assert_eq!(wrong["fields"][0]["field"], "filter");
    assert!(
        wrong["error"].as_str().unwrap().contains("at character 1"),
        "{wrong}"
    );
}

#[test]
fn what_is_not_there_is_named_by_each_verb() {
    let mut instance = Instance::started();
    for verb in ["watch", "show", "logs", "cancel", "fetch", "audit show"] {
        let told = instance.tell(verb, &[NOBODY, "--json"]).assert_code(2);
        let error = told.json("belljar.error/v1");
        let said = error["error"].as_str().unwrap();
        assert!(
            said.contains(NOBODY) && said.contains("does not exist"),
            "{verb}: {said}"
        );
        let told = instance.tell(verb, &["builds/nonsense"]).assert_code(2);
        assert!(told.said.contains("26 characters"), "{verb}: {told:?}");
    }
    instance.kill_part(Part::Belljard);
    for verb in ["watch", "show", "logs", "cancel", "fetch", "audit show"] {
        instance.tell(verb, &[NOBODY]).assert_code(10);
    }
    instance.tell("list", &[]).assert_code(10);
    submit(&mut instance, &Project::script(": > out"), &[]).assert_code(10);
    submit(&mut instance, &Project::bare(), &[]).assert_code(2);
    instance.start_part(Part::Belljard);
}

#[test]
fn a_submission_that_cannot_be_built_is_refused_at_once() {
    let mut instance = Instance::started();
    let project = Project::of(&["true"], &["../out"], "");
    let told = submit(&mut instance, &project, &["--json"]).assert_code(2);
    let error = told.json("belljar.error/v1");
    assert_eq!(error["fields"][0]["field"], "outputs[0]", "{error}");
    let listed = instance.tell("list", &["--json"]).json("belljar.list/v1");
    assert_eq!(
        listed["builds"].as_array().unwrap().len(),
        1,
        "the one before"
    );
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    const VERBS: [&str; 12] = [
        "run", "submit", "watch", "list", "show", "logs", "cancel", "fetch", "audit", "verify",
        "key", "doctor",
    ];
    let belljar = |arguments: &[&str]| {
        let command = std::process::Command::new(belljar_tests::program("belljar"))
            .args(arguments)
            .output();
        let ended = command.unwrap();
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = belljar(&["completions", shell]);
        for verb in VERBS {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    belljar(&["man", dir.path().to_str().unwrap()]);
    for verb in VERBS {
        let page = dir.path().join(format!("belljar-{verb}.1"));
        let page = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{verb}: {e}"));
        assert!(
            page.contains(".SH SYNOPSIS") || page.contains(".SH \"SYNOPSIS\""),
            "{page}"
        );
    }
    let main = std::fs::read_to_string(dir.path().join("belljar.1")).unwrap();
    assert!(main.contains("Exit status"), "{main}");
    assert!(dir.path().join("belljar-audit-show.1").exists());
    assert!(!dir.path().join("belljar-man.1").exists(), "it is hidden");
}

#[test]
fn nothing_is_coloured_unless_for_a_terminal() {
    let mut instance = Instance::started();
    let name = submit(&mut instance, &Project::script(": > out"), &[]);
    assert!(!name.said.contains('\u{1b}'), "{name:?}");
    let told = instance
        .tell("watch", &[name.printed.trim()])
        .assert_code(0);
    assert!(!told.said.contains('\u{1b}'), "{told:?}");
    let client = instance.client();
    wait_for("the build has ended", Duration::from_secs(60), || {
        let id = name.printed.trim().replace("builds/", "");
        let build = client
            .get(&belljar_core::BuildId::new(id).unwrap())
            .unwrap();
        (build.state == BuildState::Ended).then_some(())
    });
}
