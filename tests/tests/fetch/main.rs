//! What builds have fetched by its digest, through the front door, from a server that the test starts.
//!
//! * [`brought`]: what comes, and what is said of it.
//! * [`earlier`]: what earlier builds have left, with their provenance.
//! * [`git`]: commits of git repositories, from servers that are honest and others.
//! * [`refused`]: what servers, callers and redirects do not get.
//! * [`lies`]: what git servers say to processes that are confined.
//! * [`archives`]: such as would take much memory.
//! * [`own`]: addresses of the machine itself.
//! * [`life`]: two at once, what is cancelled, and what is killed in the middle.

// Test code may stop at the first surprise, in its helpers too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod archives;
mod brought;
mod earlier;
mod git;
mod lies;
mod life;
mod own;
#[path = "../../../crates/belljar-store/src/tests/pack_file.rs"]
mod pack_file;
mod refused;
mod repository;
mod server;
#[path = "../../../crates/belljar-store/src/tests/zip_file.rs"]
mod zip_file;

use std::fs;
use std::io::Write as _;

use belljar_core::{
    BuildSpec, Digest, Fetch, FetchUrl, Fetches, InputName, Mirrors, Unpack, UrlFetch,
};
use belljar_tests::{Client, Instance};
use belljar_wire::{BuildRecord, BuildState};
use server::Server;

/// One that fetches from this server, with these lines more in `[fetch]`.
fn started(server: &Server, more: &str) -> Instance {
    let mut instance = Instance::configured();
    start(&mut instance, server.port(), more);
    instance
}

/// Starts one that has its configuration, with [fetch] for this port.
fn start(instance: &mut Instance, port: u16, more: &str) {
    let path = instance.state().join("config/belljard.toml");
    let text = format!(
        "\n[fetch]\nallow = [\"127.0.0.1\", \"localhost\", \"169.254.169.254\"]\nports = [{port}, 80]\nallow_private = [\"127.0.0.0/8\", \"::1/128\"]\n{more}\n"
    );
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    instance.start();
}

fn fetch(urls: &[String], content: &[u8], unpack: Unpack) -> Fetch {
    let urls = urls.iter().map(|url| FetchUrl::new(url).unwrap());
    Fetch::Urls(UrlFetch {
        urls: Mirrors::new(urls.collect()).unwrap(),
        digest: Digest::of(content),
        unpack,
    })
}

/// One file.
fn file(urls: &[String], content: &[u8]) -> Fetch {
    fetch(urls, content, Unpack::file("file", false).unwrap())
}

/// A build that keeps what was fetched for it.
fn spec(client: &Client, script: &str, fetches: &[(&str, Fetch)]) -> BuildSpec {
    let mut spec = client.spec(&[], &[script], &["out"]);
    let named = fetches
        .iter()
        .map(|(name, fetch)| (InputName::new(*name).unwrap(), fetch.clone()));
    spec.fetches = Fetches::new(named.collect()).unwrap();
    spec
}

fn submit(client: &Client, request: &str, spec: &BuildSpec) -> BuildRecord {
    let build = client.submit(request, spec);
    build.unwrap_or_else(|problem| panic!("{problem:?}"))
}

fn ended(client: &Client, build: &BuildRecord) -> BuildRecord {
    client.until(&build.id, |build| build.state == BuildState::Ended)
}

/// Submits a build and waits for its end.
fn run(client: &Client, request: &str, spec: &BuildSpec) -> BuildRecord {
    ended(client, &submit(client, request, spec))
}

/// The events of a build's trail that are about fetches.
fn told(client: &Client, build: &BuildRecord) -> Vec<serde_json::Value> {
    let trail = client.read(build.evidence.audit_trail.unwrap()).unwrap();
    let lines = std::str::from_utf8(&trail).unwrap().lines();
    let entries = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let events = entries.map(|entry| entry["event"].clone());
    events.filter(|event| event["kind"] == "fetched").collect()
}

/// Whether anything with this digest is in the store.
fn is_stored(instance: &Instance, content: &[u8]) -> bool {
    let hex = Digest::of(content).to_hex();
    let path = format!("store/objects/sha256/{}/{}", &hex[..2], &hex[2..]);
    instance.state().join(path).exists()
}

/// A tar archive of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
