//! Messages to a process of Belljar, under whatever user id this was started with.
//!
//! * `belljar-test-peer SOCKET JSON` sends one, and prints the JSON of the answer, or `null` if the connection
//!   was closed instead.
//! * `belljar-test-peer SOCKET` sends each line of standard input, bytes in hexadecimal digits (`+` before them:
//!   with a descriptor), and prints whatever comes: control messages as they are, `D` and a number for content
//!   of that many bytes, `closed` at the end.
//!
//! The exit status is 1 if it could not connect.

// Test code: what it prints is all that it is for.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use belljar_core::bounds;
use belljar_plan::frame::{self, Frame};
use belljar_sys::seqpacket::Connection;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().expect("a socket");
    let connection = match Connection::connect(Path::new(&socket)) {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match arguments.next() {
        Some(message) => ask(&connection, &message),
        None => converse(&connection),
    }
    ExitCode::SUCCESS
}

fn ask(connection: &Connection, message: &str) {
    let patience = Some(Duration::from_secs(20));
    connection.set_timeout(patience).expect("a timeout");
    // Whoever is turned away at once cannot send any more; the refusal can still be read.
    let _ = connection.send(format!("J{message}").as_bytes());
    println!(
        "{}",
        match hear(connection) {
            Some(Heard::Control(json)) => json,
            Some(Heard::Data(_)) => panic!("data where an answer is due"),
            None => "null".to_owned(),
        }
    );
}

fn converse(connection: &Connection) {
    let ears = connection.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        while let Some(heard) = hear(&ears) {
            match heard {
                Heard::Control(json) => println!("{json}"),
                Heard::Data(length) => println!("D {length}"),
            }
        }
        println!("closed");
    });
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        let digits = line.strip_prefix('+');
        let bytes = bytes_of(digits.unwrap_or(&line));
        // The other end may have closed; that is heard.
        let _ = match digits {
            Some(_) => connection.send_with(&bytes, std::io::stdin().as_fd()),
            None => connection.send(&bytes),
        };
    }
}

fn bytes_of(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    pairs.map(byte).collect()
}

enum Heard {
    Control(String),
    Data(usize),
}

/// The next message; none if the connection was closed.
fn hear(connection: &Connection) -> Option<Heard> {
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let received = match connection.receive(&mut buffer) {
        Ok(received) => received?,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
        Err(error) => panic!("{error}"),
    };
    match frame::parse(&buffer[..received.length]).expect("a frame") {
        Frame::Control(json) => Some(Heard::Control(String::from_utf8_lossy(json).into_owned())),
        Frame::Data(piece) => Some(Heard::Data(piece.len())),
    }
}
