//! One request over one connection of its own, by HTTP/1.1 (RFC 9112). No proxy, no cookies, no credentials but those that
//! are given for this one request, nothing kept for the next, and nothing decoded: what comes is what is hashed.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belljar_cas::BlobSource;
use belljar_core::{FetchUrl, ObjectId, Scheme, bounds};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_stream::wrappers::ReceiverStream;

use super::Trouble;
use crate::tasks::{self, Task};

/// How long the other end may let wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(bounds::FETCH_IDLE_SECONDS);
/// Bytes of content in a second that a server takes at least.
const PACE: u64 = bounds::PACE_BYTES / bounds::PACE_SECONDS;
/// Most headers of an answer.
const HEADERS: usize = 100;

/// What is said beside the URL.
pub(super) struct Wish<'a> {
    pub(super) method: Method,
    /// Media types that are understood.
    pub(super) accept: &'a str,
    /// For this one server, whoever it sends to.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) content: Content<'a>,
    /// One more header, which the other end has to know.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

/// What is sent.
#[derive(Clone)]
pub(super) enum Content<'a> {
    /// Nothing; the method has no content.
    None,
    /// These bytes, of this media type.
    Bytes(&'a [u8], &'a str),
    /// An object of the store.
    Object(ObjectId, Arc<dyn BlobSource>),
}

type Sent = UnsyncBoxBody<Bytes, io::Error>;

impl Content<'_> {
    /// It as the body of a request, with its length and media type.
    fn body(&self) -> (Sent, Option<(u64, &str)>) {
        let whole = |bytes: &[u8]| {
            let body = Full::new(Bytes::copy_from_slice(bytes));
            body.map_err(|never| match never {}).boxed_unsync()
        };
        match self {
            Self::None => (whole(b""), None),
            Self::Bytes(bytes, media_type) => {
                (whole(bytes), Some((bytes.len() as u64, *media_type)))
            }
            Self::Object(object, source) => {
                let length = Some((object.size, "application/octet-stream"));
                (poured(*object, Arc::clone(source)), length)
            }
        }
    }
}

/// The content of an object, verified while it is read: what is damaged is not sent to its end.
fn poured(object: ObjectId, source: Arc<dyn BlobSource>) -> Sent {
    let (sender, receiver) = mpsc::channel(bounds::WAITING_PIECES);
    let reading = spawn_blocking(move || {
        let told = |error: io::Error| {
            let _ = sender.blocking_send(Err(error));
        };
        let mut content = match source.read_verified(object) {
            Ok(content) => content,
            Err(error) => return told(io::Error::other(error)),
        };
        let mut buffer = vec![0; bounds::READ_CHUNK_BYTES];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    let piece = Bytes::copy_from_slice(&buffer[..read]);
                    // Whoever was to send it is gone.
                    if sender.blocking_send(Ok(Frame::data(piece))).is_err() {
                        return;
                    }
                }
                Err(error) => return told(error),
            }
        }
    });
    // It ends when nobody takes what it reads.
    drop(reading);
    StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync()
}

/// What the other end answers.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    /// What moves the bytes.
    _moving: Task,
}

impl Answer {
    /// A header, if it is there and is text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers of this name that are text.
    pub(super) fn all(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let all = self.headers.get_all(name).into_iter();
        all.filter_map(|value| value.to_str().ok())
    }

    /// The next piece of content; none at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let frame = timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| silent("for the next piece"))?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) => {
                    let why = tasks::chain(&error);
                    return Err(Trouble::passing(format!("the answer broke off: {why}")));
                }
            }
        }
    }
}

impl Wish<'_> {
    /// What a URL names, whatever that is.
    pub(super) fn plain() -> Self {
        Self {
            method: Method::GET,
            accept: "*/*",
            authorization: None,
            content: Content::None,
            header: None,
        }
    }
}

/// Asks a URL at this address and no other.
pub(super) async fn ask_for(
    url: &FetchUrl,
    address: SocketAddr,
    tls: &TlsConnector,
    wish: &Wish<'_>,
) -> Result<Answer, Trouble> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await;
    let stream = stream.map_err(|_| silent("for a connection"))?;
    let stream =
        stream.map_err(|e| Trouble::passing(format!("{address} cannot be connected to: {e}")))?;
    match url.scheme() {
        Scheme::Http => converse(url, stream, wish).await,
        Scheme::Https => {
            let name = ServerName::try_from(url.host().to_owned())
                .map_err(|_| Trouble::refused("no certificate could be for this host"))?;
            let shaken = timeout(PATIENCE, tls.connect(name, stream)).await;
            let shaken = shaken.map_err(|_| silent("for TLS"))?;
            let stream = shaken.map_err(|e| Trouble::passing(format!("TLS: {e}")))?;
            converse(url, stream, wish).await
        }
    }
}

async fn converse(
    url: &FetchUrl,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    wish: &Wish<'_>,
) -> Result<Answer, Trouble> {
    let broken = |error: hyper::Error| {
        let why = tasks::chain(&error);
        Trouble::passing(format!("no answer that can be read came: {why}"))
    };
    let mut builder = http1::Builder::new();
    builder
        .max_headers(HEADERS)
        .max_buf_size(bounds::FETCH_HEADER_BYTES);
    let (mut sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let moving = tasks::start("fetch", async move {
        // Whoever waits for the answer hears of it.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of a fetch broke");
        }
    });
    let (body, sent) = wish.content.body();
    let mut request = Request::builder()
        .method(&wish.method)
        .uri(url.target())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("belljar/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, wish.accept)
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close");
    if let Some((length, media_type)) = sent {
        request = request
            .header(CONTENT_LENGTH, length)
            .header(CONTENT_TYPE, media_type);
    }
    let request = request.body(body);
    let mut request =
        request.map_err(|e| Trouble::refused(format!("nobody can be asked that: {e}")))?;
    add(request.headers_mut(), wish);
    // Who sends much waits as long as that takes; whoever wants it sent has a bound of his own for all of it.
    let patience = PATIENCE + Duration::from_secs(sent.map_or(0, |(length, _)| length / PACE));
    let answer = timeout(patience, sender.send_request(request)).await;
    let answer = answer
        .map_err(|_| silent("for an answer"))?
        .map_err(broken)?;
    let (head, body) = answer.into_parts();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        _moving: moving,
    })
}

/// Adds what this one wish has.
fn add(headers: &mut HeaderMap, wish: &Wish<'_>) {
    if let Some(authorization) = &wish.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let Some((name, value)) = &wish.header {
        headers.insert(name, value.clone());
    }
}

fn silent(what: &str) -> Trouble {
    let seconds = PATIENCE.as_secs();
    Trouble::passing(format!("{seconds} s were waited {what}"))
}

/// Reads the certificates of those who vouch for servers.
///
/// # Errors
/// When the file cannot be read, or has none.
pub(crate) fn connector(ca: &Path) -> io::Result<TlsConnector> {
    let mut pem = Vec::new();
    let most = bounds::CA_BYTES as u64;
    std::fs::File::open(ca)?
        .take(most + 1)
        .read_to_end(&mut pem)?;
    if pem.len() as u64 > most {
        return Err(io::Error::other(format!("more than {most} bytes")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        // Distributions keep some that no verifier can use.
        let certificate = certificate.map_err(|_| io::Error::other("no PEM (RFC 7468)"))?;
        if let Err(error) = roots.add(certificate) {
            tracing::debug!(%error, "a certificate of an authority cannot be used");
        }
    }
    if roots.is_empty() {
        return Err(io::Error::other("no certificate in it can be used"));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
