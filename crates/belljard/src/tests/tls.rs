//! Certificates, and a client that has one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tonic::transport::{Channel, Endpoint};

/// An authority.
pub(super) struct Authority {
    pub(super) pem: String,
    /// Certificates between it and that one, its own first.
    chain: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            chain: String::new(),
            issuer: Issuer::new(params, key),
        }
    }

    /// One that this one vouches for, with these constraints. What it signs has its own certificate behind it.
    pub(super) fn below(
        &self,
        name: &str,
        constraints: IsCa,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name);
        params.is_ca = constraints;
        change(&mut params);
        let own = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            pem: self.pem.clone(),
            chain: format!("{own}{}", self.chain),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate and key, as if it were somebody.
    pub(super) fn itself(&self) -> Pair {
        Pair {
            certificate: self.pem.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    pub(super) fn server(&self, name: &str) -> Pair {
        let mut params = named(name);
        let host = Ia5String::try_from("localhost").unwrap();
        params.subject_alt_names.push(SanType::DnsName(host));
        self.sign(&params)
    }

    /// A client by its subject.
    pub(super) fn subject(&self, name: &str) -> Pair {
        self.client(name, &[], |_| ())
    }

    /// A client by its URI.
    pub(super) fn spiffe(&self, uri: &str) -> Pair {
        self.client("workload", &[uri], |_| ())
    }

    pub(super) fn client(
        &self,
        name: &str,
        uris: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for uri in uris {
            let uri = Ia5String::try_from(*uri).unwrap();
            params.subject_alt_names.push(SanType::URI(uri));
        }
        change(&mut params);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem() + &self.chain,
            key: key.serialize_pem(),
        }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

pub(super) fn early(params: &mut CertificateParams) {
    params.not_before = (std::time::SystemTime::now() + Duration::from_secs(3600)).into();
}

pub(super) fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 2);
}

/// What the daemon listens with.
pub(super) struct Served {
    pub(super) authority: Authority,
    pub(super) clients: Authority,
    pub(super) address: SocketAddr,
}

impl Served {
    /// Authorities, and the server's files below `directory`.
    pub(super) fn new(directory: &Path) -> Self {
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        write(directory, "ca", &clients.pem);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            authority,
            clients,
            address: free.local_addr().unwrap(),
        };
        this.renew(directory, "first");
        this
    }

    /// Another certificate for the server.
    pub(super) fn renew(&self, directory: &Path, name: &str) {
        let pair = self.authority.server(name);
        write(directory, "key", &pair.key);
        write(directory, "cert", &pair.certificate);
    }

    /// The table `[tls]`.
    pub(super) fn table(&self, directory: &Path) -> String {
        let at = directory.display();
        format!(
            "\n[tls]\nlisten = \"{}\"\ncertificate = \"{at}/cert\"\nkey = \"{at}/key\"\nclient_ca = \"{at}/ca\"\n",
            self.address
        )
    }

    pub(super) async fn connect(&self, pair: &Pair) -> Result<Channel, tonic::transport::Error> {
        self.connect_as(Some(pair), &[b"h2"]).await
    }

    pub(super) async fn connect_as(
        &self,
        pair: Option<&Pair>,
        protocols: &[&[u8]],
    ) -> Result<Channel, tonic::transport::Error> {
        self.connect_from(pair, protocols, Ipv4Addr::LOCALHOST)
            .await
    }

    /// From this address of the loopback device.
    pub(super) async fn connect_from(
        &self,
        pair: Option<&Pair>,
        protocols: &[&[u8]],
        from: Ipv4Addr,
    ) -> Result<Channel, tonic::transport::Error> {
        let (connector, address) = (
            TlsConnector::from(self.config(pair, protocols)),
            self.address,
        );
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                let stream = socket.connect(address).await?;
                let host = ServerName::try_from("localhost").unwrap();
                connector.connect(host, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
    }

    /// The name in the certificate that the server shows now.
    pub(super) async fn shown(&self, pair: &Pair) -> CertificateDer<'static> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let host = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(self.config(Some(pair), &[b"h2"]));
        let stream = connector.connect(host, stream).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    }

    /// How two handshakes of one client came about, the second after a call on the first connection.
    pub(super) async fn handshakes(&self, pair: &Pair) -> [HandshakeKind; 2] {
        let connector = TlsConnector::from(self.config(Some(pair), &[b"h2"]));
        let mut kinds = [HandshakeKind::Resumed; 2];
        for kind in &mut kinds {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let host = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(host, stream).await.unwrap();
            *kind = stream.get_ref().1.handshake_kind().unwrap();
            // The server's first frame comes after all that belongs to the handshake.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            stream.write_all(preface).await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
        }
        kinds
    }

    fn config(&self, pair: Option<&Pair>, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

pub(super) fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
