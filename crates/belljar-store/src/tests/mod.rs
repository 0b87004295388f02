//! Sessions over a pair of sockets, with the role given instead of read from the kernel: every request,
//! every refusal, and peers that do not keep to the rules.

mod collecting;
mod composing;
mod deriving;
mod gits;
mod hands;
mod hostile;
mod keeping;
mod locks;
mod logging;
mod meanwhile;
mod outputs;
mod pack_file;
mod putting;
mod refusing;
mod staging;
mod uploading;
mod zip_file;
mod zips;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use belljar_cas::{BlobSource, DERIVATIONS, IMAGES, LOGS, Memory, QUARANTINE, Room, TMP};
use belljar_core::{AttemptId, ObjectId, Outputs, RelPath, bounds};
use belljar_plan::frame::{self, Frame};
use belljar_plan::store::{Answer, Collected, Consent, Failure, Request, StagedTree};
use belljar_sys::seqpacket::Connection;
use belljar_tree::{Leaf, build};
use serde::Serialize;

use crate::channel::Channel;
use crate::config::Role;
use crate::derive::{Derivations, Records, Unpackers};
use crate::partial::{Most, Partials, Share};
use crate::scrub::{Scrubber, System};
use crate::server::Slots;
use crate::session::{Session, Store};

const MTIME: u64 = 315_532_800;

/// Small enough to be reached.
const MOST: Most = Most {
    all: Share {
        uploads: 5,
        bytes: 2 << 20,
    },
    project: Share {
        uploads: 4,
        bytes: 3 << 19,
    },
    principal: Share {
        uploads: 3,
        bytes: 1 << 20,
    },
    age: Duration::from_secs(600),
};

/// A store over objects in memory, with its images and logs on disk.
struct Rig {
    memory: Memory,
    store: Arc<Store>,
    slots: Arc<Slots>,
    directory: tempfile::TempDir,
}

/// The other end of a session.
struct Peer {
    connection: Connection,
    session: Option<JoinHandle<()>>,
}

impl Rig {
    fn new() -> Self {
        Self::with_capacity(1 << 30)
    }

    fn with_capacity(bytes: u64) -> Self {
        Self::with(bytes, Box::new(deriving::Threads), 0)
    }

    fn with_unpackers(unpackers: Box<dyn Unpackers>) -> Self {
        Self::with(1 << 30, unpackers, 0)
    }

    /// One whose derivations leave so many bytes free.
    fn with_reserve(reserve: u64) -> Self {
        Self::with(1 << 30, Box::new(deriving::Threads), reserve)
    }

    fn with(bytes: u64, unpackers: Box<dyn Unpackers>, reserve: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in [IMAGES, TMP, LOGS, DERIVATIONS, QUARANTINE] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let memory = Memory::new(bytes);
        let records = Records::open(directory.path()).unwrap();
        let tmp = directory.path().join(TMP);
        let room = Room::new(&tmp, reserve);
        let store = Store {
            derivations: Derivations::new(unpackers, records, tmp, room),
            confined: Vec::new(),
            source: Box::new(memory.clone()),
            sink: Box::new(memory.clone()),
            intake: Box::new(memory.clone()),
            custody: Box::new(memory.clone()),
            leases: Arc::default(),
            scrubber: Scrubber::new(u64::MAX, None, Box::new(System::new())),
            root: directory.path().to_owned(),
            reserve: 7,
            grace: 3600,
            partials: Partials::new(MOST),
            images: crate::stage::open(directory.path()).unwrap(),
            logs: directory.path().join(LOGS),
            refused: Arc::default(),
        };
        Self {
            memory,
            store: Arc::new(store),
            slots: Arc::default(),
            directory,
        }
    }

    fn connect(&self, role: Role) -> Peer {
        let (connection, theirs) = Connection::pair().unwrap();
        connection
            .set_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let slot = Arc::new(self.slots.claim(role).unwrap());
        let session = Session::new(
            Arc::clone(&self.store),
            role,
            Channel::new(theirs, format!("{role:?}"), Arc::clone(&self.store.refused)).unwrap(),
            slot,
        );
        Peer {
            connection,
            session: Some(std::thread::spawn(move || session.run())),
        }
    }

    /// A spawner's connection with `tree` staged for attempt `number`.
    fn staged(&self, number: u32, tree: ObjectId) -> Peer {
        let mut peer = self.connect(Role::Spawner);
        peer.ask(&stage(number, tree));
        assert!(matches!(peer.answer(), Answer::Staged { .. }));
        peer
    }

