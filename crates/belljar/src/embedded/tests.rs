use super::configuration::floor_of;
use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn the_floor_is_lowered_only_where_v2_cannot_limit_memory() {
    assert_eq!(floor_of(Some("cpuset cpu io memory pids\n")), Floor::V2);
    assert_eq!(floor_of(Some("cpu pids\n")), Floor::Hybrid);
    assert_eq!(floor_of(Some("memory_x\n")), Floor::Hybrid);
    assert_eq!(floor_of(None), Floor::Hybrid);
}

#[test]
fn every_process_but_the_spawner_has_a_user_of_its_own() {
    let mut uids: Vec<u32> = PROGRAMS.iter().map(|program| program.uid).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), PROGRAMS.len());
    let roots: Vec<&str> = PROGRAMS
        .iter()
        .filter(|program| program.uid == ROOT)
        .map(|program| program.name)
        .collect();
    assert_eq!(roots, ["belljar-spawner"]);
}

/// A state directory as root may use it. Needs root, as does everything that it is for.
fn state() -> (tempfile::TempDir, State) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it gives directories to other users"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let state = State::prepare(&dir.path().join("state")).unwrap();
    (dir, state)
}

#[test]
fn the_state_is_laid_out_with_its_owners_and_again() {
    let (_dir, state) = state();
    state.lay_out().unwrap();
    configuration::write(&state, Floor::V2, Purpose::Build).unwrap();
    let owner = |name: &str| {
        let status = state.path().join(name).metadata().unwrap();
        (status.uid(), status.gid(), status.mode() & 0o7777)
    };
    assert_eq!(owner(""), (ROOT, ROOT, 0o755));
    assert_eq!(owner("signer"), (SIGNER, GROUP, 0o700));
    assert_eq!(owner("receipts"), (ROOT, GROUP, 0o750));
    assert_eq!(owner("config/spawner.toml"), (ROOT, ROOT, 0o644));
    std::fs::set_permissions(
        state.path().join("signer"),
        std::fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    std::fs::write(state.path().join("run/store/store.sock"), "").unwrap();
    state.lay_out().unwrap();
    assert_eq!(owner("signer"), (SIGNER, GROUP, 0o700));
    assert!(!state.path().join("run/store/store.sock").exists());
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let (_dir, state) = state();
    std::fs::create_dir(state.path().join("receipts")).unwrap();
    let refused = state.lay_out().unwrap_err().to_string();
    assert!(refused.contains("receipts belongs to 0:0"), "{refused}");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::remove_dir(state.path().join("receipts")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), state.path().join("receipts")).unwrap();
    assert!(matches!(state.lay_out().unwrap_err(), Error::SetUp { .. }));
}

#[test]
fn a_closed_parent_is_refused_by_name() {
    let (dir, _state) = state();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let refused = State::prepare(&dir.path().join("state")).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains(&dir.path().display().to_string()),
        "{refused}"
    );
    assert!(refused.hint().is_some());
}

#[test]
fn one_owner_at_a_time_and_none_ends_under_a_guest() {
    let (_dir, state) = state();
    let (owner, users) = (state.path().join(OWNER), state.path().join(USERS));
    let exclusive = |path: &Path| lock(path, FlockOperation::NonBlockingLockExclusive).unwrap();
    let Ok(Claim::Owner(owned, None)) = claim(state.path(), Purpose::Build) else {
        panic!("nobody else has it")
    };
    assert!(exclusive(&owner).is_none());
    state.lay_out().unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(socket(state.path())).unwrap();
    let Ok(Claim::Guest(guest)) = claim(state.path(), Purpose::Ask) else {
        panic!("the owner's daemon answers")
    };
    assert!(exclusive(&users).is_none());
    drop(guest);
    assert!(exclusive(&users).is_some());
    drop(owned);
    // Whoever only asks keeps others from joining.
    let Ok(Claim::Owner(_owned, Some(_alone))) = claim(state.path(), Purpose::Ask) else {
        panic!("the directory is free")
    };
    let users = state.path().join(USERS);
    let joined = lock(&users, FlockOperation::NonBlockingLockShared).unwrap();
    assert!(joined.is_none());
}
