//! The driver over faked processes: whole builds, cancellation, trouble, and the daemon killed at every
//! point.

mod world;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::ports::Refusal;
use crate::queue::{Condition, Query, Record};
use belljar_audit::{AuditEvent, verify, verify_prefix};
use belljar_core::{BuildId, Digest, Outcome};
use tokio::time::timeout;
use world::{Daemon, Fate, Hang, Site};

const PATIENCE: Duration = Duration::from_secs(60);

/// What must hold of every build that has ended, whatever happened to the daemon.
fn check(site: &Site, record: &Record) {
    let (build, id) = (&record.build, &record.build.id);
    let outcome = build.outcome().expect("ended");
    let trail = std::fs::read(site.trail(id)).unwrap();
    let entries = verify(&trail).unwrap();
    assert!(matches!(entries[0].event, AuditEvent::Submitted { .. }));
    assert!(matches!(
        entries[1].event,
        AuditEvent::Decided { admitted: true, .. }
    ));
    let finished: Vec<_> = entries
        .iter()
        .filter(|entry| matches!(entry.event, AuditEvent::Finished { .. }))
        .collect();
    assert_eq!(finished.len(), 1, "finished once: {entries:?}");
    let last = entries.last().map(|entry| &entry.event);
    assert!(
        matches!(last, Some(AuditEvent::Finished { outcome: told }) if told == outcome),
        "the trail ends with what became of the build: {entries:?}"
    );
    let state = site.world.state();
    assert!(
        state.known.iter().all(|attempt| attempt.build() != id),
        "something is left"
    );
    let attested: Vec<_> = state
        .bundles
        .iter()
        .filter(|(attempt, _)| attempt.build() == id)
        .collect();
    assert!(attested.len() <= 1, "attested twice");
    if !outcome.is_success() {
        return;
    }
    let (attempt, (asserted, bundle)) = attested[0];
    let evidence = build.evidence.as_ref().expect("evidence");
    assert_eq!(&evidence.attempt, attempt);
    let published = &state.objects[&evidence.audit_trail.digest];
    assert_eq!(asserted.audit_trail, evidence.audit_trail.digest);
    verify_prefix(&trail, asserted.audit_entries, asserted.audit_trail).unwrap();
    let last = verify(published).unwrap().pop().unwrap();
    assert!(
        matches!(last.event, AuditEvent::AttestationRequested { attempt: named } if named == *attempt)
    );
    let object = evidence.bundle.as_ref().unwrap().object;
    assert_eq!(&state.objects[&object.digest], bundle);
    assert_eq!(
        state.objects[&evidence.receipt.unwrap().digest],
        state.receipts[attempt]
    );
    assert!(
        state.objects.contains_key(&evidence.spec.digest)
            && state.objects.contains_key(&evidence.plan.digest)
    );
    // What it left is there, too, as far as the receipt alone has it.
    let tree = world::directory().tree();
    assert!(evidence.trees);
    assert_eq!(state.objects.get(&Digest::of(&tree)), Some(&tree));
    assert!(
        state
            .logs
            .contains(&evidence.log.as_ref().unwrap().object.digest)
    );
}

async fn ended(site: &Site, daemon: &Daemon, id: &BuildId) -> Outcome {
    let record = timeout(PATIENCE, daemon.end(id))
        .await
        .expect("the build hangs");
    check(site, &record);
    record.build.outcome().unwrap().clone()
}

fn events(site: &Site, id: &BuildId) -> Vec<AuditEvent> {
    let trail = std::fs::read(site.trail(id)).unwrap();
    verify(&trail)
        .unwrap()
        .into_iter()
        .map(|entry| entry.event)
        .collect()
}

#[tokio::test]
async fn builds_run_in_order_within_the_slots_and_leave_evidence() {
    let site = Site::new();
    let daemon = site.start(2).await;
    let mut ids = Vec::new();
    for number in 0..12 {
        ids.push(daemon.submit("make", &format!("r{number}")).await);
    }
    for id in &ids {
        assert_eq!(ended(&site, &daemon, id).await, Outcome::Succeeded);
    }
    let state = site.world.state();
    assert!(state.most_running <= 2, "{}", state.most_running);
    let staged: Vec<&String> = state
        .done
        .iter()
        .filter(|done| done.starts_with("stage"))
        .collect();
    for (id, staged) in ids.iter().zip(&staged).take(2) {
        assert!(
            ids[..2].contains(id)
                && (staged.contains(ids[0].as_str()) || staged.contains(ids[1].as_str()))
        );
    }
    assert!(staged[11].contains(ids[11].as_str()) || staged[10].contains(ids[11].as_str()));
}

