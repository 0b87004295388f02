//! `bench stage`: trees of 10,000 and 100,000 small files made ready for a build, against hard-linking and
//! copying the same objects file by file in the same run. They are linked and copied from a second place, as laid
//! out as the store's: a link changes what it is made from (its time of change), and the store would read that again.
//!
//! Belljar's side goes through the spawner's socket, from `Stage` sent to `Staged` received: the store has
//! seen the tree, and mounts, overlay and scratch space are there. *Seen before* means that the tree has an
//! image and is mounted; *new* that its objects are in the store, and nothing else of it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::memory::{MIB, Memory};
use super::processes::State;
use super::sandbox::Client;
use super::stats::{Samples, timed};
use super::tree::{Store, Tree};
use super::{Args, Row};
use anyhow::{Context, Result, ensure};
use xtask::shell;

/// How often the slow contenders run, at most: by a tree's size.
const SLOW_RUNS: u16 = 10;
const SLOW_RUNS_LARGE: u16 = 3;
/// Memory that staging the large tree may take, in MiB.
const MEMORY_BAR: f64 = 150.0;

/// Both sizes.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    ensure!(
        !args.peers_only,
        "its contenders link and copy Belljar's own objects"
    );
    let state = State::lay_out(args.programs.as_deref())?;
    let store = Store::of(&state)?.with_peers(&state.path().join("objects-by-file"));
    let small = Tree::put(&store, 10_000)?;
    let large = Tree::put(&store, 100_000)?;
    // Else the first image to be made durable would wait for all of it.
    shell::run(&mut Command::new("sync"))?;
    // Dropped before the state is, in reverse order.
    let running = state.start(&["store", "spawner"])?;
    // One client for all: each counts its attempts from the first on, and the spawner knows an attempt once.
    let mut client = Client::start(&state)?;
    let mut rows = Vec::new();
    for (tree, slow, bars) in [
        (&small, SLOW_RUNS, Bars::of(1.0, Some(0.02), 0.5)),
        (&large, SLOW_RUNS_LARGE, Bars::of(1.5, None, 0.25)),
    ] {
        rows.extend(contest(
            args.runs(),
            slow,
            &state,
            &mut client,
            tree,
            &bars,
        )?);
    }
    let memory = Memory::watch(&running, &["store", "spawner"])?;
    client.stage(large.varied(usize::from(SLOW_RUNS_LARGE) + 1)?)?;
    let most = memory.beyond_rest()? / MIB;
    rows.push(Row {
        bar: Some(MEMORY_BAR),
        holds: Some(most <= MEMORY_BAR),
        ..Row::measured(
            format!("{} files, new, memory", large.files.len()),
            most,
            "MiB",
            "store and spawner, their peaks beyond what they take at rest; one staging",
        )
    });
    Ok(rows)
}

/// What was promised.
struct Bars {
    seen_ms: f64,
    seen_ratio: Option<f64>,
    new_ratio: f64,
}

impl Bars {
    fn of(seen_ms: f64, seen_ratio: Option<f64>, new_ratio: f64) -> Self {
        Self {
            seen_ms,
            seen_ratio,
            new_ratio,
        }
    }
}

fn contest(
    runs: u16,
    slow: u16,
    state: &State,
    client: &mut Client,
    tree: &Tree,
    bars: &Bars,
) -> Result<Vec<Row>> {
    let place = state.path().join("store-by-file");
    let (mut seen, mut new, mut links, mut copies) = (vec![], vec![], vec![], vec![]);
    // One lap of each before the first counted one fills the caches.
    client.stage(tree.root)?;
    for lap in 0..=slow.min(runs) {
        let linked = tree.lay_out(&place, |from, to| fs::hard_link(from, to))?;
        let staged = client.stage(tree.varied(usize::from(lap))?)?;
        if lap > 0 {
            links.push(linked);
            new.push(staged);
        }
        for _ in 0..runs.div_ceil(slow.min(runs)) {
            seen.push(client.stage(tree.root)?);
        }
    }
    // A copy takes long enough to be seen by one.
    copies.push(tree.lay_out(&place, |from, to| fs::copy(from, to).map(drop))?);
    let all = [seen, new, links, copies].map(Samples::new);
    let [seen, new, links, copies] = all;
    Ok(rows(
        tree.files.len(),
        bars,
        [&seen?, &new?, &links?, &copies?],
    ))
}

fn rows(files: usize, bars: &Bars, [seen, new, links, copies]: [&Samples; 4]) -> Vec<Row> {
    let row = |metric: &str, value: f64, unit, bar: Option<f64>, how: String| Row {
        bar,
        holds: bar.map(|bar| value <= bar),
        ..Row::measured(format!("{files} files, {metric}"), value, unit, how)
    };
    let times =
        |samples: &Samples| format!("p50 of {}; Stage sent to Staged received", samples.count());
    let by_file = |samples: &Samples| format!("p50 of {}, objects in the cache", samples.count());
    let [seen_ms, new_ms, links_ms, copies_ms] =
        [seen, new, links, copies].map(|samples| samples.percentile(50));
    let of_links = || "of the hard links above".to_owned();
    vec![
        row("hard links", links_ms, "ms", None, by_file(links)),
        row("copies", copies_ms, "ms", None, by_file(copies)),
        row(
            "seen before",
            seen_ms,
            "ms",
            Some(bars.seen_ms),
            times(seen),
        ),
        row(
            "seen before, p99",
            seen.percentile(99),
            "ms",
            None,
            times(seen),
        ),
        row("new", new_ms, "ms", None, times(new)),
        row(
            "seen before / hard links",
            seen_ms / links_ms,
            "×",
            bars.seen_ratio,
            of_links(),
        ),
        row(
            "new / hard links",
            new_ms / links_ms,
            "×",
            Some(bars.new_ratio),
            of_links(),
        ),
        row(
            "new / copies",
            new_ms / copies_ms,
            "×",
            None,
            "of the copies above".to_owned(),
        ),
    ]
}

impl Tree {
    /// Makes the tree file by file below `place`, and removes it again. Only the first is timed.
    fn lay_out(
        &self,
        place: &Path,
        make: impl Fn(&Path, &Path) -> std::io::Result<()>,
    ) -> Result<Duration> {
        let time = timed(|| {
            let mut last = PathBuf::new();
            for (path, object) in &self.files {
                let to = place.join(path.as_str());
                if let Some(parent) = to.parent().filter(|parent| *parent != last) {
                    fs::create_dir_all(parent)?;
                    parent.clone_into(&mut last);
                }
                make(&self.store.beside(*object)?, &to)
                    .with_context(|| format!("making {}", to.display()))?;
            }
            Ok(())
        })?;
        fs::remove_dir_all(place).context("removing what was made")?;
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_held_against_their_bars() {
        let samples = |millis: u64| Samples::new(vec![Duration::from_millis(millis)]).unwrap();
        let (seen, new, links, copies) = (samples(2), samples(30), samples(100), samples(1000));
        let bars = Bars::of(1.0, Some(0.02), 0.5);
        let rows = rows(10, &bars, [&seen, &new, &links, &copies]);
        let held: Vec<_> = rows.iter().map(|row| (row.value, row.holds)).collect();
        assert_eq!(
            held,
            [
                (100.0, None),
                (1000.0, None),
                (2.0, Some(false)),
                (2.0, None),
                (30.0, None),
                (0.02, Some(true)),
                (0.3, Some(true)),
                (0.03, None),
            ]
        );
    }
}
