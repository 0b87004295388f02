use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::life::{Event, step};
use belljar_core::{Image, ImageKind, Inputs, Limits, Network, Outputs, RelPath, Script, Steps};
use belljar_policy::{Access, Decision, Identity, Policy, Principals, Rights, decide};

fn admitted(script: &str, uid: u32) -> Admitted {
    admitted_to("default", script, uid)
}

fn admitted_to(project: &str, script: &str, uid: u32) -> Admitted {
    let spec = BuildSpec {
        image: Image::Host,
        source: ObjectId::of(b""),
        inputs: Inputs::default(),
        fetches: Default::default(),
        image_output: None,
        working_directory: None,
        run: Steps::new(vec![Script::new(script).unwrap()]).unwrap(),
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: 0,
    };
    let project = ProjectId::new(project).unwrap();
    let member = |uid| (Principals::One(Identity::Unix { uid }), Rights::ALL);
    let mut access = Access::nobody();
    access.add(project.clone(), [0, 1].map(member)).unwrap();
    let policy = Policy::new(access, [ImageKind::Host], Limits::CEILING).unwrap();
    let Decision::Admit(admitted) = decide(spec, Identity::Unix { uid }, project, &policy) else {
        panic!("not admitted")
    };
    admitted
}

fn id(last: char) -> BuildId {
    BuildId::new(format!("01jd8q6z8r4x7j2m5t9v0w3y6{last}")).unwrap()
}

fn request(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[tokio::test]
async fn what_was_answered_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.sqlite");
    let queue = Queue::open(&path).unwrap();
    let Submitted::New(first) = queue
        .submit(admitted("make", 0), request("a"), id('a'), at(1))
        .await
        .unwrap()
    else {
        panic!("known")
    };
    queue
        .submit(admitted("make", 0), request("b"), id('b'), at(2))
        .await
        .unwrap();
    assert_eq!(queue.waiting().await.unwrap(), [id('a'), id('b')]);
    assert_eq!(queue.get(&id('a')).await.unwrap().unwrap(), first);
    let (started, _) = step(&first.build, Event::SlotFree, at(3)).unwrap();
    queue.advance(first.build.sequence, &started).await.unwrap();
    reopened(queue, &path, |queue| async move {
        assert_eq!(queue.get(&id('a')).await.unwrap().unwrap().build, started);
        assert_eq!(queue.in_flight().await.unwrap()[0].build, started);
        assert_eq!(queue.waiting().await.unwrap(), [id('b')]);
        assert_eq!(queue.get(&id('c')).await.unwrap(), None);
    })
    .await;
}

