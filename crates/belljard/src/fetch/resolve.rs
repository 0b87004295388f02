use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use belljar_core::{ProjectId, bounds};
use tokio::net::UdpSocket;
use tokio::task::spawn_blocking;

use crate::places::Turns;

/// Who knows the addresses of hosts.
pub(crate) trait Resolve: Send + Sync {
    /// The addresses of a host by its name, for this project.
    fn resolve<'a>(
        &'a self,
        project: &'a ProjectId,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;
}

/// As this host resolves names (getaddrinfo(3)). That keeps a thread until the name servers have answered, also when
/// nobody waits any more: so many threads there are at the most, and so many for one project.
#[derive(Debug)]
pub(crate) struct System(Turns<ProjectId>);

impl System {
    pub(crate) fn new() -> Self {
        let (all, each) = (bounds::FETCH_LOOKUPS, bounds::FETCH_LOOKUPS_PER_PROJECT);
        Self(Turns::new(all, each))
    }
}

impl Resolve for System {
    fn resolve<'a>(
        &'a self,
        project: &'a ProjectId,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        let asked = host.to_owned();
        Box::pin(threaded(&self.0, project, move || {
            let found = (asked.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        }))
    }
}

/// Looks something up on a thread when it is the project's turn. The thread gives the turn back, not who waits for it.
pub(super) async fn threaded<T: Send + 'static>(
    turns: &Turns<ProjectId>,
    project: &ProjectId,
    look: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = turns.wait(project.clone()).await;
    let turn = turn.map_err(io::Error::other)?;
    let looking = spawn_blocking(move || {
        let _turn = turn;
        look()
    });
    looking.await.map_err(io::Error::other)?
}

/// For documentation (RFC 5737): nobody's.
const NOBODYS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Whether this machine itself has the address. Nothing is sent to find out.
///
/// # Errors
/// When there can be no socket, or the kernel does not say.
pub(super) async fn is_own(address: SocketAddr) -> io::Result<bool> {
    match address.ip() {
        IpAddr::V4(own) => is_own_v4(own).await,
        IpAddr::V6(own) => is_own_v6(own, address).await,
    }
}

/// Then a socket can have it. From where the kernel would send says less: of several addresses in one network it takes the first
/// for all.
async fn is_own_v4(address: Ipv4Addr) -> io::Result<bool> {
    if !can_have(address).await? {
        return Ok(false);
    }
    if can_have(NOBODYS).await? {
        return Err(io::Error::other(
            "which addresses are this machine's own cannot be told where sockets can have any (net.ipv4.ip_nonlocal_bind)",
        ));
    }
    Ok(true)
}

async fn can_have(address: Ipv4Addr) -> io::Result<bool> {
    match UdpSocket::bind((address, 0)).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error),
    }
}

/// Then the kernel would send from it, too.
async fn is_own_v6(own: Ipv6Addr, address: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await?;
    // Where nothing leads, nobody is.
    if socket.connect(address).await.is_err() {
        return Ok(false);
    }
    Ok(socket.local_addr()?.ip() == IpAddr::V6(own))
}

/// What getaddrinfo(3) reads; those that are not there are not needed.
const READ: [&str; 6] = [
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];

/// The files of this host that names are resolved by.
pub(crate) fn files() -> Vec<PathBuf> {
    let all = READ.iter().map(Path::new);
    let there = all.filter(|path| path.is_file());
    there.map(Path::to_owned).collect()
}
