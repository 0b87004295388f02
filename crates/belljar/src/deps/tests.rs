use super::*;

fn file(path: &str, ecosystem: Ecosystem) -> LockFile {
    LockFile {
        path: RelPath::new(path).unwrap(),
        ecosystem,
    }
}

#[test]
fn a_lock_file_is_the_one_among_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Cargo.lock"), "version = 4\n").unwrap();
    let sources = Sources::collect(source::Selection {
        dir: dir.path(),
        output: None,
        ask_git: false,
        memory: None,
    })
    .unwrap();
    let (object, bytes) = content(&file("Cargo.lock", Ecosystem::Cargo), &sources).unwrap();
    assert_eq!(object, ObjectId::of(&bytes));
    let absent = content(&file("sub/Cargo.lock", Ecosystem::Cargo), &sources).unwrap_err();
    assert!(
        matches!(absent, Error::NotASource(_)) && absent.is_usage(),
        "{absent}"
    );
    std::fs::write(dir.path().join("Cargo.lock"), "version = 3\n").unwrap();
    let changed = content(&file("Cargo.lock", Ecosystem::Cargo), &sources).unwrap_err();
    assert!(
        matches!(changed, Error::Source(source::Error::Changed(_))),
        "{changed}"
    );
}
