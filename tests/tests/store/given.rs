use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use belljar_core::{
    ArtifactFetch, ArtifactForm, Digest, Fetch, Fetches, InputName, Outcome, Recipe, Unpack,
};
use belljar_tests::{Instance, Project, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use crate::{LEASE, name, started, sweep};

const SEED: &[u8] = b"seed\n";

/// A build that has what another one left, as a file and as a directory.
fn given(steps: &[&str]) -> Project {
    let file = belljar_tree::Leaf::File {
        object: belljar_core::ObjectId::of(SEED),
        executable: false,
    };
    let path = belljar_core::RelPath::new("deep/seed").unwrap();
    let tree = belljar_tree::build([(path, file)]).unwrap().root.digest;
    let more = format!(
        "[fetch.file]\nartifact = \"{}\"\nfile_name = \"seed\"\n[fetch.dir]\nartifact = \"{tree}\"\ndirectory = true",
        Digest::of(SEED)
    );
    Project::of(steps, &["out"], &more)
}

fn producer(instance: &mut Instance) -> String {
    let script = "mkdir -p cache/deep; echo seed | tee cache/deep/seed > seed";
    let run = instance.run(&Project::of(&[script], &["seed", "cache"], ""));
    run.assert_succeeded();
    name(&run)
}

/// A command of a build that waits for [`go_on`]; of this number no other process of the machine has one.
fn pause(number: usize) -> String {
    format!("sleep {}.{number}", 1_000_000 + std::process::id())
}

/// Ends it.
fn go_on(pause: &str) {
    let line = format!("{}\0", pause.replace(' ', "\0"));
    wait_for("the build pauses", Duration::from_secs(60), || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let mut pids = processes.filter_map(|process| {
            let said = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let pid = process.file_name().to_str()?.parse().ok()?;
            (said == line).then_some(pid)
        });
        kill_process(Pid::from_raw(pids.next()?)?, Signal::TERM).ok()
    });
}

#[test]
fn what_a_build_was_given_of_another_stays_as_long_as_it_is_needed_and_no_longer() {
    let mut instance = started("", "[store.retention]\nbuilds = 1");
    let first = producer(&mut instance);
    // It is mounted; then the other build is given up, with all that it has left.
    let pause = pause(0);
    let go = format!("echo mounted; {pause} || :; cat /deps/file/seed /deps/dir/deep/seed > out");
    let project = given(&[&go]);
    let mut running = instance.begin(&project);
    running.wait_until_logged("mounted");
    // Something newer takes the one place that there is.
    instance
        .run(&Project::script("echo other > out"))
        .assert_succeeded();
    std::thread::sleep(LEASE);
    let swept = sweep(&mut instance, &["--all"]);
    assert!(swept["builds"].as_u64().unwrap() >= 1, "{swept}");
    assert!(!running.has_ended());
    go_on(&pause);
    let run = instance.finish(running);
    run.assert_succeeded();
    run.assert_verified("out");
    assert_eq!(run.file("out"), [SEED, SEED].concat());

    // When nobody needs it any more it goes, and who asks is told so.
    let newer = instance.run(&Project::script("echo newer > out"));
    newer.assert_succeeded();
    wait_for("the seed is gone", Duration::from_secs(60), || {
        std::thread::sleep(LEASE);
        sweep(&mut instance, &["--all"]);
        let path = belljar_cas::path_of(&instance.state().join("store"), Digest::of(SEED));
        (!path.exists()).then_some(())
    });
    let refused = instance.run(&given(&["echo never > out"]));
    assert_eq!(refused.exit_code, 7, "{}", refused.outcome());
    let why = refused.outcome().to_string();
    assert!(
        why.contains("is no longer kept") && why.contains(&first),
        "{why}"
    );
    // A pin keeps it, however many builds come after.
    let second = producer(&mut instance);
    instance.tell("store pin", &[&second]).assert_code(0);
    instance
        .run(&Project::script("echo last > out"))
        .assert_succeeded();
    std::thread::sleep(LEASE);
    sweep(&mut instance, &["--all"]);
    let run = instance.run(&given(&["cat /deps/dir/deep/seed > out"]));
    run.assert_succeeded();
    assert_eq!(run.file("out"), SEED);
    // The one that left it first is named, as long as what it left is there again.
    let trail = String::from_utf8(run.file("audit.jsonl")).unwrap();
    let by = first.strip_prefix("builds/").unwrap();
    assert!(trail.contains(&format!("\"by\":\"{by}-1\"")), "{trail}");
    // The tree that was made of it goes when nobody needs that, whole, and is made again.
    instance
        .run(&Project::script("echo more > out"))
        .assert_succeeded();
    std::thread::sleep(LEASE);
    let swept = sweep(&mut instance, &["--all"]);
    assert!(swept["removed_objects"].as_u64().unwrap() > 0, "{swept}");
    let again = given(&["cat /deps/file/seed /deps/dir/deep/seed > out"]);
    let run = instance.run(&again);
    run.assert_succeeded();
    assert_eq!(run.file("out"), [SEED, SEED].concat());
}

#[test]
fn what_goes_while_a_build_waits_for_its_turn_is_refused_by_name() {
    let mut instance = started("", "[store.retention]\nbuilds = 1");
    let first = producer(&mut instance);
    // The next sweep gives it up.
    instance
        .run(&Project::script("echo newer > out"))
        .assert_succeeded();
    let client = instance.client();
    let slots = usize::try_from(client.server_info().slots).unwrap();
    for number in 0..slots {
        let script = format!("{} || :; echo > out", pause(number));
        let spec = client.spec(&[], &[&script], &["out"]);
        client.submit(&format!("before-{number}"), &spec).unwrap();
    }
    let mut spec = client.spec(&[], &["echo never > out"], &["out"]);
    let seed = ArtifactFetch {
        artifact: Digest::of(SEED),
        form: ArtifactForm::File(Unpack::file("seed", false).unwrap()),
        build: None,
        builder: None,
    };
    let name = InputName::new("file").unwrap();
    spec.fetches = Fetches::new([(name, Fetch::Artifact(seed))].into()).unwrap();
    let waits = client.submit("waits", &spec).unwrap();
    std::thread::sleep(LEASE);
    sweep(&mut instance, &["--all"]);
    let path = belljar_cas::path_of(&instance.state().join("store"), Digest::of(SEED));
    assert!(!path.exists());
    assert_eq!(client.get(&waits.id).unwrap().outcome, None);
    (0..slots).for_each(|number| go_on(&pause(number)));
    let build = client.until(&waits.id, |build| build.outcome.is_some());
    let Some(Outcome::Refused { reasons }) = build.outcome else {
        panic!("{:?}", build.outcome)
    };
    let why = reasons.join("; ");
    assert!(
        why.contains("is no longer kept") && why.contains(&first),
        "{why}"
    );
    assert!(build.evidence.bundle.is_none());
}

#[test]
fn what_a_tree_is_made_of_counts_as_given_when_that_is_made() {
    let instance = started("", "");
    let client = instance.client();
    let content = b"nobody needs it\n";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, "file", &content[..])
        .unwrap();
    let archive = client.put(&archive.into_inner().unwrap());
    let file = client.put(content);
    let file = belljar_cas::path_of(&instance.state().join("store"), file.digest);
    let given = || fs::metadata(&file).unwrap().ctime();
    // Now a sweep could be about to remove it, while the tree is not anybody's yet.
    std::thread::sleep(LEASE);
    let before = given();
    client.derive(&Recipe::Tar { archive }).unwrap();
    assert!(given() >= before + 2);
}
