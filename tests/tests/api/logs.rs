use belljar_core::BuildId;
use belljar_tests::{Client, Instance, Part};
use belljar_wire::{BuildState, build_name, v1};
use tonic::Code;

use crate::{build, endless, quick};

/// A piece of a log: attempt, data, whether it grows no more.
fn read(
    client: &Client,
    build: &BuildId,
    attempt: i32,
    offset: i64,
    limit: i64,
) -> Result<(i32, String, bool), (Code, String)> {
    let request = v1::ReadLogRequest {
        name: build_name(build),
        attempt,
        offset,
        limit,
    };
    let answer = client.wait(client.builds().read_log(request));
    let piece = answer.map_err(|e| (e.code(), e.message().to_owned()))?;
    let piece = piece.into_inner();
    assert_eq!(piece.offset, offset);
    let text = String::from_utf8(piece.data).unwrap();
    Ok((piece.attempt, text, piece.complete))
}

#[test]
fn a_log_is_read_in_pieces() {
    let instance = Instance::started();
    let client = instance.client();
    let spec = client.spec(
        &[("in", "")],
        &["echo 0123456789; echo abc; : > out"],
        &["out"],
    );
    let id = build(&client, "r", &spec).id;
    let piece = |offset, limit| read(&client, &id, 0, offset, limit).unwrap();
    assert_eq!(piece(0, 0), (1, "0123456789\nabc\n".to_owned(), true));
    assert_eq!(piece(0, 4), (1, "0123".to_owned(), true));
    assert_eq!(piece(4, 4), (1, "4567".to_owned(), true));
    assert_eq!(piece(11, i64::MAX), (1, "abc\n".to_owned(), true));
    assert_eq!(piece(15, 0), (1, String::new(), true));
    let refused = |attempt, offset, limit| read(&client, &id, attempt, offset, limit).unwrap_err();
    let beyond = refused(0, 16, 0);
    assert_eq!(beyond.0, Code::OutOfRange);
    assert!(beyond.1.contains("has 15 bytes"), "{beyond:?}");
    assert_eq!(refused(2, 0, 0).0, Code::NotFound);
    for (attempt, offset, limit) in [(-1, 0, 0), (0, -1, 0), (0, 0, -1)] {
        assert_eq!(refused(attempt, offset, limit).0, Code::InvalidArgument);
    }
    let nobody = BuildId::new("01jd8q6z8r4x7j2m5t9v0w3y6b").unwrap();
    assert_eq!(
        read(&client, &nobody, 0, 0, 0).unwrap_err().0,
        Code::NotFound
    );
}

#[test]
fn logs_of_earlier_attempts_stay_and_the_current_one_grows() {
    let mut instance = Instance::started();
    let client = instance.client();
    let build = client.submit("r", &endless(&client)).unwrap();
    instance.wait_until_logged("begun");
    let live = read(&client, &build.id, 0, 0, 0).unwrap();
    assert_eq!(live, (1, "begun\n".to_owned(), false));
    // At its end a log that grows has nothing, for now.
    let end = read(&client, &build.id, 1, 6, 0).unwrap();
    assert_eq!(end, (1, String::new(), false));
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = instance.client();
    client.until(&build.id, |build| {
        build.attempt == 2 && build.state == BuildState::Running
    });
    let first = read(&client, &build.id, 1, 0, 0).unwrap();
    assert_eq!(first, (1, "begun\n".to_owned(), true));
    assert_eq!(read(&client, &build.id, 0, 0, 1).unwrap().0, 2);
    client.cancel(&build.id, "").unwrap();
    client.until(&build.id, |build| build.state == BuildState::Ended);
    let second = read(&client, &build.id, 2, 0, 0).unwrap();
    assert_eq!(second, (2, "begun\n".to_owned(), true));
}

#[test]
fn a_build_that_never_began_has_an_empty_log() {
    let instance = Instance::started();
    let client = instance.client();
    let slots = client.server_info().slots;
    let blockers: Vec<_> = (0..slots)
        .map(|n| {
            client
                .submit(&format!("b{n}"), &endless(&client))
                .unwrap()
                .id
        })
        .collect();
    let waits = client.submit("waits", &quick(&client)).unwrap().id;
    assert_eq!(client.get(&waits).unwrap().state, BuildState::Queued);
    let nothing = read(&client, &waits, 0, 0, 0).unwrap();
    assert_eq!((nothing.0, nothing.1.as_str()), (0, ""));
    for build in blockers.iter().chain([&waits]) {
        client.cancel(build, "").unwrap();
    }
    for build in blockers.iter().chain([&waits]) {
        client.until(build, |build| build.state == BuildState::Ended);
    }
}
