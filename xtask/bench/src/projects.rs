//! `bench projects`: real projects through a running daemon, against the same commands in bubblewrap on the
//! same root file system, with the same packages, unpacked. Both write to memory: Belljar's scratch space is a
//! tmpfs, so bubblewrap is given one for the sources, without overlay or limits.
//!
//! What comes before the first command (looking whether anything has to be uploaded, admission, staging, the
//! sandbox) lies outside of bubblewrap's figure, as the copying of the sources does; it has a row of its own.
//! What comes after the last one (outputs hashed and kept, evidence signed, verified, and everything fetched)
//! does not: that is what the bar is about.

mod grounds;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use belljar_core::ObjectId;
use belljar_tests::{Extent, Images, Real};
use clap::ValueEnum;
use serde_json::Value;

use super::peers::{Bubblewrap, Place};
use super::processes::State;
use super::stats::{Lap, Samples, interleave};
use super::{Args, Row};
use grounds::{Memory, copy_sources, remove, write_tree};
use xtask::{shell, workspace};

/// The most that a build may take longer than in bubblewrap, staging left aside.
const BAR: f64 = 1.05;
/// Memory and scratch space, in bytes: a debug build of Belljar leaves some GiB.
const ROOM: u64 = 12 << 30;

/// A project of `belljar-tests`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Which {
    /// A C library with configure and make.
    Libffi,
    /// A workspace of Cargo's.
    Cargo,
    /// A project of npm's.
    Npm,
    /// All programs of Belljar.
    Belljar,
}

/// Belljar and bubblewrap, interleaved, project by project.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    ensure!(
        !args.peers_only,
        "its peer runs on what Belljar's store has unpacked"
    );
    let bubblewrap = Bubblewrap::find()?;
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is, in reverse order.
    let _running = state.start(&["store", "signer", "spawner", "belljard"])?;
    let lock = import(&state)?;
    let all = Which::value_variants().iter().copied();
    let chosen = all.filter(|which| args.project.is_none_or(|only| only == *which));
    let mut rows = Vec::new();
    for which in chosen {
        let site = Site::new(&state, &bubblewrap, which, &lock)?;
        rows.extend(site.contest(args.runs.unwrap_or(which.runs()))?);
    }
    Ok(rows)
}

/// Puts the toolchain into the store. Gives the `belljar.lock` that names it.
fn import(state: &State) -> Result<Vec<u8>> {
    let belljar = |words: &[&str]| {
        let mut command = Command::new(state.program("belljar"));
        command.args(words).arg("--socket");
        command.arg(state.socket("belljard"));
        command
    };
    let target = workspace::target_dir(&workspace::metadata()?);
    let layout = Images::below(&target).toolchain(belljar(&["image", "build-debian"]));
    let lock = state.folder().join("belljar.lock");
    let mut import = belljar(&["image", "import", "--name", "toolchain"]);
    shell::read(import.arg(layout).arg("--lock").arg(&lock)).context("importing the toolchain")?;
    fs::read(&lock).context("belljar.lock")
}

/// A project and where both contenders build it.
struct Site<'a> {
    which: Which,
    real: Real,
    state: &'a State,
    bubblewrap: &'a Bubblewrap,
    /// Root file system and packages, unpacked; sources and results of a lap.
    folder: PathBuf,
    environment: Vec<(String, String)>,
    memory: Memory,
}

/// Where the time of one build by Belljar went.
#[derive(Debug, Clone, Copy)]
struct Parts {
    whole: Duration,
    /// Until the first command.
    staging: Duration,
    /// All commands.
    steps: Duration,
}

impl Which {
    /// How often each contender builds it, unless something else is asked for. Short builds differ by a tenth from one to
    /// the next, in bubblewrap as well, and the bar is half of that: they need many. Belljar's own takes minutes.
    const fn runs(self) -> u16 {
        match self {
            Self::Libffi | Self::Npm => 15,
            Self::Cargo => 5,
            Self::Belljar => 1,
        }
    }
}

impl<'a> Site<'a> {
    /// A first build, which does not count, tells what bubblewrap has to be given: trees and environment.
    fn new(
        state: &'a State,
        bubblewrap: &'a Bubblewrap,
        which: Which,
        lock: &[u8],
    ) -> Result<Self> {
        let real = match which {
            Which::Libffi => Real::c_library(),
            Which::Cargo => Real::cargo_workspace(),
            Which::Npm => Real::npm_project(),
            Which::Belljar => Real::belljar(Extent::Programs),
        };
        let cpus = std::thread::available_parallelism()?.get();
        real.configure(&format!(
            "[limits]\ncpu_millis = {}\nmemory_bytes = {ROOM}\nscratch_bytes = {ROOM}\n",
            cpus * 1000
        ));
        real.project.write("belljar.lock", lock);
        let folder = state.folder().join("unpacked");
        fs::create_dir_all(&folder)?;
        let memory = Memory::mount(state.folder().join("memory"))?;
        let mut site = Self {
            which,
            real,
            state,
            bubblewrap,
            folder,
            environment: Vec::new(),
            memory,
        };
        let (_, told) = site.belljar()?;
        site.unpack(&told["spec"])?;
        Ok(site)
    }

