//! `bench store`: how fast content comes in, against what the disk and one core can do in the same run.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::blobs::{LARGE, Lap, SMALL, SMALL_BYTES};
use super::memory::{MIB, Memory};
use super::processes::State;
use super::stats::Samples;
use super::{Args, Row};
use xtask::shell;

/// Rounds of everything: each writes more than 2 GiB.
const ROUNDS: u64 = 3;
/// Small blobs together may take this part of what one fsync(2) each takes: a fifth.
const BATCH_BAR: f64 = 0.2;
/// A large blob may take this much of what the slower of hash and disk takes: 1 / 0.7.
const STREAM_BAR: f64 = 1.43;
/// A blob whose size is of no matter to memory, and how much of that it may take, in MiB.
const HUGE_MIB: usize = 4096;
const MEMORY_BAR: f64 = 32.0;

/// Upload, beside what the machine can do.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    if args.peers_only {
        bail!("what the machine can do is measured in turns with Belljar: there is no peer alone");
    }
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is.
    let running = state.start(&["store", "signer", "spawner", "belljard"])?;
    let laps: Vec<Lap> = (1..=ROUNDS)
        .map(|seed| lap(&state, seed))
        .collect::<Result<_>>()?;
    let mut rows = rows(&laps)?;
    let memory = Memory::watch(&running, &["store", "belljard"])?;
    shell::read(client(&state, ROUNDS + 1).args(["--stream", &HUGE_MIB.to_string()]))?;
    rows.push(promised(
        "ByteStream.Write, memory",
        memory.beyond_rest()? / MIB,
        "MiB",
        MEMORY_BAR,
        format!("{HUGE_MIB} MiB; belljard and store, their peaks beyond what they take at rest"),
    ));
    Ok(rows)
}

/// The process that plays the client.
fn client(state: &State, seed: u64) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("blobs");
    command.arg("--socket").arg(state.socket("belljard"));
    command.arg("--folder").arg(state.folder());
    command.arg("--seed").arg(seed.to_string());
    command
}

fn lap(state: &State, seed: u64) -> Result<Lap> {
    let told = shell::read(&mut client(state, seed)).context("the client")?;
    serde_json::from_str(told.trim()).with_context(|| format!("the client said {told:?}"))
}

fn rows(laps: &[Lap]) -> Result<Vec<Row>> {
    let samples = |time: &dyn Fn(&Lap) -> Duration| Samples::new(laps.iter().map(time).collect());
    let median =
        |time: &dyn Fn(&Lap) -> Duration| Ok::<_, anyhow::Error>(samples(time)?.percentile(50));
    let small = format!(
        "{SMALL} blobs of {SMALL_BYTES} bytes, all durable; median of {} rounds",
        laps.len()
    );
    let large = format!("{LARGE} bytes; median of {} rounds", laps.len());
    let each = median(&|lap| lap.fsync_each)?;
    let batches = median(&|lap| lap.batches)?;
    let hash = median(&|lap| lap.hash)?;
    let disk = median(&|lap| lap.disk)?;
    let stream = median(&|lap| lap.stream)?;
    let how = |what: &str, of: &str| format!("{what}; {of}");
    Ok(vec![
        Row::measured(
            "files, one fsync each",
            each,
            "ms",
            how("plain files", &small),
        ),
        Row::measured("BatchUpdateBlobs", batches, "ms", how("by gRPC", &small)),
        promised(
            "BatchUpdateBlobs / one fsync each",
            batches / each,
            "×",
            BATCH_BAR,
            how("median / median", &small),
        ),
        Row::measured("SHA-256, one core", hash, "ms", how("in memory", &large)),
        Row::measured("write and fsync", disk, "ms", how("a plain file", &large)),
        Row::measured(
            "ByteStream.Write",
            stream,
            "ms",
            how("by gRPC, hash verified, durable", &large),
        ),
        promised(
            "ByteStream.Write / slower of hash and disk",
            stream / hash.max(disk),
            "×",
            STREAM_BAR,
            how("median / median", &large),
        ),
    ])
}

fn promised(metric: &str, value: f64, unit: &'static str, bar: f64, how: impl Into<String>) -> Row {
    Row {
        bar: Some(bar),
        holds: Some(value <= bar),
        ..Row::measured(metric, value, unit, how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_are_about_medians_of_the_same_run() {
        let lap = |scale: u64| Lap {
            fsync_each: Duration::from_millis(1000 * scale),
            batches: Duration::from_millis(150 * scale),
            hash: Duration::from_millis(100 * scale),
            disk: Duration::from_millis(200 * scale),
            stream: Duration::from_millis(300 * scale),
        };
        let rows = rows(&[lap(1), lap(2), lap(3)]).unwrap();
        let bars: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.value, row.holds?)))
            .collect();
        assert_eq!(bars, [(0.15, true), (1.5, false)]);
    }
}
