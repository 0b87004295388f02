//! What a call is for, in words: the name by which a crash at it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use belljar_plan::frame::{self, Frame};
use serde_json::Value;

use super::calls::{Call, Stopped};

/// Begins the state of a build in a page of the queue; its id and its place in the order follow.
const STATE: &[u8] = b"{\"id\":\"";
/// Between the id of a build and its place.
const SEQUENCE: &[u8] = b"\",\"sequence\":";
/// Between its place and its stage.
const STAGE: &[u8] = b",\"stage\":{\"kind\":\"";

/// Names the calls of one process.
#[derive(Debug)]
pub struct Namer {
    state: PathBuf,
    /// What was last written to a file of which each writing has a name of its own.
    written: BTreeMap<PathBuf, String>,
    /// The newest state that was written to the queue since it was last made durable: build, place, stage.
    newest: Option<(String, u64, String)>,
    /// The one that is durable.
    durable: Option<(String, u64)>,
    /// A client waits to hear that its build is queued.
    accepted: bool,
}

impl Namer {
    /// For a process with this state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            written: BTreeMap::new(),
            newest: None,
            durable: None,
            accepted: false,
        }
    }

    /// The name of a call that is about to be made; none if nothing lasting or visible comes of it by itself.
    pub fn name(&mut self, call: &Call, stopped: &Stopped) -> Option<String> {
        match call {
            Call::Open { path, named, .. } => {
                let path = if *named { path } else { &path.join("#") };
                // Often only to see that it is there.
                (!path.exists()).then(|| self.verb(path, "create"))?
            }
            Call::Write {
                descriptor, bytes, ..
            } => self.on_write(&stopped.target(*descriptor)?, bytes),
            Call::Truncate { descriptor, .. } => self.verb(&stopped.target(*descriptor)?, "cut"),
            Call::Sync { descriptor } => self.on_sync(&stopped.target(*descriptor)?),
            Call::SyncAll => Some("all files: sync".to_owned()),
            Call::Attributes { .. } => None,
            Call::Directory { path, .. } => self.verb(path, "make"),
            Call::Link { to, .. } => self.verb(to, "link"),
            Call::Rename { to, .. } => self.verb(to, "rename"),
            Call::Remove { path } => self.verb(path, "remove"),
            Call::Send { bytes } => self.on_message(bytes),
            Call::Clone => Some("process: clone".to_owned()),
            Call::Other(name) => Some((*name).to_owned()),
            Call::Unseen(name) => Some(format!("{name}: not seen through")),
        }
    }

    fn verb(&self, path: &Path, verb: &str) -> Option<String> {
        Some(format!("{}: {verb}", self.place(path)?))
    }

    fn on_write(&mut self, path: &Path, bytes: &[u8]) -> Option<String> {
        let place = self.place(path);
        match place.as_deref() {
            Some("queue") => {
                let found = states(bytes).into_iter().max();
                self.newest = self.newest.take().max(found);
                Some("queue: write".to_owned())
            }
            Some("trail") => {
                let entry: Value = serde_json::from_slice(bytes).unwrap_or_default();
                let kind = entry["event"]["kind"].as_str().unwrap_or("?").to_owned();
                self.written.insert(path.to_owned(), kind.clone());
                Some(format!("trail {kind}: write"))
            }
            Some(place) => Some(format!("{place}: write")),
            None if path.to_string_lossy().starts_with("socket:") => self.on_message(bytes),
            None => None,
        }
    }

    fn on_sync(&mut self, path: &Path) -> Option<String> {
        let place = self.place(path)?;
        match place.as_str() {
            "queue" => {
                let stage = self.newest.take().and_then(|(build, sequence, stage)| {
                    let this = Some((build, sequence));
                    let news = this > self.durable;
                    self.durable = this.max(self.durable.take());
                    news.then_some(stage)
                });
                let stage = stage.unwrap_or_else(|| "artifacts".to_owned());
                self.accepted = stage == "queued" || self.accepted;
                Some(format!("queue {stage}: sync"))
            }
            "trail" => {
                let kind = self.written.get(path).map_or("opened", String::as_str);
                Some(format!("trail {kind}: sync"))
            }
            place => Some(format!("{place}: sync")),
        }
    }

    fn answer(&mut self) -> Option<String> {
        std::mem::take(&mut self.accepted).then(|| "client, accepted: send".to_owned())
    }

    fn on_message(&mut self, bytes: &[u8]) -> Option<String> {
        // A short message may be as long as a record.
        let record = bytes.len() == belljar_record::SIZE && !bytes.ends_with(b"}");
        if let [tag, ..] = bytes
            && record
        {
            return belljar_record::name(*tag).map(|name| format!("init, {name}: send"));
        }
        match frame::parse(bytes).ok() {
            Some(Frame::Control(json)) => message(json).map(|name| format!("{name}: send")),
            Some(Frame::Data(_)) => Some("content: send".to_owned()),
            // HTTP/2 to a client; the first that it hears after its build was queued is that.
            None => self.answer(),
        }
    }

    /// What a path is for; none if it is no matter.
    fn place(&self, path: &Path) -> Option<String> {
        let text = path.to_str()?;
        let text = text.strip_suffix(" (deleted)").unwrap_or(text);
        // Without the `.` that may be in it.
        let path: PathBuf = Path::new(text).components().collect();
        let name = path.file_name()?.to_str()?;
        if path.starts_with("/sys/fs/cgroup") {
            // Which limits there are depends on the version of cgroups.
            let what = match name {
                "cgroup.kill" => "cgroup, its end",
                _ if name.contains('.') => "cgroup, its limits",
                _ => "cgroup",
            };
            return Some(what.to_owned());
        }
        if path.starts_with("/proc") {
            return Some(format!("process {name}"));
        }
        let inside = path.strip_prefix(&self.state).ok()?.to_str()?;
        let (directory, _) = inside.rsplit_once('/').unwrap_or(("", inside));
        let place = match (directory, name) {
            ("daemon", "queue.sqlite-wal") => "queue",
            ("daemon", "queue.sqlite") => "queue, checkpoint",
            ("daemon", "ownership.sqlite-wal") => "ownership",
            ("daemon", "ownership.sqlite") => "ownership, checkpoint",
            ("daemon", "ballast") => "ballast",
            ("daemon", "audit") => "trails",
            ("daemon/audit", _) => "trail",
            ("receipts", "head.tmp") => "head draft",
            ("receipts", "head.json") => "head",
            ("receipts", name) if name.ends_with(".tmp") => "receipt draft",
            ("receipts", _) => "receipt",
            ("", "receipts" | "evidence" | "daemon" | "store") => name,
            ("evidence", "next.tmp") => "bundle draft",
            ("evidence", "receipts.seen") => "seen receipts",
            ("evidence", name) if name.ends_with(".receipt.sigstore.json") => "receipt bundle",
            ("evidence", _) => "bundle",
            ("store/tmp", name) if name.starts_with('#') => "object content",
            ("store/tmp", _) => "image draft",
            ("store", "objects") | ("store/objects", "sha256") => "objects",
            ("store/objects/sha256", _) => "object directory",
            ("store", "images" | "logs" | "tmp" | "derivations") => name,
            ("store/images", _) => "image",
            ("store/derivations", _) => "mark of a record",
            ("store", "stamps.v1") => "stamps",
            ("store/logs", name) if name.ends_with(".steps") => "step marks",
            ("store/logs", _) => "log",
            _ if directory.starts_with("store/objects/sha256/") => "object",
            ("run/store" | "run/signer" | "run/spawner" | "run/belljard", name)
                if name.ends_with(".sock") =>
            {
                "socket"
            }
            _ if inside.starts_with("run/spawner") => "place",
            _ if inside.starts_with("daemon-logs") => return None,
            (_, name) if name.ends_with("-shm") => return None,
            _ => return Some(format!("other file {inside}")),
        };
        Some(place.to_owned())
    }
}

