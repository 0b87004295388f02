use super::*;

fn project(text: &str) -> ProjectId {
    ProjectId::new(text).unwrap()
}

fn digests(range: std::ops::Range<u32>) -> Vec<Digest> {
    range.map(|n| Digest::of(&n.to_le_bytes())).collect()
}

#[tokio::test]
async fn each_project_has_what_it_was_given_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("o.sqlite");
    let (web, app) = (project("web"), project("app"));
    let ownership = Ownership::open(&path).unwrap();
    assert!(ownership.is_new());
    let all = digests(0..10);
    assert_eq!(ownership.owns(&web, &all).unwrap(), [false; 10]);
    ownership.grant(&web, digests(0..5)).await.unwrap();
    ownership.grant(&app, digests(4..6)).await.unwrap();
    ownership.grant(&web, digests(3..6)).await.unwrap();
    ownership.grant(&web, vec![]).await.unwrap();
    let root = all[9];
    ownership.grant_tree(&app, root).await.unwrap();
    drop(ownership);
    let again = Ownership::open(&path).unwrap();
    assert!(!again.is_new());
    let owned = |project| -> Vec<usize> {
        let owned = again.owns(project, &all).unwrap();
        (0..10).filter(|at| owned[*at]).collect()
    };
    assert_eq!(owned(&web), [0, 1, 2, 3, 4, 5]);
    assert_eq!(owned(&app), [4, 5]);
    assert!(owned(&project("none")).is_empty());
    assert_eq!(
        [&web, &app].map(|project| again.owns_tree(project, root).unwrap()),
        [false, true]
    );
}

#[tokio::test]
async fn many_at_once_share_commits_and_are_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let ownership = Ownership::open(&directory.path().join("o.sqlite")).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..50 {
        let ownership = ownership.clone();
        tasks.spawn(async move {
            let objects = digests(part * 200..(part + 1) * 200);
            ownership
                .grant(&project("web"), objects.clone())
                .await
                .unwrap();
            // What was answered is seen by whoever asks next.
            let owned = ownership.owns(&project("web"), &objects).unwrap();
            assert!(owned.into_iter().all(|owned| owned));
        });
    }
    assert_eq!(tasks.join_all().await.len(), 50);
}

#[test]
fn files_that_are_no_index_are_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    rusqlite::Connection::open(at("foreign"))
        .unwrap()
        .execute_batch("CREATE TABLE t (a)")
        .unwrap();
    assert!(matches!(
        Ownership::open(&at("foreign")),
        Err(OwnershipError::Foreign { .. })
    ));
    std::fs::write(at("noise"), vec![7; 8192]).unwrap();
    assert!(matches!(
        Ownership::open(&at("noise")),
        Err(OwnershipError::Open { .. })
    ));
    let newer = rusqlite::Connection::open(at("newer")).unwrap();
    newer
        .execute_batch("PRAGMA application_id = 0x424a4f57; PRAGMA user_version = 9")
        .unwrap();
    drop(newer);
    let error = Ownership::open(&at("newer")).unwrap_err().to_string();
    assert!(
        error.contains("newer") && error.contains("layout 9"),
        "{error}"
    );
}

/// Names that nobody has computed: the index believes who gives them.
fn named(range: std::ops::Range<u32>) -> Vec<(Blake3Digest, Digest)> {
    let named = digests(range).into_iter().map(|digest| {
        let mut bytes = *digest.as_bytes();
        bytes.reverse();
        (Blake3Digest::from_bytes(bytes), digest)
    });
    named.collect()
}

