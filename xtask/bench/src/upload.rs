//! `bench upload`: how long the command line takes until a tree of ten thousand files is at the daemon: new to it,
//! unchanged, and with one file changed; from the start of `belljar run` until it says what it has uploaded. Each
//! build is followed to its end before the next begins.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::processes::State;
use super::stats::Samples;
use super::{Args, Row};
use xtask::shell;

/// Directories, and files in each.
const WIDTH: usize = 100;
/// Most uploads of each kind: a build goes with each.
const MOST: u16 = 20;
/// A tree of which nothing is new, in milliseconds.
const UNCHANGED_BAR: f64 = 300.0;
/// How long files are left alone until their digests are remembered, and a bit.
const REST: Duration = Duration::from_secs(4);

/// First, then unchanged, with one change, and with nothing remembered, in turns.
pub(super) fn measure(args: &Args) -> Result<Vec<Row>> {
    if args.peers_only {
        bail!("no public tool uploads to Belljar: `bench upload` has no peer");
    }
    let state = State::lay_out(args.programs.as_deref())?;
    // Dropped before the state is.
    let _running = state.start(&["store", "signer", "spawner", "belljard"])?;
    let tree = Tree::make(&state)?;
    std::thread::sleep(REST);
    let first = tree.upload(true, "uploaded 1")?;
    // Whatever had not come to rest before.
    std::thread::sleep(REST);
    tree.upload(true, "uploaded 0 of")?;
    let (mut unchanged, mut changed, mut forgotten) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..args.runs().min(MOST) {
        unchanged.push(tree.upload(true, "uploaded 0 of")?);
        tree.change(number)?;
        // The file, its directory, the root.
        changed.push(tree.upload(true, "uploaded 3 of")?);
        forgotten.push(tree.upload(false, "uploaded 0 of")?);
    }
    rows(first, [unchanged, changed, forgotten].map(Samples::new))
}

fn rows(
    first: Duration,
    [unchanged, changed, forgotten]: [Result<Samples>; 3],
) -> Result<Vec<Row>> {
    let (unchanged, changed, forgotten) = (unchanged?, changed?, forgotten?);
    let how = |what: &str, count: usize| {
        format!(
            "`belljar run` of {} files of some 2 kB in git, {what}, from its start until it says `uploaded`; {count} runs",
            WIDTH * WIDTH
        )
    };
    let row = |metric: &str, samples: &Samples, percent, what: &str| {
        let value = samples.percentile(percent);
        Row::measured(metric, value, "ms", how(what, samples.count()))
    };
    let p50 = unchanged.percentile(50);
    Ok(vec![
        Row::measured(
            "tree, first",
            first.as_secs_f64() * 1000.0,
            "ms",
            how("all new and made durable", 1),
        ),
        Row {
            bar: Some(UNCHANGED_BAR),
            holds: Some(p50 <= UNCHANGED_BAR),
            ..row("tree, unchanged p50", &unchanged, 50, "as it was")
        },
        row("tree, unchanged p99", &unchanged, 99, "as it was"),
        row("tree, one file changed p50", &changed, 50, "but for one"),
        row(
            "tree, unchanged, nothing remembered p50",
            &forgotten,
            50,
            "all of them read",
        ),
    ])
}

/// The tree, and whom it goes to.
struct Tree<'a> {
    state: &'a State,
    project: PathBuf,
}

impl<'a> Tree<'a> {
    fn make(state: &'a State) -> Result<Self> {
        let project = state.folder().join("tree");
        for folder in 0..WIDTH {
            let folder = project.join(format!("d{folder}"));
            std::fs::create_dir_all(&folder).context("a folder")?;
            for file in 0..WIDTH {
                let content = format!("{} {file}\n", folder.display()).repeat(40);
                std::fs::write(folder.join(format!("f{file}.c")), content).context("a file")?;
            }
        }
        std::fs::write(
            project.join("belljar.toml"),
            "image = \"host\"\nrun = [\"true > out\"]\noutputs = [\"out\"]\n",
        )
        .context("a project's belljar.toml")?;
        git(&project, &["init", "--quiet"])?;
        git(&project, &["add", "."])?;
        Ok(Self { state, project })
    }

    fn change(&self, number: u16) -> Result<()> {
        let file = self.project.join(format!("d{number}/f7.c"));
        std::fs::write(&file, format!("another {number}\n")).context("a changed file")
    }

    /// How long it took until `due` was said.
    fn upload(&self, remember: bool, due: &str) -> Result<Duration> {
        let mut command = Command::new(self.state.program("belljar"));
        command.arg("run").arg(&self.project);
        command
            .arg("--output")
            .arg(self.state.folder().join("tree-out"));
        command.arg("--socket").arg(self.state.socket("belljard"));
        let caches = self.state.folder().join("caches");
        match remember {
            true => command.env("XDG_CACHE_HOME", caches),
            // What is not absolute counts for nothing (XDG Base Directory Specification).
            false => command.env("XDG_CACHE_HOME", "").env("HOME", ""),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().context("starting belljar")?;
        let mut said = BufReader::new(child.stderr.take().context("its standard error")?).lines();
        let found = said.find(|line| line.as_ref().map_or(true, |line| line.contains("uploaded")));
        let time = start.elapsed();
        let rest: Vec<String> = said.map_while(Result::ok).collect();
        let status = child.wait().context("waiting for belljar")?;
        let rest = rest.join("\n");
        ensure!(status.success(), "belljar ended with {status}: {rest}");
        let told = found.context("belljar said nothing about an upload")??;
        ensure!(told.contains(due), "{due:?} was due: {told}");
        Ok(time)
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    shell::run(
        Command::new("git")
            .args(arguments)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_about_the_unchanged_tree() {
        let samples = |millis| Samples::new(vec![Duration::from_millis(millis)]);
        let rows = rows(
            Duration::from_secs(9),
            [samples(301), samples(1000), samples(2000)],
        );
        let bars: Vec<_> = rows
            .unwrap()
            .iter()
            .map(|row| (row.value, row.holds))
            .collect();
        assert_eq!(
            bars,
            [
                (9000.0, None),
                (301.0, Some(false)),
                (301.0, None),
                (1000.0, None),
                (2000.0, None)
            ]
        );
    }
}
