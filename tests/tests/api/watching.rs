use belljar_core::Outcome;
use belljar_tests::{Client, Instance, Part};
use belljar_wire::v1::watch_build_response::Event;
use belljar_wire::{BuildRecord, BuildState, build_name, v1};
use tonic::Status;

use crate::endless;

/// What a watch told: states, pieces of logs as (attempt, offset, text).
#[derive(Debug, Default)]
struct Watched {
    states: Vec<BuildRecord>,
    log: Vec<(i32, i64, String)>,
}

impl Watched {
    fn position(&self) -> Option<v1::LogPosition> {
        let (attempt, offset, text) = self.log.last()?;
        Some(v1::LogPosition {
            attempt: *attempt,
            offset: offset + i64::try_from(text.len()).unwrap(),
        })
    }

    fn sequence(&self) -> u64 {
        self.states.last().map_or(0, |build| build.sequence)
    }
}

/// Watches until `enough`, or the end of the stream.
fn watch(
    client: &Client,
    request: v1::WatchBuildRequest,
    enough: impl Fn(&Watched) -> bool,
) -> (Watched, Result<(), Status>) {
    let mut watched = Watched::default();
    let ended = client.wait(async {
        let mut stream = client.builds().watch_build(request).await?.into_inner();
        while !enough(&watched) {
            match stream
                .message()
                .await?
                .map(|message| message.event.unwrap())
            {
                Some(Event::Build(build)) => watched.states.push(build.try_into().unwrap()),
                Some(Event::LogChunk(piece)) => watched.log.push((
                    piece.attempt,
                    piece.offset,
                    String::from_utf8(piece.data).unwrap(),
                )),
                Some(Event::StepStarted(_)) => {}
                None => break,
            }
        }
        Ok(())
    });
    (watched, ended)
}

#[test]
fn a_watch_goes_on_after_the_daemon_was_killed() {
    let mut instance = Instance::started();
    let client = instance.client();
    let build = client.submit("r", &endless(&client)).unwrap();
    let request = |seen: &Watched| v1::WatchBuildRequest {
        name: build_name(&build.id),
        after_sequence: i64::try_from(seen.sequence()).unwrap(),
        log_position: seen.position(),
    };
    // The store may have the log before the spawner's word that the build runs has come.
    let (first, ended) = watch(&client, request(&Watched::default()), |seen| {
        let state = seen.states.last().map(|build| build.state);
        !seen.log.is_empty() && state == Some(BuildState::Running)
    });
    ended.unwrap();
    assert_eq!(first.log, [(1, 0, "begun\n".to_owned())]);
    let running = first.states.last().unwrap();
    assert_eq!((running.state, running.attempt), (BuildState::Running, 1));
    instance.kill_part(Part::Belljard);
    let (_, lost) = watch(&client, request(&first), |_| false);
    assert!(lost.is_err(), "nobody serves");
    instance.start_part(Part::Belljard);
    let client = instance.client();
    let (second, ended) = watch(&client, request(&first), |seen| !seen.log.is_empty());
    ended.unwrap();
    // The sequence is durable: nothing is told twice, and it goes on rising.
    let sequences: Vec<_> = second.states.iter().map(|build| build.sequence).collect();
    assert!(
        sequences.iter().all(|next| *next > first.sequence()),
        "{sequences:?}"
    );
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    // The first attempt's log had been seen wholly; the second one's begins anew.
    assert_eq!(second.log, [(2, 0, "begun\n".to_owned())]);
    client.cancel(&build.id, "enough").unwrap();
    let (third, ended) = watch(&client, request(&second), |_| false);
    ended.unwrap();
    let last = third.states.last().unwrap();
    let by = "unix:uid=0".to_owned();
    let reason = Some("enough".to_owned());
    assert_eq!(last.outcome, Some(Outcome::Cancelled { by, reason }));
    assert_eq!(third.log, []);
    // After the end it is told once more, to whom has seen everything.
    let (again, ended) = watch(&client, request(&third), |_| false);
    ended.unwrap();
    assert_eq!(again.states, std::slice::from_ref(last));
}

#[test]
fn the_rest_of_an_earlier_attempt_comes_first() {
    let mut instance = Instance::started();
    let client = instance.client();
    let build = client.submit("r", &endless(&client)).unwrap();
    instance.wait_until_logged("begun");
    instance.kill_part(Part::Belljard);
    instance.start_part(Part::Belljard);
    let client = instance.client();
    client.until(&build.id, |build| {
        build.attempt == 2 && build.state == BuildState::Running
    });
    let request = v1::WatchBuildRequest {
        name: build_name(&build.id),
        after_sequence: 0,
        log_position: Some(v1::LogPosition {
            attempt: 1,
            offset: 3,
        }),
    };
    let (seen, ended) = watch(&client, request, |seen| seen.log.len() == 2);
    ended.unwrap();
    let due = [(1, 3, "un\n".to_owned()), (2, 0, "begun\n".to_owned())];
    assert_eq!(seen.log, due);
    client.cancel(&build.id, "").unwrap();
    client.until(&build.id, |build| build.state == BuildState::Ended);
}

#[test]
fn a_log_has_nothing_beyond_any_end() {
    let instance = Instance::started();
    let client = instance.client();
    let build = client.submit("r", &endless(&client)).unwrap();
    instance.wait_until_logged("begun");
    let request = v1::WatchBuildRequest {
        name: build_name(&build.id),
        after_sequence: 0,
        log_position: Some(v1::LogPosition {
            attempt: 1,
            offset: i64::MAX,
        }),
    };
    client.cancel(&build.id, "").unwrap();
    let (seen, ended) = watch(&client, request, |_| false);
    ended.unwrap();
    assert!(seen.log.is_empty());
    let last = seen.states.last().map(|build| build.state);
    assert_eq!(last, Some(BuildState::Ended));
}
