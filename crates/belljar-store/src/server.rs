use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_core::bounds;
use belljar_plan::store::{Answer, Failure};
use belljar_sys::poll::{self, Event, Interest};
use belljar_sys::process::Child;
use belljar_sys::seqpacket::{Connection, Listener};
use belljar_sys::systemd::Manager;

use crate::channel::Channel;
use crate::config::{Access, Role};
use crate::failed::Failed;
use crate::partial::Partials;
use crate::session::{Session, Store};

/// How long to wait when the system is out of something that accepting needs.
const BREATH: Duration = Duration::from_millis(100);

/// How many connections there are. Clients get at most half of them, so that no number of uploads can
/// keep the spawner out.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    clients: usize,
    spawner: usize,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    role: Role,
}

impl Slots {
    /// A place for one more connection, if there is one.
    pub(crate) fn claim(self: &Arc<Self>, role: Role) -> Option<Slot> {
        let mut taken = self.lock();
        let full = taken.clients + taken.spawner >= bounds::PEER_CONNECTIONS;
        match role {
            _ if full => return None,
            Role::Client if taken.clients >= bounds::PEER_CONNECTIONS / 2 => return None,
            Role::Client => taken.clients += 1,
            Role::Spawner => taken.spawner += 1,
        }
        Some(Slot {
            slots: Arc::clone(self),
            role,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Every change is one addition: a panic elsewhere cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        match self.role {
            Role::Client => taken.clients -= 1,
            Role::Spawner => taken.spawner -= 1,
        }
    }
}

/// How often to look for interrupted uploads that nobody has gone on with.
const SWEEP: Duration = Duration::from_secs(60);

/// Drops interrupted uploads when their time is over.
pub(crate) fn sweep(partials: Arc<Partials>) -> io::Result<()> {
    let forever = move || loop {
        std::thread::sleep(SWEEP);
        partials.sweep();
    };
    let thread = std::thread::Builder::new().name("sweep".to_owned());
    thread.spawn(forever).map(drop)
}

/// Why no connection is served any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error("telling the service manager failed")]
    Manager(#[source] io::Error),
    #[error("waiting for connections failed")]
    Waiting(#[source] io::Error),
    #[error(
        "the nursery has ended, and without it no tree can be made. hint: the service manager starts the store anew"
    )]
    Nursery,
}

/// Serves every connection in a thread of its own, as long as the `nursery` lives; and tells `manager` that it does, as
/// long as the tables that all of them need can be had.
pub(crate) fn serve(
    listener: &Listener,
    store: &Arc<Store>,
    access: Access,
    nursery: &Child,
    mut manager: Manager,
) -> Result<Infallible, EndError> {
    let slots = Arc::new(Slots::default());
    manager.ready().map_err(EndError::Manager)?;
    let interests = [listener.as_fd(), nursery.pidfd.as_fd()].map(|descriptor| Interest {
        descriptor,
        event: Event::Readable,
    });
    loop {
        if manager.is_due() {
            drop(slots.lock());
            store.partials.lives();
            manager.alive().map_err(EndError::Manager)?;
        }
        let happened = poll::wait(&interests, manager.interval()).map_err(EndError::Waiting)?;
        if happened[1] {
            return Err(EndError::Nursery);
        }
        if !happened[0] {
            continue;
        }
        match listener.accept() {
            Ok(connection) => admit(connection, store, access, &slots),
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                std::thread::sleep(BREATH);
            }
        }
    }
}

/// Starts a session, or tells the peer why there is none.
fn admit(connection: Connection, store: &Arc<Store>, access: Access, slots: &Arc<Slots>) {
    let peer = match connection.peer() {
        Ok(peer) => peer,
        Err(error) => {
            tracing::error!(%error, "a peer without credentials was turned away");
            return;
        }
    };
    let who = format!("uid {} (pid {})", peer.uid, peer.pid);
    let Some(role) = access.role(peer) else {
        let why = format!("user {} may not ask the store anything", peer.uid);
        store.refused.note(&who, "connection", why.as_str());
        turn_away(connection, Failed::refused(why));
        return;
    };
    let Some(slot) = slots.claim(role) else {
        let why = "too many connections are open; close one, or try again later".to_owned();
        store.refused.note(&who, "connection", why.as_str());
        let class = Failure::Internal;
        turn_away(connection, Failed { class, why });
        return;
    };
    let session = Channel::new(connection, who, Arc::clone(&store.refused))
        .map(|channel| Session::new(Arc::clone(store), role, channel, Arc::new(slot)));
    let name = format!("{role:?}-{}", peer.pid);
    let started = session.and_then(|session| {
        std::thread::Builder::new()
            .name(name)
            .spawn(|| session.run())
    });
    if let Err(error) = started {
        tracing::error!(%error, "a connection could not be served");
    }
}

/// The one answer fits into any socket's buffer; where it does not, the peer learns from the closing.
fn turn_away(connection: Connection, failed: Failed) {
    let sent = connection.set_nonblocking(true).and_then(|()| {
        let answer =
            belljar_plan::frame::encode(&Answer::from(failed)).map_err(io::Error::other)?;
        connection.send(&answer)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "a peer was turned away without a word");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_cannot_take_every_place() {
        let slots = Arc::new(Slots::default());
        let clients: Vec<_> = std::iter::from_fn(|| slots.claim(Role::Client)).collect();
        assert_eq!(clients.len(), bounds::PEER_CONNECTIONS / 2);
        let spawner: Vec<_> = std::iter::from_fn(|| slots.claim(Role::Spawner)).collect();
        assert_eq!(clients.len() + spawner.len(), bounds::PEER_CONNECTIONS);
        drop(spawner);
        assert!(
            slots.claim(Role::Spawner).is_some(),
            "a place is given back"
        );
        assert!(slots.claim(Role::Client).is_none());
        drop(clients);
        assert!(slots.claim(Role::Client).is_some());
    }
}
