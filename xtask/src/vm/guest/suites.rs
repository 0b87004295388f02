//! The end-to-end suites, as far as they run here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::shell;
use crate::vm::SUITES;

/// An emulated CPU is ten to twenty times slower than the one below it, and others may use that one, too.
const PATIENCE: Duration = Duration::from_secs(420);
/// How many times longer than elsewhere tests wait for something to happen.
const SLOWNESS: &str = "10";
/// How much of what a failed test has said is told.
const TOLD_BYTES: usize = 12_000;

/// One test.
pub(super) struct Test {
    pub(super) suite: &'static str,
    pub(super) name: String,
}

/// All that are chosen. A choice that chooses nothing is an error: it would pass for ever.
pub(super) fn list(payload: &Path, only: Option<&str>) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for &(suite, modules) in SUITES {
        let mut command = Command::new(program(payload, suite));
        let listed = shell::read(command.args(["--list", "--format", "terse"]))?;
        let names: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .collect();
        for module in modules {
            let before = tests.len();
            let chosen = names.iter().filter(|name| name.starts_with(module));
            tests.extend(chosen.map(|name| Test {
                suite,
                name: (*name).to_owned(),
            }));
            ensure!(tests.len() > before, "there is no test {suite}::{module}…");
        }
    }
    if let Some(only) = only {
        tests.retain(|test| format!("{}::{}", test.suite, test.name).contains(only));
        ensure!(!tests.is_empty(), "no test is called {only}");
    }
    Ok(tests)
}

fn program(payload: &Path, suite: &str) -> PathBuf {
    payload.join("target/debug/deps").join(suite)
}

impl Test {
    /// Runs it in a process of its own.
    pub(super) fn run(&self, payload: &Path) -> Result<String> {
        let log = std::env::temp_dir().join("test.log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program(payload, self.suite));
        command
            .args(["--exact", &self.name, "--include-ignored", "--nocapture"])
            .current_dir("/")
            // What every build in here must have been limited by.
            .env("BELLJAR_TEST_FLOOR", "v2")
            .env("BELLJAR_TEST_SLOWNESS", SLOWNESS)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("the log")?)
            .stderr(file);
        let mut child = command.spawn().with_context(|| shell::shown(&command))?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().context("waiting for a test")? {
                break Some(status);
            }
            if Instant::now() > deadline {
                child.kill().context("ending a test")?;
                child.wait().context("waiting for a test")?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let said = std::fs::read(&log).with_context(|| log.display().to_string())?;
        let said =
            String::from_utf8_lossy(&said[said.len().saturating_sub(TOLD_BYTES)..]).into_owned();
        match status {
            None => bail!("it was not done after {}\n{said}", shell::human(PATIENCE)),
            Some(status) if !status.success() => bail!("{status}\n{said}"),
            Some(_) => {
                ensure!(
                    said.contains("test result: ok. 1 passed"),
                    "it did not run\n{said}"
                );
                Ok(String::new())
            }
        }
    }
}
