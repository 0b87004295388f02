use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use belljar_core::bounds;
use belljar_plan::frame;
use belljar_sys::seqpacket::{self, Connection};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::task::spawn_blocking;

use crate::tasks::finished;

/// A connection to another process of Belljar, for tasks that must not block.
///
/// tokio has no type for `SOCK_SEQPACKET`. Its datagram socket does what is needed on a connected one:
/// send(2) and recv(2), and waiting for them. Descriptors that somebody sends along are dropped by the
/// kernel, since no room is given for them.
#[derive(Debug)]
pub(super) struct Channel(UnixDatagram);

/// Why a peer was not heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("no connection to {}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is served by user id {found}, but its directory belongs to user id {due}", path.display())]
    Impostor { path: PathBuf, found: u32, due: u32 },
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("a message was malformed")]
    Malformed(#[source] belljar_core::Invalid),
}

impl Channel {
    /// Connects to the socket at `path`, which must be served by the owner of the directory it lies in, or by root:
    /// nobody else could put a socket there, and the directory's mode keeps others out.
    pub(super) async fn connect(path: &Path) -> Result<Self, ChannelError> {
        let failed = {
            let path = path.to_owned();
            move |source| ChannelError::Connect { path, source }
        };
        let socket = path.to_owned();
        // Connecting waits while the listener's backlog is full.
        let connected = spawn_blocking(move || {
            let connection = Connection::connect(&socket)?;
            let directory = socket.parent().unwrap_or(Path::new("/"));
            let owner = std::fs::metadata(directory)?.uid();
            let peer = connection.peer()?;
            Ok((connection, peer.uid, owner))
        });
        let (connection, found, due) = match finished(connected).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(source)) => return Err(failed(source)),
            Err(error) => return Err(failed(error.into())),
        };
        // Root's is one that the service manager listens at, for a process that is just being started.
        if found != due && found != 0 {
            return Err(ChannelError::Impostor {
                path: path.to_owned(),
                found,
                due,
            });
        }
        Self::over(connection).map_err(failed)
    }

    fn over(connection: Connection) -> io::Result<Self> {
        connection.set_nonblocking(true)?;
        let socket = std::os::unix::net::UnixDatagram::from(OwnedFd::from(connection));
        Ok(Self(UnixDatagram::from_std(socket)?))
    }

    /// Sends one message.
    pub(super) async fn send(&self, message: &[u8]) -> io::Result<()> {
        match self.0.send(message).await? {
            sent if sent == message.len() => Ok(()),
            _ => Err(io::Error::other("a message was cut while it was sent")),
        }
    }

    /// Sends one message that lies in parts.
    pub(super) async fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let send = || seqpacket::send_parts(&self.0, parts);
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Sends one control message.
    pub(super) async fn tell<T: Serialize>(&self, message: &T) -> Result<(), ChannelError> {
        let bytes = frame::encode(message).map_err(ChannelError::Malformed)?;
        Ok(self.send(&bytes).await?)
    }

    /// Receives one control message. `buffer` has room for a frame.
    pub(super) async fn hear<T: DeserializeOwned>(
        &self,
        buffer: &mut Buffer,
    ) -> Result<T, ChannelError> {
        // No message is empty: nothing received means that the other end has closed.
        let length = match self.0.recv(&mut buffer.0).await? {
            0 => return Err(ChannelError::Closed),
            length => length,
        };
        match frame::parse(&buffer.0[..length]).map_err(ChannelError::Malformed)? {
            frame::Frame::Control(rest) => frame::decode(rest).map_err(ChannelError::Malformed),
            frame::Frame::Data(_) => {
                let unasked = belljar_core::Invalid::new("content that nobody asked for");
                Err(ChannelError::Malformed(unasked))
            }
        }
    }
}

/// Room for one frame, and a byte more: a longer message is cut by the kernel, and must be seen to be too
/// long.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; bounds::FRAME_BYTES + 1].into_boxed_slice())
    }
}
