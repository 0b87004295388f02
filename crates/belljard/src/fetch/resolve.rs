use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
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

/// Whether this machine itself has the address: then the kernel would send from it, too. Nothing is sent to find out.
///
/// # Errors
/// When there can be no socket.
pub(super) async fn is_own(address: SocketAddr) -> io::Result<bool> {
    let any = match address.ip() {
        IpAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        IpAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Where nothing leads, nobody is.
    if socket.connect(address).await.is_err() {
        return Ok(false);
    }
    Ok(socket.local_addr()?.ip().to_canonical() == address.ip().to_canonical())
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
