//! What init tells of the steps, and where in the log they stand.

use std::io;
use std::time::{Duration, Instant};

use belljar_core::{Outcome, Timestamp};
use belljar_plan::StepRecord;
use belljar_plan::spawner::{Answer, Message};
use belljar_plan::store::{Request, StepMark};
use belljar_sys::Errno;

use super::running::unreadable;
use super::{Attempt, HELD_LOOK, LOOK, Phase, in_time, now};
use crate::containment::Launched;
use crate::init::EXPLANATION_BYTES;
use crate::record::Record;

impl Attempt {
    /// Init has something to say, or is gone.
    pub fn on_init(&mut self, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        if !matches!(
            self.phase,
            Phase::Launching | Phase::Running | Phase::Stopping
        ) {
            return;
        }
        match Record::receive(&launched.socket) {
            Ok(Some(record)) => self.on_record(record, out),
            // Its end is told by its pidfd too, but not always first.
            Ok(None) => self.put_down(out),
            Err(error) => self.kill(Outcome::retryable("run", format!("init: {error}")), out),
        }
    }

    fn on_record(&mut self, record: Record, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        match record {
            Record::Probed { attempt, errno } => launched.note_probe(attempt, errno),
            Record::StepFailed { step, errno } => {
                let why = failed_step(launched, step, errno);
                self.kill(Outcome::permanent("launch", why), out);
            }
            Record::NoDirectory { errno } => self.kill(self.no_directory(errno), out),
            Record::AtBarrier => self.pass_barrier(out),
            Record::StepEnded {
                signalled,
                code,
                micros,
            } => self.on_step_ended(signalled, code, micros, out),
            Record::StartFailed { errno } => {
                let cause = self.start_failed(errno);
                self.kill(cause, out);
            }
            Record::Done => {
                self.steps_done = true;
                self.put_down(out);
            }
            Record::Placed | Record::Go | Record::Next | Record::Terminate => {
                self.kill(
                    Outcome::retryable("run", "init sent what only the spawner sends"),
                    out,
                );
            }
        }
    }

    fn pass_barrier(&mut self, out: &mut Vec<Message>) {
        let Some(launched) = &mut self.launched else {
            return;
        };
        match launched.pass_barrier() {
            Ok(()) => {
                self.phase = Phase::Running;
                self.deadline = in_time(Duration::from_secs(self.plan.limits.get().wall_seconds));
                self.look = in_time(LOOK);
                self.held_look = in_time(HELD_LOOK);
                self.step.begun = Some((now(), Instant::now()));
                self.announced = true;
                self.answer(Answer::Launched, out);
                // The first step begins where the log does: nobody has to wait for that.
                self.ask_for_mark(0, out);
            }
            Err(error) => self.kill(Outcome::permanent("launch", error), out),
        }
    }

    fn ask_for_mark(&mut self, step: u32, out: &mut Vec<Message>) {
        if let Err(error) = self.store.ask(&Request::MarkLog { step }) {
            self.kill(
                Outcome::retryable("run", format!("the store: {error}")),
                out,
            );
        }
    }

    /// A step has ended. The next one has to wait until the store has told where in the log it begins.
    fn on_step_ended(&mut self, signalled: bool, code: u8, micros: u64, out: &mut Vec<Message>) {
        self.usage.wall_micros += micros;
        let started = self
            .step
            .begun
            .take()
            .map_or_else(now, |(started, _)| started);
        let looked = self.look_at_usage();
        let (exit_code, signal) = match signalled {
            true => (None, Some(code)),
            false => (Some(code), None),
        };
        self.push_step(exit_code, signal, started, micros);
        if let Err(error) = looked {
            return self.kill(unreadable(&error), out);
        }
        let next = self.steps.len();
        let last = signalled || code != 0 || next == self.plan.run.iter().len();
        if last || !matches!(self.phase, Phase::Running) {
            return;
        }
        self.step.before = self.usage.clone();
        self.step.scratch_full = None;
        self.ask_for_mark(u32::try_from(next).unwrap_or(u32::MAX), out);
    }

    /// The store has told where in the log a step begins.
    pub(super) fn on_mark(&mut self, mark: StepMark, out: &mut Vec<Message>) {
        if usize::try_from(mark.step) != Ok(self.step.marks.len()) {
            let why = format!("the store marked step {} out of turn", mark.step);
            return self.kill(Outcome::retryable("run", why), out);
        }
        self.step.marks.push(mark.offset);
        let (Phase::Running, Some(launched)) = (&self.phase, &self.launched) else {
            return;
        };
        if mark.step > 0 {
            self.step.begun = Some((now(), Instant::now()));
            if Record::Next.send(&launched.socket).is_err() {
                self.put_down(out);
            }
        }
    }

    /// A step that was killed with the sandbox has not told its end: it is noted without one.
    pub(super) fn note_interrupted_step(&mut self) {
        let Some((started, begun)) = self.step.begun.take() else {
            return;
        };
        let wall_micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.usage.wall_micros += wall_micros;
        self.push_step(None, None, started, wall_micros);
    }

    fn push_step(
        &mut self,
        exit_code: Option<u8>,
        signal: Option<u8>,
        started: Timestamp,
        wall_micros: u64,
    ) {
        let (before, used) = (self.step.before.cpu_micros, self.usage.cpu_micros);
        self.steps.push(StepRecord {
            exit_code,
            signal,
            started,
            wall_micros,
            cpu_micros: used.saturating_sub(before),
            // Told by the store; see `steps_with_log`.
            log_offset: 0,
            log_bytes: 0,
        });
    }

    /// The steps, with their parts of the log.
    pub(super) fn steps_with_log(&self) -> Vec<StepRecord> {
        let size = self.log.as_ref().map_or(0, |log| log.object.size);
        let begins = |index: usize| {
            self.step
                .marks
                .get(index)
                .map_or(size, |offset| *offset.min(&size))
        };
        let steps = self.steps.iter().enumerate();
        steps
            .map(|(index, step)| StepRecord {
                log_offset: begins(index),
                log_bytes: begins(index + 1).saturating_sub(begins(index)),
                ..step.clone()
            })
            .collect()
    }

    /// Why the working directory cannot be one. Nothing has run.
    fn no_directory(&self, errno: i32) -> Outcome {
        let named = self.plan.working_directory.as_ref();
        let path = named.map_or(".", |path| path.as_str()).escape_debug();
        let why = match Errno::from_raw_os_error(errno) {
            Errno::NOENT => "does not exist in the source tree".to_owned(),
            Errno::NOTDIR => "is not a directory".to_owned(),
            Errno::LOOP => "leads through a symbolic link; name the directory itself".to_owned(),
            Errno::XDEV => "leaves the source tree".to_owned(),
            _ => format!("cannot be opened: {}", io::Error::from_raw_os_error(errno)),
        };
        Outcome::Refused {
            reasons: vec![format!("working_directory: `{path}` {why}")],
        }
    }
}

/// What init says about a step that failed: the name from the list, and its own words.
fn failed_step(launched: &Launched, step: u32, errno: i32) -> String {
    let mut explanation = [0; EXPLANATION_BYTES];
    let text = match launched.socket.receive(&mut explanation) {
        Ok(Some(received)) => String::from_utf8_lossy(&explanation[..received.length]).into_owned(),
        _ => io::Error::from_raw_os_error(errno).to_string(),
    };
    match usize::try_from(step)
        .ok()
        .and_then(|index| launched.steps.get(index))
    {
        Some(step) => step.failed(&text),
        None => format!("containment step {step}: {text}"),
    }
}