/// The thread closes the database a moment after the last handle is gone.
async fn reopened<F: Future<Output = ()>>(
    queue: Queue,
    path: &Path,
    check: impl FnOnce(Queue) -> F,
) {
    drop(queue);
    for _ in 0..500 {
        match Queue::open(path) {
            Ok(queue) => return check(queue).await,
            Err(OpenError::InUse { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the queue stayed in use");
}

#[tokio::test]
async fn the_same_request_is_the_same_build_and_another_body_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    queue
        .submit(admitted("make", 0), request("a"), id('a'), at(1))
        .await
        .unwrap();
    let again = queue
        .submit(admitted("make", 0), request("a"), id('b'), at(2))
        .await
        .unwrap();
    assert!(matches!(again, Submitted::Known(record) if record.build.id == id('a')));
    let other = queue
        .submit(admitted("make all", 0), request("a"), id('c'), at(3))
        .await;
    assert!(matches!(other, Err(SubmitError::OtherBody)));
    // Another principal's request ids are its own.
    let theirs = queue
        .submit(admitted("make all", 1), request("a"), id('d'), at(4))
        .await
        .unwrap();
    assert!(matches!(theirs, Submitted::New(_)));
    // So are another project's, of the same principal.
    let elsewhere = queue
        .submit(
            admitted_to("web", "make all", 0),
            request("a"),
            id('e'),
            at(5),
        )
        .await
        .unwrap();
    assert!(
        matches!(elsewhere, Submitted::New(record) if record.submission.project.as_str() == "web")
    );
}

#[tokio::test]
async fn a_change_from_another_state_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    queue
        .submit(admitted("make", 0), request("a"), id('a'), at(1))
        .await
        .unwrap();
    let record = queue.get(&id('a')).await.unwrap().unwrap();
    let (started, _) = step(&record.build, Event::SlotFree, at(3)).unwrap();
    queue.advance(1, &started).await.unwrap();
    assert!(matches!(
        queue.advance(1, &started).await,
        Err(QueueError::Conflict(_))
    ));
}

#[tokio::test]
async fn foreign_damaged_newer_and_used_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    rusqlite::Connection::open(at("foreign"))
        .unwrap()
        .execute_batch("CREATE TABLE t (a)")
        .unwrap();
    assert!(matches!(
        Queue::open(&at("foreign")),
        Err(OpenError::Foreign { .. })
    ));
    std::fs::write(at("noise"), vec![7; 8192]).unwrap();
    assert!(matches!(
        Queue::open(&at("noise")),
        Err(OpenError::Damaged { .. })
    ));
    assert!(matches!(
        Queue::open(&at("no/such")),
        Err(OpenError::Open { .. })
    ));
    let queue = Queue::open(&at("q")).unwrap();
    assert!(matches!(
        Queue::open(&at("q")),
        Err(OpenError::InUse { .. })
    ));
    drop(queue);
    let newer = rusqlite::Connection::open(at("newer")).unwrap();
    let header = format!(
        "PRAGMA application_id = {}; PRAGMA user_version = 99",
        0x424a_4152
    );
    newer.execute_batch(&header).unwrap();
    drop(newer);
    assert!(matches!(
        Queue::open(&at("newer")),
        Err(OpenError::Layout { found: 99, .. })
    ));
}

#[tokio::test]
async fn a_torn_page_is_noticed_when_opening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let queue = Queue::open(&path).unwrap();
    for last in "abcdefgh".chars() {
        let request = request(&last.to_string());
        queue
            .submit(admitted(&"x".repeat(9000), 0), request, id(last), at(1))
            .await
            .unwrap();
    }
    reopened(queue, &path, |queue| async move { drop(queue) }).await;
    // Closing has moved everything from the log into the file; two pages of it become noise.
    for _ in 0..500 {
        if !directory.path().join("q-wal").exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 16_384, "{}", bytes.len());
    bytes[4096..16_384].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(Queue::open(&path), Err(OpenError::Damaged { .. })));
}

#[tokio::test]
async fn many_at_once_are_all_kept_and_each_once() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let queue = queue.clone();
        let id = BuildId::new(format!("01jd8q6z8r4x7j2m5t9v0w{number:04}")).unwrap();
        // Each request comes twice.
        let request = request(&format!("r{}", number / 2));
        tasks.spawn(async move {
            queue
                .submit(admitted("make", 0), request, id, at(1))
                .await
                .unwrap()
        });
    }
    let all = tasks.join_all().await;
    assert_eq!(
        all.iter()
            .filter(|one| matches!(one, Submitted::New(_)))
            .count(),
        100
    );
}

/// Position and id of everything that a query finds, page by page.
async fn pages(queue: &Queue, conditions: &[Condition], most: usize) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let query = Query {
            conditions: conditions.to_vec(),
            before,
            most,
        };
        let page = queue.list(query).await.unwrap();
        before = page.next;
        let ids = page.builds.iter().map(|listed| {
            let id = listed.build.id.to_string();
            id[id.len() - 1..].to_owned()
        });
        pages.push(ids.collect());
        if before.is_none() {
            return pages;
        }
    }
}

async fn end(queue: &Queue, id: &BuildId) {
    let record = queue.get(id).await.unwrap().unwrap();
    let cancel = Event::CancelRequested {
        by: "me".to_owned(),
        reason: None,
    };
    let (ended, _) = step(&record.build, cancel, at(9)).unwrap();
    queue.advance(record.build.sequence, &ended).await.unwrap();
}

