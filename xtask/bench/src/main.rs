//! `cargo xtask bench NAME`: the one door to measurements. Peers run interleaved with Belljar in the
//! same run, since one machine differs from another, and from itself an hour later.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement talks to the person who started it"
)]

mod blobs;
mod builds;
mod client;
mod filter;
mod memory;
mod outputs;
mod peers;
mod processes;
mod projects;
mod sandbox;
mod stage;
mod stats;
mod store;
mod sweep;
mod tree;
mod upload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use xtask::shell;

/// Measure, with public tools beside Belljar in the same run.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    args: Option<Args>,
}

/// What a measurement starts of this program.
#[derive(clap::Subcommand)]
enum Part {
    /// The part of `sandbox` that has to run as belljard's user.
    #[command(hide = true)]
    Client(client::Args),
    /// The part of `store` that is a client.
    #[command(hide = true)]
    Blobs(blobs::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.part, cli.args) {
        (Some(Part::Client(args)), _) => client::run(&args),
        (Some(Part::Blobs(args)), _) => blobs::run(&args),
        (None, Some(args)) => run(&args),
        (None, None) => Err(anyhow::anyhow!("what is to be measured? hint: --help")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to measure and how to print it.
#[derive(clap::Args)]
struct Args {
    /// Which measurement.
    name: Name,
    /// Print rows as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How many times each contender runs: 100, and for real projects what each needs.
    #[arg(long, value_name = "N")]
    runs: Option<u16>,
    /// Measure only the public tools, not Belljar: what a machine can do at all.
    #[arg(long)]
    peers_only: bool,
    /// Measure the programs in this folder instead of building the release binaries of these sources.
    #[arg(long, value_name = "FOLDER", conflicts_with = "peers_only")]
    programs: Option<PathBuf>,
    /// Of the real projects, build only this one.
    #[arg(long, value_name = "PROJECT")]
    project: Option<projects::Which>,
}

impl Args {
    /// How many times each contender runs.
    fn runs(&self) -> u16 {
        self.runs.unwrap_or(RUNS)
    }
}

/// How many times a contender runs, unless something else is asked for.
const RUNS: u16 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The bare sandbox of /bin/true, against bubblewrap.
    Sandbox,
    /// Trivial builds through a running daemon.
    Builds,
    /// Real projects, against the same commands in bubblewrap.
    Projects,
    /// Content on its way into the store, against disk and hash.
    Store,
    /// What builds have left on its way into the store, against one thread with files.
    Outputs,
    /// Trees of many files made ready for a build, against hard links and copies.
    Stage,
    /// The command line with a tree of many files: new, unchanged, one file changed.
    Upload,
    /// Builds while a store of many objects is swept, and what the store says that it takes.
    Sweep,
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    /// What was measured.
    metric: String,
    /// The figure.
    value: f64,
    /// Its unit.
    unit: &'static str,
    /// The figure that was promised, if one was: at most this much.
    bar: Option<f64>,
    /// Whether the promise holds; nothing without a bar.
    holds: Option<bool>,
    /// How it was measured.
    how: String,
}

impl Row {
    /// A figure that nobody has promised yet.
    fn measured(
        metric: impl Into<String>,
        value: f64,
        unit: &'static str,
        how: impl Into<String>,
    ) -> Self {
        Self {
            metric: metric.into(),
            value,
            unit,
            bar: None,
            holds: None,
            how: how.into(),
        }
    }
}

/// Measure and print. A promise that does not hold is an error.
fn run(args: &Args) -> Result<()> {
    if !shell::is_root()? {
        bail!(
            "measurements need root: Belljar's privileged process makes namespaces, mounts and cgroups"
        );
    }
    anyhow::ensure!(
        args.name == Name::Projects || args.runs() >= 10,
        "fewer than 10 runs say nothing about a 99th percentile"
    );
    anyhow::ensure!(
        args.project.is_none() || args.name == Name::Projects,
        "--project is for `bench projects`"
    );
    anyhow::ensure!(args.runs() > 0, "without a run nothing is measured");
    let before = load()?;
    let mut rows = match args.name {
        Name::Sandbox => sandbox::measure(args)?,
        Name::Builds => builds::measure(args)?,
        Name::Projects => projects::measure(args)?,
        Name::Store => store::measure(args)?,
        Name::Outputs => outputs::measure(args)?,
        Name::Stage => stage::measure(args)?,
        Name::Upload => upload::measure(args)?,
        Name::Sweep => sweep::measure(args)?,
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for (when, load) in [("before", before), ("after", load()?)] {
        let how = format!("over the last minute, on {cpus} CPUs; the measurement itself is in it");
        rows.push(Row::measured(format!("load {when}"), load, "tasks", how));
    }
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).context("rows as JSON")?
        );
    } else {
        print!("{}", table(&rows));
    }
    let broken: Vec<&str> = rows
        .iter()
        .filter(|row| row.holds == Some(false))
        .map(|row| row.metric.as_str())
        .collect();
    if !broken.is_empty() {
        bail!("these figures are above their bar: {}", broken.join(", "));
    }
    Ok(())
}

/// How busy the machine is: without it nobody can tell a slow figure from a slow hour.
fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("/proc/loadavg says {text:?}"))
}

/// Rows below each other, columns aligned.
fn table(rows: &[Row]) -> String {
    let head = ["metric", "value", "unit", "bar", "holds", "how"].map(str::to_owned);
    let mut cells = vec![head];
    cells.extend(rows.iter().map(|row| {
        let holds = match row.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "–",
        };
        let bar = row.bar.map_or_else(|| "–".to_owned(), figure);
        [
            row.metric.clone(),
            figure(row.value),
            row.unit.to_owned(),
            bar,
            holds.to_owned(),
            row.how.clone(),
        ]
    }));
    let width = |column: usize| {
        cells
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Three significant digits or so.
fn figure(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_says_what_does_not_hold() {
        let rows = [
            Row::measured("bubblewrap p50", 5.126, "ms", "100 runs"),
            Row {
                bar: Some(0.35),
                holds: Some(false),
                ..Row::measured("ratio", 0.5, "×", "p50 / p50")
            },
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[1],
            "bubblewrap p50  5.13   ms    –     –      100 runs"
        );
        assert!(lines[2].contains("0.35  NO"), "{text}");
    }

    #[test]
    fn rows_have_the_promised_fields() {
        let json = serde_json::to_value(Row::measured("m", 1.0, "ms", "h")).unwrap();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields.len(), 6);
        for field in ["metric", "value", "unit", "bar", "holds", "how"] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [1234.5, 12.345, 1.2345].map(figure),
            ["1234", "12.3", "1.23"]
        );
    }
}
