//! A process that confines itself as belljard, store and signer do, but for the steps that `BELLJAR_TEST_WITHOUT`
//! names, separated by commas. With it the suite shows that each step is noticed when it is missing.
//!
//! Its arguments are a directory that it may change, a file outside of it that everybody may change, and, if it is
//! to have one, the TCP port to listen at. It prints why it could not be confined, or what came of trying things, a
//! line each: `done`, or the error number.

// Test code may stop at the first surprise.
#![allow(clippy::panic, clippy::unwrap_used, clippy::print_stdout)]

use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use belljar_sys::confine::{STEPS, Service, Step, confine_by};
use belljar_sys::landlock::Allowed;

fn main() {
    let without = std::env::var("BELLJAR_TEST_WITHOUT").unwrap_or_default();
    let without: Vec<&str> = without.split(',').filter(|name| !name.is_empty()).collect();
    let known = |name: &&str| STEPS.iter().any(|step| step.name == *name);
    assert!(without.iter().all(known), "{without:?}: no such step");
    let left: Vec<Step> = STEPS
        .iter()
        .copied()
        .filter(|step| !without.contains(&step.name))
        .collect();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [own, outside, port @ ..] = &arguments[..] else {
        panic!("a directory and a file are due");
    };
    let port = port.first().map(|port| port.parse::<u16>().unwrap());
    let service = Service {
        places: vec![(own.into(), Allowed::ReadWrite)],
        port,
        connect: Vec::new(),
        holds_secret: true,
    };
    let _other =
        std::env::var_os("BELLJAR_TEST_THREAD").map(|_| std::thread::spawn(std::thread::park));
    if let Err(error) = confine_by(&left, &service) {
        println!("{error}");
        return;
    }
    println!("confined");
    let mut open = OpenOptions::new();
    open.create(true).append(true);
    println!("inside: {}", told(open.open(Path::new(own).join("made"))));
    println!("outside: {}", told(open.open(outside)));
    println!(
        "program: {}",
        told(std::process::Command::new("/bin/true").status())
    );
    println!("datagrams: {}", told(UdpSocket::bind("127.0.0.1:0")));
    println!("some port: {}", told(TcpListener::bind("127.0.0.1:0")));
    if let Some(port) = port {
        let address = ("127.0.0.1", port);
        let listener = TcpListener::bind(address);
        println!("connect: {}", told(TcpStream::connect(address)));
        println!("its port: {}", told(listener));
    }
}

fn told<T>(result: std::io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error.raw_os_error().unwrap_or_default().to_string(),
    }
}