#[tokio::test]
async fn lists_are_paged_and_narrowed() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    for (time, last) in (1..).zip("abcdefg".chars()) {
        let uid = u32::from(last > 'd');
        queue
            .submit(
                admitted("make", uid),
                request(&format!("r{last}")),
                id(last),
                at(time),
            )
            .await
            .unwrap();
    }
    end(&queue, &id('c')).await;
    let all = [vec!["g", "f", "e"], vec!["d", "c", "b"], vec!["a"]];
    assert_eq!(pages(&queue, &[], 3).await, all);
    assert_eq!(pages(&queue, &[], 7).await.len(), 1);
    let narrowed = async |conditions: &[Condition]| pages(&queue, conditions, 100).await.concat();
    let of = |is, uid: u32| Condition::Submitter {
        is,
        principal: format!("unix:uid={uid}"),
    };
    assert_eq!(narrowed(&[of(true, 1)]).await, ["g", "f", "e"]);
    assert_eq!(narrowed(&[of(false, 1)]).await, ["d", "c", "b", "a"]);
    let queued = Condition::Stage {
        is: true,
        name: "queued",
    };
    assert_eq!(narrowed(&[of(true, 0), queued]).await, ["d", "b", "a"]);
    let cancelled = |is| Condition::Outcome {
        is,
        kind: "cancelled",
    };
    assert_eq!(narrowed(&[cancelled(true)]).await, ["c"]);
    assert_eq!(narrowed(&[cancelled(false)]).await, Vec::<String>::new());
    let named = |is| Condition::RequestId {
        is,
        request_id: "rb".to_owned(),
    };
    assert_eq!(narrowed(&[named(true)]).await, ["b"]);
    assert_eq!(
        narrowed(&[named(false), of(true, 0)]).await,
        ["d", "c", "a"]
    );
    let times = [
        Condition::AcceptedFrom(at(2)),
        Condition::AcceptedBefore(at(5)),
    ];
    assert_eq!(narrowed(&times).await, ["d", "c", "b"]);
    let none = Query {
        conditions: vec![],
        before: Some(1),
        most: 3,
    };
    assert_eq!(queue.list(none).await.unwrap().builds, []);
}

/// Lists of many builds cost at most so many looks, and go on where they ended.
#[tokio::test]
async fn a_filter_that_finds_little_ends_after_so_many_looks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let queue = Queue::open(&path).unwrap();
    let first = admitted("make", 0);
    queue
        .submit(first, request("first"), id('a'), at(1))
        .await
        .unwrap();
    drop(queue);
    let all = 2 * belljar_core::bounds::LIST_SCAN + 500;
    let rows = rusqlite::Connection::open(&path).unwrap();
    rows.execute_batch(&format!(
        "WITH RECURSIVE n (i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < {all})
         INSERT INTO builds (position, id, project, submitter, authenticated_by, request_id, spec, accepted,
                             stage, sequence, updated, state, outcome, indexed)
         SELECT i, printf('%026d', i), CASE i % 2 WHEN 0 THEN 'other' ELSE 'default' END, 'unix:uid=7',
                authenticated_by, printf('r%d', i), spec, accepted, stage, sequence, updated, state,
                outcome, 1
         FROM n CROSS JOIN builds WHERE builds.position = 1"
    ))
    .unwrap();
    drop(rows);
    let queue = Queue::open(&path).unwrap();
    let of = |names: &[&str]| {
        let projects = names.iter().map(|name| ProjectId::new(*name).unwrap());
        Condition::OfProjects(projects.collect())
    };
    let both = || of(&["default", "other"]);
    let by = |is, uid: u32| Condition::Submitter {
        is,
        principal: format!("unix:uid={uid}"),
    };
    let named = Condition::RequestId {
        is: true,
        request_id: "first".to_owned(),
    };
    let queued = Condition::Stage {
        is: true,
        name: "running",
    };
    let early = Condition::AcceptedBefore(at(1));
    for (conditions, pages_due, found) in [
        // By an index that leads there at once.
        (vec![both(), named], 1, 1),
        (vec![both(), queued], 1, 0),
        (vec![both(), by(true, 0)], 1, 1),
        // By the project's own builds, whatever others have.
        (vec![of(&["default"]), by(false, 7)], 2, 1),
        (vec![of(&["none"])], 1, 0),
        // By all: not for ever.
        (vec![both(), by(false, 7)], 3, 1),
        (vec![both(), early], 3, 0),
    ] {
        let pages = pages(&queue, &conditions, 10).await;
        let seen = (pages.len(), pages.concat().len());
        assert_eq!(seen, (pages_due, found), "{conditions:?}");
    }
    let mut seen = 0;
    for page in pages(&queue, &[both()], 1000).await {
        seen += page.len();
    }
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_page_stays_where_it_is_while_builds_are_submitted() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    let submit = async |last: char| {
        let request = request(&last.to_string());
        queue
            .submit(admitted("make", 0), request, id(last), at(1))
            .await
            .unwrap();
    };
    for last in "abcd".chars() {
        submit(last).await;
    }
    let query = |before| Query {
        conditions: vec![],
        before,
        most: 2,
    };
    let first = queue.list(query(None)).await.unwrap();
    submit('e').await;
    let before = first.builds.last().map(|last| last.position);
    let second = queue.list(query(before)).await.unwrap();
    let ids: Vec<_> = second.builds.into_iter().map(|one| one.build.id).collect();
    assert_eq!((ids, second.next), (vec![id('b'), id('a')], None));
}

