use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_core::{Digest, ObjectId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, StreamOwned};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A header of an answer that comes byte by byte.
pub(super) const SLOW: &str = "x-slow: 1";
/// What this machine runs.
pub(super) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// Who vouches for the registries of one test.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A registry on loopback, over TLS, at `localhost` and a port of its own (distribution-spec v1.1, pulling).
#[derive(Clone)]
pub(super) struct Registry(Arc<Inner>);

struct Inner {
    port: u16,
    tls: Arc<ServerConfig>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    asked: Vec<Asked>,
    guard: Option<Guard>,
    /// Whether images may be pushed.
    takes: Option<Takes>,
    /// What begins so is answered so: method and path.
    trouble: Option<(String, Answer)>,
    /// What begins so waits for its answer.
    held: Option<String>,
    uploads: usize,
}

/// How a registry takes what is pushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// It lists itself what refers to an image, and says so.
    AndLists,
    /// As of before there was that.
    Plainly,
}

/// What a path is answered with.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
    /// After so many bytes the connection is closed.
    pub(super) cut: Option<usize>,
    /// User and password that have to be shown for it.
    pub(super) wants: Option<&'static str>,
}

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
}

/// What has to be shown to read anything.
#[derive(Clone)]
pub(super) enum Guard {
    /// User and password.
    Basic(&'static str),
    /// A token that is given at this place.
    Token { realm: String, token: &'static str },
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The public key of a pair that nothing was signed with.
    pub(super) fn public_pem(&self) -> String {
        self.issuer.key().public_key_pem()
    }

    /// Starts a registry that has nothing.
    pub(super) fn registry(&self) -> Registry {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Registry(Arc::new(Inner {
            port: listener.local_addr().unwrap().port(),
            tls: Arc::new(tls),
            state: Mutex::default(),
        }));
        let serving = registry.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = serving.clone();
                thread::spawn(move || one.serve(stream));
            }
        });
        registry
    }
}

impl Answer {
    pub(super) fn of(body: &[u8], media_type: &str) -> Self {
        Self {
            status: "200 OK",
            headers: vec![format!("content-type: {media_type}")],
            body: body.to_vec(),
            cut: None,
            wants: None,
        }
    }

    pub(super) fn redirect(location: &str) -> Self {
        Self {
            status: "307 Temporary Redirect",
            headers: vec![format!("location: {location}")],
            body: Vec::new(),
            cut: None,
            wants: None,
        }
    }

    pub(super) fn status(status: &'static str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            cut: None,
            wants: None,
        }
    }
}

impl Registry {
    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    /// As references and configurations name it.
    pub(super) fn host(&self) -> String {
        format!("localhost:{}", self.0.port)
    }

    /// Answers a path so from now on.
    pub(super) fn answer(&self, path: &str, answer: Answer) {
        let mut state = self.0.state.lock().unwrap();
        state.answers.insert(path.to_owned(), answer);
    }

    pub(super) fn guard(&self, guard: Option<Guard>) {
        self.0.state.lock().unwrap().guard = guard;
    }

    /// Takes what is pushed from now on.
    pub(super) fn takes(&self, takes: Takes) {
        self.0.state.lock().unwrap().takes = Some(takes);
    }

    /// Answers what begins so (`PUT /v2/team/c/manifests`) like this from now on.
    pub(super) fn trouble(&self, trouble: Option<(&str, Answer)>) {
        let trouble = trouble.map(|(start, answer)| (start.to_owned(), answer));
        self.0.state.lock().unwrap().trouble = trouble;
    }

    /// Keeps what begins so waiting for its answer from now on, after it was done.
    pub(super) fn hold(&self, start: Option<&str>) {
        self.0.state.lock().unwrap().held = start.map(str::to_owned);
    }

