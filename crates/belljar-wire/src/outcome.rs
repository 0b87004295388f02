use belljar_core::{Invalid, LimitKind, Outcome, RelPath};

use crate::numbers::{required, signed, small, unsigned};
use crate::v1;
use crate::v1::outcome::limit_exceeded::Limit;
use crate::v1::outcome::{self as wire, Kind};

impl From<&Outcome> for v1::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome {
            Outcome::Succeeded => Kind::Succeeded(wire::Succeeded {}),
            Outcome::Failed { step, exit_code } => Kind::Failed(wire::Failed {
                step: small(*step),
                exit_code: i32::from(*exit_code),
            }),
            Outcome::Signalled { step, signal } => Kind::Signalled(wire::Signalled {
                step: small(*step),
                signal: i32::from(*signal),
            }),
            Outcome::TimedOut { wall_seconds } => Kind::TimedOut(wire::TimedOut {
                wall_seconds: signed(*wall_seconds),
            }),
            Outcome::LimitExceeded {
                limit,
                figure,
                used,
                output,
            } => Kind::LimitExceeded(wire::LimitExceeded {
                limit: proto_limit(*limit).into(),
                figure: signed(*figure),
                used: signed(*used),
                output: output
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
            }),
            Outcome::OutputRejected { why } => {
                Kind::OutputRejected(wire::OutputRejected { why: why.clone() })
            }
            Outcome::Cancelled { by, reason } => Kind::Cancelled(wire::Cancelled {
                by: by.clone(),
                reason: reason.clone().unwrap_or_default(),
            }),
            Outcome::Refused { reasons } => Kind::Refused(wire::Refused {
                reasons: reasons.clone(),
            }),
            Outcome::Infrastructure {
                stage,
                why,
                retryable,
            } => Kind::Infrastructure(wire::Infrastructure {
                stage: stage.clone(),
                why: why.clone(),
                retryable: *retryable,
            }),
        };
        Self {
            kind: Some(kind),
            text: outcome.to_string(),
        }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = Invalid;

    fn try_from(outcome: v1::Outcome) -> Result<Self, Invalid> {
        Ok(match required("kind", outcome.kind)? {
            Kind::Succeeded(wire::Succeeded {}) => Self::Succeeded,
            Kind::Failed(failed) => Self::Failed {
                step: unsigned("failed.step", failed.step.into())?,
                exit_code: unsigned("failed.exit_code", failed.exit_code.into())?,
            },
            Kind::Signalled(signalled) => Self::Signalled {
                step: unsigned("signalled.step", signalled.step.into())?,
                signal: unsigned("signalled.signal", signalled.signal.into())?,
            },
            Kind::TimedOut(timed_out) => Self::TimedOut {
                wall_seconds: unsigned("timed_out.wall_seconds", timed_out.wall_seconds)?,
            },
            Kind::LimitExceeded(exceeded) => Self::LimitExceeded {
                limit: limit(exceeded.limit)?,
                figure: unsigned("limit_exceeded.figure", exceeded.figure)?,
                used: unsigned("limit_exceeded.used", exceeded.used)?,
                output: output(exceeded.output)?,
            },
            Kind::OutputRejected(wire::OutputRejected { why }) => Self::OutputRejected { why },
            Kind::Cancelled(wire::Cancelled { by, reason }) => Self::Cancelled {
                by,
                reason: Some(reason).filter(|reason| !reason.is_empty()),
            },
            Kind::Refused(wire::Refused { reasons }) => Self::Refused { reasons },
            Kind::Infrastructure(wire::Infrastructure {
                stage,
                why,
                retryable,
            }) => Self::Infrastructure {
                stage,
                why,
                retryable,
            },
        })
    }
}

fn output(path: String) -> Result<Option<RelPath>, Invalid> {
    match path.is_empty() {
        true => Ok(None),
        false => RelPath::new(path)
            .map(Some)
            .map_err(|e| Invalid::field("limit_exceeded.output", e.reason)),
    }
}

fn proto_limit(limit: LimitKind) -> Limit {
    match limit {
        LimitKind::Memory => Limit::MemoryBytes,
        LimitKind::Log => Limit::LogBytes,
        LimitKind::OutputBytes => Limit::OutputBytes,
        LimitKind::OutputEntries => Limit::OutputEntries,
        LimitKind::Cpu => Limit::CpuSeconds,
        LimitKind::Pids => Limit::Pids,
        LimitKind::ScratchBytes => Limit::ScratchBytes,
        LimitKind::ScratchInodes => Limit::ScratchInodes,
        LimitKind::FileLocks => Limit::FileLocks,
        LimitKind::OpenFiles => Limit::OpenFiles,
    }
}

fn limit(value: i32) -> Result<LimitKind, Invalid> {
    match Limit::try_from(value) {
        Ok(Limit::MemoryBytes) => Ok(LimitKind::Memory),
        Ok(Limit::LogBytes) => Ok(LimitKind::Log),
        Ok(Limit::OutputBytes) => Ok(LimitKind::OutputBytes),
        Ok(Limit::OutputEntries) => Ok(LimitKind::OutputEntries),
        Ok(Limit::CpuSeconds) => Ok(LimitKind::Cpu),
        Ok(Limit::Pids) => Ok(LimitKind::Pids),
        Ok(Limit::ScratchBytes) => Ok(LimitKind::ScratchBytes),
        Ok(Limit::ScratchInodes) => Ok(LimitKind::ScratchInodes),
        Ok(Limit::FileLocks) => Ok(LimitKind::FileLocks),
        Ok(Limit::OpenFiles) => Ok(LimitKind::OpenFiles),
        Ok(Limit::Unspecified) | Err(_) => Err(Invalid::field(
            "limit_exceeded.limit",
            format!("{value} is not a known limit"),
        )),
    }
}
