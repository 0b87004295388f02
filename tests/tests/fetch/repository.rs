//! Repositories of git, and a server that gives them over HTTP as git itself does, or lies.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use belljar_core::GitId;
use tempfile::TempDir;

use crate::server::said;

/// What a path is answered with instead: what git would say, and who listens.
pub(super) type Lie = Box<dyn Fn(&mut TcpStream, &dyn Fn() -> Vec<u8>) + Send + Sync>;

/// Repositories, each in a directory of its name.
pub(super) struct Repositories(TempDir);

/// A server of them on loopback.
#[derive(Clone)]
pub(super) struct GitServer(Arc<Inner>);

struct Inner {
    port: u16,
    root: PathBuf,
    lies: BTreeMap<String, Lie>,
    asked: Mutex<Vec<(String, String)>>,
}

/// One request.
struct Asked {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// git, with no settings of anybody's.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "protocol.file.allow")
        .env("GIT_CONFIG_VALUE_1", "always");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "a")
            .env(format!("GIT_{who}_EMAIL"), "a@a.example")
            .env(format!("GIT_{who}_DATE"), "2026-01-02T03:04:05Z");
    }
    command
}

impl Repositories {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A repository without a commit.
    pub(super) fn create(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        self.git(name, &["init", "--quiet", "--initial-branch=main", "."]);
        path
    }

    /// Runs git in a repository; gives what it prints.
    pub(super) fn git(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let output = git(&self.path(name)).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        output.stdout
    }

    /// Runs git in a repository with this as its input; gives what it prints.
    pub(super) fn git_with(&self, name: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = git(&self.path(name));
        run(command.args(arguments), input)
    }

    /// Commits all that stands there; gives the commit.
    pub(super) fn commit(&self, name: &str) -> GitId {
        self.git(name, &["add", "--all", "--force", "."]);
        self.git(
            name,
            &["commit", "--quiet", "--allow-empty", "-m", "one more"],
        );
        self.head(name)
    }

    /// The commit that is there.
    pub(super) fn head(&self, name: &str) -> GitId {
        self.named(name, "HEAD")
    }

    /// What a name means.
    pub(super) fn named(&self, name: &str, what: &str) -> GitId {
        let printed = self.git(name, &["rev-parse", what]);
        GitId::new(String::from_utf8(printed).unwrap().trim()).unwrap()
    }

    /// Serves them, but for these paths.
    pub(super) fn serve(&self, lies: Vec<(String, Lie)>) -> GitServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = GitServer(Arc::new(Inner {
            port: listener.local_addr().unwrap().port(),
            root: self.0.path().to_owned(),
            lies: lies.into_iter().collect(),
            asked: Mutex::default(),
        }));
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = serving.clone();
                thread::spawn(move || one.answer(stream));
            }
        });
        server
    }
}

impl GitServer {
    pub(super) fn port(&self) -> u16 {
        self.0.port
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.0.port)
    }

    /// Paths that were asked for, and what was sent to them.
    pub(super) fn asked(&self) -> Vec<(String, String)> {
        self.0.asked.lock().unwrap().clone()
    }

    /// How many packs were asked for.
    pub(super) fn packs(&self) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|(path, _)| path.ends_with("/git-upload-pack"))
            .count()
    }

    fn answer(&self, mut stream: TcpStream) {
        let Some(asked) = read(&stream) else {
            return;
        };
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        self.0
            .asked
            .lock()
            .unwrap()
            .push((asked.path.clone(), body));
        assert_eq!(
            asked.headers.get("git-protocol").map(String::as_str),
            Some("version=2")
        );
        match self.0.lies.get(&asked.path) {
            Some(lie) => lie(&mut stream, &|| self.honest(&asked)),
            None => {
                let _ = stream.write_all(&self.honest(&asked));
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }

    /// What git answers, as it goes over the wire.
    fn honest(&self, asked: &Asked) -> Vec<u8> {
        let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
        let mut command = git(&self.0.root);
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.0.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &asked.method)
            .env("PATH_INFO", &asked.path)
            .env("QUERY_STRING", &asked.query)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", asked.body.len().to_string())
            .env("GIT_PROTOCOL", header("git-protocol"));
        let printed = run(&mut command, &asked.body);
        let end = printed
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = std::str::from_utf8(&printed[..end]).unwrap();
        let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
        let headers: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with("Status: "))
            .collect();
        let mut answer = Vec::new();
        write(
            &mut answer,
            status.unwrap_or("200 OK"),
            &headers,
            &printed[end + 4..],
        );
        answer
    }
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Who reads all of it may write before.
    let writing = thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output.stdout
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Asked {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    })
}

/// An answer as it goes over the wire.
fn write(to: &mut Vec<u8>, status: &str, headers: &[&str], body: &[u8]) {
    to.extend_from_slice(format!("HTTP/1.1 {status}\r\nconnection: close\r\n").as_bytes());
    for header in headers {
        to.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    to.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    to.extend_from_slice(body);
}

/// One line of the protocol.
pub(super) fn line(content: &[u8]) -> Vec<u8> {
    let mut line = format!("{:04x}", content.len() + 4).into_bytes();
    line.extend_from_slice(content);
    line
}

/// An answer with this pack, whatever was asked for.
pub(super) fn pack(bytes: Vec<u8>) -> Lie {
    Box::new(move |stream, _| {
        let mut body = line(b"packfile\n");
        for piece in bytes.chunks(60_000) {
            body.extend(line(&[b"\x01", piece].concat()));
        }
        body.extend_from_slice(b"0000");
        result(stream, &body);
    })
}

/// An answer to who asks for a pack.
pub(super) fn result(stream: &mut TcpStream, body: &[u8]) {
    let media_type = "content-type: application/x-git-upload-pack-result";
    said(stream, "200 OK", &[media_type], body);
}
