use belljar_core::{Digest, ImageOutput, ObjectId, ProjectId, RelPath, Timestamp};
use serde::{Deserialize, Serialize};

use super::Request;
use crate::Plan;

/// A tree that an attempt needs, as something to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagedTree {
    /// The root `Directory`.
    pub tree: ObjectId,
    /// Modification time of every file, directory and link, in seconds since 1970.
    pub mtime: u64,
    /// The store's own record of what it made the tree from, if the specification names one: the store
    /// refuses what it has not made.
    pub derivation: Option<ObjectId>,
}

impl StagedTree {
    /// Which bytes a tree becomes. Another number wherever they would differ.
    pub const FORMAT: u32 = 1;

    /// The name of its image's file, which says everything that the bytes of the image depend on.
    pub fn image(&self) -> String {
        let (digest, size) = (self.tree.digest.to_hex(), self.tree.size);
        format!("{digest}-{size}-{}.v{}", self.mtime, Self::FORMAT)
    }
}

/// Whose an upload is: what is kept of uploads that broke off is bounded for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// For which project.
    pub project: ProjectId,
    /// Digest of the principal's name.
    pub principal: Digest,
}

/// How the reading of all objects, and of all images of trees, fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// Whether it is under way.
    pub running: bool,
    /// When it last began, if it has since the store started.
    pub started: Option<Timestamp>,
    /// When it last came to its end.
    pub finished: Option<Timestamp>,
    /// Objects and images that were read since it began.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Those that were damaged, or not given by the disk, and put aside.
    pub damaged: u64,
    /// Those that could not be read, and stay.
    pub unread: u64,
}

/// Why outputs were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// An entry, by name and reason.
    Entry {
        /// The sentence.
        why: String,
    },
    /// `limit_bytes` was reached.
    TooManyBytes {
        /// What had come by then.
        bytes: u64,
        /// The file with which it was.
        path: RelPath,
    },
    /// `limit_entries` was reached.
    TooManyEntries {
        /// What had come by then.
        entries: u64,
        /// The entry with which it was.
        path: RelPath,
    },
}

/// An image that the store shall make of what it collects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageOrder {
    /// What it shall be.
    pub output: ImageOutput,
    /// The time of everything in its layer, and of its creation, in seconds since 1970.
    pub epoch: u64,
}

impl Request {
    /// The collection of a plan's outputs, and of the image that becomes of them.
    pub fn collect(plan: &Plan) -> Self {
        let (figures, epoch) = (plan.limits.get(), plan.source_date_epoch);
        let image = plan.image_output.clone();
        Self::Collect {
            outputs: plan.outputs.clone(),
            limit_bytes: figures.output_bytes,
            limit_entries: figures.output_entries,
            image: image.map(|output| Box::new(ImageOrder { output, epoch })),
        }
    }
}

/// What the collector sends over the connection it was lent. The store trusts nothing in it: paths must
/// lie under declared outputs, totals under the limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Collected {
    /// A regular file; data frames follow, then `FileEnd`.
    File {
        /// Where, below the working directory.
        path: RelPath,
        /// Whether its owner may execute it.
        executable: bool,
        /// How many bytes it seems to have: a file that cannot be taken is refused before it is read. What is
        /// kept is counted all the same.
        size: u64,
    },
    /// The file that was begun is complete.
    FileEnd,
    /// A symbolic link inside a declared directory.
    Symlink {
        /// Where.
        path: RelPath,
        /// Its target.
        target: String,
    },
    /// A directory.
    Directory {
        /// Where.
        path: RelPath,
    },
    /// Something that cannot be taken; nothing follows.
    Refused {
        /// The sentence, with the name in it.
        why: String,
    },
    /// Everything was sent.
    End,
}

/// What the store is told to [`super::Answer::DerivationWants`]: archives and images name what they are made of by
/// digest, and whoever has heard of a digest can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Consent {
    /// Whoever wants the tree has the object.
    Given {},
    /// Not so. The object is not even looked for: what comes of the derivation says nothing about it.
    Withheld {},
}

/// One of many blobs that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedBlob {
    /// Which, counted from 0.
    pub index: usize,
    /// Whose doing it was.
    pub class: Failure,
}

/// One of many blobs that was kept, and not announced by the name that it has as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedBlob {
    /// Which, counted from 0.
    pub index: usize,
    /// That name.
    pub digest: Digest,
}

/// Whose doing a failure was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The content did not match its digest or size, or a tree was not well formed.
    Content,
    /// Something named is not in the store.
    Missing,
    /// The peer may not ask this, or not now.
    Refused,
    /// The disk is full.
    Full,
    /// Another connection is at it right now; passes.
    Busy,
    /// The store's own trouble; may pass.
    Internal,
}

/// What ends the content that follows [`Receive`](super::Request::Receive): that was all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Whole {
    /// Nothing is missing.
    Whole {},
}
