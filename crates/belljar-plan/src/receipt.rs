use belljar_core::{
    AttemptId, CanonicalError, Derivation, Digest, Image, Inputs, Invalid, ObjectId, Outcome,
    RelPath, Sha512Digest, Timestamp, bounds, canonical_json,
};
use serde::{Deserialize, Serialize};

use crate::{EnforcementReport, ImageRecord, Link, Plan, Shortfall};

/// What the spawner saw of one attempt, written once by root into a directory that belljard and the
/// signer can only read. Receipts form a chain: each has a sequence number and names the one before
/// (see [`crate::Link`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Position in the spawner's chain, from 1.
    pub sequence: u64,
    /// Digest of the receipt before; none for the first.
    pub previous: Option<Digest>,
    /// The attempt that the receipt before is about: where it is found. None for the first.
    pub previous_attempt: Option<AttemptId>,
    /// 32 hexadecimal digits drawn when the spawner started.
    pub run_nonce: String,
    /// The kernel's boot id (random(4), `/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The attempt that this is about.
    pub attempt: AttemptId,
    /// Digest of the canonical specification, as belljard named it; the signer recomputes it.
    pub spec: Digest,
    /// Digest of the plan that ran, as the spawner computed it.
    pub plan: Digest,
    /// Programs and configuration that enforced it.
    pub binaries: Binaries,
    /// The root file system.
    pub rootfs: RootFsRecord,
    /// By which rule of the spawner's configuration it was admitted. None in receipts of before there was one,
    /// when any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_rule: Option<ImageRule>,
    /// The source tree.
    pub input: InputRecord,
    /// The further trees that were mounted, by name.
    pub inputs: Inputs,
    /// The store's own records of how it made trees that the build saw, each once, sorted by their digests.
    pub derivations: Vec<Derivation>,
    /// What was read back at the barrier; none if the attempt ended before.
    pub enforcement: Option<EnforcementReport>,
    /// What was tried from inside, and had to fail; empty if the attempt ended before.
    pub self_probes: Vec<SelfProbe>,
    /// The steps that ran.
    pub steps: Vec<StepRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// Its log; none if the attempt ended before one was opened.
    pub log: Option<LogRecord>,
    /// What was collected; empty unless the outcome is a success.
    pub outputs: Vec<OutputEntry>,
    /// The image that the store made of that, if the plan has one; none unless the outcome is a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_output: Option<ImageRecord>,
    /// What was looked for after the teardown, and not found.
    pub clean_room: CleanRoom,
    /// When the spawner accepted the attempt.
    pub started: Timestamp,
    /// When everything of it was gone.
    pub finished: Timestamp,
}

/// Programs and configuration that enforced a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binaries {
    /// Digest of the spawner's executable (init is the same program).
    pub spawner: Digest,
    /// Digest of the spawner's configuration file.
    pub spawner_config: Digest,
    /// Version of the spawner.
    pub version: String,
    /// Kernel release (uname(2)).
    pub kernel: String,
}

/// The root file system that a build saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RootFsRecord {
    /// Read-only paths of the host: never hermetic.
    Host {
        /// The listed paths that exist, sorted.
        paths: Vec<String>,
    },
    /// A tree, read-only, and the sandbox's own files and directories over it.
    Tree {
        /// The tree as the store verified it.
        tree: ObjectId,
        /// The store's own record of what it made the tree from, if the specification names one.
        derivation: Option<ObjectId>,
    },
}

/// By which rule of its own configuration the spawner admitted a root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRule {
    /// It stands on the operator's list.
    Listed,
    /// There is no list: belljard alone has chosen it.
    Any,
}

/// The source tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// The tree as the store verified it, message by message and blob by blob.
    pub tree: ObjectId,
    /// Whether this tree, and every other that the build saw, was the same after it: the images that were
    /// mounted, and the objects that these name, by their stamps (SECURITY.md says what that proves). None if
    /// the attempt ended before.
    pub unchanged: Option<bool>,
}

