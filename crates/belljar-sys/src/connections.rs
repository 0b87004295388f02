//! The TCP connections of one network namespace, by sock_diag(7): also those that no process has any more, which the
//! kernel keeps, with all that they still have to send, until their other end has answered or it gives up on them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Most connections that are listed before they are destroyed.
const AT_ONCE: usize = 4096;
/// What one datagram of the kernel may have; it sends less (`NLMSG_GOODSIZE`, 8 KiB).
const ANSWER_BYTES: usize = 64 * 1024;

/// `struct nlmsghdr` (netlink(7)), in bytes.
const HEADER: usize = 16;
/// `struct inet_diag_sockid` (sock_diag(7)), in bytes.
const ID: usize = 48;
/// What comes before the id in `struct inet_diag_msg`, and, with states, in `struct inet_diag_req_v2`.
const BEFORE_ANSWERED_ID: usize = 4;

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const ANY_STATE: u32 = u32::MAX;

/// Lists and destroys the TCP connections of the network namespace that it was opened in, whichever its user is in.
#[derive(Debug)]
pub struct Connections(OwnedFd);

/// One of them, as the kernel names it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    family: u8,
    id: [u8; ID],
}

impl Connections {
    /// Those of the network namespace of the calling thread.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn open() -> io::Result<Self> {
        Ok(Self(rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?))
    }

    /// Whether this kernel can list and destroy them at all.
    ///
    /// # Errors
    /// ENOENT where it cannot list them (`CONFIG_INET_TCP_DIAG`), EOPNOTSUPP where it cannot destroy them
    /// (`CONFIG_INET_DIAG_DESTROY`), EPERM without `CAP_NET_ADMIN`.
    pub fn try_out(&self) -> io::Result<()> {
        let family = family(AddressFamily::INET);
        self.list(family)?;
        let nobody = Connection {
            family,
            id: [0; ID],
        };
        self.destroy(&nobody)
    }

    /// Whether there is none.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn are_none(&self) -> io::Result<bool> {
        for family in FAMILIES {
            if !self.list(self::family(family))?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Destroys all of them. Nobody may be left who makes new ones.
    ///
    /// # Errors
    /// What the kernel answers; when some cannot be destroyed.
    pub fn destroy_all(&self) -> io::Result<()> {
        for family in FAMILIES {
            // Each round takes some away; whatever else happens, it ends.
            for _ in 0..ROUNDS {
                let some = self.list(self::family(family))?;
                if some.is_empty() {
                    break;
                }
                for one in &some {
                    self.destroy(one)?;
                }
            }
        }
        match self.are_none()? {
            true => Ok(()),
            false => Err(io::Error::other("connections cannot be destroyed")),
        }
    }

    /// The first of them, at most [`AT_ONCE`].
    fn list(&self, family: u8) -> io::Result<Vec<Connection>> {
        let nobody = [0; ID];
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, &nobody)?;
        let mut found = Vec::new();
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let (length, _) =
                rustix::net::recv(&self.0, answer.as_mut_slice(), RecvFlags::empty())?;
            for message in messages(&answer[..length]) {
                let (kind, body) = message?;
                match kind {
                    // The end says, too, why there is nothing.
                    NLMSG_DONE | NLMSG_ERROR => return error_of(body).map(|()| found),
                    SOCK_DIAG_BY_FAMILY if found.len() < AT_ONCE => {
                        found.push(Connection::read(body)?);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Destroys one; that it is gone already is fine.
    fn destroy(&self, one: &Connection) -> io::Result<()> {
        self.send(SOCK_DESTROY, NLM_F_ACK, one.family, &one.id)?;
        let mut answer = vec![0; ANSWER_BYTES];
        let (length, _) = rustix::net::recv(&self.0, answer.as_mut_slice(), RecvFlags::empty())?;
        for message in messages(&answer[..length]) {
            let (NLMSG_ERROR, body) = message? else {
                continue;
            };
            return match error_of(body) {
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
                other => other,
            };
        }
        Err(malformed())
    }

    /// Sends a `struct inet_diag_req_v2`.
    fn send(&self, kind: u16, flags: u16, family: u8, id: &[u8; ID]) -> io::Result<()> {
        let protocol = u8::try_from(libc::IPPROTO_TCP).map_err(io::Error::other)?;
        let mut request = Vec::with_capacity(HEADER + 8 + ID);
        let length = u32::try_from(request.capacity()).map_err(io::Error::other)?;
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence and port: there is one question at a time, and the kernel knows who asks.
        request.extend([0; 8]);
        request.extend([family, protocol, 0, 0]);
        request.extend(ANY_STATE.to_ne_bytes());
        request.extend(id);
        rustix::net::send(&self.0, &request, SendFlags::empty())?;
        Ok(())
    }
}

impl AsFd for Connections {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Connection {
    /// Out of a `struct inet_diag_msg`.
    fn read(body: &[u8]) -> io::Result<Self> {
        let family = *body.first().ok_or_else(malformed)?;
        let id = body.get(BEFORE_ANSWERED_ID..BEFORE_ANSWERED_ID + ID);
        let id = id.and_then(|id| id.try_into().ok()).ok_or_else(malformed)?;
        Ok(Self { family, id })
    }
}

/// Of TCP over each.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::INET, AddressFamily::INET6];
/// So many times [`AT_ONCE`] are more than a machine has (`net.ipv4.tcp_max_orphans`).
const ROUNDS: usize = 256;

fn family(family: AddressFamily) -> u8 {
    // The numbers of both are small.
    u8::try_from(family.as_raw()).unwrap_or(0)
}

/// The messages of one datagram, each with its type and what comes after its header.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = io::Result<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let message = message(datagram);
        datagram = match &message {
            Ok((_, body)) => {
                let whole = (HEADER + body.len()).next_multiple_of(4);
                datagram.get(whole..).unwrap_or_default()
            }
            Err(_) => &[],
        };
        Some(message)
    })
}

fn message(datagram: &[u8]) -> io::Result<(u16, &[u8])> {
    let field = |from: usize, to: usize| datagram.get(from..to).ok_or_else(malformed);
    let length = field(0, 4)?.try_into().map_err(|_| malformed())?;
    let length = usize::try_from(u32::from_ne_bytes(length)).map_err(io::Error::other)?;
    let kind = field(4, 6)?.try_into().map_err(|_| malformed())?;
    Ok((u16::from_ne_bytes(kind), field(HEADER, length.max(HEADER))?))
}

/// Out of a `struct nlmsgerr`.
fn error_of(body: &[u8]) -> io::Result<()> {
    let number = body.get(..4).and_then(|number| number.try_into().ok());
    match i32::from_ne_bytes(number.ok_or_else(malformed)?) {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(-negative)),
    }
}

