//! `cargo xtask test-vm`: the installed daemon and its units on real cgroup v2 and systemd, in a virtual
//! machine. What a development machine lacks, and what no test may do to it, happens there.

mod cache;
mod guest;
mod machine;
mod payload;
mod report;
mod root;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{shell, test, workspace};

use machine::End;
use report::Report;

pub(crate) use guest::{Args as GuestArgs, run as serve};

/// What runs in the machine: suites, and beginnings of the names of their tests.
///
/// The installed daemon, and every limit with it, is the suite `units`. Of the others there is what only this
/// machine shows: embedded mode where systemd has the cgroups, and a bomb in a v2 cgroup.
const SUITES: &[(&str, &[&str])] = &[
    ("units", &[""]),
    ("lifecycle", &["limits::memory_ends_a_build"]),
    ("escape", &["limits::a_fork_bomb_stays_in_its_cgroup"]),
];

/// How long it may take from its start to its end.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How often a machine that stopped before it had left a report is started again. An emulator has faults of its own
/// (`root.rs`, `QUOTA`); where a build brings down a kernel, the second one stops as well.
const RESTARTS: usize = 1;

/// How often one is started again that stopped while its kernel was booting, before anything of Belljar ran: an emulator
/// of several CPUs lets a kernel run into its own break points while it patches itself, now and then.
const BOOTS_AGAIN: usize = 3;

/// What to run and how to tell it.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Run only tests whose name with the suite before it, `suite::module::test`, contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leave report and journal of the machine in this folder.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Why the machine cannot be made on this host, if it cannot: programs that were built here must run on
/// Debian 13's C library, and the archive must be one that apt already trusts.
pub(crate) fn unsuited() -> Option<String> {
    let about = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    unsuited_by(&about)
}

fn unsuited_by(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        let mut lines = os_release.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    let (id, version) = (field("ID"), field("VERSION_ID"));
    let suits = id == "debian" && matches!(version.as_str(), "12" | "13");
    (!suits).then(|| {
        format!("the virtual machine is made on Debian 12 or 13, and this is {id} {version}")
    })
}

/// Boot it, run everything, tell what came of it. Anything that failed is an error.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !shell::is_root()? {
        bail!("the virtual machine needs root: the files of its root file system must be root's");
    }
    if let Some(why) = unsuited() {
        bail!("{why}");
    }
    test::provide_for_vm()?;
    let target = workspace::target_dir(&workspace::metadata()?);
    let report = boot(&target, args)?;
    if args.json {
        let json = serde_json::to_string_pretty(&report).context("the report as JSON")?;
        println!("{json}");
    } else {
        print!("\n{}", report.table());
    }
    report.judge()
}

/// Makes its root file system, unless an earlier run has.
pub(crate) fn provide_root(target: &Path) -> Result<()> {
    root::Root::provide(&cache::Cache::open(target)?).map(|_| ())
}

/// The same as a step of `cargo xtask test`, which has installed what it needs.
pub(crate) fn check(target: &Path) -> Result<()> {
    let report = boot(target, &Args::default())?;
    print!("\n{}", report.table());
    report.judge()
}

fn boot(target: &Path, args: &Args) -> Result<Report> {
    let told =
        |what: &str, start: Instant| eprintln!("   {what}: {}", shell::human(start.elapsed()));
    let start = Instant::now();
    // Held to the end: nobody tidies up what the machine runs on.
    let cache = cache::Cache::open(target)?;
    let root = root::Root::provide(&cache)?;
    told("root file system", start);
    let scratch = tempfile::Builder::new()
        .prefix("vm-run-")
        .tempdir_in(target)
        .context("a folder for this run")?;
    let start = Instant::now();
    let payload = payload::pack(scratch.path(), target, args.only.as_deref())?;
    told("programs and tests", start);
    let mut results = scratch.path().join("results");
    let start = Instant::now();
    let (mut stopped, mut silent) = (0, 0);
    loop {
        std::fs::create_dir(&results).context("a folder for results")?;
        match machine::run(&root, &payload, &results, PATIENCE)? {
            End::Done => break,
            End::Stopped if stopped < RESTARTS => stopped += 1,
            End::Silent if silent < BOOTS_AGAIN => silent += 1,
            End::Stopped => {
                bail!("the virtual machine has left no report: see the end of its console")
            }
            End::Silent => bail!("the virtual machine ended before it had begun with the tests"),
        }
        eprintln!("   the virtual machine stopped by itself (above), and is started again");
        results.set_extension(format!("again-{}", stopped + silent));
    }
    told("virtual machine", start);
    let text =
        std::fs::read(results.join(machine::REPORT)).context("the virtual machine's report")?;
    if let Some(folder) = &args.keep {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for name in [machine::REPORT, machine::JOURNAL] {
            std::fs::copy(results.join(name), folder.join(name))
                .with_context(|| name.to_owned())?;
        }
    }
    serde_json::from_slice(&text).context("the virtual machine's report")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_12_and_13_suit() {
        assert_eq!(unsuited_by("NAME=x\nID=debian\nVERSION_ID=\"13\"\n"), None);
        assert_eq!(unsuited_by("VERSION_ID=\"12\"\nID=debian\n"), None);
        let other = unsuited_by("ID=ubuntu\nVERSION_ID=\"26.04\"\n").unwrap();
        assert!(other.ends_with("this is ubuntu 26.04"), "{other}");
        assert!(unsuited_by("").is_some());
    }
}
