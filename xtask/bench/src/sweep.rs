//! `bench sweep`: trivial builds while a store of many objects that nobody needs is swept, against the same builds
//! before; and what the store says that it takes, against du(1).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use belljar_core::ObjectId;
use serde_json::Value;

use super::builds::{Client, event_loop, spec};
use super::processes::State;
use super::stats::Samples;
use super::tree::Store;
use super::{Args, Row};
use xtask::shell;

/// Objects that nobody needs, in each round.
const GARBAGE: usize = 100_000;
/// How long an object stays that was only just given, in seconds.
const GRACE: u64 = 1;
/// How much longer than before builds may take while the store is swept, at their 99th percentile.
const PAUSE_BAR: f64 = 2.0;
/// Longest that a sweep may hold back who submits or asks for blobs, in milliseconds.
const HOLD_BAR: f64 = 100.0;
/// By how much of a hundred the store's own account may differ from that of du(1).
const ACCOUNT_BAR: f64 = 1.0;

/// Rounds of a sweep, until as many builds ran meanwhile as before.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    ensure!(!args.peers_only, "no public tool sweeps Belljar's store");
    let state = State::lay_out(args.programs.as_deref())?;
    state.configure("store", &format!("grace_seconds = {GRACE}\n"))?;
    // Nothing is swept but when it is asked for.
    let keeping = format!("[store]\nlease_seconds = {GRACE}\nevery_seconds = 86400\n");
    state.configure("belljard", &keeping)?;
    let store = Store::of(&state)?;
    litter(&store, 0)?;
    // Dropped before the state is.
    let _running = state.start(&["store", "signer", "spawner", "belljard"])?;
    let mut rows = account(&state)?;
    let mut seen = Seen::default();
    let socket = state.socket("belljard");
    event_loop()?.block_on(async {
        let client = Client::connect(socket).await?;
        seen.builds(&client, usize::from(args.runs())).await?;
        while seen.meanwhile.len() < usize::from(args.runs()) {
            if seen.sweeps > 0 {
                litter(&store, seen.sweeps)?;
            }
            seen.sweep(&client, &state).await?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    rows.extend(seen.rows()?);
    Ok(rows)
}

/// Puts objects there, and lets their time of grace pass.
fn litter(store: &Store, round: usize) -> Result<()> {
    for number in 0..GARBAGE {
        store.put(format!("garbage {number} of round {round}\n").as_bytes())?;
    }
    shell::run(&mut Command::new("sync"))?;
    std::thread::sleep(Duration::from_secs(GRACE + 1));
    Ok(())
}

/// `belljar store WHAT --json`, of the running daemon.
fn command(state: &State, words: &[&str]) -> Command {
    let mut command = Command::new(state.program("belljar"));
    command.arg("store").args(words).arg("--json");
    command.arg("--socket").arg(state.socket("belljard"));
    command
}

/// What the store says that it takes, and what du(1) says.
fn account(state: &State) -> Result<Vec<Row>> {
    let told = shell::read(&mut command(state, &["status"]))?;
    let told: Value = serde_json::from_str(&told).context("the store's status")?;
    let parts = ["objects", "images", "logs", "quarantine", "other"];
    let bytes = parts.iter().map(|part| told[part]["bytes"].as_u64());
    let told: u64 = bytes.sum::<Option<u64>>().context("a part of the store")?;
    let mut du = Command::new("du");
    let du = du.args(["--summarize", "--block-size=1"]);
    let text = shell::read(du.arg(state.path().join("store")))?;
    let counted = text.split_ascii_whitespace().next().unwrap_or_default();
    account_rows(told, counted.parse().context("the answer of du")?)
}

fn account_rows(told: u64, counted: u64) -> Result<Vec<Row>> {
    ensure!(counted > 0, "du says that the store takes nothing");
    // Far below what a float counts exactly.
    let apart = told.abs_diff(counted) as f64 / counted as f64 * 100.0;
    let how = format!("of {counted} bytes that du counts, {GARBAGE} objects and a build in it");
    Ok(vec![Row {
        bar: Some(ACCOUNT_BAR),
        holds: Some(apart <= ACCOUNT_BAR),
        ..Row::measured("the store's own account is apart by", apart, "%", how)
    }])
}

/// What was measured so far.
#[derive(Default)]
struct Seen {
    before: Vec<Duration>,
    meanwhile: Vec<Duration>,
    sweeps: usize,
    sweeping: Duration,
    removed: u64,
    /// Longest time that nobody could submit.
    held: Duration,
}

impl Seen {
    async fn builds(&mut self, client: &Client, runs: usize) -> Result<()> {
        for lap in 0..=runs {
            let name = format!("before-{lap}");
            let build = client.build(&name, &spec(ObjectId::of(b""))?).await?;
            // The first fills the caches.
            if lap > 0 {
                self.before.push(build.whole);
            }
        }
        Ok(())
    }

    async fn sweep(&mut self, client: &Client, state: &State) -> Result<()> {
        let told = state.folder().join("swept");
        let start = Instant::now();
        let mut sweep = begin(state, &told)?;
        while sweep.try_wait().context("the sweep")?.is_none() {
            let name = format!("meanwhile-{}", self.meanwhile.len());
            let build = client.build(&name, &spec(ObjectId::of(b""))?).await?;
            self.meanwhile.push(build.whole);
        }
        self.sweeping += start.elapsed();
        self.sweeps += 1;
        ensure!(sweep.wait()?.success(), "the sweep failed");
        let told = std::fs::read(&told).context("what the sweep told")?;
        let told: Value = serde_json::from_slice(&told).context("what the sweep told")?;
        let removed = told["removed_objects"].as_u64().context("no count")?;
        ensure!(
            removed >= GARBAGE as u64,
            "only {removed} of {GARBAGE} objects were removed"
        );
        self.removed += removed;
        let held = told["longest_hold_micros"].as_u64().context("no time")?;
        self.held = self.held.max(Duration::from_micros(held));
        Ok(())
    }

    fn rows(self) -> Result<Vec<Row>> {
        let (sweeps, removed) = (self.sweeps, self.removed);
        let seconds = self.sweeping.as_secs_f64() / sweeps as f64;
        let [before, meanwhile] = [self.before, self.meanwhile].map(Samples::new);
        let (before, meanwhile) = (before?, meanwhile?);
        let row = |metric: &str, samples: &Samples, percent| {
            let how = format!("{} builds, one at a time, by gRPC", samples.count());
            let metric = format!("{metric} p{percent}");
            Row::measured(metric, samples.percentile(percent), "ms", how)
        };
        let ratio = meanwhile.percentile(99) / before.percentile(99);
        let held = self.held.as_secs_f64() * 1000.0;
        let how = format!("mean of {sweeps}, with builds; {removed} objects removed in all");
        Ok(vec![
            Row::measured("one sweep", seconds, "s", how),
            Row {
                bar: Some(HOLD_BAR),
                holds: Some(held <= HOLD_BAR),
                ..Row::measured(
                    "longest hold",
                    held,
                    "ms",
                    "time that nobody could submit or ask for blobs",
                )
            },
            row("builds before", &before, 50),
            row("builds before", &before, 99),
            row("builds meanwhile", &meanwhile, 50),
            row("builds meanwhile", &meanwhile, 99),
            Row {
                bar: Some(PAUSE_BAR),
                holds: Some(ratio <= PAUSE_BAR),
                ..Row::measured("meanwhile / before, p99", ratio, "×", "of the two above")
            },
        ])
    }
}

/// Has everything removed that nobody needs.
fn begin(state: &State, told: &Path) -> Result<Child> {
    let told = std::fs::File::create(told).context("a file for what the sweep tells")?;
    command(state, &["gc", "--all"])
        .stdout(told)
        .stderr(Stdio::null())
        .spawn()
        .context("starting the sweep")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_meanwhile_are_held_against_those_before_and_holds_against_their_bar() {
        let seen = |meanwhile: u64, held: u64| Seen {
            before: vec![Duration::from_millis(100)],
            meanwhile: vec![Duration::from_millis(meanwhile)],
            sweeps: 1,
            sweeping: Duration::from_secs(1),
            removed: 100_000,
            held: Duration::from_millis(held),
        };
        let last = |meanwhile| seen(meanwhile, 20).rows().unwrap().pop().unwrap();
        assert_eq!((last(150).value, last(150).holds), (1.5, Some(true)));
        assert_eq!((last(250).value, last(250).holds), (2.5, Some(false)));
        for (held, holds) in [(100, true), (101, false)] {
            let rows = seen(100, held).rows().unwrap();
            let row = rows.iter().find(|row| row.metric == "longest hold");
            assert_eq!(row.unwrap().holds, Some(holds), "{held}");
        }
    }

    #[test]
    fn accounts_are_compared() {
        let one = |told| account_rows(told, 1000).unwrap().remove(0);
        assert_eq!((one(1005).value, one(1005).holds), (0.5, Some(true)));
        assert_eq!((one(980).value, one(980).holds), (2.0, Some(false)));
        assert!(account_rows(1, 0).is_err());
    }
}
