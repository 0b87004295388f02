//! One message to a process of Belljar, under whatever user id this was started with:
//! `belljar-test-peer SOCKET JSON`. Prints the JSON of the answer, or `null` if the connection was closed
//! instead. The exit status is 1 if it could not connect.

// Test code: what it prints is all that it is for.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_sys::seqpacket::Connection;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (socket, message) = (arguments.next(), arguments.next());
    let (socket, message) = socket.zip(message).expect("a socket and a message");
    let connection = match Connection::connect(Path::new(&socket)) {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let patience = Some(Duration::from_secs(20));
    connection.set_timeout(patience).expect("a timeout");
    // Whoever is turned away at once cannot send any more; the refusal can still be read.
    let _ = connection.send(format!("J{message}").as_bytes());
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let length = match connection.receive(&mut buffer) {
        Ok(received) => received.map_or(0, |received| received.length),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
        Err(error) => panic!("{error}"),
    };
    match length {
        0 => println!("null"),
        length => match frame::parse(&buffer[..length]).expect("a frame") {
            Frame::Control(json) => println!("{}", String::from_utf8_lossy(json)),
            Frame::Data(_) => panic!("data where an answer is due"),
        },
    }
    ExitCode::SUCCESS
}
