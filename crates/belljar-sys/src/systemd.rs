//! What a service manager gives to a process, and what it wants to hear: sockets (sd_listen_fds(3)), readiness and
//! liveness (sd_notify(3)), credentials (systemd.exec(5)). Without one, nothing of this is there.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, getsockname, listen, sockopt};

/// What a path to a credential begins with.
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";
/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// Kinds of sockets (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_SEQPACKET.
    Messages,
}

impl Kind {
    fn number(self) -> SocketType {
        match self {
            Self::Stream => SocketType::STREAM,
            Self::Messages => SocketType::SEQPACKET,
        }
    }
}

/// The socket that the service manager listens at for this process; none if it does not. It must be of AF_UNIX, of
/// `kind`, and bound to `path`, as this process's configuration has it. May be asked once.
///
/// From now on it listens in this process's name: whoever connects sees our user id (SO_PEERCRED, unix(7)).
///
/// # Errors
/// When something else was passed.
pub fn listener(kind: Kind, path: &Path, backlog: i32) -> io::Result<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let ours = number("LISTEN_PID") == Some(u64::from(std::process::id()));
    let Some(count) = number("LISTEN_FDS").filter(|count| ours && *count > 0) else {
        return Ok(None);
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("the passed socket was taken before"));
    }
    if count != 1 {
        return Err(io::Error::other(format!(
            "{count} sockets were passed, and one is due"
        )));
    }
    // WHY: the number is all that the protocol tells.
    // SAFETY: LISTEN_PID says that the descriptor was opened for this process, and it is taken once: nobody else
    // in it owns this number.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    check(&socket, kind, path)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    listen(&socket, backlog)?;
    Ok(Some(socket))
}

fn check(socket: impl AsFd, kind: Kind, path: &Path) -> io::Result<()> {
    let refused = |what: &str| Err(io::Error::other(format!("the passed socket {what}")));
    let socket = socket.as_fd();
    if sockopt::socket_domain(socket)? != AddressFamily::UNIX
        || sockopt::socket_type(socket)? != kind.number()
        || !sockopt::socket_acceptconn(socket)?
    {
        return refused("does not listen, or is of another kind; see its .socket unit");
    }
    let bound = rustix::net::SocketAddrUnix::try_from(getsockname(socket)?)?;
    let bound = bound.path_bytes().map(OsStr::from_bytes);
    if bound.map(Path::new) != Some(path) {
        return refused(&format!(
            "is bound to {bound:?}, and the configuration says {}",
            path.display()
        ));
    }
    Ok(())
}

/// Tells the service manager how this process fares. Made before a process confines itself, which may close the way.
#[derive(Debug)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it must hear that this process lives, if it wants to.
    watchdog: Option<Duration>,
    told: Option<Instant>,
}

impl Manager {
    /// Nobody, who is told nothing.
    pub fn nobody() -> Self {
        Self {
            socket: None,
            watchdog: None,
            told: None,
        }
    }

    /// The one that has started this process; or nobody, who is told nothing.
    ///
    /// # Errors
    /// When there is one that cannot be reached.
    pub fn connect() -> io::Result<Self> {
        let named = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = match &named {
            None => None,
            Some(name) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect_addr(&address(name)?)?;
                Some(socket)
            }
        };
        let ours = std::env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Ok(Self {
            watchdog: watchdog
                .filter(|_| socket.is_some())
                .map(Duration::from_micros),
            socket,
            told: None,
        })
    }

    /// Says that this process serves from now on.
    ///
    /// # Errors
    /// What send(2) says.
    pub fn ready(&mut self) -> io::Result<()> {
        self.say("READY=1")?;
        self.told = Some(Instant::now());
        Ok(())
    }

    /// How long a loop may wait at most before it says again that it lives: as long as it likes, if nobody asks.
    pub fn interval(&self) -> Option<Duration> {
        // Thrice in the time: one that is lost or late costs nothing.
        self.watchdog.map(|watchdog| watchdog / 3)
    }

    /// Whether it is time to say so: for loops for which finding it out costs something.
    pub fn is_due(&self) -> bool {
        let since = self.told.map(|told| told.elapsed());
        self.interval()
            .is_some_and(|interval| since.is_none_or(|since| since >= interval / 2))
    }

    /// Says that this process lives, if it is time. To be called by what must not stand still, when it has seen
    /// that it does not.
    ///
    /// # Errors
    /// What send(2) says.
    pub fn alive(&mut self) -> io::Result<()> {
        if self.is_due() {
            self.say("WATCHDOG=1")?;
            self.told = Some(Instant::now());
        }
        Ok(())
    }

    fn say(&self, what: &str) -> io::Result<()> {
        match &self.socket {
            None => Ok(()),
            Some(socket) => socket.send(what.as_bytes()).map(drop),
        }
    }
}

