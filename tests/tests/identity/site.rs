use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use belljar_tests::{BELLJARD_UID, Client, GROUP, Instance, Part, Project, program, wait_for};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::Endpoint;

use crate::certificates::{Authority, Pair};

/// Who may do what, but for local users.
const MEMBERS: &str = r#"
[[project]]
name = "web"
[[project.member]]
principal = "spiffe://example.org/web/*"
rights = ["submit", "cancel", "read"]
[[project.member]]
principal = "x509:CN=ops"
rights = ["administer", "read"]

[[project]]
name = "app"
[[project.member]]
principal = "x509:CN=app"
rights = ["submit", "cancel", "read"]
"#;

/// A Belljar that also listens to callers from elsewhere, and files of authorities and callers.
pub(crate) struct Site {
    pub(crate) instance: Instance,
    pub(crate) servers: Authority,
    pub(crate) clients: Authority,
    pub(crate) address: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
}

/// What a command of the command line came to.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) said: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut instance = Instance::new();
        // Writes the configuration of every process.
        let first = instance.run(&Project::script("echo ready > out"));
        first.assert_succeeded();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut site = Self {
            instance,
            servers: Authority::new("servers"),
            clients: Authority::new("clients"),
            address,
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(site.tls()).unwrap();
        fs::set_permissions(site.tls(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(site.file("servers.pem"), &site.servers.pem).unwrap();
        site.install("clients.pem", &site.clients.pem);
        site.renew("server");
        site.configure();
        site.instance.start();
        site
    }

    fn tls(&self) -> PathBuf {
        self.instance.state().join("tls")
    }

    /// A file of the callers' side.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file where belljard reads it, closed to others.
    pub(crate) fn install(&self, name: &str, text: &str) {
        let path = self.tls().join(name);
        fs::write(&path, text).unwrap();
        chown(&path, Some(BELLJARD_UID), Some(GROUP)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Gives the server another certificate.
    pub(crate) fn renew(&self, name: &str) {
        let pair = self.servers.server(self.dir.path(), name);
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        self.install("server.key", &text(&pair.key));
        self.install("server.pem", &text(&pair.certificate));
    }

    fn configure(&self) {
        let path = self.instance.state().join("config/belljard.toml");
        let tls = self.tls();
        let tls = tls.display();
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(MEMBERS);
        text.push_str(&format!(
            "\n[tls]\nlisten = \"{}\"\ncertificate = \"{tls}/server.pem\"\nkey = \"{tls}/server.key\"\n\
             client_ca = \"{tls}/clients.pem\"\n",
            self.address
        ));
        fs::write(&path, text).unwrap();
    }

    /// Tells belljard to read its certificates again.
    pub(crate) fn hang_up(&self) {
        let pid = i32::try_from(self.instance.pid_of(Part::Belljard)).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    }

    /// Waits until belljard has logged `text`.
    pub(crate) fn until_said(&self, text: &str) {
        wait_for(
            &format!("{text:?} in belljard's log"),
            Duration::from_secs(60),
            || {
                self.instance
                    .said(Part::Belljard)
                    .contains(text)
                    .then_some(())
            },
        );
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// `belljar` before the server, with a caller's certificate.
    pub(crate) fn belljar(&self, pair: &Pair, arguments: &[&str]) -> Came {
        let (verb, rest) = arguments.split_first().unwrap();
        let mut command = Command::new(program("belljar"));
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .args(verb.split(' '))
            .args(["--server", &self.url(), "--json", "--tls-ca"])
            .arg(self.file("servers.pem"))
            .arg("--tls-cert")
            .arg(&pair.certificate)
            .arg("--tls-key")
            .arg(&pair.key)
            .args(rest);
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        Came {
            code: ended.status.code().unwrap(),
            json: serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null),
            said,
        }
    }

    /// A client of the API with a caller's certificate.
    pub(crate) fn client(&self, pair: &Pair) -> Client {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.servers.pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let chain = CertificateDer::from_pem_file(&pair.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![chain], key)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.address);
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let host = ServerName::from(address.ip());
                connector.connect(host, stream).await.map(TokioIo::new)
            }
        });
        Client::over(Endpoint::from_static("http://localhost").connect_with_connector(connect))
    }

    /// openssl's client before the server. Gives what it and the server said.
    pub(crate) fn openssl(&self, pair: Option<&Pair>, arguments: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command
            .args([
                "s_client",
                "-connect",
                &self.address.to_string(),
                "-alpn",
                "h2",
            ])
            .arg("-CAfile")
            .arg(self.file("servers.pem"))
            .args(arguments);
        if let Some(pair) = pair {
            command.arg("-cert").arg(&pair.certificate);
            command.arg("-key").arg(&pair.key);
        }
        let ended = command.stdin(std::process::Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned()
    }
}
