//! What an attempt has used, and how it ended by that.
//!
//! A limit is the outcome only where the build failed, and the kernel said during the step that failed that
//! the limit was met: a build that copes with a refused fork or a full disk succeeds, and the receipt has
//! the figures. CPU time is different: more than the limit is never a success.

use std::io;

use belljar_core::{LimitKind, Outcome};
use belljar_plan::spawner::Message;
use belljar_plan::{StepRecord, Usage};
use belljar_sys::{Errno, files};

use super::running::unreadable;
use super::{Attempt, HELD_LOOK, LOOK, Phase, in_time};

/// Microseconds in a second.
const SECOND: u64 = 1_000_000;
/// Free scratch space, in bytes, that counts as none: less than a page cannot be written to.
const PAGE: u64 = 4096;

impl Attempt {
    /// The time for a look at what it uses has come.
    pub(super) fn on_look(&mut self, out: &mut Vec<Message>) {
        if !matches!(self.phase, Phase::Running | Phase::Stopping) {
            return;
        }
        self.look = in_time(LOOK);
        let looked = self
            .look_at_usage()
            .and_then(|()| Ok(self.beyond_cpu_time().or(self.beyond_sockets()?)));
        match looked {
            Ok(Some(beyond)) => self.kill(beyond, out),
            Ok(None) => {}
            Err(error) => self.kill(unreadable(&error), out),
        }
    }

    /// The time for a look at its file locks and open files has come.
    pub(super) fn on_held_look(&mut self, out: &mut Vec<Message>) {
        let (Phase::Running | Phase::Stopping, Some(launched)) = (&self.phase, &self.launched)
        else {
            return;
        };
        let looked = self.held.look(&launched.group);
        self.held_look = in_time(HELD_LOOK);
        match looked {
            Ok(None) => {}
            Ok(Some(beyond)) => {
                let beyond = Outcome::LimitExceeded {
                    limit: beyond.limit,
                    figure: beyond.figure,
                    used: beyond.used,
                    output: None,
                };
                self.kill(beyond, out);
            }
            Err(error) => {
                let why = format!("file locks and open files cannot be counted: {error}");
                self.kill(Outcome::retryable("run", why), out);
            }
        }
    }

    /// Takes in what the kernel has counted by now.
    pub(super) fn look_at_usage(&mut self) -> io::Result<()> {
        let Some(launched) = &self.launched else {
            return Ok(());
        };
        let space = files::space(&self.places.scratch_space())?;
        self.usage = Usage {
            wall_micros: self.usage.wall_micros,
            scratch_bytes_peak: self.usage.scratch_bytes_peak.max(space.bytes_used),
            scratch_inodes_peak: self.usage.scratch_inodes_peak.max(space.inodes_used),
            ..launched.group.usage()?
        };
        if space.bytes_free < PAGE {
            self.step
                .scratch_full
                .get_or_insert(LimitKind::ScratchBytes);
        } else if space.inodes_free == 0 {
            self.step
                .scratch_full
                .get_or_insert(LimitKind::ScratchInodes);
        }
        Ok(())
    }

    /// How it ended, from what was seen. Only to be asked when its cgroup is empty.
    pub(super) fn judge(&self) -> Outcome {
        if let Some(cause) = &self.cause {
            return cause.clone();
        }
        if let Some(beyond) = self.beyond_cpu_time() {
            return beyond;
        }
        let step = u32::try_from(self.steps.len().saturating_sub(1)).unwrap_or(u32::MAX);
        match self.steps.last() {
            Some(StepRecord {
                exit_code: Some(0), ..
            }) if self.steps_done && self.steps.len() == self.plan.run.iter().len() => {
                return Outcome::Succeeded;
            }
            _ => {}
        }
        if let Some(met) = self.met_limit() {
            return met;
        }
        match self.steps.last() {
            Some(StepRecord {
                exit_code: Some(exit_code),
                ..
            }) if *exit_code != 0 => Outcome::Failed {
                step,
                exit_code: *exit_code,
            },
            Some(StepRecord {
                signal: Some(signal),
                ..
            }) => Outcome::Signalled {
                step,
                signal: *signal,
            },
            _ => Outcome::retryable("run", "the sandbox's init ended before the steps did"),
        }
    }

    fn beyond_cpu_time(&self) -> Option<Outcome> {
        let figure = self.plan.limits.get().cpu_seconds;
        let used = self.usage.cpu_micros;
        (used > figure.saturating_mul(SECOND)).then(|| Outcome::LimitExceeded {
            limit: LimitKind::Cpu,
            figure,
            used: used.div_ceil(SECOND),
            output: None,
        })
    }

    /// Sockets hold memory that the cgroup does not count: they may hold as much as all the rest.
    fn beyond_sockets(&self) -> io::Result<Option<Outcome>> {
        let sockets = self.launched.as_ref().and_then(|it| it.sockets.as_ref());
        let Some(sockets) = sockets else {
            return Ok(None);
        };
        let figure = self.plan.limits.get().memory_bytes;
        let used = sockets.held()?;
        Ok((used > figure).then_some(Outcome::LimitExceeded {
            limit: LimitKind::Memory,
            figure,
            used,
            output: None,
        }))
    }

    /// The limit that the step that failed has met, if it has met one.
    fn met_limit(&self) -> Option<Outcome> {
        let (figures, used, before) = (self.plan.limits.get(), &self.usage, &self.step.before);
        let (limit, figure, used) = if used.oom_kills > before.oom_kills {
            (
                LimitKind::Memory,
                figures.memory_bytes,
                used.memory_peak_bytes,
            )
        } else if used.pids_refused > before.pids_refused {
            // Refused is only who would have been one too many.
            (LimitKind::Pids, figures.pids, figures.pids)
        } else {
            match self.step.scratch_full? {
                LimitKind::ScratchInodes => (
                    LimitKind::ScratchInodes,
                    figures.scratch_inodes,
                    used.scratch_inodes_peak,
                ),
                full => (full, figures.scratch_bytes, used.scratch_bytes_peak),
            }
        };
        Some(Outcome::LimitExceeded {
            limit,
            figure,
            used,
            output: None,
        })
    }

    /// How it ends when init could not start a step.
    pub(super) fn start_failed(&mut self, errno: i32) -> Outcome {
        // It has not begun.
        self.step.begun = None;
        let looked = self.look_at_usage();
        let full = [Errno::AGAIN, Errno::NOMEM].map(Errno::raw_os_error);
        let refused = full.contains(&errno) && looked.is_ok();
        match self.met_limit() {
            // Processes of earlier steps have left no room.
            Some(met) if refused => met,
            _ => Outcome::permanent(
                "launch",
                format!(
                    "/bin/sh cannot be started: {}",
                    io::Error::from_raw_os_error(errno)
                ),
            ),
        }
    }

    /// How it ends when it wrote too much to its log.
    pub(super) fn log_exceeded(&self) -> Outcome {
        let figure = self.plan.limits.get().log_bytes;
        Outcome::LimitExceeded {
            limit: LimitKind::Log,
            figure,
            used: self.log_written.unwrap_or(figure),
            output: None,
        }
    }
}
