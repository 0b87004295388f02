//! One request over one connection of its own, by HTTP/1.1 (RFC 9112). No proxy, no cookies, no credentials but those that
//! are given for this one request, nothing kept for the next, and nothing decoded: what comes is what is hashed.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belljar_core::{FetchUrl, Scheme, bounds};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue,
    USER_AGENT,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::Trouble;
use crate::tasks::{self, Task};

/// How long the other end may let wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(bounds::FETCH_IDLE_SECONDS);
/// Most headers of an answer.
const HEADERS: usize = 100;

/// What is said beside the URL.
pub(super) struct Wish<'a> {
    /// Media types that are understood.
    pub(super) accept: &'a str,
    /// For this one server, whoever it sends to.
    pub(super) authorization: Option<HeaderValue>,
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

/// Asks for what a URL names, at this address and no other.
pub(super) async fn ask(
    url: &FetchUrl,
    address: SocketAddr,
    tls: &TlsConnector,
) -> Result<Answer, Trouble> {
    let wish = Wish {
        accept: "*/*",
        authorization: None,
    };
    ask_for(url, address, tls, &wish).await
}

/// The same, where more is said.
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
    let request = Request::get(url.target())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("belljar/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, wish.accept)
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let mut request =
        request.map_err(|e| Trouble::refused(format!("nobody can be asked that: {e}")))?;
    if let Some(authorization) = &wish.authorization {
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    let answer = timeout(PATIENCE, sender.send_request(request)).await;
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
