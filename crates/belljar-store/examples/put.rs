//! Puts files into a running store, as belljard does: a check by hand of the process itself, its user
//! ids and its socket. As root, with the numbers of the embedded launcher:
//!
//! ```sh
//! state=$(mktemp -d) && chmod 0755 "$state"
//! install -d -o 1879047938 -g 1879047937 -m 0750 "$state/store" "$state/run"
//! printf '%s\n' "socket = '$state/run/store.sock'" "root = '$state/store'" \
//!     'client_uid = 1879047937' 'spawner_uid = 0' > "$state/store.toml"
//! as() { setpriv --reuid "$1" --regid 1879047937 --clear-groups "${@:2}"; }
//! as 1879047938 target/debug/belljar-store --config "$state/store.toml" & sleep 1
//! as 1879047937 target/debug/examples/put "$state/run/store.sock" Cargo.lock
//! ```
//!
//! Asked by any other user it ends with the store's refusal.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use belljar_core::{ObjectId, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::{Answer, Request};
use belljar_sys::seqpacket::Connection;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((socket, files)) = arguments.split_first() else {
        let _ = writeln!(io::stderr(), "usage: put SOCKET FILE...");
        return ExitCode::from(2);
    };
    let result = files
        .iter()
        .try_for_each(|file| put(Path::new(socket), Path::new(file)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn put(socket: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let content = std::fs::read(file)?;
    let object = ObjectId::of(&content);
    let connection = Connection::connect(socket)?;
    let sent = send(&connection, object, &content);
    // A refusal may come while content is on its way; it says more than the failed sending.
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    let Some(received) = connection.receive(&mut buffer)? else {
        return Err(sent
            .err()
            .unwrap_or_else(|| "the store has closed the connection".into()));
    };
    match frame::parse(&buffer[..received.length])? {
        Frame::Control(rest) => match frame::decode(rest)? {
            Answer::Stored => Ok(writeln!(io::stdout(), "{}: {object}", file.display())?),
            other => Err(format!("{}: {other:?}", file.display()).into()),
        },
        Frame::Data(_) => Err("the store has sent content".into()),
    }
}

fn send(connection: &Connection, object: ObjectId, content: &[u8]) -> Result<(), Box<dyn Error>> {
    connection.send(&frame::encode(&Request::Put { object })?)?;
    for piece in content.chunks(bounds::CHUNK_BYTES) {
        connection.send(&frame::data(piece)?)?;
    }
    Ok(())
}
