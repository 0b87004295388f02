//! What happens inside the virtual machine: Belljar is installed as README says, the suites run, and a report
//! is left.

mod install;
mod suites;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::machine::{REPORT, SAID};
use super::report::{Case, Report, uptime};
use crate::shell;
use crate::test::residue;

/// The units, in the order in which they are stopped: sockets first, or they start again what was stopped.
const UNITS: &[&str] = &[
    "belljard.socket",
    "belljar-spawner.socket",
    "belljar-signer.socket",
    "belljar-store.socket",
    "belljard.service",
    "belljar-spawner.service",
    "belljar-signer.service",
    "belljar-store.service",
];

/// What to run and where to say what came of it. The working directory is the payload's.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to leave the report.
    results: PathBuf,
    /// Run only tests whose name with the suite before it, `suite::module::test`, contains this.
    only: Option<String>,
}

/// Do it all. Only what keeps a report from being written is an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    let payload = std::env::current_dir().context("the payload")?;
    let mut cases = Cases(Report::begin()?);
    cases.all(&payload, args.only.as_deref());
    let mut report = cases.0;
    report.seconds = uptime()? - report.boot_seconds;
    let text = serde_json::to_string_pretty(&report).context("the report as JSON")?;
    std::fs::write(args.results.join(REPORT), text).context(REPORT)
}

/// Tells the person who waits.
fn say(text: &str) {
    println!("{SAID}{text}");
}

impl Report {
    fn begin() -> Result<Self> {
        let boot_seconds = uptime()?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("uname")?;
        let systemd = shell::read(Command::new("systemctl").arg("--version"))?;
        // That this file is there is what the unified hierarchy means.
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .context("the unified cgroup hierarchy")?;
        let report = Self {
            schema: "belljar.test-vm/v1".to_owned(),
            kernel: kernel.trim().to_owned(),
            systemd: systemd.lines().next().unwrap_or_default().to_owned(),
            controllers: controllers.trim().to_owned(),
            boot_seconds,
            seconds: 0.0,
            cases: Vec::new(),
        };
        say(&format!(
            "Linux {}, {}, up in {boot_seconds:.0} s",
            report.kernel, report.systemd
        ));
        Ok(report)
    }
}

/// What was tried so far.
struct Cases(Report);

impl Cases {
    /// What comes later needs what comes before, but for the tests, which are each on their own.
    fn all(&mut self, payload: &Path, only: Option<&str>) {
        let installed = self.case("install", "as README says", || install::run(payload));
        if !installed {
            return;
        }
        let mut before = residue::Traces::new();
        let looked = self.case("residue", "stopped and started", || {
            systemctl("stop")?;
            before = residue::look(Path::new("/"))?;
            systemctl("start")?;
            Ok(String::new())
        });
        if !looked {
            return;
        }
        let tests = suites::list(payload, only);
        match tests {
            Ok(tests) => {
                for test in tests {
                    self.case(test.suite, &test.name, || test.run(payload));
                }
            }
            Err(error) => {
                self.case("suites", "are there", || Err(error));
            }
        }
        self.case("residue", "nothing is left", || {
            systemctl("stop")?;
            residue::check(Path::new("/"), &before, residue::GRACE)?;
            Ok(String::new())
        });
    }

    /// Tries one thing. Gives whether it went well.
    fn case(&mut self, area: &str, name: &str, play: impl FnOnce() -> Result<String>) -> bool {
        let start = Instant::now();
        let played = play();
        let passed = played.is_ok();
        let case = Case {
            area: area.to_owned(),
            name: name.to_owned(),
            passed,
            seconds: start.elapsed().as_secs_f64(),
            said: played.unwrap_or_else(|error| format!("{error:#}")),
        };
        let verdict = if passed { "passed" } else { "FAILED" };
        say(&format!("{verdict} {area} {name} ({:.1} s)", case.seconds));
        self.0.cases.push(case);
        passed
    }
}

fn systemctl(verb: &str) -> Result<()> {
    let mut command = Command::new("systemctl");
    shell::read(command.arg(verb).args(UNITS)).map(drop)
}
