//! Every call of a build's life that lasts or that others see, by its name, and what comes of a death at it.
//!
//! The names come from the calls themselves: see `belljar_tests::trace::names`. That none is missing is a test.

use belljar_tests::Part;
use belljar_tests::Part::{Belljard, Signer, Spawner, Store};

use Seen::{Either, GoesOn, NextAttempt};

/// A point, and what is seen of a build whose process dies there.
pub(crate) struct Point {
    pub(crate) part: Part,
    pub(crate) name: &'static str,
    /// The call does not happen.
    pub(crate) before: Seen,
    /// It has happened, and the process does not know.
    pub(crate) after: Seen,
}

/// How a build goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// In the same attempt.
    GoesOn,
    /// In a second one.
    NextAttempt,
    /// In either: it depends on how far another process is.
    Either,
}

impl Seen {
    pub(crate) fn fits(self, attempts: u32) -> bool {
        match self {
            Self::GoesOn => attempts == 1,
            Self::NextAttempt => attempts == 2,
            Self::Either => matches!(attempts, 1 | 2),
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::GoesOn => "goes on",
            Self::NextAttempt => "second attempt",
            Self::Either => "either",
        }
    }
}

/// What is said all the time, whether there is a build or not; the name of the queue's log, which is made durable once,
/// when it is made; and what the store notes to save itself reading, whenever it has read, and can lose.
pub(crate) fn is_chatter(name: &str) -> bool {
    const CHATTER: [&str; 8] = [
        "stamps: write",
        "daemon: sync",
        "spawner, list: send",
        "spawner, probe: send",
        "answer attempts: send",
        "answer host: send",
        "signer, public_key: send",
        "answer public_key: send",
    ];
    CHATTER.contains(&name)
}

const fn point(part: Part, name: &'static str, before: Seen, after: Seen) -> Point {
    Point {
        part,
        name,
        before,
        after,
    }
}

