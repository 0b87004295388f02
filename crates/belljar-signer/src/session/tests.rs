use std::sync::Arc;
use std::time::{Duration, Instant};

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_plan::signer::{Answer, Request};
use belljar_sys::process::effective_uid;
use belljar_sys::seqpacket::Connection;
use belljar_sys::systemd::Manager;
use proptest::prelude::*;

use super::{admit, listen};
use crate::bench::{Bench, reasons, request};

/// The next answer; none when the other end has closed.
fn next(connection: &Connection) -> Option<Answer> {
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    // A reset is an end too: the server closed with something of ours unread.
    let length = connection.receive(&mut buffer).ok().flatten()?.length;
    match frame::parse(&buffer[..length]).unwrap() {
        Frame::Control(rest) => Some(frame::decode(rest).unwrap()),
        Frame::Data(_) => panic!("an answer is no content"),
    }
}

/// Sends messages over a connection that is served for `client_uid`, and gives all answers.
fn conversation(bench: &Bench, client_uid: u32, messages: &[Vec<u8>]) -> Vec<Answer> {
    let (ours, theirs) = Connection::pair().unwrap();
    let service = bench.service();
    std::thread::scope(|scope| {
        scope.spawn(move || admit(&theirs, client_uid, &service));
        let mut answers = Vec::new();
        for message in messages {
            if ours.send(message).is_err() {
                break;
            }
            answers.extend(next(&ours));
        }
        // The server goes on until this end is closed.
        drop(ours);
        answers
    })
}

#[test]
fn a_conversation() {
    let bench = Bench::with_receipt();
    let messages =
        [Request::PublicKey, request(), request()].map(|request| frame::encode(&request).unwrap());
    let answers = conversation(&bench, effective_uid(), &messages);
    assert!(matches!(answers[0], Answer::PublicKey { .. }));
    assert!(matches!(answers[1], Answer::Attested { .. }));
    assert_eq!(answers[1], answers[2]);
    assert_eq!(answers.len(), 3);
}

#[test]
fn strangers_are_not_served() {
    let bench = Bench::with_receipt();
    let (ours, theirs) = Connection::pair().unwrap();
    admit(&theirs, effective_uid() + 1, &bench.service());
    drop(theirs);
    let (retryable, why) = reasons(next(&ours).unwrap());
    assert!(!retryable && why.contains("belljard only"), "{why}");
    assert_eq!(next(&ours), None);
}

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    let bench = Bench::with_receipt();
    let good = frame::encode(&Request::PublicKey).unwrap();
    let unknown_field = br#"J{"kind":"public_key","extra":1}"#.to_vec();
    let bytes_to_sign = br#"J{"kind":"sign","payload":"e30="}"#.to_vec();
    let path =
        br#"J{"kind":"attest","attempt":"../../etc/passwd","spec":"","asserted":{}}"#.to_vec();
    let echo = [b"J\"".to_vec(), vec![b'x'; 100_000], b"\"".to_vec()].concat();
    for bad in [
        b"X".to_vec(),
        b"J".to_vec(),
        b"Dcontent".to_vec(),
        bytes_to_sign,
        path,
        echo,
        vec![b'J'; bounds::FRAME_BYTES],
    ] {
        let answers = conversation(&bench, effective_uid(), &[bad.clone(), good.clone()]);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(
            matches!(
                answers[0],
                Answer::Refused {
                    retryable: false,
                    ..
                }
            ),
            "{answers:?}"
        );
    }
    // Known: serde does not look at what comes with a variant that has no fields; nothing depends on it.
    let lenient = conversation(&bench, effective_uid(), &[unknown_field]);
    assert!(
        matches!(lenient[..], [Answer::PublicKey { .. }]),
        "{lenient:?}"
    );
    assert!(!bench.bundle().exists());
}

#[test]
fn a_message_beyond_the_bound_ends_the_connection() {
    let bench = Bench::with_receipt();
    let oversized = vec![b'J'; bounds::FRAME_BYTES + 1];
    assert_eq!(conversation(&bench, effective_uid(), &[oversized]), []);
}

#[test]
fn many_clients_at_once_over_a_real_socket() {
    let bench = Bench::with_receipt();
    let (socket, service) = (bench.path("signer.sock"), Arc::new(bench.service()));
    let at = socket.clone();
    // Listens for as long as the test process lives.
    std::thread::spawn(move || listen(&at, effective_uid(), &service, Manager::nobody()));
    let deadline = Instant::now() + Duration::from_secs(10);
    let connect = || loop {
        match Connection::connect(&socket) {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    // One client that stays silent keeps nobody waiting.
    let _silent = connect();
    let clients: Vec<Connection> = (0..16).map(|_| connect()).collect();
    for client in &clients {
        client.send(&frame::encode(&request()).unwrap()).unwrap();
    }
    let answers: Vec<Answer> = clients.iter().map(|client| next(client).unwrap()).collect();
    assert!(matches!(answers[0], Answer::Attested { .. }));
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_frames_never_get_a_signature(bytes in proptest::collection::vec(any::<u8>(), 1..300), json in "J\\PC{0,80}") {
        let bench = Bench::with_receipt();
        for message in [bytes, json.into_bytes()] {
            let answers = conversation(&bench, effective_uid(), &[message]);
            let refused = answers.iter().all(|answer| matches!(answer, Answer::Refused { .. }));
            prop_assert!(refused && answers.len() == 1, "{:?}", answers);
        }
        prop_assert!(!bench.bundle().exists());
    }
}