/// Something forbidden that was tried from inside before the build began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfProbe {
    /// What was tried, such as `mount`.
    pub name: String,
    /// Whether it was refused, as it must be.
    pub refused: bool,
    /// The error number it was refused with (errno(3)); 0 if it was not.
    pub errno: i32,
}

/// One step that ran. One that was killed with its sandbox has neither exit status nor signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// Exit status, if it exited.
    pub exit_code: Option<u8>,
    /// Signal number, if one ended it.
    pub signal: Option<u8>,
    /// When the spawner let it begin.
    pub started: Timestamp,
    /// Wall-clock time in microseconds.
    pub wall_micros: u64,
    /// CPU time of all processes of the sandbox meanwhile, in microseconds.
    pub cpu_micros: u64,
    /// Where its part of the log begins: what had been written, as the store counted, when it was let
    /// begin. Processes that earlier steps have left running may have written into it too.
    pub log_offset: u64,
    /// How long that part is. The last one goes to the end of the log.
    pub log_bytes: u64,
}

/// What an attempt used, as its cgroup counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time of all processes, in microseconds.
    pub cpu_micros: u64,
    /// Highest memory charge, in bytes.
    pub memory_peak_bytes: u64,
    /// Processes that the out-of-memory killer ended.
    pub oom_kills: u64,
    /// Wall-clock time of all steps, in microseconds.
    pub wall_micros: u64,
    /// Most processes and threads at once; 0 where the kernel does not tell.
    pub pids_peak: u64,
    /// How often a further process or thread was refused.
    pub pids_refused: u64,
    /// Most bytes of scratch space that were seen used: at the end of each step, and every half second.
    pub scratch_bytes_peak: u64,
    /// Most inodes of scratch space that were seen used, likewise.
    pub scratch_inodes_peak: u64,
}

/// The log of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRecord {
    /// What the store kept of it.
    pub object: ObjectId,
    /// Whether the build wrote more than its limit, so that the end is missing.
    pub truncated: bool,
}

/// One thing that was collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEntry {
    /// Where, below the working directory.
    pub path: RelPath,
    /// What. Unknown fields are refused there: here, serde would take the flattened ones for unknown.
    #[serde(flatten)]
    pub kind: OutputKind,
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OutputKind {
    /// A regular file.
    File {
        /// Its content.
        object: ObjectId,
        /// Its content's second digest.
        sha512: Sha512Digest,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link that stays inside the declared directory it was found in.
    Symlink {
        /// Its target, relative.
        target: String,
    },
    /// A directory.
    Directory,
}

/// What was looked for after the teardown. Each is true when nothing was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanRoom {
    /// The cgroup was seen empty and could be removed: no process is left.
    pub no_process: bool,
    /// No TCP connection is left in its network namespace: one may outlive the processes of both its ends, with what it
    /// still has to send.
    pub no_connection: bool,
    /// No mount of the attempt is left in the spawner's mount namespace.
    pub no_mount: bool,
    /// The scratch space and the directories of its mounts are gone.
    pub no_file: bool,
}

impl RootFsRecord {
    /// Whether it is what a plan asks for.
    fn is(&self, image: &Image) -> bool {
        match (self, image) {
            (Self::Host { .. }, Image::Host) => true,
            (Self::Tree { tree, derivation }, Image::Tree(due)) => {
                (*tree, *derivation) == (due.tree, due.derivation)
            }
            (Self::Host { .. }, Image::Tree(_)) | (Self::Tree { .. }, Image::Host) => false,
        }
    }
}

impl CleanRoom {
    /// Whether nothing at all was found.
    pub fn is_clean(self) -> bool {
        self.no_process && self.no_connection && self.no_mount && self.no_file
    }
}

impl Receipt {
    /// Fewest self-probes of a fully enforced attempt.
    pub const SELF_PROBES: usize = 5;

    /// The canonical encoding (RFC 8785): the bytes of the file, and what the next receipt names.
    ///
    /// # Errors
    /// Never for a value that was read or built through these types.
    pub fn canonical(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical_json(self)
    }