    /// What a path is answered with.
    pub(super) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.state.lock().unwrap();
        state.answers.get(path).map(|answer| answer.body.clone())
    }

    /// Paths that are answered.
    pub(super) fn has(&self) -> Vec<String> {
        self.0
            .state
            .lock()
            .unwrap()
            .answers
            .keys()
            .cloned()
            .collect()
    }

    /// Everything that was asked since the last time.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.state.lock().unwrap().asked)
    }

    /// Keeps content of `team/c`, and gives the descriptor for it.
    pub(super) fn blob(&self, content: &[u8], media_type: &str) -> Value {
        let descriptor = descriptor(content, media_type);
        let digest = Digest::of(content);
        let answer = Answer::of(content, "application/octet-stream");
        self.answer(&format!("/v2/team/c/blobs/{digest}"), answer);
        descriptor
    }

    /// Keeps a manifest or an index, under a tag if there is one, and gives the descriptor for it.
    pub(super) fn manifest(&self, document: &Value, media_type: &str, tag: Option<&str>) -> Value {
        let content = document.to_string().into_bytes();
        let digest = Digest::of(&content);
        let mut answer = Answer::of(&content, media_type);
        answer
            .headers
            .push(format!("docker-content-digest: {digest}"));
        for name in [Some(digest.to_string().as_str()), tag]
            .into_iter()
            .flatten()
        {
            self.answer(&format!("/v2/team/c/manifests/{name}"), answer.clone());
        }
        descriptor(&content, media_type)
    }

    /// An image of these layers, for this machine.
    pub(super) fn image(&self, layers: &[Vec<u8>]) -> Value {
        let layers = layers.iter().map(|layer| self.blob(layer, LAYER));
        let layers: Vec<Value> = layers.collect();
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config(ARCHITECTURE),
            "layers": layers,
        })
    }

    /// The same with a configuration that tells of the layers, as of an image that another layer is laid on.
    pub(super) fn base(&self, layers: &[Vec<u8>]) -> Value {
        let unpacked = layers.iter().map(|layer| {
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(&layer[..])
                .read_to_end(&mut content)
                .unwrap();
            Digest::of(&content).to_string()
        });
        let config = json!({
            "os": "linux",
            "architecture": ARCHITECTURE,
            "config": {"Env": ["PATH=/bin", "BASE=yes"], "Cmd": ["sh"], "User": "7"},
            "rootfs": {"type": "layers", "diff_ids": unpacked.collect::<Vec<_>>()},
            "history": [{"created_by": "somebody else"}],
        });
        let mut image = self.image(layers);
        image["config"] = self.blob(config.to_string().as_bytes(), CONFIG);
        image
    }

    /// A configuration for such machines.
    pub(super) fn config(&self, architecture: &str) -> Value {
        let config = json!({"os": "linux", "architecture": architecture});
        self.blob(config.to_string().as_bytes(), CONFIG)
    }

    fn serve(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let connection = ServerConnection::new(self.0.tls.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        let request = String::from_utf8(request).unwrap();
        let mut words = request.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
        let header = |wanted: &str| {
            request.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case(wanted).then(|| value.to_owned())
            })
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut content = vec![0; length];
        if stream.read_exact(&mut content).is_err() {
            return;
        }
        let question = Question {
            method: &method,
            path: &path,
            media_type: header("content-type").unwrap_or_default(),
            content,
        };
        let answer = self.decide(question, header("authorization"));
        let asked = format!("{method} {path}");
        while self.holds(&asked) {
            thread::sleep(Duration::from_millis(20));
        }
        let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status);
        let named = |header: &String| header.starts_with("content-length");
        if !answer.headers.iter().any(named) {
            head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
        }
        for header in &answer.headers {
            head.push_str(&format!("{header}\r\n"));
        }
        let most = answer.cut.unwrap_or(answer.body.len());
        // The other end may have heard enough.
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
        let slow = answer.headers.iter().any(|header| header == SLOW);
        let pieces = answer.body[..most].chunks(if slow { 1 } else { most.max(1) });
        for piece in pieces.take_while(|_| method != "HEAD") {
            if stream.write_all(piece).is_err() {
                break;
            }
            if slow {
                let _ = stream.flush();
                thread::sleep(Duration::from_millis(100));
            }
        }
        if answer.cut.is_none() {
            stream.conn.send_close_notify();
        }
        let _ = stream.flush();
    }

    fn holds(&self, asked: &str) -> bool {
        let state = self.0.state.lock().unwrap();
        let held = state.held.as_ref();
        held.is_some_and(|start| asked.starts_with(start.as_str()))
    }

    fn decide(&self, question: Question<'_>, authorization: Option<String>) -> Answer {
        let mut state = self.0.state.lock().unwrap();
        let path = question.path;
        state.asked.push(Asked {
            method: question.method.to_owned(),
            path: path.to_owned(),
            authorization: authorization.clone(),
        });
        let bare = path.split('?').next().unwrap_or_default();
        let (due, wants) = match &state.guard {
            Some(Guard::Basic(password)) => (
                format!("Basic {}", STANDARD.encode(password)),
                "Basic realm=\"here\"".to_owned(),
            ),
            Some(Guard::Token { realm, token }) => (
                format!("Bearer {token}"),
                format!(
                    "Bearer realm=\"{realm}\",service=\"registry\",scope=\"repository:team/c:pull,push\""
                ),
            ),
            None => (String::new(), String::new()),
        };
        if path.starts_with("/v2/") && state.guard.is_some() && authorization != Some(due) {
            let mut answer = Answer::status("401 Unauthorized");
            answer.headers.push(format!("www-authenticate: {wants}"));
            return answer;
        }
        if let Some((start, answer)) = &state.trouble
            && format!("{} {path}", question.method).starts_with(start.as_str())
        {
            return answer.clone();
        }
        if let (Some(takes), "POST" | "PUT") = (state.takes, question.method) {
            return state.take(&question, takes);
        }
        let found = state.answers.get(bare).cloned();
        let found = found.unwrap_or_else(|| Answer::status("404 Not Found"));
        let basic = |password| format!("Basic {}", STANDARD.encode(password));
        match found.wants.map(basic) {
            Some(due) if authorization.as_ref() != Some(&due) => Answer::status("401 Unauthorized"),
            _ => found,
        }
    }
}