/// A path, or behind `@` a name without one (unix(7)).
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The credential that a path of a configuration means, which then is `$CREDENTIALS_DIRECTORY/NAME`; none if it is
/// an ordinary path.
///
/// # Errors
/// When it means one and there are none, or NAME is no name.
pub fn credential(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut parts = path.components();
    if parts.next() != Some(Component::Normal(OsStr::new(CREDENTIALS))) {
        return Ok(None);
    }
    let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
        return Err(io::Error::other(format!(
            "`{CREDENTIALS}/NAME` is due, with one name"
        )));
    };
    let directory = std::env::var_os(&CREDENTIALS[1..]).map(PathBuf::from);
    match directory.filter(|directory| directory.is_absolute()) {
        Some(directory) => Ok(Some(directory.join(name))),
        None => Err(io::Error::other(
            "no credentials were given to this process. hint: LoadCredential= or LoadCredentialEncrypted= of its \
             unit (systemd.exec(5))",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SocketAddrUnix, SocketFlags, bind, socket_with};

    #[test]
    fn only_the_socket_that_is_meant_is_taken() {
        let path = std::env::temp_dir().join(format!("belljar-sys-listen-{}", std::process::id()));
        let kind = Kind::Messages;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, kind.number(), flags, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        let refusal = check(&socket, kind, &path).unwrap_err().to_string();
        assert!(refusal.contains("does not listen"), "{refusal}");
        listen(&socket, 1).unwrap();
        check(&socket, kind, &path).unwrap();
        assert!(check(&socket, Kind::Stream, &path).is_err());
        let refusal = check(&socket, kind, Path::new("/elsewhere")).unwrap_err();
        assert!(refusal.to_string().contains("is bound to"), "{refusal}");
        std::fs::remove_file(path).unwrap();
        let inet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(check(&inet, Kind::Stream, Path::new("/x")).is_err());
    }

    #[test]
    fn who_must_be_told_is_told_in_time_and_not_too_often() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let heard = || {
            let mut buffer = [0; 32];
            let length = theirs.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        let mut manager = Manager {
            socket: Some(ours),
            watchdog: Some(Duration::from_secs(3600)),
            told: None,
        };
        manager.ready().unwrap();
        assert_eq!(heard().as_deref(), Some("READY=1"));
        manager.alive().unwrap();
        assert_eq!(heard(), None);
        manager.told = Instant::now().checked_sub(Duration::from_secs(1000));
        manager.alive().unwrap();
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1"));
        let mut nobody = Manager::nobody();
        nobody.ready().unwrap();
        nobody.alive().unwrap();
        assert_eq!(nobody.interval(), None);
    }

    #[test]
    fn credentials_have_a_name_and_a_place() {
        let of = |path: &str| credential(Path::new(path));
        assert_eq!(of("/var/lib/key").unwrap(), None);
        assert_eq!(of("key").unwrap(), None);
        for bad in [
            "$CREDENTIALS_DIRECTORY",
            "$CREDENTIALS_DIRECTORY/a/b",
            "$CREDENTIALS_DIRECTORY/..",
        ] {
            assert!(
                of(bad).unwrap_err().to_string().contains("one name"),
                "{bad}"
            );
        }
        // The tests themselves have none.
        let none = of("$CREDENTIALS_DIRECTORY/key").unwrap_err().to_string();
        assert!(none.contains("LoadCredential="), "{none}");
    }
}
