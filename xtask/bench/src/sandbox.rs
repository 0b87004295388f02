//! `bench sandbox`: one sandboxed /bin/true, start to reaped, against bubblewrap in the same run.
//!
//! Belljar's side goes through the spawner's socket: from `Launch` sent to `Exited` received, every layer on
//! (cgroup, log captured by the store, read-back at the barrier, self-probes). Stage, collect and destroy
//! lie outside of that figure, as the checkout and the clean-up lie outside of bubblewrap's, and have rows of
//! their own.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use belljar_core::ObjectId;
use serde::de::DeserializeOwned;

use super::client;
use super::peers::{self, Bubblewrap};
use super::processes::{self, State};
use super::stats::{Lap, Samples, interleave};
use super::{Args, Row};

/// Belljar and the peers, interleaved.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    let runs = args.runs();
    let bubblewrap = Bubblewrap::find()?;
    if args.peers_only {
        let samples = interleave(runs, &mut contenders(&bubblewrap))?;
        return Ok(peer_rows(&bubblewrap, &samples));
    }
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is, in reverse order.
    let _running = state.start(&["store", "spawner"])?;
    let client = RefCell::new(Client::start(&state)?);
    let laps = RefCell::new(Vec::new());
    let mut contenders = contenders(&bubblewrap);
    contenders.push((
        "Belljar",
        Box::new(|| {
            let lap = client.borrow_mut().lap()?;
            laps.borrow_mut().push(lap);
            Ok(lap.sandbox())
        }),
    ));
    let samples = interleave(runs, &mut contenders)?;
    drop(contenders);
    let mut rows = peer_rows(&bubblewrap, &samples);
    rows.extend(belljar_rows(&samples[2], &samples[1]));
    // The first lap fills the caches and does not count, as in `interleave`.
    rows.extend(phase_rows(&laps.borrow()[1..])?);
    Ok(rows)
}

/// The floor and the peer, in this order.
fn contenders(bubblewrap: &Bubblewrap) -> Vec<(&'static str, Lap<'_>)> {
    vec![
        ("no sandbox", Box::new(peers::plain)),
        ("bubblewrap", Box::new(|| bubblewrap.lap())),
    ]
}

fn peer_rows(bubblewrap: &Bubblewrap, samples: &[Samples]) -> Vec<Row> {
    let mut rows = peers::rows("no sandbox", &samples[0], "the payload alone");
    rows.extend(peers::rows(
        "bubblewrap",
        &samples[1],
        &bubblewrap.describe(),
    ));
    rows
}

fn belljar_rows(belljar: &Samples, bubblewrap: &Samples) -> Vec<Row> {
    let how =
        "all layers, limits, log and read-back; by `sh -c exec`; Launch sent to Exited received";
    let mut rows = peers::rows("Belljar", belljar, how);
    for percent in [50, 99] {
        rows.push(Row::measured(
            format!("Belljar / bubblewrap p{percent}"),
            belljar.percentile(percent) / bubblewrap.percentile(percent),
            "×",
            "of the two above",
        ));
    }
    rows
}

/// Where an attempt's time goes.
fn phase_rows(laps: &[client::Lap]) -> Result<Vec<Row>> {
    type Phase = fn(&client::Lap) -> Duration;
    let phases: [(&str, &str, Phase); 5] = [
        (
            "stage",
            "a tree of one file, seen before, mounted with scratch space",
            |lap| lap.stage,
        ),
        ("launch", "Launch to barrier passed", |lap| lap.launch),
        (
            "run",
            "barrier passed to cgroup seen empty and told",
            |lap| lap.run,
        ),
        (
            "collect",
            "log and one output durable, inputs verified, mounts gone, receipt durable",
            |lap| lap.collect,
        ),
        ("destroy", "Destroy", |lap| lap.destroy),
    ];
    let row = |(name, how, phase): (&str, &str, Phase)| {
        let samples = Samples::new(laps.iter().map(phase).collect())?;
        let name = format!("phase {name} p50");
        Ok(Row::measured(name, samples.percentile(50), "ms", how))
    };
    phases.into_iter().map(row).collect()
}

/// The hidden part `client`, as belljard's user: the spawner talks to nobody else.
pub(super) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub(super) fn start(state: &State) -> Result<Self> {
        let (uid, gid) = state.ids("belljard")?;
        // By this name the kernel finds the program even if a build has replaced its file meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg("client")
            .arg("--store")
            .arg(state.socket("store"))
            .arg("--spawner")
            .arg(state.socket("spawner"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .gid(gid)
            .uid(uid)
            .spawn()
            .with_context(|| format!("starting this program as user {uid}"))?;
        let input = child.stdin.take().context("the client's input")?;
        let output = child.stdout.take().context("the client's output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn lap(&mut self) -> Result<client::Lap> {
        self.ask("lap")
    }

    /// How long a tree takes to be staged.
    pub(super) fn stage(&mut self, tree: ObjectId) -> Result<Duration> {
        self.ask(&format!(
            "{}{}",
            client::STAGE,
            serde_json::to_string(&tree)?
        ))
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .context("the client is gone")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| {
            // What it says on failure goes the same way, up to its end.
            let mut rest = String::new();
            while self
                .output
                .read_line(&mut rest)
                .is_ok_and(|length| length > 0)
            {}
            format!("the client said: {}{}", line.trim(), rest.trim_end())
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Err(error) = processes::end(&mut self.child) {
            println!("warning: the client: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lap(millis: u64) -> client::Lap {
        let times = |factor| Duration::from_millis(millis * factor);
        client::Lap {
            stage: times(1),
            launch: times(2),
            run: times(3),
            collect: times(4),
            destroy: times(5),
        }
    }

    #[test]
    fn every_phase_has_its_row() {
        let rows = phase_rows(&[lap(1), lap(10), lap(100)]).unwrap();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (row.metric.as_str(), row.value))
            .collect();
        assert_eq!(
            told,
            [
                ("phase stage p50", 10.0),
                ("phase launch p50", 20.0),
                ("phase run p50", 30.0),
                ("phase collect p50", 40.0),
                ("phase destroy p50", 50.0),
            ]
        );
        assert!(phase_rows(&[]).is_err());
    }

    #[test]
    fn the_ratio_is_of_the_same_percentile() {
        let samples =
            |millis: [u64; 2]| Samples::new(millis.map(Duration::from_millis).to_vec()).unwrap();
        let rows = belljar_rows(&samples([10, 40]), &samples([5, 10]));
        let told: Vec<_> = rows[2..].iter().map(|row| row.value).collect();
        assert_eq!(told, [2.0, 4.0]);
        assert!(rows.iter().all(|row| row.bar.is_none()));
    }
}