#[tokio::test]
async fn what_was_sent_by_blake3_is_found_by_it_by_who_has_sent_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("o.sqlite");
    let (web, app) = (project("web"), project("app"));
    let ownership = Ownership::open(&path).unwrap();
    let all = named(0..5);
    let names: Vec<Blake3Digest> = all.iter().map(|(name, _)| *name).collect();
    let of = |ownership: &Ownership, project: &ProjectId| -> Vec<usize> {
        let found = ownership.by_blake3(project, &names).unwrap();
        for (found, (_, due)) in found.iter().zip(&all) {
            assert!(found.is_none_or(|found| found == *due));
        }
        (0..5).filter(|at| found[*at].is_some()).collect()
    };
    assert!(of(&ownership, &web).is_empty());
    // First by the one, then by the other; and the other way round.
    ownership.grant(&web, digests(0..2)).await.unwrap();
    ownership.grant_named(&web, named(1..3)).await.unwrap();
    ownership.grant(&web, digests(2..4)).await.unwrap();
    ownership.grant_named(&web, vec![]).await.unwrap();
    ownership.grant_named(&app, named(4..5)).await.unwrap();
    drop(ownership);
    let again = Ownership::open(&path).unwrap();
    assert_eq!((of(&again, &web), of(&again, &app)), (vec![1, 2], vec![4]));
    assert!(of(&again, &project("none")).is_empty());
    assert!(again.by_blake3(&web, &[]).unwrap().is_empty());
    let has = again.owns(&web, &digests(0..5)).unwrap();
    assert_eq!(has, [true, true, true, true, false]);
    // It goes with the object: for good, and not while somebody uses that.
    assert!(again.forget(digests(1..2), 0).await.unwrap().is_empty());
    assert_eq!(of(&again, &web), [1, 2]);
    again.forget(digests(1..2), u64::MAX).await.unwrap();
    assert_eq!(of(&again, &web), [2]);
    again.grant(&web, digests(1..2)).await.unwrap();
    assert_eq!(of(&again, &web), [2], "it was not named so again");
}

#[tokio::test]
async fn more_than_fits_one_savepoint_is_noted_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let ownership = Ownership::open(&directory.path().join("o.sqlite")).unwrap();
    let count = u32::try_from(belljar_core::bounds::BATCH_BLOBS).unwrap();
    let all = named(0..count);
    ownership
        .grant_named(&project("web"), all.clone())
        .await
        .unwrap();
    let names: Vec<Blake3Digest> = all.iter().map(|(name, _)| *name).collect();
    let found = ownership.by_blake3(&project("web"), &names).unwrap();
    assert!(
        found
            .iter()
            .zip(&all)
            .all(|(found, (_, due))| *found == Some(*due))
    );
}

#[tokio::test]
async fn an_index_of_an_earlier_layout_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let web = project("web");
    for (layout, used) in [(1, ""), (2, ", used INTEGER NOT NULL")] {
        let path = directory.path().join(format!("{layout}.sqlite"));
        let old = rusqlite::Connection::open(&path).unwrap();
        let table = |name| {
            format!(
                "CREATE TABLE {name} (project INTEGER NOT NULL REFERENCES projects (number), digest BLOB NOT NULL{used},
                 PRIMARY KEY (project, digest)) STRICT, WITHOUT ROWID;"
            )
        };
        old.execute_batch(&format!(
            "CREATE TABLE projects (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT; {} {}
             INSERT INTO projects (id) VALUES ('web');
             PRAGMA application_id = 0x424a4f57; PRAGMA user_version = {layout}",
            table("objects"),
            table("trees")
        ))
        .unwrap();
        let values = if used.is_empty() {
            "?1, ?2"
        } else {
            "?1, ?2, 7"
        };
        let object = digests(0..1)[0];
        let sql = format!("INSERT INTO objects VALUES ({values})");
        old.execute(&sql, rusqlite::params![1, object.as_bytes()])
            .unwrap();
        drop(old);
        for _ in 0..2 {
            let ownership = Ownership::open(&path).unwrap();
            assert!(!ownership.is_new());
            assert_eq!(ownership.owns(&web, &[object]).unwrap(), [true]);
            ownership.grant_named(&web, named(0..1)).await.unwrap();
            let (name, _) = named(0..1)[0];
            let found = ownership.by_blake3(&web, &[name]).unwrap();
            assert_eq!(found, [Some(object)], "{layout}");
        }
    }
}