/// Who asks may be gone at any moment: a service drops what it was doing then.
#[tokio::test]
async fn a_build_whose_submitter_leaves_in_the_middle_is_driven_or_not_there() {
    let site = Site::new();
    let daemon = site.start(2).await;
    for steps in 0..12 {
        let request = format!("r{steps}");
        let mut leaves = Box::pin(daemon.submit("make", &request));
        for _ in 0..steps {
            let looked = poll_fn(|context| Poll::Ready(leaves.as_mut().poll(context)));
            if looked.await.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(leaves);
        let again = daemon.submit("make", &request).await;
        let end = timeout(PATIENCE, ended(&site, &daemon, &again)).await;
        assert_eq!(end.expect("it is driven"), Outcome::Succeeded);
    }
}

#[tokio::test]
async fn a_failure_is_on_record_without_provenance() {
    let site = Site::new();
    let failed = Outcome::Failed {
        step: 0,
        exit_code: 2,
    };
    site.world
        .state()
        .fates
        .insert("fail".to_owned(), vec![Fate::Ends(failed.clone())]);
    let daemon = site.start(1).await;
    let id = daemon.submit("fail", "a").await;
    assert_eq!(ended(&site, &daemon, &id).await, failed);
    let record = daemon.engine.get(&id).await.unwrap().unwrap();
    let evidence = record.build.evidence.unwrap();
    assert!(evidence.bundle.is_none() && evidence.receipt.is_some() && evidence.log.is_some());
    assert!(site.world.state().bundles.is_empty());
}

#[tokio::test]
async fn a_lost_spawner_leads_to_another_attempt_and_in_the_end_to_an_infrastructure_failure() {
    let site = Site::new();
    site.world.state().fates.insert(
        "flaky".to_owned(),
        vec![Fate::Lost, Fate::Ends(Outcome::Succeeded)],
    );
    site.world
        .state()
        .fates
        .insert("gone".to_owned(), vec![Fate::Lost]);
    site.world.state().destroy_fails = 1;
    let daemon = site.start(1).await;
    let (flaky, gone) = (
        daemon.submit("flaky", "a").await,
        daemon.submit("gone", "b").await,
    );
    assert_eq!(ended(&site, &daemon, &flaky).await, Outcome::Succeeded);
    assert_eq!(ended(&site, &daemon, &gone).await.kind(), "infrastructure");
    let staged = |id: &BuildId| {
        events(&site, id)
            .into_iter()
            .filter(|e| matches!(e, AuditEvent::Staged { .. }))
            .count()
    };
    assert_eq!((staged(&flaky), staged(&gone)), (2, 3));
}

#[tokio::test]
async fn nothing_begins_while_somebody_is_away_and_no_attempts_are_used_up() {
    let site = Site::new();
    let fates = vec![Fate::Lost, Fate::Ends(Outcome::Succeeded)];
    site.world.state().fates.insert("flaky".to_owned(), fates);
    let daemon = site.start(1).await;
    let before = daemon.submit("make", "a").await;
    assert_eq!(ended(&site, &daemon, &before).await, Outcome::Succeeded);
    site.world.state().store_away = true;
    let flaky = daemon.submit("flaky", "b").await;
    let waits = daemon.submit("make", "c").await;
    let cancelled = daemon.submit("make", "d").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (id, attempts) in [(&flaky, Some(1)), (&waits, None)] {
        let build = daemon.engine.get(id).await.unwrap().unwrap().build;
        assert_eq!(build.stage.name(), "queued");
        assert_eq!(build.attempt.map(|attempt| attempt.number()), attempts);
    }
    daemon.engine.cancel(&cancelled, "me", None).await.unwrap();
    assert_eq!(ended(&site, &daemon, &cancelled).await.kind(), "cancelled");
    site.world.state().store_away = false;
    for id in [&flaky, &waits] {
        assert_eq!(ended(&site, &daemon, id).await, Outcome::Succeeded);
    }
}

#[tokio::test]
async fn what_is_fetched_is_in_the_plan_and_what_cannot_be_ends_the_build() {
    let site = Site::new();
    let daemon = site.start(1).await;
    site.world.state().fetch_fails = vec![Outcome::retryable("fetch", "no answer")];
    let id = daemon.submit("fetched one", "one").await;
    assert_eq!(ended(&site, &daemon, &id).await, Outcome::Succeeded);
    let build = daemon.engine.get(&id).await.unwrap().unwrap().build;
    assert_eq!(build.attempt.unwrap().number(), 2);
    assert_eq!(build.fetched.iter().len(), 1);
    let plan = build.evidence.unwrap().plan;
    let plan = site.world.state().objects[&plan.digest].clone();
    let plan: belljar_plan::Plan = serde_json::from_slice(&plan).unwrap();
    assert_eq!(plan.inputs, build.fetched);

    let refused = Outcome::Refused {
        reasons: vec!["another digest".to_owned()],
    };
    site.world.state().fetch_fails = vec![refused.clone()];
    let id = daemon.submit("fetched two", "two").await;
    assert_eq!(ended(&site, &daemon, &id).await, refused);
    let done = site.world.state().done.clone();
    assert!(!done.contains(&format!("stage {id}-1")), "{done:?}");
}

#[tokio::test]
async fn outputs_that_are_refused_are_the_outcome() {
    let site = Site::new();
    let rejected = Outcome::OutputRejected {
        why: "app: a socket".to_owned(),
    };
    site.world
        .state()
        .fates
        .insert("bad".to_owned(), vec![Fate::Collects(rejected.clone())]);
    let daemon = site.start(1).await;
    let id = daemon.submit("bad", "a").await;
    assert_eq!(ended(&site, &daemon, &id).await, rejected);
}

#[tokio::test]
async fn a_receipt_file_that_is_not_the_named_one_is_not_attested() {
    let site = Site::new();
    site.world.state().forge_receipts = true;
    let daemon = site.start(1).await;
    let id = daemon.submit("make", "a").await;
    assert_eq!(ended(&site, &daemon, &id).await.kind(), "infrastructure");
    assert!(site.world.state().bundles.is_empty());
}

#[tokio::test]
async fn a_refusal_to_sign_is_the_end_and_is_on_record() {
    let site = Site::new();
    site.world.state().refuse_signing = Some(Refusal {
        retryable: false,
        reasons: vec!["the receipt is about another plan".to_owned()],
    });
    let daemon = site.start(1).await;
    let id = daemon.submit("make", "a").await;
    let outcome = ended(&site, &daemon, &id).await;
    assert!(outcome.to_string().contains("another plan"), "{outcome}");
    assert!(
        events(&site, &id)
            .iter()
            .any(|event| matches!(event, AuditEvent::SigningRefused { .. }))
    );
}

/// Whatever it is that does not take a build's evidence: it ends and says so, and its slot is the next one's.
#[tokio::test]
async fn evidence_that_nobody_takes_holds_a_slot_only_for_its_tries() {
    let site = Site::new();
    let why = "the store refuses the object".to_owned();
    site.world.state().refuse_puts = Some(why.clone());
    let daemon = site.start(1).await;
    let first = daemon.submit("make", "a").await;
    let second = daemon.submit("make", "b").await;
    let outcome = ended(&site, &daemon, &first).await;
    assert_eq!(outcome, Outcome::permanent("publish", why));
    site.world.state().refuse_puts = None;
    assert_eq!(ended(&site, &daemon, &second).await, Outcome::Succeeded);
    assert!(site.world.state().known.is_empty());
}

/// Changes the database between two lives of the daemon, as soon as the last one has let go of it.
async fn change_queue(site: &Site, sql: &str) {
    let path = site.directory.path().join("queue.sqlite");
    let changed = async {
        while rusqlite::Connection::open(&path)
            .and_then(|database| database.execute_batch(sql))
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, changed).await.expect("the queue is free");
}

#[tokio::test]
async fn an_index_that_cannot_be_written_holds_a_slot_only_for_its_tries() {
    let site = Site::new();
    let daemon = site.start(1).await;
    let before = daemon.submit("make", "a").await;
    assert_eq!(ended(&site, &daemon, &before).await, Outcome::Succeeded);
    drop(daemon);
    // As a disk does that is broken in one place; the rest of the queue is written.
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON artifacts BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END";
    change_queue(&site, broken).await;
    let failed = Outcome::Failed {
        step: 0,
        exit_code: 2,
    };
    let fates = vec![Fate::Ends(failed.clone())];
    site.world.state().fates.insert("fail".to_owned(), fates);
    let daemon = site.start(1).await;
    let first = daemon.submit("make", "b").await;
    let second = daemon.submit("fail", "c").await;
    let outcome = ended(&site, &daemon, &first).await;
    assert_eq!(outcome.kind(), "infrastructure");
    let said = outcome.to_string();
    assert!(
        said.contains("its artifacts cannot be found again"),
        "{said}"
    );
    // Of a failure nothing is in the index.
    assert_eq!(ended(&site, &daemon, &second).await, failed);
    drop(daemon);
    change_queue(&site, "DROP TRIGGER broken").await;
    let daemon = site.start(1).await;
    let after = daemon.submit("make", "d").await;
    assert_eq!(ended(&site, &daemon, &after).await, Outcome::Succeeded);
}

#[tokio::test]
async fn cancelling_ends_what_runs_and_what_waits() {
    let site = Site::new();
    site.world
        .state()
        .fates
        .insert("sleep".to_owned(), vec![Fate::Runs]);
    let daemon = site.start(1).await;
    let (runs, waits) = (
        daemon.submit("sleep", "a").await,
        daemon.submit("sleep", "b").await,
    );
    daemon.reaches(&runs, "running").await;
    let record = daemon
        .engine
        .cancel(&waits, "me", Some("too late"))
        .await
        .unwrap()
        .unwrap();
    let cancelled = |reason: Option<&str>| Outcome::Cancelled {
        by: "me".to_owned(),
        reason: reason.map(str::to_owned),
    };
    assert_eq!(record.build.outcome(), Some(&cancelled(Some("too late"))));
    daemon
        .engine
        .cancel(&runs, "me", None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended(&site, &daemon, &runs).await, cancelled(None));
    assert_eq!(
        ended(&site, &daemon, &waits).await,
        cancelled(Some("too late"))
    );
    // Again, after the end: nothing changes.
    let again = daemon
        .engine
        .cancel(&runs, "you", None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.build.outcome(), Some(&cancelled(None)));
    let reason = events(&site, &waits)
        .into_iter()
        .find_map(|event| match event {
            AuditEvent::CancelRequested { by, reason } => Some((by, reason)),
            _ => None,
        });
    assert_eq!(reason, Some(("me".to_owned(), Some("too late".to_owned()))));
    assert!(
        site.world
            .state()
            .done
            .iter()
            .all(|done| !done.contains(&format!("stage {waits}")))
    );
}

#[tokio::test]
async fn who_follows_sees_the_end_whenever_they_begin() {
    let site = Site::new();
    let daemon = site.start(1).await;
    let id = daemon.submit("make", "a").await;
    let (early, also) = tokio::join!(daemon.end(&id), daemon.end(&id));
    assert_eq!(early, also);
    assert_eq!(daemon.end(&id).await, early);
    let missing = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
    assert!(daemon.engine.follow(&missing).await.unwrap().is_none());
    assert!(
        daemon
            .engine
            .cancel(&missing, "me", None)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_damaged_trail_ends_the_build_without_a_statement() {
    let site = Site::new();
    site.world
        .state()
        .fates
        .insert("sleep".to_owned(), vec![Fate::Runs]);
    let daemon = site.start(1).await;
    let id = daemon.submit("sleep", "a").await;
    daemon.reaches(&id, "running").await;
    drop(daemon);
    let path = site.trail(&id);
    let mut trail = std::fs::read(&path).unwrap();
    trail[30] ^= 1;
    std::fs::write(&path, trail).unwrap();
    let daemon = site.start(1).await;
    let record = timeout(PATIENCE, daemon.end(&id))
        .await
        .expect("the build hangs");
    assert_eq!(record.build.outcome().unwrap().kind(), "infrastructure");
    assert!(site.world.state().known.is_empty());
    assert!(site.world.state().bundles.is_empty());
}

#[tokio::test]
async fn remains_that_nobody_accounts_for_are_swept_before_anything_starts() {
    let site = Site::new();
    let stray = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
    let stray = belljar_core::AttemptId::new(stray, 1).unwrap();
    site.world.state().known.insert(stray.clone());
    site.world.state().destroy_fails = 1;
    let daemon = site.start(1).await;
    let id = daemon.submit("make", "a").await;
    assert_eq!(ended(&site, &daemon, &id).await, Outcome::Succeeded);
    let state = site.world.state();
    assert!(!state.known.contains(&stray));
    // In vain, then done, and only then the first attempt.
    let swept = format!("destroy {stray}");
    assert!(
        state.done[0] == swept && state.done[1] == swept && state.done[2].starts_with("stage"),
        "{:?}",
        state.done
    );
}

/// The daemon is killed while an operation hangs, once before it had its effect and once after, for every
/// operation of two builds (one of which fails); then again in the middle of the recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_nothing_is_lost_and_nothing_attested_twice() {
    let failed = Outcome::Failed {
        step: 0,
        exit_code: 1,
    };
    let mut points = 0;
    for hang in [Hang::Before, Hang::After] {
        for operation in 1.. {
            let site = Site::new();
            site.world
                .state()
                .fates
                .insert("fail".to_owned(), vec![Fate::Ends(failed.clone())]);
            site.world.hang_at(operation, hang);
            let daemon = site.start(1).await;
            let (good, bad) = (
                daemon.submit("fetched", "a").await,
                daemon.submit("fail", "b").await,
            );
            let hung = tokio::select! {
                () = site.world.hung.notified() => true,
                _ = async { (daemon.end(&good).await, daemon.end(&bad).await) } => false,
            };
            drop(daemon);
            if hung {
                points += 1;
                // A second time, a few operations into the recovery.
                site.world.hang_at(1 + operation % 4, hang);
                let daemon = site.start(1).await;
                tokio::select! {
                    () = site.world.hung.notified() => {}
                    _ = async { (daemon.end(&good).await, daemon.end(&bad).await) } => {}
                }
                drop(daemon);
            }
            site.world.hang_no_more();
            let daemon = site.start(1).await;
            // The same requests are the same builds.
            assert_eq!(
                (
                    daemon.submit("fetched", "a").await,
                    daemon.submit("fail", "b").await
                ),
                (good.clone(), bad.clone())
            );
            assert_eq!(
                ended(&site, &daemon, &good).await,
                Outcome::Succeeded,
                "{hang:?} {operation}"
            );
            assert_eq!(
                ended(&site, &daemon, &bad).await,
                failed,
                "{hang:?} {operation}"
            );
            if !hung {
                break;
            }
        }
    }
    // Two builds: fetch, stage, launch, collect, attest, five or six puts with the log, destroy.
    assert!(points >= 30, "only {points} points were tried");
}

/// The builds that left an artifact.
async fn left(daemon: &Daemon, artifact: Digest) -> Vec<BuildId> {
    let query = Query {
        conditions: vec![Condition::Artifact(artifact)],
        before: None,
        most: 10,
    };
    let page = daemon.engine.list(query).await.unwrap();
    page.builds
        .into_iter()
        .map(|found| found.build.id)
        .collect()
}

#[tokio::test]
async fn directories_that_builds_left_under_the_fourth_layout_are_found_after_the_next_start() {
    let site = Site::new();
    let (tree, file) = (world::directory().root.digest, Digest::of(b"app"));
    let daemon = site.start(1).await;
    let id = daemon.submit("make", "r").await;
    assert_eq!(ended(&site, &daemon, &id).await, Outcome::Succeeded);
    assert_eq!(left(&daemon, tree).await, std::slice::from_ref(&id));
    assert_eq!(left(&daemon, file).await, std::slice::from_ref(&id));
    drop(daemon);
    // As a daemon of before would have left it.
    let path = site.directory.path().join("queue.sqlite");
    let of_layout_4 = "DELETE FROM artifacts WHERE directory = 1;
                       ALTER TABLE artifacts DROP COLUMN directory; PRAGMA user_version = 4;";
    timeout(PATIENCE, async {
        loop {
            let rows = rusqlite::Connection::open(&path).unwrap();
            match rows.execute_batch(of_layout_4) {
                Ok(()) => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
    .expect("the queue stayed in use");
    let daemon = site.start(1).await;
    timeout(PATIENCE, async {
        while left(&daemon, tree).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is never found");
    assert_eq!(left(&daemon, tree).await, std::slice::from_ref(&id));
    assert_eq!(left(&daemon, file).await, [id]);
}