    /// Keeps a tree of one file and gives its id.
    fn tree(&self, path: &str, content: &[u8]) -> ObjectId {
        self.tree_of([path.to_owned()], content)
    }

    /// The same, of files that all have that content.
    fn tree_of(&self, paths: impl IntoIterator<Item = String>, content: &[u8]) -> ObjectId {
        let leaf = Leaf::File {
            object: self.memory.put(content),
            executable: false,
        };
        let leaves = paths.into_iter();
        let built = build(leaves.map(|path| (RelPath::new(path).unwrap(), leaf.clone()))).unwrap();
        for (_, bytes) in &built.directories {
            self.memory.put(bytes);
        }
        built.root
    }

    fn image(&self, tree: ObjectId) -> PathBuf {
        self.directory
            .path()
            .join(IMAGES)
            .join(staged(tree).image())
    }

    fn log(&self, number: u32) -> PathBuf {
        self.directory
            .path()
            .join(LOGS)
            .join(format!("{}.log", attempt(number)))
    }

    fn content(&self, object: ObjectId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.memory
            .read(object)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    }
}

impl Peer {
    fn ask(&self, request: &Request) {
        self.send(&frame::encode(request).unwrap());
    }

    fn ask_with(&self, request: &Request, descriptor: impl AsFd) {
        let descriptor: BorrowedFd<'_> = descriptor.as_fd();
        self.connection
            .send_with(&frame::encode(request).unwrap(), descriptor)
            .unwrap();
    }

    fn tell(&self, message: &Collected) {
        self.send(&frame::encode(message).unwrap());
    }

    fn data(&self, content: &[u8]) {
        for piece in content.chunks(bounds::CHUNK_BYTES) {
            let message = frame::data(piece).unwrap();
            self.connection.send_parts(&message).unwrap();
        }
    }

    fn send(&self, message: &[u8]) {
        self.connection.send(message).unwrap();
    }

    fn answer(&mut self) -> Answer {
        self.answer_or_end().unwrap()
    }

    /// The next answer; none when the session has ended. What is wanted for a tree is given.
    fn answer_or_end(&mut self) -> Option<Answer> {
        loop {
            match self.hear()? {
                Answer::DerivationWants { .. } => self.send(&control(&Consent::Given {})),
                answer => return Some(answer),
            }
        }
    }

    fn hear(&mut self) -> Option<Answer> {
        let mut buffer = vec![0; bounds::FRAME_BYTES];
        let received = self.connection.receive(&mut buffer).unwrap()?;
        match frame::parse(&buffer[..received.length]).unwrap() {
            Frame::Control(rest) => Some(frame::decode(rest).unwrap()),
            Frame::Data(_) => panic!("the store sent content"),
        }
    }

    fn reply(&mut self, request: &Request) -> Answer {
        self.ask(request);
        self.answer()
    }

    fn failure(&mut self) -> Failure {
        match self.answer() {
            Answer::Failed { class, .. } => class,
            other => panic!("{other:?}"),
        }
    }

    fn fails(&mut self, request: &Request) -> Failure {
        self.ask(request);
        self.failure()
    }

    /// Says nothing any more and waits for the session to end.
    fn close(mut self) {
        let session = self.session.take();
        drop(self.connection);
        session.unwrap().join().unwrap();
    }

    /// The session has ended by itself, in order.
    fn assert_ended(mut self) {
        assert_eq!(self.answer_or_end(), None);
        self.session.take().unwrap().join().unwrap();
    }
}

fn attempt(number: u32) -> AttemptId {
    format!("01jd8q6z8r4x7j2m5t9v0w3y6b-{number}")
        .parse()
        .unwrap()
}

fn staged(tree: ObjectId) -> StagedTree {
    StagedTree {
        tree,
        mtime: MTIME,
        derivation: None,
    }
}

fn stage(number: u32, tree: ObjectId) -> Request {
    stage_all(number, vec![staged(tree)])
}

fn stage_all(number: u32, trees: Vec<StagedTree>) -> Request {
    Request::Stage {
        attempt: attempt(number),
        trees,
    }
}

fn outputs(paths: &[&str]) -> Outputs {
    Outputs::new(
        paths
            .iter()
            .map(|path| RelPath::new(*path).unwrap())
            .collect(),
    )
    .unwrap()
}

fn collect(paths: &[&str]) -> Request {
    Request::Collect {
        outputs: outputs(paths),
        limit_bytes: 1 << 20,
        limit_entries: 10,
        image: None,
    }
}

/// Waits for what another thread is about to do.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Encodes whatever can be serialised, rules or no rules.
fn control(message: &impl Serialize) -> Vec<u8> {
    frame::encode(message).unwrap()
}
