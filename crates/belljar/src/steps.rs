//! The steps of a build, for people and for machines.

use belljar_core::{BuildSpec, Timestamp};
use belljar_wire::{StepEnding, StepReport};
use serde::Serialize;

/// Characters of a script that a heading shows.
const SHOWN: usize = 72;

/// Which step was told of last. A stream that was taken up again tells of earlier ones once more.
#[derive(Debug, Default)]
pub(crate) struct Told(Option<(i32, i32)>);

impl Told {
    /// Whether this step of this attempt was not told of yet; from now on it was.
    pub(crate) fn is_new(&mut self, attempt: i32, step: i32) -> bool {
        let new = self.0.is_none_or(|told| (attempt, step) > told);
        if new {
            self.0 = Some((attempt, step));
        }
        new
    }
}

/// The heading of a step, counted from zero: its number and the first line of its script.
pub(crate) fn heading(spec: &BuildSpec, step: usize) -> String {
    let steps = spec.run.iter();
    let of = steps.len();
    let script = spec
        .run
        .iter()
        .nth(step)
        .map_or("", |script| script.as_str());
    let mut lines = script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut shown: String = first.chars().take(SHOWN).collect();
    if lines.next().is_some() || shown.len() < first.len() {
        shown.push('…');
    }
    format!("step {}/{of}: {shown}", step + 1)
}

/// One line for each step that ran: how long it took, and how it ended unless it ended well.
pub(crate) fn lines(spec: &BuildSpec, steps: &[StepReport]) -> Vec<String> {
    let line = |(index, step): (usize, &StepReport)| {
        let ending = match step.ending {
            StepEnding::Exited(0) => String::new(),
            StepEnding::Exited(code) => format!("  exit status {code}"),
            StepEnding::Signalled(signal) => format!("  signal {signal}"),
            StepEnding::Killed => "  killed".to_owned(),
        };
        format!(
            "  {}  {}.{:02} s{ending}",
            heading(spec, index),
            step.wall_micros / 1_000_000,
            step.wall_micros / 10_000 % 100,
        )
    };
    steps.iter().enumerate().map(line).collect()
}

/// A step that ran, as a part of `belljar.run/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct Step<'a> {
    /// The script.
    run: &'a str,
    /// Exit status; null if it did not exit by itself.
    exit_code: Option<u8>,
    /// The signal that ended it. Both are null for one that was killed with its sandbox.
    signal: Option<u8>,
    started: Timestamp,
    wall_micros: u64,
    cpu_micros: u64,
    /// Its part of the log.
    log: LogPart,
}

#[derive(Debug, Serialize)]
struct LogPart {
    offset: u64,
    bytes: u64,
}

/// The steps that ran, with their scripts, for machines.
pub(crate) fn report<'a>(spec: &'a BuildSpec, steps: &[StepReport]) -> Vec<Step<'a>> {
    let scripts = spec.run.iter().zip(steps);
    scripts
        .map(|(script, step)| {
            let (exit_code, signal) = match step.ending {
                StepEnding::Exited(code) => (Some(code), None),
                StepEnding::Signalled(signal) => (None, Some(signal)),
                StepEnding::Killed => (None, None),
            };
            Step {
                run: script.as_str(),
                exit_code,
                signal,
                started: step.started,
                wall_micros: step.wall_micros,
                cpu_micros: step.cpu_micros,
                log: LogPart {
                    offset: step.log_offset,
                    bytes: step.log_bytes,
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::{Image, Inputs, Limits, Network, ObjectId, Outputs, RelPath, Script, Steps};

    fn spec(run: &[&str]) -> BuildSpec {
        let scripts = run.iter().map(|text| Script::new(*text).unwrap());
        BuildSpec {
            image: Image::Host,
            source: ObjectId::of(b""),
            inputs: Inputs::default(),
            fetches: Default::default(),
            image_output: None,
            working_directory: None,
            run: Steps::new(scripts.collect()).unwrap(),
            env: [].into(),
            outputs: Outputs::new([RelPath::new("app").unwrap()].into()).unwrap(),
            limits: Limits::DEFAULT,
            network: Network::None,
            source_date_epoch: 0,
        }
    }

    #[test]
    fn headings_are_one_short_line() {
        let long = "x".repeat(200);
        let spec = spec(&["make", "\n  cd sub\n  make\n", &long]);
        assert_eq!(heading(&spec, 0), "step 1/3: make");
        assert_eq!(heading(&spec, 1), "step 2/3: cd sub…");
        assert_eq!(
            heading(&spec, 2).chars().count(),
            "step 3/3: ".len() + SHOWN + 1
        );
        assert_eq!(heading(&spec, 9), "step 10/3: ");
    }

    #[test]
    fn endings_and_times() {
        let step = |ending, wall_micros| StepReport {
            ending,
            started: Timestamp::from_millis(0),
            wall_micros,
            cpu_micros: 0,
            log_offset: 0,
            log_bytes: 0,
        };
        let steps = [
            step(StepEnding::Exited(0), 1_239_999),
            step(StepEnding::Exited(3), 10_000),
            step(StepEnding::Killed, 0),
        ];
        assert_eq!(
            lines(&spec(&["a", "b", "c"]), &steps),
            [
                "  step 1/3: a  1.23 s",
                "  step 2/3: b  0.01 s  exit status 3",
                "  step 3/3: c  0.00 s  killed"
            ]
        );
    }

    #[test]
    fn a_step_is_told_of_once() {
        let mut told = Told::default();
        let asked = [(1, 0), (1, 1), (1, 0), (1, 1), (2, 0), (1, 2), (2, 1)];
        let new = asked.map(|(attempt, step)| told.is_new(attempt, step));
        assert_eq!(new, [true, true, false, false, true, false, true]);
    }
}