#[tokio::test]
async fn artifacts_lead_to_their_builds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let queue = Queue::open(&path).unwrap();
    for last in "ab".chars() {
        let request = request(&last.to_string());
        queue
            .submit(admitted("make", 0), request, id(last), at(1))
            .await
            .unwrap();
    }
    let [one, both] = [Digest::of(b"one"), Digest::of(b"both")];
    queue
        .index(&id('a'), Left::of_files(vec![one, both, both]))
        .await
        .unwrap();
    queue
        .index(&id('a'), Left::of_files(vec![one, both]))
        .await
        .unwrap();
    queue
        .index(&id('b'), Left::of_files(vec![both]))
        .await
        .unwrap();
    // A directory leads to its build as well, and is kept by none; what was made of it is kept, and leads nowhere.
    let message = Digest::of(b"message");
    let tree = Left {
        files: vec![one],
        trees: vec![one, message],
        directories: vec![one, Digest::of(b"tree")],
    };
    queue.index(&id('b'), tree).await.unwrap();
    assert!(
        queue
            .index(&id('c'), Left::of_files(vec![both]))
            .await
            .is_err()
    );
    reopened(queue, &path, |queue| async move {
        let found = async |digest| {
            pages(&queue, &[Condition::Artifact(digest)], 9)
                .await
                .concat()
        };
        assert_eq!(found(one).await, ["b", "a"]);
        assert_eq!(found(Digest::of(b"tree")).await, ["b"]);
        let mut kept = queue.kept_objects().await.unwrap();
        kept.sort_unstable();
        let mut due = [one, both, message];
        due.sort_unstable();
        assert_eq!(found(message).await, Vec::<String>::new());
        assert_eq!(kept, due);
        assert_eq!(found(both).await, ["b", "a"]);
        assert_eq!(found(Digest::of(b"none")).await, Vec::<String>::new());
    })
    .await;
}

/// A database as the first version of Belljar wrote it.
fn of_layout_1(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE builds (
                 position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, submitter TEXT NOT NULL,
                 authenticated_by TEXT NOT NULL, request_id TEXT NOT NULL, spec BLOB NOT NULL,
                 accepted INTEGER NOT NULL, stage TEXT NOT NULL, sequence INTEGER NOT NULL,
                 updated INTEGER NOT NULL, state TEXT NOT NULL, UNIQUE (submitter, request_id)
             ) STRICT;
             CREATE INDEX builds_by_stage ON builds (stage, position);
             PRAGMA application_id = 1112162642; PRAGMA user_version = 1;",
        )
        .unwrap();
    let spec = admitted("make", 0).spec().canonical().unwrap();
    let states = [
        (
            'a',
            "ended",
            r#"{"kind":"ended","outcome":{"kind":"succeeded"}}"#,
        ),
        (
            'b',
            "ended",
            r#"{"kind":"ended","outcome":{"kind":"cancelled","by":"unix:uid=0"}}"#,
        ),
        ('c', "queued", r#"{"kind":"queued"}"#),
    ];
    for (last, stage, written) in states {
        let id = id(last);
        let state = format!(
            r#"{{"id":"{id}","sequence":3,"stage":{written},"attempt":null,"cancelled_by":null,"evidence":null,
                "started":null,"ended":null,"updated":"2026-11-22T00:30:00.000Z"}}"#
        );
        let sql = "INSERT INTO builds (id, submitter, authenticated_by, request_id, spec, accepted, stage,
                   sequence, updated, state) VALUES (?1, 'unix:uid=0', 'SO_PEERCRED', ?1, ?2, 5, ?3, 3, 5, ?4)";
        let values = rusqlite::params![id.as_str(), spec, stage, state];
        connection.execute(sql, values).unwrap();
    }
}

