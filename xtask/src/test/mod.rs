//! `cargo xtask test`: everything that must hold before a change lands, in one command.

mod needs;
pub(crate) mod residue;
mod tools;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{shell, tidy, vm, workspace};

/// What to run; all of it, if nothing is said.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this step; may be given more than once. For development: a change lands with all of them.
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

/// The steps, in their order: what fails fast comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Step {
    /// The formatting is rustfmt's.
    Fmt,
    /// No warning of the compiler or of clippy.
    Clippy,
    /// The rules that no compiler checks.
    Tidy,
    /// Dependencies: bans, licences, sources.
    Deny,
    /// All programs and tests are built once.
    Build,
    /// The examples in the documentation.
    Doctest,
    /// Unit, property, end-to-end and escape tests.
    Test,
    /// Nothing of Belljar is left on this machine.
    Residue,
    /// The units and the limits on cgroup v2, in a virtual machine.
    Vm,
}

impl Step {
    fn headline(self) -> &'static str {
        match self {
            Self::Fmt => "fmt: the formatting is rustfmt's",
            Self::Clippy => "clippy: no warning",
            Self::Tidy => "tidy: the rules that no compiler checks",
            Self::Deny => "deny: bans, licences and sources of dependencies",
            Self::Build => "build: all programs and tests",
            Self::Doctest => "doctest: the examples in the documentation",
            Self::Test => "test: unit, property, end-to-end and escape tests",
            Self::Residue => "residue: nothing of Belljar is left on this machine",
            Self::Vm => "vm: units and limits with systemd and cgroup v2, in a virtual machine",
        }
    }
}

/// How many tests run at once for each CPU: the longest wait for processes, disks and each other more than they compute.
const PER_CPU: usize = 3;

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// What the steps need to know.
struct Bench {
    target: PathBuf,
    before: residue::Traces,
    /// All that will be run.
    steps: Vec<Step>,
}

/// Install what `cargo xtask test-vm` needs.
pub(crate) fn provide_for_vm() -> Result<()> {
    needs::provide(&[Step::Vm])
}

/// Install what is missing, then run the steps; the first that fails ends it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = chosen(&args.only);
    let unsuited = vm::unsuited().filter(|_| steps.contains(&Step::Vm));
    if let Some(why) = &unsuited {
        // Nobody reads what a machine says that checks changes: there it must not be left out.
        if !args.only.is_empty() || std::env::var_os("CI").is_some() {
            bail!("the step vm cannot be run: {why}");
        }
        println!("the step vm is NOT RUN: {why}");
        steps.retain(|step| *step != Step::Vm);
    }
    if steps
        .iter()
        .any(|step| matches!(step, Step::Test | Step::Vm))
        && !shell::is_root()?
    {
        bail!(
            "the tests need root: they start the privileged process, make namespaces, mounts and cgroups, \
             and switch to other users. Run this as root, or choose steps that do not need it: \
             cargo xtask test --only fmt --only clippy --only tidy --only deny --only build"
        );
    }
    needs::provide(&steps)?;
    let bench = Bench {
        target: workspace::target_dir(&workspace::metadata()?),
        before: residue::look(Path::new("/"))?,
        steps,
    };
    let mut times = Vec::new();
    for &step in &bench.steps {
        println!("\n== {} ==", step.headline());
        let start = Instant::now();
        let done = bench.run(step);
        let time = start.elapsed();
        if let Err(error) = done {
            println!("== {step:?} FAILED after {} ==", shell::human(time));
            return Err(bench.with_residue(step, error));
        }
        println!("== {step:?} ok, {} ==", shell::human(time));
        times.push((step, time));
    }
    print_times(&times);
    if let Some(why) = unsuited {
        println!("  vm         NOT RUN: {why}");
    }
    Ok(())
}

fn chosen(only: &[Step]) -> Vec<Step> {
    let all = Step::value_variants().iter().copied();
    all.filter(|step| only.is_empty() || only.contains(step))
        .collect()
}

fn print_times(times: &[(Step, Duration)]) {
    println!("\nall steps passed:");
    for (step, time) in times {
        println!(
            "  {:10} {:>12}",
            format!("{step:?}").to_lowercase(),
            shell::human(*time)
        );
    }
    println!(
        "  {:10} {:>12}",
        "all",
        shell::human(times.iter().map(|(_, time)| *time).sum())
    );
}

impl Bench {
    fn run(&self, step: Step) -> Result<()> {
        match step {
            Step::Fmt => shell::run(shell::cargo().args(["fmt", "--all", "--", "--check"])),
            Step::Clippy => {
                let mut cargo = shell::cargo();
                cargo
                    .args(["clippy", "--workspace", "--all-targets"])
                    .args(workspace::locked());
                shell::run(cargo.args(["--", "-D", "warnings"]))
            }
            Step::Tidy => tidy::run(),
            Step::Deny => {
                let mut deny = tools::cargo_deny(&self.target)?;
                shell::run(
                    deny.args(workspace::locked())
                        .args(["check", "bans", "licenses", "sources"]),
                )
            }
            Step::Build => self.build(),
            Step::Doctest => {
                let mut cargo = shell::cargo();
                shell::run(
                    cargo
                        .args(["test", "--workspace", "--doc", "--quiet"])
                        .args(workspace::locked()),
                )
            }
            Step::Test => {
                let mut nextest = tools::for_tests(&self.target)?;
                nextest
                    .args(["run", "--workspace", "--no-fail-fast"])
                    .args(["--test-threads", &(PER_CPU * cpus()).to_string()])
                    .args(workspace::locked());
                shell::run(&mut nextest)
            }
            Step::Residue => residue::check(Path::new("/"), &self.before, residue::GRACE),
            Step::Vm => vm::check(&self.target),
        }
    }

    /// Builds all, and beside it gets what later steps need: that waits for mirrors and for disks, and nothing that is
    /// measured runs meanwhile.
    fn build(&self) -> Result<()> {
        let is_due = |step| self.steps.contains(&step);
        std::thread::scope(|scope| {
            let root = is_due(Step::Vm).then(|| scope.spawn(|| vm::provide_root(&self.target)));
            let tools = is_due(Step::Test)
                .then(|| scope.spawn(|| tools::for_tests(&self.target).map(drop)));
            let mut cargo = shell::cargo();
            let built = shell::run(
                cargo
                    .args(["build", "--workspace", "--all-targets"])
                    .args(workspace::locked()),
            );
            let joined = |beside: Option<ScopedJoinHandle<'_, Result<()>>>| {
                beside.map_or(Ok(()), |beside| {
                    beside.join().unwrap_or_else(|_| bail!("it panicked"))
                })
            };
            let (root, tools) = (joined(root), joined(tools));
            built?;
            root.context("the root file system of the virtual machine")?;
            tools.context("what the tests are run with")
        })
    }

    /// A failed suite keeps its own error; what it left behind is said beside it, never instead of it.
    fn with_residue(&self, step: Step, error: anyhow::Error) -> anyhow::Error {
        if step != Step::Test {
            return error;
        }
        match residue::check(Path::new("/"), &self.before, residue::GRACE)
            .context("and after the failed tests")
        {
            Ok(()) => error,
            Err(residue) => error.context(format!("{residue:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_run_in_their_order_unless_some_are_named() {
        let all = chosen(&[]);
        assert_eq!(all.len(), Step::value_variants().len());
        assert!(all.is_sorted());
        assert_eq!(chosen(&[Step::Test, Step::Fmt]), [Step::Fmt, Step::Test]);
    }
}