/// Builds and their stages in pages of the queue.
fn states(page: &[u8]) -> Vec<(String, u64, String)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(at) = find(rest, STATE) {
        rest = &rest[at + STATE.len()..];
        let state = || {
            let id = rest.get(..find(rest, SEQUENCE)?)?;
            let after = &rest[id.len() + SEQUENCE.len()..];
            let digits = after.get(..find(after, STAGE)?)?;
            let after = &after[digits.len() + STAGE.len()..];
            let stage = after.get(..find(after, b"\"")?)?;
            let text = |bytes| std::str::from_utf8(bytes).ok();
            Some((
                text(id)?.to_owned(),
                text(digits)?.parse().ok()?,
                text(stage)?.to_owned(),
            ))
        };
        found.extend(state());
    }
    found
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// What a message between two processes is.
fn message(json: &[u8]) -> Option<String> {
    let message: Value = serde_json::from_slice(json).ok()?;
    let kind = |value: &Value| value["kind"].as_str().map(str::to_owned);
    if let Some(operation) = kind(&message["operation"]) {
        return Some(format!("spawner, {operation}"));
    }
    if let Some(answer) = kind(&message["answer"]) {
        return Some(format!("answer {answer}"));
    }
    let kind = kind(&message)?;
    Some(match kind.as_str() {
        "public_key" | "attest" | "sign_receipt" if message.get("pem").is_none() => {
            format!("signer, {kind}")
        }
        // Answered by one of the same kind, with figures.
        "space" if message.get("total").is_none() => "store, space".to_owned(),
        "put" | "put_many" | "upload" | "uploaded" | "derive" | "stage" | "open_log"
        | "mark_log" | "finish_log" | "verify_inputs" | "collect" | "evict" | "remove"
        | "remove_logs" | "scrubbed" => format!("store, {kind}"),
        "exited" => "belljard, exited".to_owned(),
        _ => format!("answer {kind}"),
    })
}

/// Records between the spawner and init.
mod belljar_record {
    pub(super) const SIZE: usize = 17;

    pub(super) fn name(tag: u8) -> Option<&'static str> {
        Some(match tag {
            1 => "placed",
            5 => "go",
            10 => "next",
            11 => "terminate",
            _ => return None,
        })
    }
}