    fn unpack(&mut self, spec: &Value) -> Result<()> {
        let root = self.folder.join("root");
        if !root.exists() {
            self.unpack_tree(&spec["image"]["tree"]["tree"], &root)?;
            for place in ["build", "deps", "home/build"] {
                fs::create_dir_all(root.join(place))?;
            }
        }
        let deps = self.folder.join("deps");
        remove(&deps)?;
        fs::create_dir(&deps)?;
        for (name, input) in spec["inputs"].as_object().into_iter().flatten() {
            self.unpack_tree(&input["tree"], &deps.join(name))?;
        }
        let env = spec["env"].as_object().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.environment = env
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        // Else its laps would wait for all this.
        shell::run(&mut Command::new("sync"))
    }

    fn unpack_tree(&self, object: &Value, to: &Path) -> Result<()> {
        let root: ObjectId = serde_json::from_value(object.clone())
            .with_context(|| format!("{object} is no object"))?;
        let objects = self.state.path().join("store/objects/sha256");
        write_tree(&objects, root, to).with_context(|| format!("unpacking to {}", to.display()))
    }

    fn contest(&self, runs: u16) -> Result<Vec<Row>> {
        let parts = RefCell::new(Vec::new());
        let mut contenders: [(&str, Lap); 2] = [
            ("bubblewrap", Box::new(|| self.bubblewrap_lap())),
            (
                "Belljar",
                Box::new(|| {
                    let (lap, _) = self.belljar()?;
                    parts.borrow_mut().push(lap);
                    Ok(lap.beyond_staging())
                }),
            ),
        ];
        let samples = if runs == 1 {
            // The first build has filled the caches.
            let times = contenders.iter_mut().map(|(_, run)| run());
            let samples = times.map(|time| Samples::new(vec![time?]));
            samples.collect::<Result<Vec<_>>>()?
        } else {
            interleave(runs, &mut contenders)?
        };
        drop(contenders);
        let parts = parts.into_inner();
        let counted = &parts[parts.len() - usize::from(runs)..];
        rows(self.which, counted, &samples[1], &samples[0])
    }

    /// One build by `belljar run`, and its report.
    fn belljar(&self) -> Result<(Parts, Value)> {
        let output = self.folder.join("output");
        remove(&output)?;
        let mut run = Command::new(self.state.program("belljar"));
        run.arg("run").arg(self.real.project.path());
        run.arg("--json").arg("--output").arg(&output);
        run.arg("--socket").arg(self.state.socket("belljard"));
        let (begun, start) = (SystemTime::now(), Instant::now());
        let text = shell::read(&mut run)?;
        let whole = start.elapsed();
        let told: Value = serde_json::from_str(&text).context("the report of belljar run")?;
        let parts = Parts::of(whole, begun, &told)?;
        Ok((parts, told))
    }

    /// The same commands, from a fresh copy of the sources.
    fn bubblewrap_lap(&self) -> Result<Duration> {
        let sources = self.memory.place.join("sources");
        remove(&sources)?;
        copy_sources(self.real.project.path(), &sources)?;
        let place = Place {
            root: &self.folder.join("root"),
            sources: &sources,
            deps: &self.folder.join("deps"),
            environment: &self.environment,
        };
        let start = Instant::now();
        let mut command = self.bubblewrap.build(&place, &self.real.steps)?;
        let output = command.output().context("starting bubblewrap")?;
        let time = start.elapsed();
        ensure!(
            output.status.success(),
            "bubblewrap: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        for due in &self.real.outputs {
            ensure!(sources.join(due).exists(), "bubblewrap left no {due}");
        }
        Ok(time)
    }
}

impl Parts {
    fn of(whole: Duration, begun: SystemTime, told: &Value) -> Result<Self> {
        let steps = told["steps"].as_array().context("no steps")?;
        let started = steps.first().and_then(|step| step["started"].as_str());
        let started = since_midnight(started.context("no time of the first step")?)?;
        let begun = begun.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let day = 24 * 60 * 60 * 1000;
        let staging = (u128::from(started) + day - begun % day) % day;
        let micros = steps.iter().filter_map(|step| step["wall_micros"].as_u64());
        Ok(Self {
            whole,
            staging: Duration::from_millis(u64::try_from(staging)?),
            steps: Duration::from_micros(micros.sum()),
        })
    }

