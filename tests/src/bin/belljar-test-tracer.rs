//! Runs one of Belljar's programs, unchanged, and stops it at each call that lasts or that others see:
//! `belljar-test-tracer DIRECTORY STATE UID GID record|follow PROGRAM ARGUMENTS…`. What it says and is told is in
//! `DIRECTORY`; see `belljar_tests::trace`. The exit status is the program's, or 128 and the signal that it died of.

// Test code: what it prints is all that it is for.
#![allow(clippy::expect_used, clippy::print_stderr)]

use std::process::ExitCode;

use belljar_tests::trace::tracer::{self, Order};
use nix::sys::wait::WaitStatus;

fn main() -> ExitCode {
    belljar_sys::process::die_with_parent().expect("a tie to the parent");
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("an argument");
    let order = Order {
        directory: next().into(),
        state: next().into(),
        ids: (
            next().parse().expect("a user id"),
            next().parse().expect("a group id"),
        ),
        record: next() == "record",
        command: arguments.collect(),
    };
    let code = match tracer::run(&order) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        Ok(other) => {
            eprintln!("the program ended as {other:?}");
            255
        }
        Err(error) => {
            eprintln!("the program cannot be traced: {error}");
            255
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
