use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belljar_core::{Invalid, bounds};
use belljar_policy::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use super::principal::{Holder, holder};
use super::{Certificates, Door, Refusal};
use crate::places::{Full, Place, Places};
use crate::rules::Rules;
use crate::tasks::{self, Task};

/// How long a handshake may take, and then the first byte after it.
const PATIENCE: Duration = Duration::from_secs(bounds::HANDSHAKE_SECONDS);
/// How long to wait when no connection can be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// No connection lives longer, whatever its certificate says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Connections of callers from elsewhere, each after its handshake.
pub(crate) struct Remote {
    connections: mpsc::Receiver<RemoteStream>,
    _accepting: Task,
}

/// When a client's certificate counts no more.
type Withdrawn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One such connection. It ends with its certificate, or with the authority that vouched for that, or when
/// nothing comes after the handshake.
pub(crate) struct RemoteStream {
    stream: TlsStream<TcpStream>,
    identity: Arc<Identity>,
    address: SocketAddr,
    deadline: Pin<Box<Sleep>>,
    /// When the certificate expires; none once that is the deadline.
    expires: Option<Instant>,
    withdrawn: Option<Withdrawn>,
    _slot: OwnedSemaphorePermit,
    _place: Place<Identity>,
}

/// Why a connection was not let in.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("the handshake was not finished in {} s", PATIENCE.as_secs())]
    Slow,
    #[error("{0}")]
    Tls(io::Error),
    #[error("no HTTP/2 was agreed on (ALPN)")]
    Protocol,
    #[error("{0}")]
    Identity(Invalid),
    #[error("too many connections of {identity}: {full}")]
    Full { identity: Identity, full: Full },
}

/// Places of those who have proved who they are.
#[derive(Clone)]
struct Guests {
    rules: Rules,
    members: Places<Identity>,
    /// Of those who are members of no project.
    strangers: Places<Identity>,
}

impl Guests {
    fn take(&self, identity: Identity) -> Result<Place<Identity>, Full> {
        if self.rules.knows(&identity) {
            self.members.take(identity)
        } else {
            self.strangers.take(identity)
        }
    }
}

/// Listens at the address of `certificates`.
pub(crate) async fn listen(
    certificates: Certificates,
    door: Door,
    rules: Rules,
) -> io::Result<Remote> {
    let listener = TcpListener::bind(certificates.address()).await?;
    let (sender, connections) = mpsc::channel(bounds::HANDSHAKES);
    let accepting = tasks::start(
        "accept",
        accept(listener, certificates, (door, rules), sender),
    );
    Ok(Remote {
        connections,
        _accepting: accepting,
    })
}

/// Takes connections and lets each prove who it is, many at once: one that is slow holds up nobody else.
async fn accept(
    listener: TcpListener,
    certificates: Certificates,
    (door, rules): (Door, Rules),
    sender: mpsc::Sender<RemoteStream>,
) {
    let slots = Arc::new(Semaphore::new(bounds::REMOTE_CONNECTIONS));
    let greeting = Places::new(bounds::HANDSHAKES, bounds::HANDSHAKES_PER_ADDRESS);
    let guests = Guests {
        rules,
        members: Places::new(
            bounds::REMOTE_CONNECTIONS,
            bounds::CONNECTIONS_PER_PRINCIPAL,
        ),
        strangers: Places::new(bounds::STRANGERS, bounds::CONNECTIONS_PER_STRANGER),
    };
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        let place = match greeting.take(neighbourhood(address.ip())) {
            Ok(place) => place,
            Err(full) => {
                let what = format!("too many handshakes: {full}");
                door.refused(Refusal::Busy, &address, &what);
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            door.refused(Refusal::Busy, &address, &"too many connections");
            continue;
        };
        let (door, sender) = (door.clone(), sender.clone());
        let (certificates, guests) = (certificates.clone(), guests.clone());
        handshakes.spawn(async move {
            let _place = place;
            match admit(stream, address, &certificates, (slot, guests)).await {
                // The daemon is about to end if nobody takes it.
                Ok(connection) => drop(sender.send(connection).await),
                Err(unfit @ Unfit::Identity(_)) => {
                    door.refused(Refusal::Identity, &address, &unfit)
                }
                Err(unfit @ Unfit::Full { .. }) => door.refused(Refusal::Busy, &address, &unfit),
                Err(unfit) => door.refused(Refusal::Handshake, &address, &unfit),
            }
        });
    }
}

/// Whose address it is, as far as places go: who has an IPv6 address usually has a network of 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
        four @ IpAddr::V4(_) => four,
    }
}

async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    certificates: &Certificates,
    (slot, guests): (OwnedSemaphorePermit, Guests),
) -> Result<RemoteStream, Unfit> {
    stream.set_nodelay(true).map_err(Unfit::Tls)?;
    let stream = timeout(
        PATIENCE,
        TlsAcceptor::from(certificates.config()).accept(stream),
    )
    .await;
    let stream = stream.map_err(|_| Unfit::Slow)?.map_err(Unfit::Tls)?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err(Unfit::Protocol);
    }
    let chain: Vec<CertificateDer<'static>> = session
        .peer_certificates()
        .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect())
        .unwrap_or_default();
    let Holder { identity, expires } = holder(&chain).map_err(Unfit::Identity)?;
    let place = guests.take(identity.clone());
    let place = place.map_err(|full| Unfit::Full {
        identity: identity.clone(),
        full,
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let life = expires.saturating_sub(now).min(LONGEST);
    tracing::info!(%identity, %address, "a caller from elsewhere");
    Ok(RemoteStream {
        stream,
        identity: Arc::new(identity),
        address,
        deadline: Box::pin(sleep(PATIENCE)),
        expires: Some(Instant::now() + life),
        withdrawn: Some(Box::pin(certificates.withdrawn(chain))),
        _slot: slot,
        _place: place,
    })
}

impl Remote {
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<RemoteStream>> {
        self.connections.poll_recv(context)
    }
}

impl RemoteStream {
    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.identity.clone()
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let withdrawn = self.withdrawn.as_mut();
        let withdrawn = withdrawn.is_some_and(|one| one.as_mut().poll(context).is_ready());
        if withdrawn {
            self.withdrawn = None;
        }
        let over = withdrawn || self.deadline.as_mut().poll(context).is_ready();
        if over {
            let early = self.expires.is_some();
            tracing::info!(identity = %self.identity, address = %self.address, early, withdrawn, "a connection is over");
        }
        over
    }
}

impl AsyncRead for RemoteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before
            && let Some(expires) = self.expires.take()
        {
            self.deadline = Box::pin(sleep_until(expires));
            // Registers the new deadline with whoever reads.
            if self.is_over(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RemoteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_their_places() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
