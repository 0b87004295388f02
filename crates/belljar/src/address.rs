//! Where a daemon is: a socket of this machine, or a server elsewhere with mutual TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belljar_core::bounds;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tonic::transport::Endpoint;

use crate::cli::Whom;
use crate::error::Error;
use crate::regular;

/// How long to wait for the server's first word.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Where a daemon is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// A unix socket.
    Socket(PathBuf),
    /// Elsewhere.
    Server(Box<Server>),
}

/// A daemon elsewhere, and by what it and the caller prove who they are.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As it was given, for people and reports.
    url: PathBuf,
    endpoint: Endpoint,
    host: ServerName<'static>,
    authority: String,
    files: Files,
}

#[derive(Clone, Debug)]
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Address {
    /// How it is named to people and in reports: a path or a URL.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Self::Socket(path) => path,
            Self::Server(server) => &server.url,
        }
    }
}

impl Server {
    /// The server at `url`, with the files that `whom` names.
    ///
    /// # Errors
    /// When the URL is none, or a file is not named.
    pub(crate) fn new(url: &str, whom: &Whom) -> Result<Self, Error> {
        let wrong = || {
            Error::Usage(format!(
                "--server {}: `https://HOST:PORT` is due",
                url.escape_debug()
            ))
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
        let uri = endpoint.uri().clone();
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        let parts = (uri.scheme_str(), uri.host(), uri.port_u16());
        let (Some("https"), Some(host), Some(port), true, false) =
            (parts.0, parts.1, parts.2, plain, user)
        else {
            return Err(wrong());
        };
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let file = |flag: &str, file: &Option<PathBuf>| {
            let missing = || Error::Usage(format!("--server needs --{flag} FILE, too"));
            file.clone().ok_or_else(missing)
        };
        Ok(Self {
            host: ServerName::try_from(bare).map_err(|_| wrong())?,
            authority: format!("{host}:{port}"),
            url: url.into(),
            endpoint,
            files: Files {
                ca: file("tls-ca", &whom.tls_ca)?,
                certificate: file("tls-cert", &whom.tls_cert)?,
                key: file("tls-key", &whom.tls_key)?,
            },
        })
    }

    /// Where to send requests.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Connects. Certificates are read each time: those that live for an hour change under a long watch.
    ///
    /// In TLS 1.3 the client is done before the server has looked at its certificate. So the server's first
    /// word is waited for, which is its settings (HTTP/2), or that it does not want this certificate.
    pub(crate) async fn connect(&self) -> io::Result<BufReader<TlsStream<TcpStream>>> {
        let connector = TlsConnector::from(Arc::new(self.files.config()?));
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(self.host.clone(), stream).await?;
        let mut stream = BufReader::new(stream);
        match timeout(FIRST_WORD, stream.fill_buf()).await {
            Ok(Ok([])) => Err(io::Error::other(
                "the server has closed the connection; its log says why",
            )),
            Ok(Err(error)) => Err(error),
            // Who waits for the client's first word does not say no.
            Ok(Ok(_)) | Err(_) => Ok(stream),
        }
    }

    /// Looks whether the files can be used.
    ///
    /// # Errors
    /// Which cannot, and why.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.files.config().map(drop)
    }
}

impl Files {
    fn config(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|e| named(&self.ca, e))?;
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|e| named(&self.key, format!("no private key in PEM: {e}")))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = builder.with_client_auth_cert(certificates(&self.certificate)?, key);
        let mut config = config.map_err(|e| named(&self.certificate, e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(named(path, "no certificate in PEM")),
        Err(error) => Err(named(path, format!("no certificate in PEM: {error}"))),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let read = regular::read(path, bounds::CONFIG_BYTES);
    read.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn named(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn whom(arguments: &[&str]) -> Whom {
        let parsed = Cli::try_parse_from(["belljar", "run"].iter().chain(arguments)).unwrap();
        let Command::Run(run) = parsed.command else {
            panic!("another command")
        };
        run.ask.whom
    }

    const FILES: [&str; 6] = ["--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"];

    #[test]
    fn a_server_is_a_url_of_https_and_three_files() {
        for fine in [
            "https://builds.example.org:8980",
            "https://[::1]:1/",
            "https://127.0.0.1:1",
        ] {
            let server = Server::new(fine, &whom(&FILES)).unwrap();
            assert_eq!(Address::Server(Box::new(server)).name(), Path::new(fine));
        }
        for bad in [
            "",
            "builds.example.org:8980",
            "http://h:1",
            "https://h",
            "https://h:0x",
            "https://h:1/path",
            "https://h:1?q",
            "https://user@h:1",
            "https://:1",
            "unix:/run/x",
        ] {
            let error = Server::new(bad, &whom(&FILES)).unwrap_err();
            assert!(
                error.to_string().contains("https://HOST:PORT"),
                "{bad}: {error}"
            );
        }
        let error = Server::new("https://h:1", &whom(&FILES[..4])).unwrap_err();
        assert!(error.to_string().contains("--tls-key"), "{error}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let server = Server::new("https://h:1", &whom(&FILES)).unwrap();
        let error = server.check().unwrap_err().to_string();
        assert!(error.starts_with("a: "), "{error}");
    }
}
