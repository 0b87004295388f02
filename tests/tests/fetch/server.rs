use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, StreamOwned};

/// What a path is answered with: bytes as they go over the wire.
pub(super) type Answer = Box<dyn Fn(&mut TcpStream, &Server) + Send + Sync>;

/// A server of HTTP on loopback that does what servers should not.
#[derive(Clone)]
pub(super) struct Server(Arc<Inner>);

struct Inner {
    port: u16,
    answers: BTreeMap<String, Answer>,
    asked: Mutex<Vec<String>>,
    /// Whether answers that wait for it may go on.
    let_go: Mutex<bool>,
    changed: Condvar,
}

impl Server {
    pub(super) fn start(answers: Vec<(&str, Answer)>) -> Self {
        Self::start_at("127.0.0.1", answers)
    }

    /// The same at this address.
    pub(super) fn start_at(address: &str, answers: Vec<(&str, Answer)>) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = answers.into_iter();
        let server = Self(Arc::new(Inner {
            port,
            answers: answers
                .map(|(path, answer)| (path.to_owned(), answer))
                .collect(),
            asked: Mutex::default(),
            let_go: Mutex::default(),
            changed: Condvar::new(),
        }));
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = serving.clone();
                thread::spawn(move || one.serve(stream));
            }
        });
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.0.port)
    }

    /// What was asked for, request by request.
    pub(super) fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    pub(super) fn let_go(&self) {
        *self.0.let_go.lock().unwrap() = true;
        self.0.changed.notify_all();
    }

    /// Returns when it may go on.
    pub(super) fn wait(&self) {
        let held = self.0.let_go.lock().unwrap();
        drop(self.0.changed.wait_while(held, |go| !*go).unwrap());
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        // Nothing of anybody's is sent along.
        let lower = request.to_lowercase();
        for header in ["cookie", "authorization", "referer", "range"] {
            assert!(!lower.contains(&format!("\n{header}:")), "{request}");
        }
        assert!(lower.contains("accept-encoding: identity"), "{request}");
        self.0.asked.lock().unwrap().push(path.clone());
        match self.0.answers.get(path.as_str()) {
            Some(answer) => answer(&mut stream, self),
            None => said(&mut stream, "404 Not Found", &[], b"no"),
        }
        // The other end may have heard enough.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Sends an answer, as far as the other end takes it.
pub(super) fn said(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    if !headers
        .iter()
        .any(|header| header.contains("content-length"))
    {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

/// An answer of this content.
pub(super) fn content(bytes: &[u8]) -> Answer {
    let bytes = bytes.to_vec();
    Box::new(move |stream, _| said(stream, "200 OK", &[], &bytes))
}

/// A redirect.
pub(super) fn redirect(location: &str) -> Answer {
    let location = format!("location: {location}");
    Box::new(move |stream, _| said(stream, "302 Found", &[&location], b""))
}

/// A status without more.
pub(super) fn status(status: &'static str) -> Answer {
    Box::new(move |stream, _| said(stream, status, &[], b""))
}

/// A server of HTTPS for `localhost` that answers everybody with this. Gives its port, and the certificate of the authority
/// that vouches for it.
pub(super) fn over_tls(bytes: &'static [u8]) -> (u16, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let mut request = [0; 4096];
            // Who does not believe the certificate hangs up.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(bytes);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (port, authority)
}
