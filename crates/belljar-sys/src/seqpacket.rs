//! Unix sockets of type `SOCK_SEQPACKET` (unix(7)): message boundaries kept, peers known by the
//! credentials that the kernel noted when they connected.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    accept_with, bind, connect, listen, recvmsg, sendmsg, socket_with, socketpair,
};

use crate::poll::{self, Event, Interest};
use crate::systemd;

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// A socket that waits for connections.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Who is at the other end, as of the moment of connecting (SO_PEERCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Its length; the bytes are at the beginning of the buffer.
    pub length: usize,
    /// A descriptor that came with it (SCM_RIGHTS), close-on-exec.
    pub descriptor: Option<OwnedFd>,
}

impl Listener {
    /// Listens at `path`, replacing a socket that an earlier process left there, with permission bits
    /// `mode`.
    ///
    /// # Errors
    /// What socket(2), unlink(2), bind(2), chmod(2) or listen(2) say.
    pub fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        chmod(path, Mode::from_raw_mode(mode))?;
        listen(&socket, backlog)?;
        Ok(Self(socket))
    }

    /// The socket that the service manager has opened at `path` for this process, else one that is bound there now:
    /// the manager's keeps connections waiting while this process is started anew.
    ///
    /// # Errors
    /// As [`Listener::bind`] and [`systemd::listener`].
    pub fn open(path: &Path, mode: u32, backlog: i32) -> io::Result<Self> {
        match systemd::listener(systemd::Kind::Messages, path, backlog)? {
            Some(socket) => Ok(Self(socket)),
            None => Self::bind(path, mode, backlog),
        }
    }

    /// Waits until somebody connects, or `timeout` has passed (none: for ever). Gives whether somebody has.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let interest = Interest {
            descriptor: self.0.as_fd(),
            event: Event::Readable,
        };
        Ok(poll::wait(&[interest], timeout)? == [true])
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// What accept4(2) says; `WouldBlock` after [`Listener::set_nonblocking`] when there is none.
    pub fn accept(&self) -> io::Result<Connection> {
        Ok(Connection(accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }

    /// Makes [`Listener::accept`] return at once.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, nonblocking)?)
    }
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// What socket(2) or connect(2) say.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Two connected ends.
    ///
    /// # Errors
    /// What socketpair(2) says.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn peer(&self) -> io::Result<Peer> {
        let credentials = sockopt::socket_peercred(&self.0)?;
        Ok(Peer {
            pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// What sendmsg(2) says; never SIGPIPE.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        send(&self.0, &[IoSlice::new(message)], None)
    }

    /// Sends one message that lies in parts.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        send_parts(&self.0, parts)
    }

    /// Sends one message with a descriptor.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_with(&self, message: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
        send(&self.0, &[IoSlice::new(message)], Some(descriptor))
    }

    /// Receives one message into `buffer`; none when the other end has closed.
    ///
    /// # Errors
    /// What recvmsg(2) says; `InvalidData` for a message longer than `buffer`.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let result = recvmsg(
                &self.0,
                &mut [IoSliceMut::new(buffer)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match result {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if message
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message was larger than allowed",
            ));
        }
        let mut descriptor = None;
        for item in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = item {
                descriptor = rights.into_iter().next();
            }
        }
        Ok((message.bytes > 0).then_some(Received {
            length: message.bytes,
            descriptor,
        }))
    }

    /// Makes both directions return at once instead of waiting (`WouldBlock`).
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, nonblocking)?)
    }

    /// Bounds how long a blocking send or receive may wait; none means for ever.
    ///
    /// # Errors
    /// What setsockopt(2) says.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, timeout)?;
        Ok(sockopt::set_socket_timeout(
            &self.0,
            Timeout::Send,
            timeout,
        )?)
    }

    /// A second handle on the same connection.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Sends one message that lies in parts, through a socket of this type that somebody else holds.
///
/// # Errors
/// As [`Connection::send`].
pub fn send_parts(socket: impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<()> {
    send(socket, parts, None)
}

fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let rights = descriptor.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !rights.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(rights)) {
        return Err(io::Error::other("no room for the descriptor"));
    }
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    loop {
        match sendmsg(socket.as_fd(), parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == length => return Ok(()),
            Ok(_) => return Err(io::Error::other("a message was cut while it was sent")),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Connection {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_keep_their_boundaries_and_carry_a_descriptor() {
        let (one, other) = Connection::pair().unwrap();
        let (reading, writing) = rustix::pipe::pipe().unwrap();
        one.send(b"first").unwrap();
        one.send_with(b"second", reading.as_fd()).unwrap();
        drop((one, reading));
        let mut buffer = [0; 16];
        assert_eq!(other.receive(&mut buffer).unwrap().unwrap().length, 5);
        let second = other.receive(&mut buffer).unwrap().unwrap();
        rustix::io::write(&writing, b"through").unwrap();
        drop(writing);
        let mut text = String::new();
        std::fs::File::from(second.descriptor.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "through");
        assert!(other.receive(&mut buffer).unwrap().is_none());
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_an_error_not_a_prefix() {
        let (one, other) = Connection::pair().unwrap();
        one.send(&[7; 32]).unwrap();
        let error = other.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_peer_is_who_connected() {
        let (one, _other) = Connection::pair().unwrap();
        assert_eq!(one.peer().unwrap().uid, rustix::process::getuid().as_raw());
    }
}