#[tokio::test]
async fn a_queue_of_the_first_layout_becomes_one_of_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    of_layout_1(&path);
    let queue = Queue::open(&path).unwrap();
    let check = async |queue: &Queue| {
        let of = |kind| Condition::Outcome { is: true, kind };
        assert_eq!(pages(queue, &[], 2).await.concat(), ["c", "b", "a"]);
        assert_eq!(pages(queue, &[of("cancelled")], 2).await.concat(), ["b"]);
        assert_eq!(pages(queue, &[of("succeeded")], 2).await.concat(), ["a"]);
        assert_eq!(queue.waiting().await.unwrap(), [id('c')]);
        let outcome = queue.get(&id('b')).await.unwrap().unwrap().build;
        let by = "unix:uid=0".to_owned();
        let of = |project| Condition::OfProjects(vec![ProjectId::new(project).unwrap()]);
        let (default, other) = (of("default"), of("other"));
        assert_eq!(pages(queue, &[default], 9).await.concat(), ["c", "b", "a"]);
        assert_eq!(pages(queue, &[other], 9).await.concat(), [""; 0]);
        let nobody = [Condition::OfProjects(vec![])];
        assert_eq!(pages(queue, &nobody, 9).await.concat(), [""; 0]);
        let cancelled = belljar_core::Outcome::Cancelled { by, reason: None };
        assert_eq!(outcome.outcome(), Some(&cancelled));
    };
    check(&queue).await;
    // What succeeded before there was an index of artifacts is found, to be caught up with, once.
    let due = queue.unindexed(0).await.unwrap().unwrap();
    assert_eq!((due.build.id, due.position), (id('a'), 1));
    assert_eq!(queue.unindexed(1).await.unwrap(), None);
    queue
        .index(&id('a'), Left::of_files(vec![Digest::of(b"x")]))
        .await
        .unwrap();
    assert_eq!(queue.unindexed(0).await.unwrap(), None);
    // A request of before the change is known after it.
    let known = RequestId::new(id('c').as_str()).unwrap();
    let again = queue
        .submit(admitted("make", 0), known, id('d'), at(9))
        .await
        .unwrap();
    assert!(matches!(again, Submitted::Known(record) if record.build.id == id('c')));
    reopened(queue, &path, |queue| async move { check(&queue).await }).await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    let layout = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    for _ in 0..500 {
        if layout("user_version").is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(layout("user_version"), Ok(5));
}

#[tokio::test]
async fn who_has_left_an_artifact_is_found_in_the_order_of_acceptance_however_many_others_have() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q");
    let queue = Queue::open(&path).unwrap();
    let digest = Digest::of(b"x");
    let left = async |queue: &Queue, last, of, digest| {
        let (admitted, name) = (admitted_to(of, "make", 0), request(&String::from(last)));
        let queued = queue.submit(admitted, name, id(last), at(1)).await;
        queued.unwrap();
        queue
            .index(&id(last), Left::of_files(vec![digest]))
            .await
            .unwrap();
        // One has failed.
        let outcome = match last {
            'a' => belljar_core::Outcome::TimedOut { wall_seconds: 1 },
            _ => belljar_core::Outcome::Succeeded,
        };
        let record = queue.get(&id(last)).await.unwrap().unwrap();
        let mut ended = record.build.clone();
        ended.sequence += 1;
        ended.stage = crate::life::Stage::Ended { outcome };
        queue.advance(record.build.sequence, &ended).await.unwrap();
    };
    for (last, of) in [
        ('a', "default"),
        ('b', "other"),
        ('c', "default"),
        ('d', "default"),
    ] {
        left(&queue, last, of, digest).await;
    }
    let found = async |queue: &Queue, of: &str, digest, build: Option<char>| {
        let wanted = Wanted {
            project: ProjectId::new(of).unwrap(),
            artifact: digest,
            build: build.map(id),
            key_id: None,
        };
        let found = queue.producers(&wanted);
        let found = found.await.unwrap().into_iter();
        found
            .map(|record| record.build.id.as_str().chars().last().unwrap())
            .collect::<String>()
    };
    assert_eq!(found(&queue, "default", digest, None).await, "cd");
    assert_eq!(found(&queue, "other", digest, None).await, "b");
    assert_eq!(found(&queue, "none", digest, None).await, "");
    assert_eq!(found(&queue, "default", digest, Some('d')).await, "d");
    for other in ['a', 'b', 'e'] {
        assert_eq!(found(&queue, "default", digest, Some(other)).await, "");
    }
    // Nobody has signed about any of them.
    let signed = Wanted {
        project: ProjectId::default(),
        artifact: digest,
        build: None,
        key_id: Some("SHA256:x".to_owned()),
    };
    assert_eq!(queue.producers(&signed).await.unwrap(), []);
    assert_eq!(found(&queue, "default", Digest::of(b"y"), None).await, "");
    // Others have left the same before, more often than is looked at once.
    drop(queue);
    let all = belljar_core::bounds::LIST_SCAN + 50;
    let rows = rusqlite::Connection::open(&path).unwrap();
    rows.execute_batch(&format!(
        "WITH RECURSIVE n (i) AS (VALUES (5) UNION ALL SELECT i + 1 FROM n WHERE i < {all})
         INSERT INTO builds (position, id, project, submitter, authenticated_by, request_id, spec, accepted,
                             stage, sequence, updated, state, outcome, indexed)
         SELECT i, printf('%026d', i), 'other', 'unix:uid=7', authenticated_by, printf('r%d', i), spec,
                accepted, stage, sequence, updated, state, outcome, 1
         FROM n CROSS JOIN builds WHERE builds.position = 2;
         INSERT INTO artifacts (digest, position) SELECT x'{}', position FROM builds WHERE position > 4;",
        Digest::of(b"y").to_hex()
    ))
    .unwrap();
    drop(rows);
    let queue = Queue::open(&path).unwrap();
    left(&queue, 'e', "default", Digest::of(b"y")).await;
    assert_eq!(found(&queue, "default", Digest::of(b"y"), None).await, "e");
}