/// In the order of a build's life, for each process.
#[rustfmt::skip]
pub(crate) const POINTS: &[Point] = &[
    point(Belljard, "store, space: send", GoesOn, GoesOn),
    point(Belljard, "queue: write", GoesOn, GoesOn),
    point(Belljard, "queue queued: sync", GoesOn, GoesOn),
    point(Belljard, "client, accepted: send", GoesOn, GoesOn),
    point(Belljard, "trail: create", GoesOn, GoesOn),
    point(Belljard, "trail: cut", GoesOn, GoesOn),
    point(Belljard, "trail opened: sync", GoesOn, GoesOn),
    point(Belljard, "trails: sync", GoesOn, GoesOn),
    point(Belljard, "trail submitted: write", GoesOn, GoesOn),
    point(Belljard, "trail submitted: sync", GoesOn, GoesOn),
    point(Belljard, "trail decided: write", GoesOn, GoesOn),
    point(Belljard, "trail decided: sync", GoesOn, GoesOn),
    point(Belljard, "trail attempt_started: write", GoesOn, GoesOn),
    point(Belljard, "trail attempt_started: sync", GoesOn, GoesOn),
    point(Belljard, "queue staging: sync", NextAttempt, NextAttempt),
    point(Belljard, "spawner, stage: send", NextAttempt, NextAttempt),
    point(Belljard, "trail staged: write", NextAttempt, NextAttempt),
    point(Belljard, "trail staged: sync", NextAttempt, NextAttempt),
    point(Belljard, "queue launching: sync", NextAttempt, NextAttempt),
    point(Belljard, "spawner, launch: send", NextAttempt, NextAttempt),
    point(Belljard, "trail launched: write", NextAttempt, NextAttempt),
    point(Belljard, "trail launched: sync", NextAttempt, NextAttempt),
    point(Belljard, "queue running: sync", NextAttempt, NextAttempt),
    point(Belljard, "trail ended: write", NextAttempt, NextAttempt),
    point(Belljard, "trail ended: sync", NextAttempt, NextAttempt),
    point(Belljard, "queue collecting: sync", NextAttempt, NextAttempt),
    point(Belljard, "spawner, collect: send", NextAttempt, NextAttempt),
    point(Belljard, "trail collected: write", NextAttempt, NextAttempt),
    point(Belljard, "trail collected: sync", NextAttempt, NextAttempt),
    point(Belljard, "queue attesting: sync", GoesOn, GoesOn),
    point(Belljard, "trail attestation_requested: write", GoesOn, GoesOn),
    point(Belljard, "trail attestation_requested: sync", GoesOn, GoesOn),
    point(Belljard, "signer, attest: send", GoesOn, GoesOn),
    point(Belljard, "trail signed: write", GoesOn, GoesOn),
    point(Belljard, "trail signed: sync", GoesOn, GoesOn),
    point(Belljard, "queue publishing: sync", GoesOn, GoesOn),
    point(Belljard, "store, put: send", GoesOn, GoesOn),
    point(Belljard, "signer, sign_receipt: send", GoesOn, GoesOn),
    point(Belljard, "content: send", GoesOn, GoesOn),
    point(Belljard, "queue artifacts: sync", GoesOn, GoesOn),
    point(Belljard, "ownership: write", GoesOn, GoesOn),
    point(Belljard, "ownership: sync", GoesOn, GoesOn),
    point(Belljard, "queue destroying: sync", GoesOn, GoesOn),
    point(Belljard, "spawner, destroy: send", GoesOn, GoesOn),
    point(Belljard, "trail destroyed: write", GoesOn, GoesOn),
    point(Belljard, "trail destroyed: sync", GoesOn, GoesOn),
    point(Belljard, "trail finished: write", GoesOn, GoesOn),
    point(Belljard, "trail finished: sync", GoesOn, GoesOn),
    point(Belljard, "queue ended: sync", GoesOn, GoesOn),
    point(Spawner, "namespace: unshare", Either, Either),
    point(Spawner, "namespace: enter", Either, Either),
    point(Spawner, "store, stage: send", NextAttempt, NextAttempt),
    point(Spawner, "place: make", NextAttempt, NextAttempt),
    point(Spawner, "mount: attach", NextAttempt, NextAttempt),
    point(Spawner, "mount: make", NextAttempt, NextAttempt),
    point(Spawner, "process: clone", NextAttempt, NextAttempt),
    point(Spawner, "process uid_map: write", NextAttempt, NextAttempt),
    point(Spawner, "process gid_map: write", NextAttempt, NextAttempt),
    point(Spawner, "process: signal", NextAttempt, NextAttempt),
    point(Spawner, "answer staged: send", NextAttempt, NextAttempt),
    point(Spawner, "store, open_log: send", NextAttempt, NextAttempt),
    point(Spawner, "cgroup: make", NextAttempt, NextAttempt),
    point(Spawner, "cgroup, its limits: write", NextAttempt, NextAttempt),
    point(Spawner, "init, placed: send", NextAttempt, NextAttempt),
    point(Spawner, "init, go: send", NextAttempt, NextAttempt),
    point(Spawner, "store, mark_log: send", NextAttempt, NextAttempt),
    point(Spawner, "answer launched: send", NextAttempt, NextAttempt),
    point(Spawner, "init, next: send", NextAttempt, NextAttempt),
    point(Spawner, "cgroup, its end: write", NextAttempt, NextAttempt),
    point(Spawner, "belljard, exited: send", NextAttempt, NextAttempt),
    point(Spawner, "store, finish_log: send", NextAttempt, NextAttempt),
    point(Spawner, "store, collect: send", NextAttempt, NextAttempt),
    point(Spawner, "store, verify_inputs: send", NextAttempt, NextAttempt),
    point(Spawner, "cgroup: remove", NextAttempt, NextAttempt),
    point(Spawner, "receipt draft: create", NextAttempt, NextAttempt),
    point(Spawner, "receipt draft: write", NextAttempt, NextAttempt),
    point(Spawner, "receipt draft: sync", NextAttempt, NextAttempt),
    point(Spawner, "head draft: create", NextAttempt, NextAttempt),
    point(Spawner, "head draft: write", NextAttempt, NextAttempt),
    point(Spawner, "head draft: sync", NextAttempt, NextAttempt),
    point(Spawner, "receipts: sync", NextAttempt, NextAttempt),
    point(Spawner, "head: rename", NextAttempt, NextAttempt),
    point(Spawner, "receipt: rename", NextAttempt, NextAttempt),
    point(Spawner, "answer collected: send", NextAttempt, GoesOn),
    point(Spawner, "answer destroyed: send", GoesOn, GoesOn),
    point(Store, "answer space: send", Either, Either),
    point(Store, "object content: create", NextAttempt, NextAttempt),
    point(Store, "object content: write", NextAttempt, NextAttempt),
    point(Store, "image: link", NextAttempt, NextAttempt),
    point(Store, "answer staged: send", NextAttempt, NextAttempt),
    point(Store, "log: create", NextAttempt, NextAttempt),
    point(Store, "answer log_open: send", NextAttempt, NextAttempt),
    point(Store, "step marks: create", NextAttempt, NextAttempt),
    point(Store, "step marks: write", NextAttempt, NextAttempt),
    point(Store, "answer log_marked: send", NextAttempt, NextAttempt),
    point(Store, "log: write", NextAttempt, NextAttempt),
    point(Store, "log: sync", NextAttempt, NextAttempt),
    point(Store, "logs: sync", NextAttempt, NextAttempt),
    point(Store, "answer log_finished: send", NextAttempt, NextAttempt),
    point(Store, "answer collect_ready: send", NextAttempt, NextAttempt),
    point(Store, "all files: sync", NextAttempt, NextAttempt),
    point(Store, "object: link", NextAttempt, NextAttempt),
    point(Store, "answer output: send", NextAttempt, NextAttempt),
    point(Store, "answer collect_done: send", NextAttempt, NextAttempt),
    point(Store, "image: sync", NextAttempt, NextAttempt),
    point(Store, "images: sync", NextAttempt, NextAttempt),
    point(Store, "answer inputs: send", NextAttempt, GoesOn),
    point(Store, "object content: sync", GoesOn, GoesOn),
    point(Store, "object directory: sync", GoesOn, GoesOn),
    point(Store, "answer stored: send", GoesOn, GoesOn),
    point(Signer, "seen receipts: write", GoesOn, GoesOn),
    point(Signer, "seen receipts: sync", GoesOn, GoesOn),
    point(Signer, "bundle draft: remove", GoesOn, GoesOn),
    point(Signer, "bundle draft: create", GoesOn, GoesOn),
    point(Signer, "bundle draft: write", GoesOn, GoesOn),
    point(Signer, "bundle draft: sync", GoesOn, GoesOn),
    point(Signer, "bundle: link", GoesOn, GoesOn),
    point(Signer, "evidence: sync", GoesOn, GoesOn),
    point(Signer, "answer attested: send", GoesOn, GoesOn),
    point(Signer, "receipt bundle: link", GoesOn, GoesOn),
];
