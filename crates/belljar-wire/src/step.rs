use belljar_core::{Invalid, Timestamp};

use crate::numbers::{proto_time, required, signed, timestamp, unsigned};
use crate::v1;

/// One step that ran: the parsed form of `belljar.v1.Step`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// How it ended.
    pub ending: StepEnding,
    /// When it was let begin.
    pub started: Timestamp,
    /// Wall-clock time, in microseconds.
    pub wall_micros: u64,
    /// CPU time of all processes of the sandbox meanwhile, in microseconds.
    pub cpu_micros: u64,
    /// Where its part of the log begins.
    pub log_offset: u64,
    /// How long that part is, in bytes.
    pub log_bytes: u64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnding {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Signalled(u8),
    /// It was killed with its sandbox.
    Killed,
}

impl From<&StepReport> for v1::Step {
    fn from(step: &StepReport) -> Self {
        use v1::step::Ending;
        Self {
            ending: match step.ending {
                StepEnding::Exited(code) => Some(Ending::ExitCode(code.into())),
                StepEnding::Signalled(signal) => Some(Ending::Signal(signal.into())),
                StepEnding::Killed => None,
            },
            start_time: Some(proto_time(step.started)),
            wall_micros: signed(step.wall_micros),
            cpu_micros: signed(step.cpu_micros),
            log_offset: signed(step.log_offset),
            log_bytes: signed(step.log_bytes),
        }
    }
}

impl TryFrom<v1::Step> for StepReport {
    type Error = Invalid;

    fn try_from(step: v1::Step) -> Result<Self, Invalid> {
        use v1::step::Ending;
        Ok(Self {
            ending: match step.ending {
                Some(Ending::ExitCode(code)) => {
                    StepEnding::Exited(unsigned("exit_code", code.into())?)
                }
                Some(Ending::Signal(signal)) => {
                    StepEnding::Signalled(unsigned("signal", signal.into())?)
                }
                None => StepEnding::Killed,
            },
            started: timestamp(required("start_time", step.start_time)?)
                .map_err(|e| e.within("start_time"))?,
            wall_micros: unsigned("wall_micros", step.wall_micros)?,
            cpu_micros: unsigned("cpu_micros", step.cpu_micros)?,
            log_offset: unsigned("log_offset", step.log_offset)?,
            log_bytes: unsigned("log_bytes", step.log_bytes)?,
        })
    }
}
