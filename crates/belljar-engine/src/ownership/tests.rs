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
