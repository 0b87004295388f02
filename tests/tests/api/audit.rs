use std::path::Path;

use belljar_tests::{Instance, Project, Run, Told, program};
use serde_json::Value;

/// `belljar audit show` out of files.
fn offline(arguments: &[&str]) -> Told {
    let ended = std::process::Command::new(program("belljar"))
        .args(["audit", "show"])
        .args(arguments)
        .output()
        .unwrap();
    Told {
        code: ended.status.code().unwrap(),
        printed: String::from_utf8(ended.stdout).unwrap(),
        said: String::from_utf8(ended.stderr).unwrap(),
    }
}

fn path(run: &Run, name: &str) -> String {
    run.output().join(name).to_str().unwrap().to_owned()
}

/// The same, of what `run` left.
fn of(run: &Run, trail: &str, receipt: &str, bundle: &str) -> Told {
    let key = path(run, "builder.pub");
    offline(&[
        "--trail",
        trail,
        "--receipt",
        receipt,
        "--bundle",
        bundle,
        "--key",
        &key,
    ])
}

#[test]
fn a_builds_story_is_told_online_and_offline() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script("echo made > out"));
    run.assert_succeeded();
    let name = run.json["build"].as_str().unwrap().to_owned();
    let online = instance.tell("audit show", &[&name]).assert_code(0).printed;
    for due in [
        name.as_str(),
        "unix:uid=0 asked for the project default (SO_PEERCRED",
        "admitted by policy",
        "attempt 1 begins",
        "inputs were verified and mounted: tree sha256:",
        "the sandbox was read back, and the steps begin",
        "signed by SHA256:",
        "nothing of attempt 1 is left",
        "the build has ended: succeeded",
        "namespaces",
        "owned by the initial user namespace",
        "no new privileges",
        "mode 2, ",
        "ABI ",
        "refused (errno",
        "none reported: refused calls and paths are not recorded by this version",
        "unchanged after the build",
        "none is left",
        "the key that the daemon told",
        "each naming the one before",
        "are the ones that the signed statement names",
    ] {
        assert!(online.contains(due), "{due}\n{online}");
    }
    let told = instance
        .tell("audit show", &[&name, "--json"])
        .assert_code(0);
    let json = told.json("belljar.audit/v1");
    assert_eq!(json["build"], name.as_str());
    assert_eq!(json["chain"]["verified"], true);
    assert_eq!(
        json["trail"].as_array().unwrap().len(),
        json["chain"]["entries"]
    );
    assert_eq!(
        json["chain"]["signed"],
        json["verdict"]["asserted"]["audit_entries"]
    );
    assert_eq!(json["receipt"], run.receipt());
    assert_eq!(json["key_from"], "daemon");
    let entries = json["trail"].as_array().unwrap().iter();
    let kinds: Vec<_> = entries
        .map(|entry| entry["event"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "submitted",
            "decided",
            "attempt_started",
            "staged",
            "launched",
            "ended",
            "collected",
            "attestation_requested",
            "signed",
            "destroyed",
            "finished"
        ]
    );
    // What `run` and `fetch` leave tells the same, with a key that is given.
    let files = ["audit.jsonl", "receipt.json", "out.sigstore.json"].map(|name| path(&run, name));
    let told = of(&run, &files[0], &files[1], &files[2])
        .assert_code(0)
        .printed;
    let given = online.replace(
        "the key that the daemon told; compare it with one that you trust",
        "the key that was given",
    );
    assert_eq!(told, given);
    // The trail alone says so.
    let told = offline(&["--trail", &files[0]]).assert_code(0).printed;
    assert!(told.contains("nothing signed names it"), "{told}");
    assert!(told.contains("there is no receipt"), "{told}");
}

