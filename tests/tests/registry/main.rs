//! Images that belljard pulls, through the front door, from a registry that the test starts.
//!
//! * [`pulled`]: what comes, what is built on it, and what is said of it.
//! * [`refused`]: images and registries that are not what they should be.
//! * [`convinced`]: credentials, and who gets them.
//! * [`based`]: images that become of outputs, laid on one that was pulled.
//! * [`pushed`]: images that became of builds, and their provenance, back to a registry.

// Test code may stop at the first surprise, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod based;
mod convinced;
#[path = "../api/page.rs"]
#[allow(dead_code)]
mod page;
mod pulled;
mod pushed;
mod refused;
mod server;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use belljar_tests::{BELLJARD_UID, Instance, Project, Told};
use serde_json::Value;
use server::{Authority, Registry};

/// Somebody who pulls, with a daemon of his own and a directory with a lock.
struct Puller {
    instance: Instance,
    dir: Project,
}

impl Puller {
    /// One whose operator allows this registry, with these lines in its table, and in `[fetch]`.
    fn new(authority: &Authority, registry: &Registry, lines: &str, fetch: &str) -> Self {
        let mut instance = Instance::configured();
        let ca = instance.state().join("config/ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let path = instance.state().join("config/belljard.toml");
        let text = format!(
            "\n[fetch]\nallow_private = [\"127.0.0.0/8\", \"::1/128\"]\nca = {ca:?}\n{fetch}\n[[fetch.registry]]\nhost = \"{}\"\n{lines}\n",
            registry.host()
        );
        let mut file = fs::File::options().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        instance.start();
        let dir = Project::bare();
        Self { instance, dir }
    }

    fn lock(&self) -> PathBuf {
        self.dir.path().join("belljar.lock")
    }

    /// `belljar image pull --json` with these arguments.
    fn pull(&mut self, arguments: &[&str]) -> Told {
        let lock = self.lock();
        let lock = ["--json", "--lock", lock.to_str().unwrap()];
        let arguments = [arguments, &lock].concat();
        self.instance.tell("image pull", &arguments)
    }

    /// What is said of a pull that must not succeed; and that nothing was locked by it.
    fn refusal(&mut self, reference: &str, code: i32) -> String {
        let told = self
            .pull(&[reference, "--name", "refused"])
            .assert_code(code);
        assert!(
            !fs::read_to_string(self.lock())
                .unwrap_or_default()
                .contains("refused")
        );
        let why = told.json("belljar.error/v1")["error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(why.contains(reference), "{reference}: {why}");
        why
    }
}

/// What a pull that succeeded printed.
fn image(told: Told) -> Value {
    told.assert_code(0).json("belljar.image/v1")
}

/// A file with credentials, where belljard of an instance may read it.
fn credentials(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::Builder::new()
        .prefix("belljar-credentials-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let path = dir.path().join("registry");
    fs::write(&path, text).unwrap();
    std::os::unix::fs::chown(&path, Some(BELLJARD_UID), None).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (dir, path)
}

/// An entry of a layer: a file, and whether it is a program.
type Entry<'a> = (&'a str, &'a [u8], bool);

/// A layer of these, compressed by gzip.
fn layer<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    for (path, content, program) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if program { 0o755 } else { 0o644 });
        // Of others, as in images; it is left out.
        header.set_uid(7);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// A layer with a symbolic link more.
fn with_link(layer: &[u8], path: &str, target: &str) -> Vec<u8> {
    let mut content = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(layer);
    decoder.read_to_end(&mut content).unwrap();
    // Without the two blocks that end it.
    content.truncate(content.len() - 1024);
    let mut builder = tar::Builder::new(content);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, path, target).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&builder.into_inner().unwrap()).unwrap();
    encoder.finish().unwrap()
}
