use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use belljar_core::{Invalid, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::signer::{Answer, Request};
use belljar_sys::seqpacket::{Connection, Listener};
use belljar_sys::systemd::Manager;

use crate::service::{Service, refused};

/// How long a client may leave an answer unread before it is left.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after accepting failed (out of descriptors, say) before trying again.
const PAUSE: Duration = Duration::from_millis(100);
/// Permission bits of the socket. Its directory decides who can reach it at all, SO_PEERCRED who is served.
const SOCKET_MODE: u32 = 0o660;

/// Listens at `socket` and serves the user `client_uid`, for ever; and tells `manager` that it does.
pub(crate) fn listen(
    socket: &Path,
    client_uid: u32,
    service: &Arc<Service>,
    mut manager: Manager,
) -> io::Result<()> {
    let listener = Listener::open(socket, SOCKET_MODE, 64)?;
    let open = Arc::new(AtomicUsize::new(0));
    manager.ready()?;
    loop {
        if manager.is_due() {
            service.lives();
            manager.alive()?;
        }
        if !listener.wait(manager.interval())? {
            continue;
        }
        let connection = match listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        if open.fetch_add(1, Ordering::SeqCst) >= bounds::PEER_CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            let why = "the signer has too many connections";
            service.refused.note("one more", "connection", why);
            refuse(&connection, true, why);
            continue;
        }
        let (service, counted) = (Arc::clone(service), Count(Arc::clone(&open)));
        let serving = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || {
                let _counted = counted;
                admit(&connection, client_uid, &service);
            });
        if let Err(error) = serving {
            tracing::warn!(%error, "a connection could not be served");
        }
    }
}

/// One open connection, for as long as this lives.
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves the peer if it is the one user that is served.
fn admit(connection: &Connection, client_uid: u32, service: &Service) {
    match connection.peer() {
        Ok(peer) if peer.uid == client_uid => {
            if let Err(error) = serve(connection, service) {
                service
                    .refused
                    .note("belljard", "connection", error.to_string());
            }
        }
        Ok(peer) => {
            let (who, why) = (
                format_args!("uid {} (pid {})", peer.uid, peer.pid),
                "the signer serves belljard only",
            );
            service.refused.note(who, "connection", why);
            refuse(connection, false, why);
        }
        Err(error) => tracing::warn!(%error, "a peer could not be told"),
    }
}

/// Answers requests one by one until the other end closes. What is no request is refused, and ends it.
fn serve(connection: &Connection, service: &Service) -> io::Result<()> {
    connection.set_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; bounds::FRAME_BYTES];
    loop {
        let length = match connection.receive(&mut buffer) {
            Ok(Some(received)) if received.descriptor.is_some() => {
                let why = "a descriptor came; none is taken";
                refuse(connection, false, why);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            Ok(Some(received)) => received.length,
            Ok(None) => return Ok(()),
            // Nothing was asked for a while; that is a client's right.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        match request(&buffer[..length]) {
            Ok(request) => send(connection, &service.answer(&request))?,
            Err(invalid) => {
                refuse(connection, false, &invalid.to_string());
                return Err(io::Error::new(io::ErrorKind::InvalidData, invalid));
            }
        }
    }
}

fn request(message: &[u8]) -> Result<Request, Invalid> {
    match frame::parse(message)? {
        Frame::Control(rest) => frame::decode(rest),
        Frame::Data(_) => Err(Invalid::new("the signer takes no content")),
    }
}

fn send(connection: &Connection, answer: &Answer) -> io::Result<()> {
    let message =
        frame::encode(answer).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    connection.send(&message)
}

/// Tells why, if the other end still listens; nothing depends on it.
fn refuse(connection: &Connection, retryable: bool, reason: &str) {
    if let Err(error) = send(connection, &refused(retryable, vec![reason.to_owned()])) {
        tracing::debug!(%error, "a refusal was not heard");
    }
}

#[cfg(test)]
mod tests;
