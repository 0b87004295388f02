use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belljar_core::Outcome;
use belljar_tests::{Part, wait_for};
use belljar_wire::{BuildRecord, Reason};

use crate::{can_be_fetched, reconfigure, started};

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