#[test]
fn a_record_that_was_changed_is_refused_with_its_line() {
    let mut instance = Instance::started();
    let project = Project::script("echo made > out");
    let (run, other) = (instance.run(&project), instance.run(&project));
    run.assert_succeeded();
    other.assert_succeeded();
    let files = ["audit.jsonl", "receipt.json", "out.sigstore.json"].map(|name| path(&run, name));
    let [trail, receipt, bundle] = files.each_ref().map(String::as_str);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = std::fs::read_to_string(trail).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let refused = |told: Told, why: &str| {
        assert_eq!(told.code, 9, "{told:?}");
        assert!(told.said.contains(why), "{why}: {told:?}");
    };
    // One character of the third line: the fourth does not name it any more.
    let changed = text.replacen("\"attempt_started\"", "\"attempt_startet\"", 1);
    refused(
        offline(&["--trail", &write("a", changed.as_bytes())]),
        "line 3",
    );
    let changed = text.replacen("unix:uid=0", "unix:uid=9", 1);
    refused(
        offline(&["--trail", &write("b", changed.as_bytes())]),
        "line 2: the chain is broken",
    );
    // A line is missing.
    let without = [&lines[..4], &lines[5..]].concat().concat();
    refused(
        offline(&["--trail", &write("c", without.as_bytes())]),
        "line 5",
    );
    // The end is missing: only the signed statement shows that, as far as it names it.
    let short = write("d", lines[..5].concat().as_bytes());
    offline(&["--trail", &short]).assert_code(0);
    refused(of(&run, &short, receipt, bundle), "8 are due");
    // Pieces of another build.
    let theirs = |name: &str| path(&other, name);
    refused(of(&run, &theirs("audit.jsonl"), receipt, bundle), "digest");
    refused(
        of(&run, trail, &theirs("receipt.json"), bundle),
        "names the receipt",
    );
    let told = offline(&["--trail", trail, "--receipt", &theirs("receipt.json")]);
    refused(told, "of which the trail does not tell");
    // A changed statement, a changed receipt, another key.
    let mut spoilt: Value = serde_json::from_slice(&run.file("out.sigstore.json")).unwrap();
    spoilt["dsseEnvelope"]["payload"] = "e30=".into();
    let spoilt = write("e", spoilt.to_string().as_bytes());
    refused(of(&run, trail, receipt, &spoilt), "signature");
    let spoilt = String::from_utf8(run.file("receipt.json")).unwrap();
    let spoilt = spoilt.replacen("\"no_mount\":true", "\"no_mount\":false", 1);
    let spoilt = write("f", spoilt.as_bytes());
    refused(of(&run, trail, &spoilt, bundle), "names the receipt");
    refused(
        offline(&["--trail", trail, "--receipt", &spoilt]),
        "names the receipt",
    );
    // The daemon's own copy.
    let name = run.json["build"].as_str().unwrap();
    let id = name.strip_prefix("builds/").unwrap();
    let own = instance.state().join(format!("daemon/audit/{id}.jsonl"));
    rewrite(&own, &text.replacen("unix:uid=0", "unix:uid=9", 1));
    let told = instance
        .tell("audit show", &[name, "--json"])
        .assert_code(9);
    let error = told.json("belljar.error/v1");
    assert!(
        error["error"].as_str().unwrap().contains("line 2"),
        "{error}"
    );
    let output = dir.path().join("fetched");
    let output = output.to_str().unwrap();
    instance
        .tell("fetch", &[name, "--output", output])
        .assert_code(9);
    // What is not there is a local file's fault.
    offline(&["--trail", "/nowhere"]).assert_code(12);
    offline(&["--trail", trail, "--bundle", bundle]).assert_code(2);
}

/// Writes the content into the same file, which keeps owner and mode.
fn rewrite(path: &Path, content: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
}

#[test]
fn the_story_of_a_build_that_was_cancelled_before_it_began() {
    let mut instance = Instance::started();
    let client = instance.client();
    let slots = client.server_info().slots;
    let ids: Vec<_> = (0..=slots)
        .map(|n| {
            client
                .submit(&format!("r{n}"), &crate::endless(&client))
                .unwrap()
                .id
        })
        .collect();
    let waits = ids.last().unwrap();
    // What callers say stays in its place, and no terminal obeys it.
    let forged = "2026-01-01T00:00:00.000Z  signed by SHA256:forged: bundle sha256:00";
    let reason = format!("changed my mind\n  {forged}\n\nsignature\n  verified\u{1b}[2J");
    client.cancel(waits, &reason).unwrap();
    let told = instance
        .tell("audit show", &[waits.as_str()])
        .assert_code(0)
        .printed;
    for due in [
        "unix:uid=0 asked for the end: changed my mind",
        "the build has ended: cancelled by unix:uid=0: changed my mind",
        "there is no receipt",
        "nothing signed names it",
    ] {
        assert!(told.contains(due), "{due}\n{told}");
    }
    for command in ["audit show", "watch", "list", "show"] {
        let of: &[&str] = if command == "list" {
            &[]
        } else {
            &[waits.as_str()]
        };
        let told = instance.tell(command, of);
        let told = format!("{}{}", told.printed, told.said);
        assert!(
            told.contains("signed by SHA256:forged"),
            "{command}: {told}"
        );
        let mut lines = told.lines().map(str::trim_start);
        assert!(!told.contains('\u{1b}'), "{command}: {told}");
        if command != "show" {
            assert!(
                !lines.any(|line| line.starts_with(forged)),
                "{command}: {told}"
            );
        }
    }
    for id in &ids {
        client.cancel(id, "").unwrap();
        client.until(id, |build| build.outcome.is_some());
    }
}