#[tokio::test]
async fn builds_are_kept_until_they_are_released_and_pinned_ones_stay() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("q")).unwrap();
    for last in ['a', 'b', 'c'] {
        let name = request(&last.to_string());
        queue
            .submit(admitted("make", 0), name, id(last), at(1))
            .await
            .unwrap();
    }
    for last in ['a', 'b'] {
        let record = queue.get(&id(last)).await.unwrap().unwrap();
        let mut ended = record.build.clone();
        ended.sequence += 1;
        let outcome = belljar_core::Outcome::Succeeded;
        ended.stage = crate::life::Stage::Ended { outcome };
        queue.advance(record.build.sequence, &ended).await.unwrap();
        queue
            .index(&id(last), Left::of_files(vec![Digest::of(&[last as u8])]))
            .await
            .unwrap();
    }
    let kept = async || {
        let kept = queue.kept(0, 9).await.unwrap().into_iter();
        kept.map(|kept| kept.record.build.id.as_str().chars().last().unwrap())
            .collect::<String>()
    };
    assert_eq!(kept().await, "abc");
    assert_eq!(queue.kept(1, 1).await.unwrap()[0].position, 2);
    let project = ProjectId::new("default").unwrap();
    let pin = |target| Pin {
        number: 0,
        project: project.clone(),
        target,
        reason: "shipped".to_owned(),
        created_by: "unix:uid=0".to_owned(),
        created: at(7),
    };
    let tree = Target::Tree(ObjectId::of(b"tree"));
    let first = queue.pin(pin(Target::Build(id('a')))).await.unwrap();
    let again = queue.pin(pin(Target::Build(id('a')))).await.unwrap();
    assert_eq!(first, again, "the same is pinned once");
    queue.pin(pin(tree.clone())).await.unwrap();
    let foreign = Pin {
        project: ProjectId::new("web").unwrap(),
        ..pin(Target::Build(id('b')))
    };
    assert!(matches!(queue.pin(foreign).await, Err(PinError::NoBuild)));
    let all = ['a', 'b', 'c'].map(id).to_vec();
    assert_eq!(
        queue.release(all.clone(), at(9)).await.unwrap(),
        1,
        "one is pinned, one waits"
    );
    assert_eq!(kept().await, "ac");
    assert_eq!(queue.kept_objects().await.unwrap(), [Digest::of(b"a")]);
    assert_eq!(queue.released(&id('b')).await.unwrap(), Some(at(9)));
    let late = queue.pin(pin(Target::Build(id('b')))).await;
    assert!(matches!(late, Err(PinError::Released)));
    assert_eq!(
        queue.unpin(first.number).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(queue.unpin(first.number).await.unwrap(), None);
    assert_eq!(queue.release(all, at(10)).await.unwrap(), 1);
    assert_eq!(kept().await, "c");
    let left = queue.pins().await.unwrap();
    assert_eq!(
        left.iter().map(|pin| &pin.target).collect::<Vec<_>>(),
        [&tree]
    );
}
