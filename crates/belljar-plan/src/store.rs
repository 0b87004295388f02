//! Messages to the store. One connection carries one conversation at a time; requests are answered in their
//! order, and each before the next is sent, except that [`Request::MarkLog`] needs not be waited for, and
//! [`Answer::LogExceeded`] comes unasked.
//!
//! Who may ask what follows from the peer's uid (SO_PEERCRED, unix(7)): belljard may `Put`, `PutMany`, `Receive`, `Upload`, ask for
//! `Uploaded` and `Confinement`, `Derive`, and see to what is there (`Space`, `Evict`, `Remove`, `RemoveLogs`, `Examine`,
//! `Scrub`, `Scrubbed`); the spawner (root) all the rest. A connection of the spawner belongs to one attempt, named by `Stage`,
//! and as long as it is open, the trees of that attempt stay.

use std::collections::BTreeMap;

use belljar_core::{AttemptId, BlobName, Digest, Dropped, Invalid, ObjectId, Outputs, Recipe};
use serde::{Deserialize, Serialize};

use crate::{ConfinedStep, ImageRecord, OutputEntry};

mod parts;

pub use parts::{
    Collected, Consent, Failure, ImageOrder, NamedBlob, Refusal, RefusedBlob, Scrub, Sender,
    StagedTree, Whole,
};

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Keep a blob. Data frames with exactly `object.size` bytes follow at once; one answer comes after
    /// the last of them: `Stored` when it is durable, or `Failed`.
    Put {
        /// What the content must turn out to be.
        object: ObjectId,
    },
    /// Keep many small blobs, at most [`belljar_core::bounds::DIGESTS_PER_FRAME`] with at most
    /// [`belljar_core::bounds::BATCH_BYTES`] together. Their contents follow at once in data frames, one
    /// after the other without gaps; one answer comes after the last byte: `Kept`, when all are durable
    /// that it does not name as refused.
    PutMany {
        /// What the contents must turn out to be.
        blobs: Vec<BlobName>,
    },
    /// Keep content of which only the digest is known before, or not even that, at most `most_bytes` of it. Answered at once by `Receiving`,
    /// or by `Failed`. Then data frames follow, and after the last a [`Whole`]; then `Received` when it is durable, or
    /// `Failed`. When more comes than may, the connection is closed. What does not have the digest is never an object.
    Receive {
        /// What the content must turn out to have; none where that says nothing, as with packs of git.
        digest: Option<Digest>,
        /// Most bytes to take.
        most_bytes: u64,
    },
    /// Begin an upload that may be interrupted, or go on with one. Answered at once by `Upload`. If that
    /// is open, data frames follow with what is missing of `blob`, and after the last `Received` or
    /// `Failed`. What came before the connection closes is kept for a while, without being an object.
    Upload {
        /// Names the upload; whoever knows it may go on.
        key: Digest,
        /// Whose it is, as far as belljard knows.
        sender: Sender,
        /// What the content must turn out to be.
        blob: BlobName,
        /// Where to go on. 0 begins anew.
        offset: u64,
    },
    /// How much of an upload has come; answered by `Upload`, not open.
    Uploaded {
        /// Which upload.
        key: Digest,
        /// Of what.
        blob: BlobName,
    },
    /// Make a tree out of objects that are in the store. Before the store looks for any of them it asks by
    /// `DerivationWants`, and is told [`Consent`]. Answered, at the latest after
    /// [`bounds::DERIVATION_SECONDS`](belljar_core::bounds::DERIVATION_SECONDS), by `Derived` when tree and
    /// record are durable, by `DerivationRefused`, or by `Failed`.
    Derive {
        /// How.
        recipe: Recipe,
    },
    /// How the store has confined itself. Answered by `Confinement`.
    Confinement {},
    /// How much room there is; answered by `Space`.
    Space {},
    /// Remove images of trees, by their names, at most [`belljar_core::bounds::DIGESTS_PER_FRAME`]. Those of an
    /// attempt that has its connection open stay. Answered by `Evicted`.
    Evict {
        /// Which.
        images: Vec<String>,
    },
    /// Remove objects that nobody needs, at most [`belljar_core::bounds::DIGESTS_PER_FRAME`]; answered by
    /// `Removed`. Whatever is asked, these stay: objects of trees of an attempt that has its connection open,
    /// and objects that were given, also once more, less than the store's grace ago.
    Remove {
        /// Which.
        objects: Vec<Digest>,
        /// Only what was last given before this, in seconds since 1970.
        before: u64,
    },
    /// Remove the logs of attempts, at most [`belljar_core::bounds::DIGESTS_PER_FRAME`]; those of an attempt that
    /// has its connection open stay. Answered by `Removed`.
    RemoveLogs {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// Read an object that turned out damaged when somebody read it, or that the disk did not give, and put it aside if
    /// that is so; answered by `Examined`. The store believes nobody that it is.
    Examine {
        /// Which.
        object: Digest,
    },
    /// Begin to read and hash all objects, unless that is under way; answered by `Scrub`.
    Scrub {},
    /// How the reading of all objects fares; answered by `Scrub`.
    Scrubbed {},
    /// Give the record of a derivation, if the store made it itself. Answered by `Derivation` and exactly
    /// `record.size` bytes of data frames, its canonical encoding ([`belljar_core::Derivation`]); by
    /// `Failed` with class `Missing` where the store has not made this record.
    Derivation {
        /// The record.
        record: ObjectId,
    },
    /// See that there is a mountable image of each of these trees, `images/<name>` below the store's root
    /// ([`StagedTree::image`]), and that every `Directory` message and blob of it was verified against its digest.
    Stage {
        /// The attempt, to which this connection belongs from now on.
        attempt: AttemptId,
        /// The trees, at most [`ATTEMPT_TREES`](belljar_core::bounds::ATTEMPT_TREES).
        trees: Vec<StagedTree>,
    },
    /// Read the build's log from the pipe whose reading end comes with this message, into
    /// `logs/<attempt>.log`, until its end or the limit. Past the limit the rest is discarded and
    /// `LogExceeded` sent, once.
    OpenLog {
        /// Most bytes to keep.
        limit_bytes: u64,
    },
    /// A step begins: where in the log is that? What is in the pipe by now was written before, what comes
    /// later after, whoever else writes meanwhile. The log's readers find the answer in
    /// `logs/<attempt>.steps` from then on, one [`StepMark`] a line, so before any byte that the step
    /// writes when it is let begin after the answer.
    MarkLog {
        /// Which step, from zero, one after the other. The first begins where the log does.
        step: u32,
    },
    /// Wait for the end of the pipe (no process has it open any more), make the log durable.
    FinishLog,
    /// Look whether images and objects of the staged trees are as they were.
    VerifyInputs,
    /// Outputs follow as [`Collected`] messages and data frames on this connection, from the collector,
    /// to which the spawner lends it. Answered, after `Collected::End` or at the first refusal, by one
    /// `Output` for each entry, `Image` if one was asked for, and then `CollectDone`; or by `OutputsRefused`.
    Collect {
        /// What was declared.
        outputs: Outputs,
        /// Most bytes in all.
        limit_bytes: u64,
        /// Most entries in all.
        limit_entries: u64,
        /// The image that becomes of them, if one shall.
        image: Option<Box<ImageOrder>>,
    },
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To `Put`: durable.
    Stored,
    /// To `PutMany`: all but the refused ones are durable.
    Kept {
        /// Those that are not in the store, in the order in which that was found.
        refused: Vec<RefusedBlob>,
        /// The others, as far as they were not named as objects are, in that order.
        named: Vec<NamedBlob>,
    },
    /// To `Receive`: send.
    Receiving {},
    /// To `Receive` and `Upload`, at the end: durable.
    Received {
        /// What came.
        object: ObjectId,
    },
    /// To `Upload` and `Uploaded`.
    Upload {
        /// Bytes that have come before.
        committed: u64,
        /// Whether content is now expected, from there on. It is not when another offset was asked for.
        open: bool,
    },
    /// To `Derive`, as often as it takes: may this object be read for it? The store goes on by [`Consent`].
    DerivationWants {
        /// Which.
        object: ObjectId,
    },
    /// To `Derive`: durable.
    Derived {
        /// The root `Directory`.
        tree: ObjectId,
        /// The record.
        derivation: ObjectId,
        /// Files, directories and links in the tree.
        entries: u64,
        /// Content bytes of all its files.
        bytes: u64,
        /// What was left out, and how often.
        dropped: BTreeMap<Dropped, u64>,
    },
    /// To `Derive`: nothing can be made of what was named.
    DerivationRefused {
        /// The sentence.
        why: String,
    },
    /// To `Derive`: an object that the recipe needs is not in the store, or was withheld.
    DerivationLacks {
        /// Which.
        object: ObjectId,
    },
    /// To `Derive`: too many trees are being made; a later try may succeed.
    DerivationsBusy {},
    /// To `Confinement`.
    Confinement {
        /// What was done, in order.
        steps: Vec<ConfinedStep>,
    },
    /// To `Space`.
    Space {
        /// Bytes of the file system.
        total: u64,
        /// Bytes that the store may still use.
        available: u64,
        /// Bytes of these that are kept for builds that run.
        reserve: u64,
        /// How long an object stays that was given, in seconds.
        grace: u64,
    },
    /// To `Evict`.
    Evicted {
        /// How many there were, and are no more.
        images: u64,
        /// Bytes that they took on disk.
        bytes: u64,
    },
    /// To `Remove` and `RemoveLogs`.
    Removed {
        /// How many there were, and are no more.
        removed: u64,
        /// Bytes that they took on disk.
        bytes: u64,
        /// How many stay, since somebody uses them or has just given them.
        kept: u64,
    },
    /// To `Examine`.
    Examined {
        /// Whether it is there, and whole.
        whole: bool,
    },
    /// To `Scrub` and `Scrubbed`.
    Scrub(Scrub),
    /// To `Derivation`: the content follows.
    Derivation {},
    /// To `Stage`.
    Staged {
        /// Entries of all trees together.
        entries: u64,
        /// Content bytes of all trees together.
        bytes: u64,
    },
    /// To `OpenLog`.
    LogOpen,
    /// To `MarkLog`.
    LogMarked(StepMark),
    /// Unasked: the build has written more than its limit.
    LogExceeded {
        /// What it had written by then, in bytes.
        written: u64,
    },
    /// To `FinishLog`: durable.
    LogFinished {
        /// What was kept.
        object: ObjectId,
        /// Whether more was written.
        truncated: bool,
    },
    /// To `VerifyInputs`.
    Inputs {
        /// Whether nothing of them was changed since they were staged.
        unchanged: bool,
    },
    /// To `Collect`: send.
    CollectReady,
    /// One collected entry; the object is durable.
    Output {
        /// The entry.
        entry: OutputEntry,
    },
    /// The image that became of the entries; all that it is made of is durable.
    Image(Box<ImageRecord>),
    /// All was told.
    CollectDone,
    /// The outputs cannot be taken.
    OutputsRefused {
        /// Why.
        why: Refusal,
    },
    /// The request failed.
    Failed {
        /// Whose doing it was.
        class: Failure,
        /// What happened, for people.
        why: String,
    },
}

