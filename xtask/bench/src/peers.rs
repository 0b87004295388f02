//! Public tools that are measured beside Belljar.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use belljar_core::BuildSpec;

use super::Row;
use super::filter;
use super::stats::{Samples, timed};
use xtask::shell;

/// The program that each sandbox runs.
pub(super) const PAYLOAD: &str = "/bin/true";

/// bubblewrap with everything that it can do: all namespaces, its own ids, no capabilities, read-only
/// binds of the host, private /proc, /dev and /tmp, a cleared environment, and a seccomp filter.
pub(super) struct Bubblewrap {
    program: PathBuf,
    version: String,
    filter: tempfile::NamedTempFile,
}

impl Bubblewrap {
    /// Find it and try it once.
    pub(super) fn find() -> Result<Self> {
        let program = shell::find("bwrap")
            .context("bubblewrap is not here: install the package bubblewrap")?;
        let version = shell::read(Command::new(&program).arg("--version"))?
            .trim()
            .to_owned();
        let filter = tempfile::NamedTempFile::new().context("a file for the filter")?;
        std::fs::write(filter.path(), filter::program()?).context("writing the filter")?;
        let this = Self {
            program,
            version,
            filter,
        };
        this.check_confinement()?;
        Ok(this)
    }

    /// What it is, for the rows.
    pub(super) fn describe(&self) -> String {
        format!(
            "{}, all namespaces, no capabilities, read-only binds, seccomp",
            self.version
        )
    }

    /// One start to reaped.
    pub(super) fn lap(&self) -> Result<Duration> {
        let mut command = self.command(&[PAYLOAD])?;
        timed(|| {
            let status = command.status().context("starting bubblewrap")?;
            ensure!(status.success(), "bubblewrap failed: {status}");
            Ok(())
        })
    }

    /// A peer that confines less than it is said to would be measured too fast: read back what is in force.
    fn check_confinement(&self) -> Result<()> {
        let mut command = self.command(&[
            "/bin/grep",
            "-E",
            "^(Seccomp|NoNewPrivs|CapEff):",
            "/proc/self/status",
        ])?;
        let output = command.output().context("starting bubblewrap")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let words: Vec<&str> = said.split_whitespace().collect();
        let has = |name: &str, value: &str| words.windows(2).any(|pair| pair == [name, value]);
        if has("Seccomp:", "2") && has("NoNewPrivs:", "1") && has("CapEff:", "0000000000000000") {
            return Ok(());
        }
        bail!(
            "bubblewrap does not confine as it should: {}",
            words.join(" ")
        )
    }

    /// The steps of a build, one after the other in one sandbox, in the place and environment that they have in
    /// Belljar's.
    pub(super) fn build(&self, place: &Place<'_>, steps: &[String]) -> Result<Command> {
        let mut command = self.confined()?;
        command.args(["--hostname", "belljar"]);
        command.arg("--ro-bind").arg(place.root).arg("/");
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        command.args(["--tmpfs", "/home/build"]);
        command.arg("--ro-bind").arg(place.deps).arg("/deps");
        command.arg("--bind").arg(place.sources).arg("/build");
        command.args(["--chdir", "/build"]);
        let epoch = BuildSpec::DEFAULT_EPOCH.to_string();
        let fixed = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("TERM", "dumb"),
            ("HOME", "/home/build"),
            ("USER", "build"),
            ("SOURCE_DATE_EPOCH", &epoch),
        ];
        for (name, value) in fixed {
            command.args(["--setenv", name, value]);
        }
        for (name, value) in place.environment {
            command.args(["--setenv", name, value]);
        }
        let each = "for step; do /bin/sh -eu -c \"$step\" </dev/null || exit; done";
        command.args(["--seccomp", "0", "--", "/bin/sh", "-c", each, "sh"]);
        command.args(steps);
        Ok(command)
    }

    fn command(&self, payload: &[&str]) -> Result<Command> {
        let mut command = self.confined()?;
        command.args(["--hostname", "build"]);
        for path in ["/usr", "/bin", "/lib", "/lib64", "/etc"] {
            command.args(["--ro-bind-try", path, path]);
        }
        command
            .args([
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "--tmpfs",
                "/tmp",
                "--seccomp",
                "0",
                "--",
            ])
            .args(payload);
        Ok(command)
    }

    /// Everything but what it sees and runs.
    fn confined(&self) -> Result<Command> {
        // The filter comes in as standard input: the one descriptor that can be handed over without more.
        let filter = File::open(self.filter.path()).context("opening the filter")?;
        let mut command = Command::new(&self.program);
        command.stdin(filter).args([
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
        ]);
        command.args(["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]);
        Ok(command)
    }
}

/// What a whole build is given.
pub(super) struct Place<'a> {
    /// The root file system, with the directories that are mounted over in it.
    pub(super) root: &'a Path,
    /// The sources, which the build may change.
    pub(super) sources: &'a Path,
    /// Further inputs.
    pub(super) deps: &'a Path,
    /// Variables beside those that every build has.
    pub(super) environment: &'a [(String, String)],
}

/// The floor: the payload alone, started and reaped.
pub(super) fn plain() -> Result<Duration> {
    let mut command = Command::new(PAYLOAD);
    command.stdin(Stdio::null());
    timed(|| {
        let status = command.status().context("starting the payload")?;
        ensure!(status.success(), "{PAYLOAD} failed: {status}");
        Ok(())
    })
}

/// p50 and p99 of one contender.
pub(super) fn rows(name: &str, samples: &Samples, how: &str) -> Vec<Row> {
    let row = |percent: usize| {
        let how = format!(
            "{how}; start to reaped, {} runs, interleaved",
            samples.count()
        );
        Row::measured(
            format!("{name} p{percent}"),
            samples.percentile(percent),
            "ms",
            how,
        )
    };
    vec![row(50), row(99)]
}
