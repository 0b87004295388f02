use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use belljar_core::{ObjectId, Outcome};
use belljar_tests::{Part, wait_for};
use belljar_tree::{Directory, FileNode, Name};
use belljar_wire::v1::SubmitBuildRequest;
use belljar_wire::{BuildRecord, Reason};
use tokio::task::JoinSet;

use crate::{LEASE, can_be_fetched, reconfigure, started};

/// How many objects nobody needs.
const GARBAGE: usize = 1500;
/// How many builds run meanwhile.
const BUILDS: usize = 12;

#[test]
fn garbage_that_is_collected_while_builds_run_takes_nothing_that_they_need() {
    let mut instance = started("", "");
    // As long as it takes to write down what a build left, on a machine that is busy.
    for (part, from) in [
        (Part::Store, "grace_seconds = 1"),
        (Part::Belljard, "lease_seconds = 1"),
    ] {
        let to = from.replace("= 1", "= 6");
        reconfigure(&mut instance, part, |text| text.replace(from, &to));
    }
    let client = instance.client();
    for number in 0..GARBAGE {
        client.put(format!("garbage {number}").as_bytes());
    }
    std::thread::sleep(Duration::from_secs(8));
    let done = AtomicBool::new(false);
    let mut sweeps = Vec::new();
    let builds = std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut sweeps = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let gc = instance
                    .command("store gc")
                    .args(["--all", "--json"])
                    .output();
                let gc = gc.unwrap();
                assert!(gc.status.success(), "{gc:?}");
                let swept: serde_json::Value = serde_json::from_slice(&gc.stdout).unwrap();
                sweeps.push(swept);
            }
            sweeps
        });
        // A panic here would leave the other thread waiting: it is told first.
        let builds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let client = instance.client();
            let ids: Vec<_> = (0..BUILDS).map(|number| submit(&client, number)).collect();
            let ended = ids
                .iter()
                .map(|id| client.until(id, |build| build.outcome.is_some()));
            ended.collect::<Vec<BuildRecord>>()
        }));
        done.store(true, Ordering::SeqCst);
        sweeps = sweeping.join().unwrap();
        builds.unwrap()
    });
    let removed: u64 = sweeps
        .iter()
        .map(|one| one["removed_objects"].as_u64().unwrap())
        .sum();
    assert!(
        removed >= GARBAGE as u64,
        "{removed} of {GARBAGE}: {sweeps:?}"
    );
    for build in &builds {
        assert_eq!(build.outcome, Some(Outcome::Succeeded), "{build:?}");
        assert!(can_be_fetched(&mut instance, build.id.as_str()));
    }
}

/// Uploads and submits as often as it takes: what was told to be there is so for a while only.
fn submit(client: &belljar_tests::Client, number: usize) -> belljar_core::BuildId {
    wait_for("a build to be accepted", Duration::from_secs(60), || {
        let content = format!("{number}\n");
        let spec = client.spec(
            &[("in", &content)],
            &["cp in out", "echo $(cat in)"],
            &["out"],
        );
        match client.submit(&format!("r{number}"), &spec) {
            Ok(record) => Some(record.id),
            Err(problem) if problem.reason == Reason::InputMissing => None,
            Err(problem) => panic!("{problem:?}"),
        }
    })
}

#[test]
fn builds_that_wait_to_be_looked_at_keep_nobody_waiting_while_garbage_is_collected() {
    /// As many calls as one connection may have, nearly.
    const SUBMITS: usize = 60;
    let instance = started("", "");
    let (hostile, other) = (instance.client(), instance.client());
    let object = hostile.put(b"x");
    // It takes a while to see that the last file of it is missing.
    let files = (0..20_000).map(|number| FileNode {
        name: Name::new(format!("{number:05}")).unwrap(),
        object: if number == 19_999 {
            ObjectId::of(b"missing")
        } else {
            object
        },
        executable: false,
        properties: None,
    });
    let tree = Directory::new(files.collect(), vec![], vec![])
        .unwrap()
        .encode();
    let mut spec = hostile.spec(&[], &["echo > out"], &["out"]);
    spec.source = hostile.put_large(&tree);
    for number in 0..200 {
        other.put(format!("garbage {number}").as_bytes());
    }
    std::thread::sleep(LEASE);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut gc = instance.command("store gc");
    gc.arg("--all");
    std::thread::scope(|scope| {
        let count = answered.clone();
        let submitting = scope.spawn(move || {
            hostile.wait(async {
                let mut submits = JoinSet::new();
                for number in 0..SUBMITS {
                    let (mut builds, count) = (hostile.builds(), count.clone());
                    let request = SubmitBuildRequest {
                        request_id: format!("r{number}"),
                        spec: Some((&spec).into()),
                        project: String::new(),
                    };
                    submits.spawn(async move {
                        let refused = builds.submit_build(request).await.unwrap_err();
                        count.fetch_add(1, Ordering::SeqCst);
                        assert!(
                            refused.message().contains("is not in the store"),
                            "{refused}"
                        );
                    });
                }
                submits.join_all().await;
            });
        });
        let sweeping = scope.spawn(move || gc.output().unwrap());
        let mut most = 0;
        while !sweeping.is_finished() {
            let before = answered.load(Ordering::SeqCst);
            assert!(other.missing(&[object]).is_empty());
            most = most.max(answered.load(Ordering::SeqCst) - before);
            std::thread::sleep(Duration::from_millis(5));
        }
        // Those that are just looked at, and on a busy machine some more; not all that wait.
        assert!(most < SUBMITS * 2 / 3, "{most}");
        assert!(sweeping.join().unwrap().status.success());
        submitting.join().unwrap();
    });
}