    fn beyond_staging(&self) -> Duration {
        self.whole.saturating_sub(self.staging)
    }
}

/// Milliseconds in `2026-11-28T00:39:16.105Z` since that day began.
fn since_midnight(time: &str) -> Result<u64> {
    let wrong = || format!("{time:?} is no time");
    let clock = time
        .split_once('T')
        .and_then(|(_, rest)| rest.strip_suffix('Z'));
    let (clock, millis) = clock
        .map(|clock| clock.split_once('.').unwrap_or((clock, "0")))
        .with_context(wrong)?;
    let mut seconds = 0;
    for field in clock.split(':') {
        seconds = seconds * 60 + field.parse::<u64>().with_context(wrong)?;
    }
    Ok(seconds * 1000 + millis.parse::<u64>().with_context(wrong)?)
}

fn rows(which: Which, parts: &[Parts], belljar: &Samples, peer: &Samples) -> Result<Vec<Row>> {
    let name = format!("{which:?}").to_lowercase();
    let median = |part: fn(&Parts) -> Duration| {
        let samples = Samples::new(parts.iter().map(part).collect())?;
        Ok::<_, anyhow::Error>(samples.percentile(50) / 1000.0)
    };
    let how = |what: &str| format!("p50 of {}; {what}", parts.len());
    let row = |metric: &str, value: f64, what: &str| {
        Row::measured(format!("{name}, {metric}"), value, "s", how(what))
    };
    let [ours, theirs] = [belljar, peer].map(|samples| samples.percentile(50) / 1000.0);
    let ratio = ours / theirs;
    Ok(vec![
        row(
            "bubblewrap",
            theirs,
            "all commands in one sandbox, on the same trees, unpacked, sources in memory",
        ),
        row(
            "Belljar",
            median(|lap| lap.whole)?,
            "`belljar run`, start to end",
        ),
        row(
            "staging",
            median(|lap| lap.staging)?,
            "of that, before the first command",
        ),
        row(
            "commands",
            median(|lap| lap.steps)?,
            "of that, all commands",
        ),
        row("beyond staging", ours, "from the first command to the end"),
        Row {
            bar: Some(BAR),
            holds: Some(ratio <= BAR),
            ..Row::measured(
                format!("{name}, beyond staging / bubblewrap"),
                ratio,
                "×",
                "of the two above",
            )
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_build_has_its_parts_also_over_midnight() {
        let told = json!({"steps": [
            {"started": "2026-11-28T00:00:01.500Z", "wall_micros": 2_000_000},
            {"started": "2026-11-28T00:00:03.500Z", "wall_micros": 500_000},
        ]});
        let midnight = 20_000 * 24 * 60 * 60;
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(midnight - 1);
        let parts = Parts::of(Duration::from_secs(6), begun, &told).unwrap();
        assert_eq!(parts.staging, Duration::from_millis(2500));
        assert_eq!(parts.steps, Duration::from_millis(2500));
        assert_eq!(parts.beyond_staging(), Duration::from_millis(3500));
        assert!(Parts::of(Duration::ZERO, begun, &json!({"steps": []})).is_err());
    }

    #[test]
    fn times_of_the_day_are_read() {
        assert_eq!(
            since_midnight("2026-11-28T01:02:03.004Z").unwrap(),
            3_723_004
        );
        assert_eq!(since_midnight("2026-11-28T00:00:10Z").unwrap(), 10_000);
        assert!(since_midnight("yesterday").is_err());
    }

    #[test]
    fn the_ratio_leaves_staging_aside_and_is_held_against_the_bar() {
        let samples = |seconds: u64| Samples::new(vec![Duration::from_secs(seconds)]).unwrap();
        let parts = [Parts {
            whole: Duration::from_secs(120),
            staging: Duration::from_secs(12),
            steps: Duration::from_secs(100),
        }];
        let rows = rows(Which::Npm, &parts, &samples(108), &samples(100)).unwrap();
        let values: Vec<_> = rows.iter().map(|row| row.value).collect();
        assert_eq!(values, [100.0, 120.0, 12.0, 100.0, 108.0, 1.08]);
        assert_eq!(rows[5].holds, Some(false));
        assert_eq!(rows[5].metric, "npm, beyond staging / bubblewrap");
    }
}
