use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::life::{Event, step};
use belljar_core::{Image, ImageKind, Inputs, Limits, Network, Outputs, RelPath, Script, Steps};
use belljar_policy::{Decision, Identity, Policy, decide};

fn admitted(script: &str, uid: u32) -> Admitted {
    let spec = BuildSpec {
        image: Image::Host,
        source: ObjectId::of(b""),
        inputs: Inputs::default(),
        working_directory: None,
        run: Steps::new(vec![Script::new(script).unwrap()]).unwrap(),
        env: BTreeMap::new(),
        outputs: Outputs::new(BTreeSet::from([RelPath::new("app").unwrap()])).unwrap(),
        limits: Limits::DEFAULT,
        network: Network::None,
        source_date_epoch: 0,
    };
    let policy = Policy::new([0, 1], [ImageKind::Host], Limits::CEILING).unwrap();
    let Decision::Admit(admitted) = decide(spec, Identity::Unix { uid }, &policy) else {
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
