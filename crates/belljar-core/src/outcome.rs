use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RelPath;

/// How an attempt ended. The variants tell apart whose doing it was: the build's own, a limit's, the
/// person's who cancelled, or the infrastructure's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Every step ended with exit status zero and every declared output was collected.
    Succeeded,
    /// A step ended with another exit status.
    Failed {
        /// Which step, from zero.
        step: u32,
        /// Its exit status, 1 to 255.
        exit_code: u8,
    },
    /// A step was ended by a signal that no limit explains.
    Signalled {
        /// Which step, from zero.
        step: u32,
        /// Signal number, as in signal(7).
        signal: u8,
    },
    /// The wall-clock limit was reached. What still ran got SIGTERM, and was killed after the grace.
    TimedOut {
        /// The limit, in seconds.
        wall_seconds: u64,
    },
    /// Another limit was reached, and the build failed by it.
    LimitExceeded {
        /// Which one.
        limit: LimitKind,
        /// Its figure, in the unit of [`crate::LimitFigures`].
        figure: u64,
        /// What was seen used when it was reached, in the same unit.
        used: u64,
        /// The output with which it was, below the working directory: of `output_bytes` and `output_entries`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<RelPath>,
    },
    /// The steps succeeded, but what they left cannot be taken.
    OutputRejected {
        /// The output, and why.
        why: String,
    },
    /// Somebody asked for the end.
    Cancelled {
        /// The principal who asked, as belljard named it.
        by: String,
        /// Why, in that one's own words, if any were given. The spawner is not told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The attempt was refused before anything ran.
    Refused {
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
    /// Belljar or its host failed; the build may be blameless.
    Infrastructure {
        /// What was being done: `stage`, `launch`, `run`, `collect`, `attest` or `recover`.
        stage: String,
        /// What went wrong, with a hint where there is one.
        why: String,
        /// Whether another attempt may end otherwise.
        retryable: bool,
    },
}

/// A limit by which a build can fail, beside the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// `memory_bytes`: the kernel's out-of-memory killer ended a process of the step that failed.
    Memory,
    /// `log_bytes`: the build wrote more to its log.
    Log,
    /// `output_bytes`: the outputs are larger.
    OutputBytes,
    /// `output_entries`: the outputs have more entries.
    OutputEntries,
    /// `cpu_seconds`: the processes used more CPU time.
    Cpu,
    /// `pids`: the step that failed was refused a further process or thread.
    Pids,
    /// `scratch_bytes`: the scratch space was seen full during the step that failed.
    ScratchBytes,
    /// `scratch_inodes`: the scratch space was seen without a free inode during the step that failed.
    ScratchInodes,
    /// The build held more file locks than [`crate::bounds::FILE_LOCKS`]. This and the next are no fields of the
    /// specification.
    FileLocks,
    /// The build had more files open than [`crate::bounds::OPEN_FILES`], or than its part of half of all that the
    /// machine may have.
    OpenFiles,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Memory,
        Self::Log,
        Self::OutputBytes,
        Self::OutputEntries,
        Self::Cpu,
        Self::Pids,
        Self::ScratchBytes,
        Self::ScratchInodes,
        Self::FileLocks,
        Self::OpenFiles,
    ];

    /// The field of [`crate::LimitFigures`] that it is about, or its name where there is none.
    pub fn field(self) -> &'static str {
        match self {
            Self::Memory => "memory_bytes",
            Self::Log => "log_bytes",
            Self::OutputBytes => "output_bytes",
            Self::OutputEntries => "output_entries",
            Self::Cpu => "cpu_seconds",
            Self::Pids => "pids",
            Self::ScratchBytes => "scratch_bytes",
            Self::ScratchInodes => "scratch_inodes",
            Self::FileLocks => "file_locks",
            Self::OpenFiles => "open_files",
        }
    }
}

impl Outcome {
    /// Every [`Outcome::kind`].
    pub const KINDS: [&'static str; 9] = [
        "succeeded",
        "failed",
        "signalled",
        "timed_out",
        "limit_exceeded",
        "output_rejected",
        "cancelled",
        "refused",
        "infrastructure",
    ];