impl Request {
    /// The `kind` of its serialised form.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::PutMany { .. } => "put_many",
            Self::Receive { .. } => "receive",
            Self::Upload { .. } => "upload",
            Self::Uploaded { .. } => "uploaded",
            Self::Derive { .. } => "derive",
            Self::Confinement {} => "confinement",
            Self::Space {} => "space",
            Self::Evict { .. } => "evict",
            Self::Remove { .. } => "remove",
            Self::RemoveLogs { .. } => "remove_logs",
            Self::Examine { .. } => "examine",
            Self::Scrub {} => "scrub",
            Self::Scrubbed {} => "scrubbed",
            Self::Derivation { .. } => "derivation",
            Self::Stage { .. } => "stage",
            Self::OpenLog { .. } => "open_log",
            Self::MarkLog { .. } => "mark_log",
            Self::FinishLog => "finish_log",
            Self::VerifyInputs => "verify_inputs",
            Self::Collect { .. } => "collect",
        }
    }
}

impl Answer {
    /// Why something was refused or failed, if this says so.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Failed { why, .. } | Self::DerivationRefused { why } => Some(why.clone()),
            Self::DerivationLacks { object } => Some(format!("{object} is not in the store")),
            Self::DerivationsBusy {} => Some("too many trees are being made".to_owned()),
            Self::OutputsRefused { why } => Some(format!("the outputs: {why:?}")),
            Self::Kept { refused, .. } if !refused.is_empty() => {
                Some(format!("{} of the blobs were not kept", refused.len()))
            }
            _ => None,
        }
    }
}