    /// Reads a receipt file.
    ///
    /// # Errors
    /// When `bytes` are too many, not a receipt, or not its canonical encoding.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Invalid> {
        if bytes.len() > bounds::RECEIPT_BYTES {
            return Err(Invalid::new("the receipt is too large"));
        }
        let receipt: Self =
            serde_json::from_slice(bytes).map_err(|e| Invalid::new(e.to_string()))?;
        let again = receipt
            .canonical()
            .map_err(|e| Invalid::new(e.to_string()))?;
        if again != bytes {
            return Err(Invalid::new(
                "the receipt is not in its canonical form (RFC 8785)",
            ));
        }
        Ok(receipt)
    }

    /// Its place in the chain.
    pub fn link(&self) -> Link {
        Link {
            sequence: self.sequence,
            previous: self.previous,
            previous_attempt: self.previous_attempt.clone(),
            attempt: self.attempt.clone(),
        }
    }

    /// The digests of all that the attempt left, see [`Receipt::output_objects`].
    pub fn artifacts(&self) -> Vec<Digest> {
        self.output_objects().iter().map(|o| o.digest).collect()
    }

    /// All objects that the attempt left: regular files among the outputs, and all that the image is made of that became of
    /// them.
    pub fn output_objects(&self) -> Vec<ObjectId> {
        let files = self.outputs.iter().filter_map(|entry| match &entry.kind {
            OutputKind::File { object, .. } => Some(*object),
            OutputKind::Symlink { .. } | OutputKind::Directory => None,
        });
        let image = self.image_output.iter().flat_map(ImageRecord::objects);
        files.chain(image).collect()
    }

    /// Everything that keeps this attempt from counting as a fully enforced run of `plan`. Empty means
    /// that it may be attested.
    pub fn fully_enforced(&self, plan: &Plan) -> Vec<Shortfall> {
        let mut found = match &self.enforcement {
            Some(report) => report.shortfalls(plan),
            None => vec![Shortfall {
                layer: "read-back",
                found: "nothing was read back".to_owned(),
            }],
        };
        let mut expect = |layer, holds: bool, text: &str| {
            if !holds {
                found.push(Shortfall {
                    layer,
                    found: text.to_owned(),
                });
            }
        };
        expect(
            "plan",
            plan.digest().as_ref() == Ok(&self.plan),
            "another plan ran",
        );
        let probed = self.self_probes.len() >= Self::SELF_PROBES
            && self.self_probes.iter().all(|probe| probe.refused);
        expect(
            "self-probes",
            probed,
            "something forbidden was possible, or too little was tried",
        );
        expect(
            "input",
            self.input.tree == plan.source,
            "another source tree was staged",
        );
        expect(
            "root file system",
            self.rootfs.is(&plan.image),
            "another root file system was mounted",
        );
        expect(
            "input",
            self.inputs == plan.inputs,
            "other inputs were mounted",
        );
        expect(
            "input",
            self.input.unchanged == Some(true),
            "the staged trees were not seen unchanged afterwards",
        );
        expect(
            "clean room",
            self.clean_room.is_clean(),
            "something was left after the teardown",
        );
        expect("log", self.log.is_some(), "there is no log");
        let imaged = self.image_output.is_some() == plan.image_output.is_some();
        expect("image", imaged, "one was made unasked, or none was");
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_entries_are_read_back_and_nothing_else_is() {
        let (object, sha512) = (ObjectId::of(b""), Sha512Digest::of(b""));
        for kind in [
            OutputKind::File {
                object,
                sha512,
                executable: true,
            },
            OutputKind::Symlink {
                target: "a".to_owned(),
            },
            OutputKind::Directory,
        ] {
            let path = RelPath::new("b").unwrap();
            let entry = OutputEntry { path, kind };
            let text = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<OutputEntry>(&text).unwrap(), entry);
            let extra = text.replacen('{', r#"{"extra":1,"#, 1);
            // Known: serde does not look at what comes with a variant that has no fields. A receipt with such
            // a field is refused all the same, since it is not its own canonical form.
            let lenient = entry.kind == OutputKind::Directory;
            assert_eq!(
                serde_json::from_str::<OutputEntry>(&extra).is_ok(),
                lenient,
                "{extra}"
            );
        }
    }
}
