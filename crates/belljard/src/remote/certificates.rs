use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belljar_core::{Digest, Hasher, bounds};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};

use crate::tasks::{self, Task};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Others may neither read nor write the key, the group only read it.
const FOR_OTHERS: u32 = 0o037;

/// Where to listen, and with what.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) listen: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
}

/// Why there is nothing to listen with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{}: cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: more than {} bytes", path.display(), bounds::CONFIG_BYTES)]
    TooLarge { path: PathBuf },
    #[error(
        "{}: others than its owner and group can reach the private key (mode {mode:04o}); run `chmod 0600` on it",
        path.display()
    )]
    KeyIsOpen { path: PathBuf, mode: u32 },
    #[error(
        "{}: the private key belongs to user id {uid}, who is neither root nor belljard's own user",
        path.display()
    )]
    KeyIsForeign { path: PathBuf, uid: u32 },
    #[error("{}: {what}, in PEM (RFC 7468), is due", path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("{}: not a certificate of an authority that can be used", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("no client can be verified by these authorities")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("certificate and key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// What handshakes use now. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    current: watch::Sender<Arc<Loaded>>,
    /// Why what lies there now is not in use, if it is not.
    error: Mutex<Option<String>>,
}

/// What was read at one time.
#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// What says whether a client's certificate counts.
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of the server's own certificate.
    certificate: Digest,
    /// Over all files.
    content: Digest,
}

/// The bytes of all files.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = files.read()?.load(&files)?;
        Ok(Self(Arc::new(Inner {
            files,
            current: watch::Sender::new(Arc::new(loaded)),
            error: Mutex::default(),
        })))
    }

    /// What the next handshake uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.current.borrow().config.clone()
    }

    /// Comes when the certificates change and this chain, whose first one is the client's own, counts no more.
    pub(crate) fn withdrawn(
        &self,
        chain: Vec<CertificateDer<'static>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.0.current.subscribe();
        async move {
            while changes.changed().await.is_ok() {
                let verifier = changes.borrow_and_update().verifier.clone();
                let counts = chain.split_first().is_some_and(|(own, above)| {
                    let now = UnixTime::now();
                    verifier.verify_client_cert(own, above, now).is_ok()
                });
                if !counts {
                    return;
                }
            }
            // The daemon ends, and everything with it.
            std::future::pending().await
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.files.listen
    }

    /// SHA-256 of the server's certificate.
    pub(crate) fn certificate(&self) -> Digest {
        self.0.current.borrow().certificate
    }

    /// Why the files that lie there now are not in use, if they are not.
    pub(crate) fn error(&self) -> Option<String> {
        self.lock().clone()
    }

    /// Looks at the files now and then, and at once on SIGHUP, until the task is dropped. All of them change
    /// together or none does: what cannot be used leaves in use what was.
    pub(crate) fn follow(&self) -> io::Result<Task> {
        let mut hangup = signal(SignalKind::hangup())?;
        let this = self.clone();
        Ok(tasks::start("certificates", async move {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick is at once, and the files have just been read.
            ticks.tick().await;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = hangup.recv() => tracing::info!("SIGHUP: the certificates are read again"),
                }
                let reading = this.clone();
                if let Err(error) = spawn_blocking(move || reading.reload()).await {
                    tracing::error!(%error, "the certificates could not be looked at");
                }
            }
        }))
    }

    /// Reads the files again; uses them if they are others and can be used.
    pub(crate) fn reload(&self) {
        let before = self.0.current.borrow().content;
        let read = self.0.files.read();
        let loaded = match read {
            Ok(content) if content.digest() == before => None,
            Ok(content) => Some(content.load(&self.0.files)),
            Err(error) => Some(Err(error)),
        };
        let error = match loaded {
            None => None,
            Some(Ok(loaded)) => {
                tracing::info!(certificate = %loaded.certificate, "new certificates are in use");
                self.0.current.send_replace(Arc::new(loaded));
                None
            }
            Some(Err(error)) => Some(tasks::chain(&error)),
        };
        let mut last = self.lock();
        if let Some(error) = error.as_ref().filter(|error| last.as_ref() != Some(error)) {
            tracing::error!(
                error,
                "new certificates cannot be used; those before stay in use"
            );
        }
        *last = error;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Content, TlsError> {
        Ok(Content {
            certificate: read(&self.certificate, |_| Ok(()))?,
            key: read(&self.key, |file| self.only_ours(file))?,
            client_ca: read(&self.client_ca, |_| Ok(()))?,
        })
    }

    /// Asked about the open file, not about a name that may be another one's by now.
    fn only_ours(&self, file: &File) -> Result<(), TlsError> {
        let path = self.key.clone();
        let about = match file.metadata() {
            Ok(about) => about,
            Err(source) => return Err(TlsError::Read { path, source }),
        };
        let (mode, uid) = (about.mode() & 0o7777, about.uid());
        if mode & FOR_OTHERS != 0 {
            return Err(TlsError::KeyIsOpen { path, mode });
        }
        if uid != 0 && uid != belljar_sys::process::effective_uid() {
            return Err(TlsError::KeyIsForeign { path, uid });
        }
        Ok(())
    }
}

fn read(
    path: &Path,
    check: impl FnOnce(&File) -> Result<(), TlsError>,
) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    check(&file)?;
    let mut bytes = Vec::new();
    file.take(bounds::CONFIG_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > bounds::CONFIG_BYTES {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

impl Content {
    fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for part in [&self.certificate, &self.key, &self.client_ca] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finish()
    }

    fn load(&self, files: &TlsFiles) -> Result<Loaded, TlsError> {
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| TlsError::Pem {
            path: files.key.clone(),
            what: "an unencrypted private key",
        })?;
        let certificate = chain.first().map_or(Digest::of(b""), |own| Digest::of(own));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(self.roots(files)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let verifier = verifier.build().map_err(TlsError::Verifier)?;
        Ok(Loaded {
            config: Arc::new(server(provider, verifier.clone(), chain, key)?),
            verifier,
            certificate,
            content: self.digest(),
        })
    }

    fn roots(&self, files: &TlsFiles) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.client_ca, &files.client_ca)? {
            roots.add(authority).map_err(|source| TlsError::Authority {
                path: files.client_ca.clone(),
                source,
            })?;
        }
        Ok(roots)
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.ok().filter(|certificates| !certificates.is_empty());
    read.ok_or_else(|| TlsError::Pem {
        path: path.to_owned(),
        what: "at least one certificate",
    })
}

/// TLS 1.3 only, a client certificate required, HTTP/2 only. Nothing is resumed: a session that began with
/// a certificate must not outlive it, nor the authorities of its time.
fn server(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