fn malformed() -> io::Error {
    io::Error::other("the kernel's answer about sockets is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message as the kernel lays it out.
    fn told(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_are_read_one_after_the_other_and_broken_ones_are_told() {
        let mut datagram = told(SOCK_DIAG_BY_FAMILY, &[7; 5]);
        datagram.extend(told(NLMSG_DONE, &[0; 4]));
        let read: Vec<_> = messages(&datagram).map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], (SOCK_DIAG_BY_FAMILY, &[7; 5][..]));
        assert_eq!(read[1], (NLMSG_DONE, &[0; 4][..]));
        for length in 1..HEADER {
            assert!(messages(&datagram[..length]).next().unwrap().is_err());
        }
        let mut long = told(NLMSG_DONE, &[0; 4]);
        long[0] = 0xff;
        assert!(messages(&long).next().unwrap().is_err());
        let mut short = told(NLMSG_DONE, &[]);
        short[0] = 1;
        assert!(messages(&short).count() <= 2, "it ends");
    }

    #[test]
    fn the_end_of_a_list_says_why_it_is_empty() {
        assert!(error_of(&[0; 4]).is_ok());
        let absent = error_of(&(-libc::ENOENT).to_ne_bytes()).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
        assert!(error_of(&[1]).is_err());
    }
}