/// Where in a log a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMark {
    /// Which step, from zero.
    pub step: u32,
    /// How many bytes of the log come before it.
    pub offset: u64,
}

impl StepMark {
    /// Reads whole lines of a `logs/<attempt>.steps`, which may still grow; and tells how many bytes that
    /// were.
    ///
    /// # Errors
    /// When a line is not a mark.
    pub fn parse(lines: &[u8]) -> Result<(Vec<Self>, usize), Invalid> {
        let mut marks = Vec::new();
        let mut read = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let mark = serde_json::from_slice(line).map_err(|e| Invalid::new(e.to_string()))?;
            marks.push(mark);
            read += line.len() + 1;
        }
        Ok((marks, read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_line_by_line_and_half_a_line_later() {
        let text = b"{\"offset\":0,\"step\":0}\n{\"offset\":7,\"step\":1}\n{\"off";
        let (marks, read) = StepMark::parse(text).unwrap();
        assert_eq!(
            marks,
            [(0, 0), (1, 7)].map(|(step, offset)| StepMark { step, offset })
        );
        assert_eq!(&text[read..], b"{\"off");
        assert!(StepMark::parse(b"nonsense\n").is_err());
        assert_eq!(StepMark::parse(b"").unwrap(), (Vec::new(), 0));
    }
}
