//! Where callers come in: the unix socket of this machine, and the door for those from elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use belljar_core::bounds;
use belljar_policy::Identity;
use belljar_sys::systemd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::server::Connected;

use crate::compose::RunError;
use crate::places::{Place, Places};
use crate::remote::{Remote, RemoteStream};
use crate::rules::Rules;

/// Listens at `path`, beside `remote`: by the service manager's socket if there is one, else by one in place of what
/// an earlier daemon left. Everybody may connect: who is served is decided by the gate, which tells whom it turns
/// away why.
pub(crate) fn listen(
    path: &Path,
    rules: Rules,
    remote: Option<Remote>,
) -> Result<Incoming, RunError> {
    let failed = |source| RunError::Listen {
        path: path.to_owned(),
        source,
    };
    let backlog = i32::try_from(bounds::PEER_CONNECTIONS).unwrap_or(i32::MAX);
    let given = systemd::listener(systemd::Kind::Stream, path, backlog).map_err(failed)?;
    let own = given.is_none();
    let listener = match given {
        Some(socket) => adopt(socket),
        None => bind(path),
    };
    Ok(Incoming {
        listener: listener.map_err(failed)?,
        own,
        places: Places::new(bounds::PEER_CONNECTIONS, bounds::CONNECTIONS_PER_PRINCIPAL),
        strangers: Places::new(bounds::STRANGERS, bounds::CONNECTIONS_PER_STRANGER),
        rules,
        remote,
    })
}

fn adopt(socket: OwnedFd) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Connections as they come in; at the bound one more is closed at once.
pub(crate) struct Incoming {
    listener: UnixListener,
    own: bool,
    /// By user id.
    places: Places<Option<u32>>,
    /// Those of members of no project; those whom the kernel does not tell are one.
    strangers: Places<Option<u32>>,
    rules: Rules,
    remote: Option<Remote>,
}

impl Incoming {
    /// Whether the socket is this process's: the service manager's stays when it ends.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }
}

/// A connection. It ends when its caller loses a right: whatever goes on there may have been begun by that.
pub(crate) struct Accepted {
    line: Line,
    revoked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What it runs over; this holds its place as long as it lives.
enum Line {
    /// Of this machine.
    Local {
        /// The connection.
        stream: UnixStream,
        /// Its place.
        _place: Place<Option<u32>>,
    },
    /// From elsewhere.
    Remote(Box<RemoteStream>),
}

/// Who is at the other end, as far as the connection itself proves; nobody if it does not.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Option<Arc<Identity>>);

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(remote) = &mut self.remote
            && let Poll::Ready(Some(stream)) = remote.poll_next(context)
        {
            let line = Line::Remote(Box::new(stream));
            return Poll::Ready(Some(Ok(self.accepted(line))));
        }
        loop {
            let stream = match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, _))) => stream,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            };
            let uid = stream.peer_cred().ok().map(|noted| noted.uid());
            match self.places_for(uid).take(uid) {
                Ok(place) => {
                    let line = Line::Local {
                        stream,
                        _place: place,
                    };
                    return Poll::Ready(Some(Ok(self.accepted(line))));
                }
                Err(full) => {
                    tracing::warn!(?uid, %full, "too many connections; one more was closed");
                }
            }
        }
    }
}

impl Incoming {
    /// Whoever has no rights gets few: user ids may be had by the thousand (subuid(5)).
    fn places_for(&self, uid: Option<u32>) -> &Places<Option<u32>> {
        let is_member = uid.is_some_and(|uid| self.rules.knows(&Identity::Unix { uid }));
        if is_member {
            &self.places
        } else {
            &self.strangers
        }
    }

    fn accepted(&self, line: Line) -> Accepted {
        let identity = line.identity();
        let revoked = identity.map(|identity| Box::pin(self.rules.revoked(identity)) as Pin<_>);
        Accepted { line, revoked }
    }
}

impl Line {
    /// Of a process of this machine what the kernel noted when it connected (SO_PEERCRED, unix(7)).
    fn identity(&self) -> Option<Arc<Identity>> {
        match self {
            Self::Local { stream, .. } => {
                let noted = stream.peer_cred().ok();
                noted.map(|noted| Arc::new(Identity::Unix { uid: noted.uid() }))
            }
            Self::Remote(stream) => Some(stream.identity()),
        }
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.line.identity())
    }
}

impl Accepted {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(revoked) = &mut self.revoked else {
            return false;
        };
        let over = revoked.as_mut().poll(context).is_ready();
        if over {
            self.revoked = None;
            let identity = self.line.identity();
            tracing::info!(
                ?identity,
                "a connection is over: its caller has lost a right"
            );
        }
        over
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()));
        }
        match &mut self.line {
            Line::Local { stream, .. } => Pin::new(stream).poll_read(context, buffer),
            Line::Remote(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.line {
            Line::Local { stream, .. } => Pin::new(stream).poll_write(context, bytes),
            Line::Remote(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.line {
            Line::Local { stream, .. } => Pin::new(stream).poll_flush(context),
            Line::Remote(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.line {
            Line::Local { stream, .. } => Pin::new(stream).poll_shutdown(context),
            Line::Remote(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