/// What was asked.
struct Question<'a> {
    method: &'a str,
    path: &'a str,
    media_type: String,
    content: Vec<u8>,
}

impl State {
    /// Takes what is pushed, if it is what it should be (distribution-spec v1.1, "push").
    fn take(&mut self, question: &Question<'_>, takes: Takes) -> Answer {
        let (bare, query) = question.path.split_once('?').unwrap_or((question.path, ""));
        let refused = |code: &str| {
            let error = json!({"errors": [{"code": code, "message": "not so"}]});
            let mut answer = Answer::of(error.to_string().as_bytes(), "application/json");
            answer.status = "400 Bad Request";
            answer
        };
        if let (Some(start), "POST") = (bare.strip_suffix("/blobs/uploads/"), question.method) {
            self.uploads += 1;
            let mut answer = Answer::status("202 Accepted");
            let location = format!("{start}/blobs/uploads/{}?state=a%2Fb", self.uploads);
            answer.headers.push(format!("location: {location}"));
            return answer;
        }
        let digest = Digest::of(&question.content);
        let mut created = Answer::status("201 Created");
        created
            .headers
            .push(format!("docker-content-digest: {digest}"));
        if let Some((start, _)) = bare.split_once("/blobs/uploads/") {
            if query != format!("state=a%2Fb&digest={digest}") {
                return refused("DIGEST_INVALID");
            }
            let answer = Answer::of(&question.content, "application/octet-stream");
            self.answers
                .insert(format!("{start}/blobs/{digest}"), answer);
            return created;
        }
        let Some((start, name)) = bare.split_once("/manifests/") else {
            return refused("UNSUPPORTED");
        };
        let Ok(manifest) = serde_json::from_slice::<Value>(&question.content) else {
            return refused("MANIFEST_INVALID");
        };
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(manifest.get("config")) {
            let blob = blob["digest"].as_str().unwrap_or_default();
            if !self.answers.contains_key(&format!("{start}/blobs/{blob}")) {
                return refused("MANIFEST_BLOB_UNKNOWN");
            }
        }
        if name.starts_with("sha256:") && name != digest.to_string() {
            return refused("DIGEST_INVALID");
        }
        for name in [name, digest.to_string().as_str()] {
            let mut answer = Answer::of(&question.content, &question.media_type);
            answer
                .headers
                .push(format!("docker-content-digest: {digest}"));
            self.answers
                .insert(format!("{start}/manifests/{name}"), answer);
        }
        let subject = manifest
            .get("subject")
            .and_then(|subject| subject["digest"].as_str());
        if let (Some(subject), Takes::AndLists) = (subject, takes) {
            created.headers.push(format!("oci-subject: {subject}"));
        }
        created
    }
}

pub(super) fn descriptor(content: &[u8], media_type: &str) -> Value {
    let ObjectId { digest, size } = ObjectId::of(content);
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
}