    /// Whether this is [`Outcome::Succeeded`], the only one that gets provenance.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded)
    }

    /// Whether a further attempt is due, as long as attempts are left.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Infrastructure {
                retryable: true,
                ..
            }
        )
    }

    /// A short stable word for machines: the `kind` of the serialised form.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Signalled { .. } => "signalled",
            Self::TimedOut { .. } => "timed_out",
            Self::LimitExceeded { .. } => "limit_exceeded",
            Self::OutputRejected { .. } => "output_rejected",
            Self::Cancelled { .. } => "cancelled",
            Self::Refused { .. } => "refused",
            Self::Infrastructure { .. } => "infrastructure",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { step, exit_code } => {
                write!(f, "step {} failed with exit status {exit_code}", step + 1)
            }
            Self::Signalled { step, signal } => {
                write!(f, "step {} was ended by signal {signal}", step + 1)
            }
            Self::TimedOut { wall_seconds } => write!(
                f,
                "timed out: the limit of {wall_seconds} s wall-clock time was reached"
            ),
            Self::LimitExceeded {
                limit,
                figure,
                used,
                output,
            } => {
                write!(
                    f,
                    "limit exceeded: the build used {} of {} {limit} ({})",
                    grouped(*used),
                    grouped(*figure),
                    limit.field()
                )?;
                match output {
                    Some(output) => write!(f, ", with the output `{output}`"),
                    None => Ok(()),
                }
            }
            Self::OutputRejected { why } => write!(f, "output rejected: {why}"),
            Self::Cancelled { by, reason: None } => write!(f, "cancelled by {by}"),
            Self::Cancelled {
                by,
                reason: Some(reason),
            } => write!(f, "cancelled by {by}: {reason}"),
            Self::Refused { reasons } => write!(f, "refused: {}", reasons.join("; ")),
            Self::Infrastructure { stage, why, .. } => {
                write!(f, "infrastructure failure during {stage}: {why}")
            }
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "bytes of memory",
            Self::Log => "bytes of log",
            Self::OutputBytes => "bytes of outputs",
            Self::OutputEntries => "entries of outputs",
            Self::Cpu => "seconds of CPU time",
            Self::Pids => "processes and threads at once",
            Self::ScratchBytes => "bytes of scratch space",
            Self::ScratchInodes => "files, directories and links in scratch space",
            Self::FileLocks => "file locks at once",
            Self::OpenFiles => "open files at once",
        })
    }
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl Outcome {
    /// An infrastructure failure that another attempt may mend.
    pub fn retryable(stage: &str, why: impl fmt::Display) -> Self {
        Self::Infrastructure {
            stage: stage.to_owned(),
            why: why.to_string(),
            retryable: true,
        }
    }

    /// An infrastructure failure that another attempt would only repeat.
    pub fn permanent(stage: &str, why: impl fmt::Display) -> Self {
        Self::Infrastructure {
            stage: stage.to_owned(),
            why: why.to_string(),
            retryable: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn a_limit_is_told_with_both_figures_and_its_field() {
        let outcome = Outcome::LimitExceeded {
            limit: LimitKind::Pids,
            figure: 1024,
            used: 1024,
            output: None,
        };
        assert_eq!(
            outcome.to_string(),
            "limit exceeded: the build used 1 024 of 1 024 processes and threads at once (pids)"
        );
        let named = Outcome::LimitExceeded {
            limit: LimitKind::OutputEntries,
            figure: 3,
            used: 4,
            output: Some(RelPath::new("d/f").unwrap()),
        };
        assert_eq!(
            named.to_string(),
            "limit exceeded: the build used 4 of 3 entries of outputs (output_entries), with the output `d/f`"
        );
        // Those of before, and those of other limits, have none.
        let [old, new] = [&outcome, &named].map(|outcome| serde_json::to_string(outcome).unwrap());
        assert!(!old.contains("output"), "{old}");
        for (text, outcome) in [(old, outcome), (new, named)] {
            assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        }
        let groups = [0, 999, 1000, 12_345_678].map(grouped);
        assert_eq!(groups, ["0", "999", "1 000", "12 345 678"]);
    }

    #[test]
    fn every_limit_is_one_of_the_specification() {
        let fields = Limits::DEFAULT.get().named().map(|(name, _)| name);
        for kind in LimitKind::ALL {
            let fixed = matches!(kind, LimitKind::FileLocks | LimitKind::OpenFiles);
            assert_eq!(fields.contains(&kind.field()), !fixed, "{kind:?}");
        }
        // Those that end no build by an outcome of this kind.
        let others = ["wall_seconds", "cpu_millis", "grace_seconds"];
        assert_eq!(fields.len() + 2, LimitKind::ALL.len() + others.len());
    }
}
